/* translator.c: the translator's switches, limits, counters and dumps, for Python (cdef.h). Nothing here
 * changes what a guest sees. */
#include "mach_priv.h"
#include "../guest/guest.h"
#include "../host/host.h"
#include "api.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *text;
    size_t offset;
} switches[] = {
#define X(name, def, text) {#name, text, offsetof(Switches, name)},
    WB_SWITCHES(X)
#undef X
};
enum { N_SWITCHES = sizeof(switches) / sizeof(switches[0]) };

static uint8_t *find_switch(Machine *m, const char *name)
{
    for (size_t i = 0; i < N_SWITCHES; i++)
        if (!strcmp(switches[i].name, name))
            return (uint8_t *)&m->sw + switches[i].offset;
    return NULL;
}

int wb_switch_set(Machine *m, const char *name, int on)
{
    uint8_t *sw = find_switch(m, name);
    if (!sw || (on && sw == &m->sw.jit && !m->code))
        return -1;
    *sw = on != 0;
    m->flush_wanted = 1;
    return 0;
}

int wb_switch_get(Machine *m, const char *name)
{
    const uint8_t *sw = find_switch(m, name);
    return sw ? *sw : -1;
}

const char *wb_switch_name(uint32_t i)
{
    return i < N_SWITCHES ? switches[i].name : NULL;
}

const char *wb_switch_text(uint32_t i)
{
    return i < N_SWITCHES ? switches[i].text : NULL;
}

int wb_has_jit(Machine *m)
{
    return m->code != NULL;
}

void wb_set_tb_max(Machine *m, uint32_t max_insns)
{
    m->tb_max_insns = max_insns < 1 ? 1 : max_insns > IR_MAX_INSNS ? IR_MAX_INSNS : max_insns;
    m->flush_wanted = 1;
}

void wb_set_hot_runs(Machine *m, uint32_t runs)
{
    m->hot_runs = runs;
}

void wb_set_cache_bytes(Machine *m, uint64_t bytes)
{
    m->tb_cache_bytes = bytes;
}

void wb_drop_tlb(Machine *m)
{
    softmmu_flush_all(m);
}

void wb_drop_code(Machine *m)
{
    m->flush_wanted = 1;
}

static uint64_t dump_ir(Machine *m, uint32_t hart, uint32_t max_insns, bool optimise, char *out,
                        uint64_t size)
{
    Hart *h = m->hart[hart];
    uint64_t paddr;
    if (!softmmu_debug_translate(h, h->pc, ACC_EXEC, &paddr) || !phys_is_ram(m, paddr, 2))
        return 0;
    IrBlock *ir = calloc(1, sizeof(*ir));
    if (!ir)
        return 0;
    m->guest->translate(h, ir, h->pc, m->guest->tb_flags(h), m->ram + ((paddr - m->ram_base) & WB_PAGE_MASK),
                        NULL, max_insns);
    if (optimise)
        ir_optimise(ir, m->guest->helpers, m->sw.words);
    const uint64_t n = ir_dump(ir, out, size);
    free(ir);
    return n;
}

uint64_t wb_dump_ir(Machine *m, uint32_t hart, char *out, uint64_t size)
{
    return dump_ir(m, hart, m->tb_max_insns, m->sw.optimise, out, size);
}

uint64_t wb_dump_insn_ir(Machine *m, uint32_t hart, char *out, uint64_t size)
{
    return dump_ir(m, hart, 1, false, out, size);
}

uint64_t wb_stat(Machine *m, const char *name)
{
    const struct {
        const char *name;
        uint64_t value;
    } stats[] = {
        {"tb_translated", m->stat_tb_translated}, {"tb_compiled", m->stat_tb_compiled},
        {"tb_flushes", m->stat_tb_flushes},       {"code_writes", m->stat_code_writes},
        {"pt_drops", m->stat_pt_drops},           {"walks", m->stat_walks},
    };
    for (size_t i = 0; i < sizeof(stats) / sizeof(stats[0]); i++)
        if (!strcmp(stats[i].name, name))
            return stats[i].value;
    return ~UINT64_C(0);
}

uint64_t wb_code_map(Machine *m, uint64_t *out, uint64_t max)
{
    return m->code ? host_code_map(m->code, out, max) : 0;
}

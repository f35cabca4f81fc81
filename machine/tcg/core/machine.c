/* machine.c: a machine's life, and its harts' registers and state, for Python (cdef.h). Everything below
 * trusts what is checked here. */
#include "hostmem.h"
#include "mach_priv.h"
#include "probe.h"
#include "../guest/guest.h"
#include "../host/host.h"
#include "api.h"

#include <stdlib.h>
#include <string.h>

enum { CODE_BYTES = 64 << 20, TB_CACHE_BYTES = 96 << 20 };

static const GuestOps *const guests[] = {&riscv64_guest};

static const GuestOps *find_guest(const char *name)
{
    for (size_t i = 0; i < sizeof(guests) / sizeof(guests[0]); i++)
        if (!strcmp(guests[i]->name, name))
            return guests[i];
    return NULL;
}

static bool create_harts(Machine *m, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        Hart *h = aligned_alloc(64, (sizeof(Hart) + 63) & ~(size_t)63);
        if (!h)
            return false;
        memset(h, 0, sizeof(*h));
        h->m = m;
        h->index = i;
        h->g = (GuestHart *)(void *)h->guest;
        m->hart[i] = h;
        m->n_harts = i + 1;
        if (!softmmu_init_hart(h))
            return false;
    }
    return true;
}

Machine *wb_create(uint64_t ram_base, uint64_t ram_size, uint32_t n_harts, uint64_t ns_per_step,
                   uint64_t quantum, const char *guest)
{
    const GuestOps *ops = find_guest(guest);
    if (!ops || !n_harts || n_harts > WB_MAX_HARTS || !ns_per_step || !quantum || !ram_size ||
        (ram_base | ram_size) % WB_PAGE_SIZE || ram_base + ram_size < ram_base)
        return NULL;
    Machine *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->guest = ops;
    ops->init(m);
    m->ram_base = ram_base;
    m->ram_size = ram_size;
    m->ram_pages = ram_size >> WB_PAGE_BITS;
    m->ns_per_step = ns_per_step;
    m->quantum = m->quantum_end = quantum;
    m->device_deadline = ~UINT64_C(0);
    m->tb_max_insns = IR_MAX_INSNS;
    m->hot_runs = 2;
    m->tb_cache_bytes = TB_CACHE_BYTES;
#define X(name, def, text) m->sw.name = (def);
    WB_SWITCHES(X)
#undef X
    m->ram = hostmem_map_low(ram_size); /* an instruction then has room for its distance from the guest's */
    if (!m->ram || !probe_init(m) || !softmmu_init(m) || !snapshot_init(m) || !tb_init(m) ||
        !create_harts(m, n_harts)) {
        wb_destroy(m);
        return NULL;
    }
    m->code = host_init(m, CODE_BYTES);
    if (!m->code)
        m->sw.jit = 0;
    for (uint32_t i = 0; i < n_harts; i++)
        wb_reset_hart(m, i, ram_base, i, 0);
    return m;
}

void wb_destroy(Machine *m)
{
    if (!m)
        return;
    if (m->code)
        host_deinit(m->code);
    tb_deinit(m);
    for (uint32_t i = 0; i < m->n_harts; i++) {
        softmmu_deinit_hart(m->hart[i]);
        free(m->hart[i]);
    }
    snapshot_deinit(m);
    softmmu_deinit(m);
    probe_deinit(m);
    hostmem_unmap(m->ram, m->ram_size);
    free(m);
}

int wb_feature_set(Machine *m, const char *name, uint32_t value)
{
    return m->guest->set_feature(m, name, value) ? 0 : -1;
}

void wb_set_host(Machine *m, void *opaque, int (*mmio_read)(void *, uint64_t, uint32_t, uint32_t, uint64_t *),
                 int (*mmio_write)(void *, uint64_t, uint32_t, uint32_t, uint64_t),
                 int (*entropy)(void *, uint32_t, uint64_t *), int (*sbi_call)(void *, uint32_t))
{
    m->host.opaque = opaque;
    m->host.mmio_read = mmio_read;
    m->host.mmio_write = mmio_write;
    m->host.entropy = entropy;
    m->host.sbi_call = sbi_call;
}

void wb_reset_hart(Machine *m, uint32_t hart, uint64_t pc, uint64_t arg0, uint64_t arg1)
{
    Hart *h = m->hart[hart];
    memset(h->slot, 0, sizeof(h->slot));
    h->stopped = 0;
    h->waiting = WAIT_NONE;
    m->guest->reset(h, pc, arg0, arg1);
    softmmu_regime_changed(h);
}

/* ---- harts ---- */

uint32_t wb_n_regs(Machine *m)
{
    return m->guest->n_regs;
}

uint32_t wb_n_state(Machine *m)
{
    return m->guest->n_state;
}

const char *wb_reg_name(Machine *m, uint32_t reg)
{
    return reg < m->guest->n_regs ? m->guest->regs[reg].name : NULL;
}

uint32_t wb_reg_bits(Machine *m, uint32_t reg)
{
    return reg < m->guest->n_regs ? m->guest->reg_bits(m, reg) : 0;
}

uint64_t wb_reg_get(Machine *m, uint32_t hart, uint32_t reg)
{
    return m->guest->get_reg(m->hart[hart], reg);
}

int wb_reg_set(Machine *m, uint32_t hart, uint32_t reg, uint64_t value)
{
    Hart *h = m->hart[hart];
    const uint32_t leave = h->leave;
    const bool ok = m->guest->set_reg(h, reg, value);
    softmmu_regime_changed(h);
    h->leave = leave; /* a write from outside is no instruction */
    return ok ? 0 : -1;
}

/* Words that a register takes in a saved state; 0: the machine has it not. */
static uint32_t reg_words(const Machine *m, uint32_t reg)
{
    return (m->guest->reg_bits(m, reg) + 63) / 64;
}

int wb_wide_get(Machine *m, uint32_t hart, uint32_t reg, uint64_t *words)
{
    const uint64_t *at = reg < m->guest->n_regs ? m->guest->wide_reg(m->hart[hart], reg) : NULL;
    if (!at)
        return -1;
    memcpy(words, at, reg_words(m, reg) * sizeof(*words));
    return 0;
}

int wb_wide_set(Machine *m, uint32_t hart, uint32_t reg, const uint64_t *words)
{
    uint64_t *at = reg < m->guest->n_regs ? m->guest->wide_reg(m->hart[hart], reg) : NULL;
    if (!at)
        return -1;
    memcpy(at, words, reg_words(m, reg) * sizeof(*words));
    return 0;
}

void wb_state_get(Machine *m, uint32_t hart, uint64_t *out)
{
    for (uint32_t i = 0; i < m->guest->n_state; i++) {
        if (wb_wide_get(m, hart, i, out) && reg_words(m, i))
            *out = m->guest->get_state(m->hart[hart], i);
        out += reg_words(m, i);
    }
}

void wb_state_set(Machine *m, uint32_t hart, const uint64_t *in)
{
    Hart *h = m->hart[hart];
    for (uint32_t i = 0; i < m->guest->n_state; i++) {
        if (wb_wide_set(m, hart, i, in) && reg_words(m, i))
            m->guest->set_state(h, i, *in);
        in += reg_words(m, i);
    }
    h->leave = LEAVE_NONE;
    h->cur_tb = h->exit_tb = NULL;
    m->guest->state_loaded(h);
    softmmu_regime_changed(h);
    h->leave = LEAVE_NONE;
}

void wb_irq_line(Machine *m, uint32_t hart, uint32_t line, int level)
{
    m->guest->irq_line(m->hart[hart], line, level != 0);
}

uint32_t wb_disasm(Machine *m, const uint8_t *code, uint32_t avail, uint64_t pc, char *out, uint64_t size)
{
    return m->guest->disasm(code, avail, pc, out, size);
}

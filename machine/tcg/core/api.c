/* api.c: the functions of cdef.h, for Python. Arguments are checked here; everything below trusts them. */
#include "mach_priv.h"
#include "probe.h"
#include "../guest/guest.h"
#include "../host/host.h"
#include "api.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CODE_BYTES = 64 << 20, TB_CACHE_BYTES = 96 << 20 };

static const GuestOps *const guests[] = {&riscv64_guest};

uint32_t wb_abi(void)
{
    return WB_ABI;
}

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

/* Where the host has room, RAM begins in its first 2 GiB: an instruction then has room for the distance of
 * guest and host addresses. */
static void *ram_map(uint64_t size)
{
    const uintptr_t highest = 0x7e000000, lowest = 0x10000000, step = 0x2000000;
    const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *ram = MAP_FAILED;
    for (uintptr_t at = highest; at >= lowest && ram == MAP_FAILED; at -= step)
        ram = mmap((void *)at, size, prot, flags | MAP_FIXED_NOREPLACE, -1, 0);
    if (ram == MAP_FAILED)
        ram = mmap(NULL, size, prot, flags, -1, 0);
    return ram == MAP_FAILED ? NULL : ram;
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
    m->ram = ram_map(ram_size);
    if (!m->ram || !probe_init(m) || !softmmu_init(m) || !tb_init(m) || !create_harts(m, n_harts)) {
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
    softmmu_deinit(m);
    probe_deinit(m);
    if (m->ram)
        munmap(m->ram, m->ram_size);
    free(m);
}

int wb_feature_set(Machine *m, const char *name, uint32_t value)
{
    return m->guest->set_feature(m, name, value) ? 0 : -1;
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

/* ---- switches ---- */

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

/* ---- running ---- */

int wb_run(Machine *m, uint64_t until)
{
    return (int)mach_run(m, until);
}

const char *wb_exit_name(uint32_t reason)
{
    static const char *const names[] = {
#define X(name, text) #name,
        WB_EXITS(X)
#undef X
    };
    return reason < WB_N_EXITS ? names[reason] : NULL;
}

uint64_t wb_icount(Machine *m)
{
    return mach_icount(m);
}

void wb_set_icount(Machine *m, uint64_t icount)
{
    probe_block_left(m);
    m->icount_end = icount;
    m->stop_request = m->host_error = 0;
    m->probes->stopped = -1;
}

uint64_t wb_warp_ns(Machine *m)
{
    return m->warp_ns;
}

void wb_set_warp_ns(Machine *m, uint64_t warp_ns)
{
    m->warp_ns = warp_ns;
}

uint64_t wb_vtime_ns(Machine *m)
{
    return mach_vtime(m, mach_icount(m));
}

void wb_set_device_deadline(Machine *m, uint64_t vtime_ns)
{
    m->device_deadline = vtime_ns;
}

uint64_t wb_next_deadline(Machine *m)
{
    return mach_next_deadline(m);
}

void wb_set_idle_asks(Machine *m, int asks)
{
    m->idle_asks = asks != 0;
}

void wb_request_stop(Machine *m)
{
    m->stop_request = 1;
}

uint32_t wb_cur_hart(Machine *m)
{
    return m->cur_hart;
}

void wb_set_time_offset(Machine *m, uint64_t ticks)
{
    m->time_offset = ticks;
}

void wb_set_quantum(Machine *m, uint64_t steps)
{
    m->quantum = steps ? steps : 1;
}

void wb_sched_get(Machine *m, uint64_t *out)
{
    *out++ = m->cur_hart;
    *out++ = m->quantum_end;
    *out++ = m->turn_start;
    *out++ = m->quantum;
    for (uint32_t i = 0; i < m->n_harts; i++) {
        *out++ = m->hart[i]->steps;
        *out++ = m->hart[i]->waiting;
        *out++ = m->hart[i]->stopped;
    }
}

void wb_sched_set(Machine *m, const uint64_t *in)
{
    m->cur_hart = (uint32_t)(in[0] % m->n_harts);
    m->quantum_end = in[1];
    m->turn_start = in[2];
    m->quantum = in[3] ? in[3] : 1;
    for (uint32_t i = 0; i < m->n_harts; i++) {
        m->hart[i]->steps = in[4 + 3 * i];
        m->hart[i]->waiting = in[5 + 3 * i] <= WAIT_SUSPENDED ? (uint32_t)in[5 + 3 * i] : WAIT_WFI;
        m->hart[i]->stopped = in[6 + 3 * i] != 0;
    }
}

int wb_hart_stopped(Machine *m, uint32_t hart)
{
    return (int)m->hart[hart]->stopped;
}

void wb_hart_stop(Machine *m, uint32_t hart)
{
    m->hart[hart]->stopped = 1;
}

void wb_hart_start(Machine *m, uint32_t hart)
{
    m->hart[hart]->stopped = 0;
    m->hart[hart]->waiting = WAIT_NONE;
}

void wb_hart_suspend(Machine *m, uint32_t hart)
{
    Hart *h = m->hart[hart];
    h->waiting = m->guest->wakes(h) ? WAIT_NONE : WAIT_SUSPENDED;
}

int wb_hart_suspended(Machine *m, uint32_t hart)
{
    return m->hart[hart]->waiting == WAIT_SUSPENDED;
}

void wb_hart_jump(Machine *m, uint32_t hart, uint64_t pc)
{
    m->hart[hart]->pc = pc;
    m->hart[hart]->leave = LEAVE_GONE;
}

/* ---- memory ---- */

uint8_t *wb_ram(Machine *m)
{
    return m->ram;
}

int wb_phys_read(Machine *m, uint64_t paddr, void *data, uint64_t size)
{
    return phys_read(m, paddr, data, size) ? 0 : -1;
}

int wb_phys_write(Machine *m, uint64_t paddr, const void *data, uint64_t size)
{
    for (uint32_t i = 0; i < m->n_harts; i++)
        m->guest->turn_ended(m->hart[i]);
    return phys_write(m, paddr, data, size) ? 0 : -1;
}

void wb_ram_clear(Machine *m)
{
    tb_flush_all(m);
    softmmu_flush_all(m);
    softmmu_dirty(m, NULL, true);
    /* Fresh pages of an anonymous mapping are zero, and cost nothing until they are touched. */
    if (madvise(m->ram, m->ram_size, MADV_DONTNEED))
        memset(m->ram, 0, m->ram_size);
}

/* Lines that stay keep the blocks and the translations that came from them. */
static void restore_page(Machine *m, uint64_t at, const uint8_t *data)
{
    enum { LINE = 64 };
    for (uint32_t i = 0; i < WB_PAGE_SIZE; i += LINE)
        if (memcmp(m->ram + at + i, data + i, LINE))
            phys_write(m, m->ram_base + at + i, data + i, LINE);
}

uint64_t wb_ram_restore(Machine *m, const uint32_t *pages, uint64_t n, const uint8_t *data, uint32_t *changed)
{
    uint64_t found = 0;
    for (uint64_t i = 0; i < n; i++, data += WB_PAGE_SIZE) {
        const uint64_t at = (uint64_t)pages[i] << WB_PAGE_BITS;
        if (pages[i] < m->ram_pages && memcmp(m->ram + at, data, WB_PAGE_SIZE)) {
            restore_page(m, at, data);
            changed[found++] = pages[i];
        }
    }
    return found;
}

int wb_translate(Machine *m, uint32_t hart, uint64_t vaddr, int access, uint64_t *paddr)
{
    return softmmu_debug_translate(m->hart[hart], vaddr, (Access)access, paddr) ? 0 : -1;
}

void wb_dirty_pages(Machine *m, uint64_t *set, int clear)
{
    softmmu_dirty(m, set, clear != 0);
}

/* Four lanes of multiply and fold, so that the host's multiplier is kept busy; `next` is what is read after
 * it: the host's own prefetching ends with a page. */
static void hash_page(const uint8_t *data, const uint8_t *next, uint64_t seed, uint64_t out[2])
{
    static const uint64_t k[4] = {UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xc2b2ae3d27d4eb4f),
                                  UINT64_C(0x165667b19e3779f9), UINT64_C(0xd6e8feb86659fd93)};
    uint64_t lane[4];
    for (int i = 0; i < 4; i++)
        lane[i] = (seed + 1) * k[i];
    for (uint32_t at = 0; at < WB_PAGE_SIZE; at += 32) {
        if (at % 64 == 0)
            __builtin_prefetch(next + at);
        for (int i = 0; i < 4; i++) {
            uint64_t w;
            memcpy(&w, data + at + 8 * i, 8);
            const unsigned __int128 p = (unsigned __int128)(lane[i] ^ w) * k[i];
            lane[i] = (uint64_t)p + (lane[i] << 1 | lane[i] >> 63) + (uint64_t)(p >> 64);
        }
    }
    out[0] = (lane[0] ^ (lane[1] << 23 | lane[1] >> 41)) * k[2] + lane[3];
    out[1] = (lane[2] ^ (lane[3] << 31 | lane[3] >> 33)) * k[0] + lane[1];
}

static void add_page(uint64_t out[2], const uint64_t h[2])
{
    out[0] = (out[0] << 5 | out[0] >> 59) * 3 + h[0];
    out[1] = (out[1] << 7 | out[1] >> 57) * 5 + h[1];
}

void wb_checksum(const uint8_t *data, uint64_t n, uint64_t out[2])
{
    out[0] = out[1] = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t h[2];
        const uint8_t *page = data + i * WB_PAGE_SIZE;
        hash_page(page, i + 1 < n ? page + WB_PAGE_SIZE : page, i, h);
        add_page(out, h);
    }
}

void wb_hash_pages(Machine *m, const uint32_t *pages, uint64_t n, uint64_t out[2])
{
    out[0] = out[1] = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t h[2];
        if (pages[i] >= m->ram_pages)
            continue;
        const uint32_t next = i + 1 < n && pages[i + 1] < m->ram_pages ? pages[i + 1] : pages[i];
        hash_page(m->ram + ((uint64_t)pages[i] << WB_PAGE_BITS), m->ram + ((uint64_t)next << WB_PAGE_BITS),
                  pages[i], h);
        add_page(out, h);
    }
}

void wb_zero_pages(Machine *m, const uint64_t *pages, uint64_t *out)
{
    const uint64_t words = pageset_words(m->ram_pages);
    for (uint64_t i = pageset_next(pages, words, 0); i < m->ram_pages; i = pageset_next(pages, words, i + 1))
        if (wb_is_zero_page(m->ram + (i << WB_PAGE_BITS)))
            pageset_put(out, i);
}

void wb_copy_pages(Machine *m, const uint32_t *pages, uint64_t n, uint8_t *out)
{
    for (uint64_t i = 0; i < n; i++)
        memcpy(out + i * WB_PAGE_SIZE, m->ram + ((uint64_t)pages[i] << WB_PAGE_BITS), WB_PAGE_SIZE);
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

/* ---- probes ---- */

_Static_assert(sizeof(WbProbe) == sizeof(ProbeSpec) &&
                   offsetof(WbProbe, code_len) == offsetof(ProbeSpec, code_len),
               "cdef.h and probe.h agree");

int wb_probes_set(Machine *m, const WbProbe *specs, uint32_t n, const uint8_t *code, uint32_t code_len)
{
    return probe_set(m, (const ProbeSpec *)specs, n, code, code_len) ? 0 : -1;
}

const char *wb_probe_kind(uint32_t kind)
{
    static const char *const names[] = {
#define X(name, range, text) #name,
        WB_PROBE_KINDS(X)
#undef X
    };
    return kind < N_PROBE_KINDS ? names[kind] : NULL;
}

void wb_probe_skip(Machine *m, uint64_t icount)
{
    m->probes->skip = icount;
}

int wb_probe_stopped(Machine *m)
{
    return m->probes->stopped;
}

uint64_t wb_probe_hits(Machine *m, uint32_t probe)
{
    return probe < m->probes->n ? m->probes->probe[probe].hits : 0;
}

uint64_t wb_probe_last(Machine *m, uint32_t probe)
{
    return probe < m->probes->n ? m->probes->probe[probe].last : ~UINT64_C(0);
}

const uint64_t *wb_probe_counts(Machine *m, uint32_t *n, uint64_t *lost)
{
    Histogram *t = &m->probes->counts;
    probe_block_left(m);
    blockcounts_fold(&m->probes->blocks, t);
    const HistogramEntry *entry = histogram_sorted(t, n);
    *lost = t->lost;
    return entry ? &entry->pc : NULL;
}

const void *wb_probe_records(Machine *m, uint32_t *n)
{
    *n = m->probes->n_records;
    m->probes->n_records = 0;
    return m->probes->record;
}

/* ---- text ---- */

uint32_t wb_disasm(Machine *m, const uint8_t *code, uint32_t avail, uint64_t pc, char *out, uint64_t size)
{
    return m->guest->disasm(code, avail, pc, out, size);
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

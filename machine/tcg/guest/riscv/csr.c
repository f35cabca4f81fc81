/* csr.c: control and status registers. RISCV_CSRS is the one list of what they do: access checks, reads and
 * writes follow from it, and from the functions of csr_rules.c.inc; names to print are riscv.h's. The lowest
 * privilege and read-only-ness are in the number itself. SPEC: privileged 1.12, 2.1
 *
 * A write that decides on translation, interrupts or timers is marked in the list; helper_csr then compares
 * what it decides before and after, and ends the TB only if the next instruction could see a difference.
 */
#include "../../core/probe.h"
#include "csr.h"
#include "riscv.h"

#define ALL (~0ull)

/* Conditions on an access beyond those in the number. */
typedef enum {
    GATE_NONE,
    GATE_FP,      /* mstatus.FS is not Off */
    GATE_VECTOR,  /* mstatus.VS is not Off; without vectors there is no such register */
    GATE_COUNTER, /* mcounteren and scounteren, by the low five bits of the number */
    GATE_SATP,    /* mstatus.TVM */
    GATE_STIMECMP,
    GATE_STATEEN, /* mstateen[n].SE, by the low two bits of the number */
    GATE_SENVCFG, /* mstateen0.ENVCFG */
    GATE_SEED,    /* mseccfg */
} Gate;

/* What a write may change. */
enum {
    FX_IRQ = 1,    /* which interrupts are pending or enabled */
    FX_REGIME = 2, /* translation, or what blocks rely on */
    FX_TIMER = 4,  /* the next timer deadline */
    FX_PMP = 8,
};

uint64_t riscv_mstatus(Hart *h)
{
    const GuestHart *g = h->g;
    uint64_t dirty = 0;
    if (g->fs_dirty && (g->mstatus & MSTATUS_FS))
        dirty |= MSTATUS_FS | MSTATUS_SD;
    if (g->vs_dirty && (g->mstatus & MSTATUS_VS))
        dirty |= MSTATUS_VS | MSTATUS_SD;
    return g->mstatus | dirty;
}

uint64_t riscv_time(Hart *h)
{
    return mach_vtime(h->m, hart_icount(h)) / 100 + h->m->time_offset;
}

uint64_t riscv_mip(Hart *h)
{
    const GuestHart *g = h->g;
    uint64_t mip = g->mip, now = riscv_time(h);
    if (g->seip_line)
        mip |= IRQ_BIT(IRQ_SEI);
    if (now >= g->mtimecmp)
        mip |= IRQ_BIT(IRQ_MTI);
    /* SPEC: Sstc: with STCE, STIP is the comparison and nothing else. */
    if (g->menvcfg & ENVCFG_STCE)
        mip = (mip & ~IRQ_BIT(IRQ_STI)) | (now >= g->stimecmp ? IRQ_BIT(IRQ_STI) : 0);
    return mip;
}

#include "csr_rules.c.inc"

/* ---- the list ---- */

#define FX_STATUS (FX_IRQ | FX_REGIME)
#define FX_ENVCFG (FX_IRQ | FX_REGIME | FX_TIMER)

/* clang-format off */
/* The performance counters 3..31 all read as zero. SPEC: 3.1.10 */
#define HPM(X, n, name, base, g) X(base + n, name##n, g, 0, zero_read, ignore_write)
#define HPMS(X, name, base, g)                                                                               \
    HPM(X, 3, name, base, g)  HPM(X, 4, name, base, g)  HPM(X, 5, name, base, g)  HPM(X, 6, name, base, g)   \
    HPM(X, 7, name, base, g)  HPM(X, 8, name, base, g)  HPM(X, 9, name, base, g)  HPM(X, 10, name, base, g)  \
    HPM(X, 11, name, base, g) HPM(X, 12, name, base, g) HPM(X, 13, name, base, g) HPM(X, 14, name, base, g)  \
    HPM(X, 15, name, base, g) HPM(X, 16, name, base, g) HPM(X, 17, name, base, g) HPM(X, 18, name, base, g)  \
    HPM(X, 19, name, base, g) HPM(X, 20, name, base, g) HPM(X, 21, name, base, g) HPM(X, 22, name, base, g)  \
    HPM(X, 23, name, base, g) HPM(X, 24, name, base, g) HPM(X, 25, name, base, g) HPM(X, 26, name, base, g)  \
    HPM(X, 27, name, base, g) HPM(X, 28, name, base, g) HPM(X, 29, name, base, g) HPM(X, 30, name, base, g)  \
    HPM(X, 31, name, base, g)
#define PMP(L, n) L(0x3b0 + n, pmpaddr##n, NONE, FX_PMP, pmpaddr[n], pmpaddr_write)
#define PMPS(L)                                                                                              \
    PMP(L, 0) PMP(L, 1) PMP(L, 2) PMP(L, 3) PMP(L, 4) PMP(L, 5) PMP(L, 6) PMP(L, 7)                          \
    PMP(L, 8) PMP(L, 9) PMP(L, 10) PMP(L, 11) PMP(L, 12) PMP(L, 13) PMP(L, 14) PMP(L, 15)
/* clang-format on */

/* F(number, name, gate, effects, field, writable bits): a field of GuestHart
 * L(number, name, gate, effects, field, write): the same, with a function that makes a written value legal
 * X(number, name, gate, effects, read, write): functions */
#define RISCV_CSRS(F, L, X)                                                                                  \
    X(0x001, fflags, FP, FX_REGIME, fcsr_read, fcsr_write)                                                   \
    X(0x002, frm, FP, FX_REGIME, fcsr_read, fcsr_write)                                                      \
    X(0x003, fcsr, FP, FX_REGIME, fcsr_read, fcsr_write)                                                     \
    L(0x008, vstart, VECTOR, 0, vstart, vstart_write)                                                        \
    X(0x009, vxsat, VECTOR, 0, vcsr_read, vcsr_write)                                                        \
    X(0x00a, vxrm, VECTOR, 0, vcsr_read, vcsr_write)                                                         \
    X(0x00f, vcsr, VECTOR, 0, vcsr_read, vcsr_write)                                                         \
    X(0x015, seed, SEED, 0, zero_read, ignore_write)                                                         \
    X(0x100, sstatus, NONE, FX_STATUS, sstatus_read, sstatus_write)                                          \
    X(0x104, sie, NONE, FX_IRQ | FX_TIMER, sie_read, sie_write)                                              \
    L(0x105, stvec, NONE, 0, stvec, stvec_write)                                                             \
    F(0x106, scounteren, NONE, 0, scounteren, 0xffffffff)                                                    \
    L(0x10a, senvcfg, SENVCFG, 0, senvcfg, senvcfg_write)                                                    \
    X(0x10c, sstateen0, STATEEN, 0, zero_read, ignore_write)                                                 \
    X(0x10d, sstateen1, STATEEN, 0, zero_read, ignore_write)                                                 \
    X(0x10e, sstateen2, STATEEN, 0, zero_read, ignore_write)                                                 \
    X(0x10f, sstateen3, STATEEN, 0, zero_read, ignore_write)                                                 \
    F(0x140, sscratch, NONE, 0, sscratch, ALL)                                                               \
    F(0x141, sepc, NONE, 0, sepc, ~1ull)                                                                     \
    F(0x142, scause, NONE, 0, scause, ALL)                                                                   \
    F(0x143, stval, NONE, 0, stval, ALL)                                                                     \
    X(0x144, sip, NONE, FX_IRQ, sip_read, sip_write)                                                         \
    F(0x14d, stimecmp, STIMECMP, FX_IRQ | FX_TIMER, stimecmp, ALL)                                           \
    L(0x180, satp, SATP, FX_REGIME, satp, satp_write)                                                        \
    X(0x300, mstatus, NONE, FX_STATUS, mstatus_read, mstatus_write)                                          \
    X(0x301, misa, NONE, 0, misa_read, ignore_write)                                                         \
    F(0x302, medeleg, NONE, 0, medeleg, MEDELEG_MASK)                                                        \
    F(0x303, mideleg, NONE, FX_IRQ, mideleg, IRQS_S)                                                         \
    F(0x304, mie, NONE, FX_IRQ | FX_TIMER, mie, IRQS_S | IRQS_M)                                             \
    L(0x305, mtvec, NONE, 0, mtvec, mtvec_write)                                                             \
    F(0x306, mcounteren, NONE, 0, mcounteren, 0xffffffff)                                                    \
    L(0x30a, menvcfg, NONE, FX_ENVCFG, menvcfg, menvcfg_write)                                               \
    F(0x30c, mstateen0, NONE, 0, mstateen[0], STATEEN_SE | STATEEN_ENVCFG)                                   \
    F(0x30d, mstateen1, NONE, 0, mstateen[1], STATEEN_SE)                                                    \
    F(0x30e, mstateen2, NONE, 0, mstateen[2], STATEEN_SE)                                                    \
    F(0x30f, mstateen3, NONE, 0, mstateen[3], STATEEN_SE)                                                    \
    L(0x320, mcountinhibit, NONE, 0, mcountinhibit, countinhibit_write)                                      \
    F(0x340, mscratch, NONE, 0, mscratch, ALL)                                                               \
    F(0x341, mepc, NONE, 0, mepc, ~1ull)                                                                     \
    F(0x342, mcause, NONE, 0, mcause, ALL)                                                                   \
    F(0x343, mtval, NONE, 0, mtval, ALL)                                                                     \
    HPMS(X, mhpmevent, 0x320, NONE)                                                                          \
    X(0x344, mip, NONE, FX_IRQ, mip_read, mip_write)                                                         \
    X(0x3a0, pmpcfg0, NONE, FX_PMP, pmpcfg_read, pmpcfg_write)                                               \
    X(0x3a2, pmpcfg2, NONE, FX_PMP, pmpcfg_read, pmpcfg_write)                                               \
    PMPS(L)                                                                                                  \
    F(0x747, mseccfg, NONE, 0, mseccfg, MSECCFG_SSEED | MSECCFG_USEED)                                       \
    L(0x7a0, tselect, NONE, 0, tselect, riscv_tselect_write)                                                 \
    X(0x7a1, tdata1, NONE, 0, riscv_tdata_read, riscv_tdata_write)                                           \
    X(0x7a2, tdata2, NONE, 0, riscv_tdata_read, riscv_tdata_write)                                           \
    X(0x7a3, tdata3, NONE, 0, zero_read, ignore_write)                                                       \
    X(0x7a4, tinfo, NONE, 0, riscv_tinfo_read, ignore_write)                                                 \
    F(0x7a5, tcontrol, NONE, 0, tcontrol, 1 << 3 | 1 << 7)                                                   \
    X(0xb00, mcycle, NONE, 0, cycle_read, cycle_write)                                                       \
    X(0xb02, minstret, NONE, 0, instret_read, instret_write)                                                 \
    HPMS(X, mhpmcounter, 0xb00, NONE)                                                                        \
    X(0xc00, cycle, COUNTER, 0, cycle_read, ignore_write)                                                    \
    X(0xc01, time, COUNTER, 0, time_read, ignore_write)                                                      \
    X(0xc02, instret, COUNTER, 0, instret_read, ignore_write)                                                \
    HPMS(X, hpmcounter, 0xc00, COUNTER)                                                                      \
    F(0xc20, vl, VECTOR, 0, vl, 0)                                                                           \
    F(0xc21, vtype, VECTOR, 0, vtype, 0)                                                                     \
    F(0xc22, vlenb, VECTOR, 0, vlenb, 0)                                                                     \
    X(0xda0, scountovf, NONE, 0, zero_read, ignore_write)                                                    \
    X(0xf11, mvendorid, NONE, 0, zero_read, ignore_write)                                                    \
    X(0xf12, marchid, NONE, 0, zero_read, ignore_write)                                                      \
    X(0xf13, mimpid, NONE, 0, zero_read, ignore_write)                                                       \
    F(0xf14, mhartid, NONE, 0, hartid, 0)                                                                    \
    X(0xf15, mconfigptr, NONE, 0, zero_read, ignore_write)

typedef struct {
    uint16_t number;
    uint8_t gate, effects;
    uint32_t field; /* offset in GuestHart, where read or write is NULL */
    uint64_t mask;
    uint64_t (*read)(Hart *h, uint32_t csr);
    void (*write)(Hart *h, uint32_t csr, uint64_t value);
} Csr;

#define CSR_FIELD(num, name, gate, fx, field, mask)                                                          \
    [IDX_##name] = {num, GATE_##gate, fx, offsetof(GuestHart, field), mask, NULL, NULL},
#define CSR_LEGAL(num, name, gate, fx, field, write)                                                         \
    [IDX_##name] = {num, GATE_##gate, fx, offsetof(GuestHart, field), 0, NULL, write},
#define CSR_FUNC(num, name, gate, fx, read, write) [IDX_##name] = {num, GATE_##gate, fx, 0, 0, read, write},
#define CSR_ENUM(num, name, ...)                   IDX_##name,
#define CSR_INDEX(num, name, ...)                  [num] = IDX_##name,

enum { IDX_NONE, RISCV_CSRS(CSR_ENUM, CSR_ENUM, CSR_ENUM) N_CSRS };
static const Csr csrs[N_CSRS] = {RISCV_CSRS(CSR_FIELD, CSR_LEGAL, CSR_FUNC)};
static const uint8_t csr_index[4096] = {RISCV_CSRS(CSR_INDEX, CSR_INDEX, CSR_INDEX)};
_Static_assert(N_CSRS <= 256, "an index is one byte");

/* ---- access ---- */

static const Csr *csr_find(uint32_t number)
{
    uint8_t i = number < 4096 ? csr_index[number] : IDX_NONE;
    return i == IDX_NONE ? NULL : &csrs[i];
}
static uint64_t *csr_field(Hart *h, const Csr *c)
{
    return (uint64_t *)((uint8_t *)h->g + c->field);
}
static uint64_t csr_read(Hart *h, const Csr *c)
{
    return c->read ? c->read(h, c->number) : *csr_field(h, c);
}
static void csr_write(Hart *h, const Csr *c, uint64_t value)
{
    if (c->write)
        c->write(h, c->number, value);
    else
        *csr_field(h, c) = (*csr_field(h, c) & ~c->mask) | (value & c->mask);
}

bool riscv_csr_exists(const Machine *m, uint32_t csr)
{
    const Csr *c = csr_find(csr);
    return c && (c->gate != GATE_VECTOR || m->feature[FEATURE_v]);
}

static bool gate_open(const Hart *h, const Csr *c)
{
    const GuestHart *g = h->g;
    switch (c->gate) {
    case GATE_FP:
        return !g->fs_off;
    case GATE_VECTOR:
        return !g->vs_off;
    case GATE_COUNTER: {
        /* SPEC: 3.1.11, 4.1.5: S-mode asks mcounteren, U-mode both. */
        uint64_t bit = 1ull << (c->number & 31);
        return g->priv == PRV_M || ((g->mcounteren & bit) && (g->priv == PRV_S || (g->scounteren & bit)));
    }
    case GATE_SATP:
        return g->priv == PRV_M || !(g->mstatus & MSTATUS_TVM);
    case GATE_STIMECMP:
        /* SPEC: Sstc, 2.1 and 2.2 */
        return g->priv == PRV_M || ((g->menvcfg & ENVCFG_STCE) && (g->mcounteren & CTR_TM));
    case GATE_STATEEN:
        return g->priv == PRV_M || (g->mstateen[c->number & 3] & STATEEN_SE);
    case GATE_SENVCFG:
        return g->priv == PRV_M || (g->mstateen[0] & STATEEN_ENVCFG);
    case GATE_SEED:
        return g->priv == PRV_M || (g->mseccfg & (g->priv == PRV_S ? MSECCFG_SSEED : MSECCFG_USEED));
    default:
        return true;
    }
}

/* SPEC: privileged 1.12, 2.1: bits 11:10 of the number are 3 where it is read-only, 9:8 the lowest privilege.
 */
static bool csr_accessible(const Hart *h, const Csr *c, bool writes)
{
    if (writes && (c->number >> 10) == 3)
        return false;
    if (!writes && c->number == CSR_seed)
        return false; /* SPEC: scalar cryptography, 4.1: to poll it is to take from it, so the access must
                         write */
    return h->g->priv >= ((c->number >> 8) & 3) && gate_open(h, c);
}

/* A read of seed is an input: it is asked for once, in an instruction that runs alone. false: not yet. */
static bool seed_take(Hart *h, uint64_t *seed)
{
    Machine *m = h->m;
    uint64_t entropy = 0;
    if (h->cur_tb && !h->cur_tb->single) {
        h->leave = LEAVE_SINGLE;
        return false;
    }
    if (!probe_ready(h, PROBE_CSR))
        return false;
    *seed = (uint64_t)SEED_DEAD << SEED_STATUS_SHIFT;
    if (!m->host.entropy)
        return true;
    m->recheck = 1;
    if (m->host.entropy(m->host.opaque, h->index, &entropy))
        m->host_error = 1;
    *seed = (uint64_t)SEED_ES16 << SEED_STATUS_SHIFT | (entropy & 0xffff);
    return true;
}

static void csr_write_guest(Hart *h, const Csr *c, uint64_t value)
{
    if (!c->effects) {
        csr_write(h, c, value);
        return;
    }
    uint64_t fetch = 0, data = 0, deadline = 0;
    if (c->effects & FX_REGIME) {
        fetch = riscv_fetch_key(h);
        data = riscv_data_key(h);
    }
    if (c->effects & FX_TIMER)
        deadline = riscv_timer_deadline(h);
    csr_write(h, c, value);
    if (c->effects & FX_REGIME) {
        bool fetch_changed = riscv_fetch_key(h) != fetch;
        if (fetch_changed)
            riscv_leave_after(h);
        if (fetch_changed || riscv_data_key(h) != data)
            softmmu_regime_changed(h);
    }
    /* A deadline that moved away may stay: the slice then ends early, and nobody sees it. */
    if ((c->effects & FX_TIMER) && riscv_timer_deadline(h) < deadline)
        riscv_leave_after(h);
    if (c->effects & FX_PMP)
        riscv_leave_after(h);
    if ((c->effects & FX_IRQ) && riscv_pending_irq(h) >= 0)
        riscv_leave_after(h);
}

/* SPEC: unprivileged, Zicsr. A read has a side effect in seed alone; CSRRW with rd = x0 does not read. */
uint64_t helper_csr(Hart *h, uint64_t insn, uint64_t rs1_value, uint64_t unused)
{
    (void)unused;
    uint32_t rs1 = (insn >> 15) & 31, op = (uint32_t)((insn >> 12) & 3) - 1;
    uint64_t operand = (insn & 1 << 14) ? rs1 : rs1_value;
    bool writes = op == CSR_OP_RW || rs1 != 0;
    const Csr *c = csr_find((insn >> 20) & 0xfff);
    if (!c || !csr_accessible(h, c, writes)) {
        riscv_raise(h, EXC_ILLEGAL, (uint32_t)insn);
        return 0;
    }
    uint64_t old = csr_read(h, c);
    if (c->number == CSR_seed && (op != CSR_OP_RW || (insn >> 7 & 31)) && !seed_take(h, &old))
        return 0;
    if (!writes || (probe_wants(h->m, PROBE_CSR) && !probe_ready(h, PROBE_CSR)))
        return old;
    uint64_t base = old;
    /* SPEC: privileged 1.12, 3.1.9: setting and clearing bits of mip start from the software-written SEIP. */
    if (c->number == CSR_mip)
        base = (old & ~IRQ_BIT(IRQ_SEI)) | (h->g->mip & IRQ_BIT(IRQ_SEI));
    csr_write_guest(h, c, op == CSR_OP_RW ? operand : op == CSR_OP_RS ? base | operand : base & ~operand);
    if (probe_wants(h->m, PROBE_CSR)) {
        const uint64_t now = csr_read(h, c);
        const Happening what = {.kind = PROBE_CSR, .at = c->number, .a = c->number, .value = now, .old = old};
        probe_tell(h, &what);
        if (probe_stopping(h->m))
            riscv_leave_after(h);
    }
    return old;
}

void riscv_regime_changed(Hart *h)
{
    h->g->fs_off = !(h->g->mstatus & MSTATUS_FS);
    h->g->vs_off = !(h->g->mstatus & MSTATUS_VS);
    softmmu_regime_changed(h);
}

/* ---- debuggers ---- */

int riscv_csr_read_debug(Hart *h, uint32_t csr, uint64_t *value)
{
    const Csr *c = csr_find(csr);
    if (!c)
        return -1;
    *value = csr_read(h, c);
    return 0;
}

int riscv_csr_write_debug(Hart *h, uint32_t csr, uint64_t value)
{
    const Csr *c = csr_find(csr);
    if (!c || (c->number >> 10) == 3 || c->write == ignore_write)
        return -1;
    csr_write(h, c, value);
    riscv_regime_changed(h);
    return 0;
}

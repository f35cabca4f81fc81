/* trap.c: trap entry and return, interrupts and timers, and the instructions of the privileged architecture.
 *
 * Timer interrupts are compared with the time of the exact position wherever mip is read, and nothing of them
 * is stored: so the position alone decides when one becomes pending. SPEC: privileged 1.12, chapters 3 and 4
 */
#include <string.h>

#include "../../core/probe.h"
#include "csr.h"
#include "riscv.h"
#include "vector.h"

static uint64_t vector_of(uint64_t tvec, uint32_t cause, bool is_interrupt)
{
    /* SPEC: 3.1.7: Vectored sends interrupts alone to BASE + 4 * cause. */
    return (tvec & ~3ull) + ((tvec & 1) && is_interrupt ? 4ull * cause : 0);
}

void riscv_enter_trap(Hart *h, uint32_t cause, bool is_interrupt, uint64_t epc, uint64_t tval)
{
    GuestHart *g = h->g;
    uint64_t deleg = is_interrupt ? g->mideleg : g->medeleg;
    uint64_t code = cause | (is_interrupt ? CAUSE_IRQ : 0), status = g->mstatus;
    const uint64_t from = g->priv;
    if (g->priv != PRV_M && ((deleg >> cause) & 1)) {
        g->scause = code;
        g->sepc = epc;
        g->stval = tval;
        status &= ~(MSTATUS_SPP | MSTATUS_SPIE | MSTATUS_SIE);
        status |= g->priv == PRV_S ? MSTATUS_SPP : 0;
        status |= (g->mstatus & MSTATUS_SIE) ? MSTATUS_SPIE : 0;
        g->priv = PRV_S;
        h->pc = vector_of(g->stvec, cause, is_interrupt);
    } else {
        g->mcause = code;
        g->mepc = epc;
        g->mtval = tval;
        riscv_trigger_enter_m(g);
        status &= ~(MSTATUS_MPP | MSTATUS_MPIE | MSTATUS_MIE);
        status |= g->priv << MSTATUS_MPP_SHIFT;
        status |= (g->mstatus & MSTATUS_MIE) ? MSTATUS_MPIE : 0;
        g->priv = PRV_M;
        h->pc = vector_of(g->mtvec, cause, is_interrupt);
    }
    g->mstatus = status;
    if (probe_wants(h->m, PROBE_TRAP)) {
        const Happening what = {.kind = PROBE_TRAP,
                                .op = (uint8_t)g->priv,
                                .at = code,
                                .a = code,
                                .b = epc,
                                .value = tval,
                                .old = from};
        probe_tell(h, &what);
    }
    g->traps++;
    g->reservation = ~0ull; /* no SC of one context pairs with the LR of another */
    h->waiting = WAIT_NONE;
    riscv_regime_changed(h);
}

void riscv_raise(Hart *h, uint32_t cause, uint64_t tval)
{
    riscv_enter_trap(h, cause, false, hart_insn_pc(h), tval);
    h->leave = LEAVE_JUMP;
}

void riscv_raise_mem(Hart *h, uint64_t vaddr, Access acc, uint32_t fault)
{
    /* SPEC: 3.7.1, table 3.7: an instruction's own breakpoint comes before the faults of its fetch. */
    if (acc == ACC_EXEC && riscv_trigger_exec(h, hart_insn_pc(h)))
        return;
    riscv_raise(h, fault, vaddr);
}

/* ---- interrupts and timers ---- */

int riscv_pending_irq(Hart *h)
{
    /* SPEC: 3.1.9, 4.1.3: external, software, timer, counters; those for M-mode before those for S-mode. */
    static const uint8_t order[] = {IRQ_MEI, IRQ_MSI, IRQ_MTI, IRQ_SEI, IRQ_SSI, IRQ_STI, IRQ_LCOFI};
    const GuestHart *g = h->g;
    if (!g->mie)
        return -1;
    /* SPEC: 3.1.6.1: interrupts for a higher mode are always enabled, for a lower one never. */
    bool m_on = g->priv < PRV_M || (g->mstatus & MSTATUS_MIE);
    bool s_on = g->priv < PRV_S || (g->priv == PRV_S && (g->mstatus & MSTATUS_SIE));
    uint64_t enabled = g->mie & ((m_on ? ~g->mideleg : 0) | (s_on ? g->mideleg : 0));
    if (!enabled)
        return -1;
    enabled &= riscv_mip(h);
    uint64_t to_m = enabled & ~g->mideleg;
    uint64_t candidates = to_m ? to_m : enabled;
    for (size_t i = 0; candidates && i < sizeof(order); i++)
        if (candidates & IRQ_BIT(order[i]))
            return order[i];
    return -1;
}

void riscv_take_irq(Hart *h, int irq)
{
    riscv_enter_trap(h, (uint32_t)irq, true, h->pc, 0);
}

bool riscv_wakes(Hart *h)
{
    /* SPEC: 3.3.3: WFI ends by what is enabled in mie, whatever MIE, SIE and mideleg say. */
    return (riscv_mip(h) & h->g->mie) != 0;
}

/* Virtual time at which the time reaches timecmp; ~0: it has, or it never does. */
static uint64_t timer_vtime(const Machine *m, uint64_t timecmp, uint64_t now)
{
    const uint64_t ticks = timecmp - m->time_offset; /* of virtual time */
    return timecmp <= now || ticks > ~0ull / 100 ? ~0ull : ticks * 100;
}

/* A timer that is disabled in mie interrupts and wakes nobody, so it ends no slice; what enables it leaves
 * the TB. */
uint64_t riscv_timer_deadline(Hart *h)
{
    const GuestHart *g = h->g;
    uint64_t now = riscv_time(h), at = ~0ull;
    if (g->mie & IRQ_BIT(IRQ_MTI))
        at = timer_vtime(h->m, g->mtimecmp, now);
    if ((g->mie & IRQ_BIT(IRQ_STI)) && (g->menvcfg & ENVCFG_STCE)) {
        uint64_t s = timer_vtime(h->m, g->stimecmp, now);
        at = s < at ? s : at;
    }
    return at;
}

void riscv_irq_line(Hart *h, uint32_t line, bool level)
{
    GuestHart *g = h->g;
    if (line == IRQ_SEI)
        g->seip_line = level;
    else if (line < 64)
        g->mip = level ? g->mip | IRQ_BIT(line) : g->mip & ~IRQ_BIT(line);
}

/* ---- reset ---- */

/* Everything that firmware would have set up before it enters S-mode. */
static void enter_supervisor(GuestHart *g)
{
    g->priv = PRV_S;
    g->medeleg = MEDELEG_MASK & ~(1ull << EXC_ECALL_S);
    g->mideleg = IRQS_S;
    g->mcounteren = 0xffffffff;
    /* A kernel that finds no performance counters leaves this alone, and its vDSO reads the time in U-mode.
     */
    g->scounteren = CTR_CY | CTR_TM | CTR_IR;
    g->mstateen[0] = STATEEN_SE | STATEEN_ENVCFG;
    g->menvcfg |= ENVCFG_STCE | ENVCFG_PBMTE | ENVCFG_CBIE | ENVCFG_CBCFE | ENVCFG_CBZE;
    g->mstatus |= (uint64_t)FS_INITIAL << MSTATUS_FS_SHIFT;
    g->mstatus |= (uint64_t)FS_INITIAL << MSTATUS_VS_SHIFT; /* where there are vectors */
    g->pmpcfg[0] = PMP_NAPOT | PMP_RWX;
    g->pmpaddr[0] = PMP_ADDR_MASK;
}

void riscv_reset(Hart *h, uint64_t pc, uint64_t arg0, uint64_t arg1)
{
    GuestHart *g = h->g;
    const bool had_triggers = g->trigger_kinds != 0;
    memset(g, 0, sizeof(*g));
    memset(h->slot, 0, sizeof(h->slot));
    g->priv = PRV_M;
    g->hartid = h->index;
    g->mstatus = MSTATUS_XLEN;
    /* Software that has never heard of Svadu sees A and D set by hardware. */
    g->menvcfg = ENVCFG_ADUE;
    /* And supervisors that find Zkr in the device tree read the seed below firmware that has not heard of it.
     */
    g->mseccfg = MSECCFG_SSEED;
    for (uint32_t i = 0; i < TRIGGERS; i++)
        g->tdata1[i] = riscv_tdata1_legal(0);
    h->m->flush_wanted |= had_triggers;
    g->stimecmp = g->mtimecmp = g->reservation = ~0ull;
    g->vtype = VTYPE_VILL;
    if (h->m->host.sbi_call)
        enter_supervisor(g);
    h->pc = pc;
    h->slot[SLOT_X + 10] = arg0;
    h->slot[SLOT_X + 11] = arg1;
    h->waiting = WAIT_NONE;
    softmmu_flush_all(h->m);
    riscv_state_loaded(h);
}

void riscv_state_loaded(Hart *h)
{
    GuestHart *g = h->g;
    /* A checkpoint is input like any other: values that no CSR write can make do not come in. */
    g->priv = g->priv == PRV_U || g->priv == PRV_S ? g->priv : PRV_M;
    if ((g->mstatus & MSTATUS_MPP) == 2ull << MSTATUS_MPP_SHIFT)
        g->mstatus &= ~MSTATUS_MPP;
    g->mstatus = (g->mstatus & ~(MSTATUS_UXL | MSTATUS_SXL | MSTATUS_SD)) | MSTATUS_XLEN;
    g->frm &= 7;
    g->fflags &= 31;
    riscv_vector_loaded(h);
    if (riscv_pmp_update(g))
        softmmu_flush_all(h->m);
    g->tselect = g->tselect < TRIGGERS ? g->tselect : 0;
    for (uint32_t i = 0; i < TRIGGERS; i++)
        g->tdata1[i] = riscv_tdata1_legal(g->tdata1[i]);
    riscv_triggers_loaded(h);
    riscv_regime_changed(h);
}

/* ---- instructions ---- */

uint64_t helper_illegal(Hart *h, uint64_t insn, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    riscv_raise(h, EXC_ILLEGAL, insn);
    return 0;
}

uint64_t helper_ebreak(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    (void)a, (void)b, (void)c;
    riscv_raise(h, EXC_BREAKPOINT, hart_insn_pc(h));
    return 0;
}

uint64_t helper_ecall(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    (void)a, (void)b, (void)c;
    const HostOps *host = &h->m->host;
    if (h->g->priv == PRV_S && host->sbi_call) {
        riscv_leave_after(h); /* anything may have changed */
        if (host->sbi_call(host->opaque, h->index) != 0)
            h->m->host_error = 1;
        return 0;
    }
    riscv_raise(h, EXC_ECALL_U + (uint32_t)h->g->priv, 0);
    return 0;
}

static void return_to(Hart *h, uint64_t priv, uint64_t pc)
{
    GuestHart *g = h->g;
    if (probe_wants(h->m, PROBE_XRET)) {
        const Happening what = {.kind = PROBE_XRET,
                                .op = (uint8_t)priv,
                                .at = pc,
                                .a = pc,
                                .b = h->slot[SLOT_X + 2],
                                .value = priv,
                                .old = g->priv};
        probe_tell(h, &what);
    }
    /* SPEC: 3.1.6.3: leaving M-mode clears MPRV. */
    if (priv != PRV_M)
        g->mstatus &= ~MSTATUS_MPRV;
    g->priv = priv;
    g->reservation = ~0ull;
    h->pc = pc;
    h->leave = LEAVE_JUMP;
    riscv_regime_changed(h);
}

uint64_t helper_mret(Hart *h, uint64_t insn, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    GuestHart *g = h->g;
    if (g->priv != PRV_M)
        return helper_illegal(h, (uint32_t)insn, 0, 0);
    uint64_t status = g->mstatus, mpp = (status & MSTATUS_MPP) >> MSTATUS_MPP_SHIFT;
    g->mstatus = (status & ~(MSTATUS_MPP | MSTATUS_MIE)) | MSTATUS_MPIE;
    g->mstatus |= (status & MSTATUS_MPIE) ? MSTATUS_MIE : 0;
    riscv_trigger_leave_m(g);
    return_to(h, mpp, g->mepc);
    return 0;
}

uint64_t helper_sret(Hart *h, uint64_t insn, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    GuestHart *g = h->g;
    /* SPEC: 3.1.6.5 */
    if (g->priv == PRV_U || (g->priv == PRV_S && (g->mstatus & MSTATUS_TSR)))
        return helper_illegal(h, (uint32_t)insn, 0, 0);
    uint64_t status = g->mstatus, spp = (status & MSTATUS_SPP) ? PRV_S : PRV_U;
    g->mstatus = (status & ~(MSTATUS_SPP | MSTATUS_SIE)) | MSTATUS_SPIE;
    g->mstatus |= (status & MSTATUS_SPIE) ? MSTATUS_SIE : 0;
    return_to(h, spp, g->sepc);
    return 0;
}

uint64_t helper_wfi(Hart *h, uint64_t insn, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    const GuestHart *g = h->g;
    /* SPEC: 3.1.6.5, 3.3.3: U-mode may not wait where there is an S-mode; the bounded time is zero. */
    if (g->priv == PRV_U || (g->priv == PRV_S && (g->mstatus & MSTATUS_TW)))
        return helper_illegal(h, (uint32_t)insn, 0, 0);
    if (!riscv_wakes(h))
        h->waiting = WAIT_WFI;
    riscv_leave_after(h);
    return 0;
}

/* No translation is ever stale (see softmmu.h), so there is nothing to drop. */
uint64_t helper_sfence(Hart *h, uint64_t insn, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    const GuestHart *g = h->g;
    if (g->priv == PRV_U || (g->priv == PRV_S && (g->mstatus & MSTATUS_TVM)))
        riscv_raise(h, EXC_ILLEGAL, (uint32_t)insn);
    return 0;
}

uint64_t helper_sfence_inval(Hart *h, uint64_t insn, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    if (h->g->priv == PRV_U)
        riscv_raise(h, EXC_ILLEGAL, (uint32_t)insn);
    return 0;
}

/* riscv.c: the RISC-V guest as the core sees it: one table, with the registers by number.
 *
 * Registers: pc, x1..x31, f0..f31, the state in GuestHart, and the CSRs that derive from it. The first three
 * are a hart's whole state, as a checkpoint holds it.
 */
#include "riscv.h"

#include <string.h>

/* The state in GuestHart, declared once: X(name, field, csr, writable). A debugger reads and writes those
 * with a CSR number as that CSR, the others as they are; a checkpoint holds the fields. Not here, since
 * riscv_state_loaded() recomputes it: fs_off; since they are dead between instructions: rm, rm_insn. */
enum { NO_CSR = -1 };
/* clang-format off */
#define RISCV_STATE(X)                                                                                       \
    X(priv, priv, NO_CSR, 1)                                                                                 \
    X(mstatus, mstatus, CSR_mstatus, 1)                                                                      \
    X(fs_dirty, fs_dirty, NO_CSR, 0)                                                                         \
    X(fflags, fflags, CSR_fflags, 1)                                                                         \
    X(frm, frm, CSR_frm, 1)                                                                                  \
    X(mip, mip, CSR_mip, 1)                                                                                  \
    X(mie, mie, CSR_mie, 1)                                                                                  \
    X(mideleg, mideleg, CSR_mideleg, 1)                                                                      \
    X(medeleg, medeleg, CSR_medeleg, 1)                                                                      \
    X(mtvec, mtvec, CSR_mtvec, 1)                                                                            \
    X(mepc, mepc, CSR_mepc, 1)                                                                               \
    X(mcause, mcause, CSR_mcause, 1)                                                                         \
    X(mtval, mtval, CSR_mtval, 1)                                                                            \
    X(mscratch, mscratch, CSR_mscratch, 1)                                                                   \
    X(stvec, stvec, CSR_stvec, 1)                                                                            \
    X(sepc, sepc, CSR_sepc, 1)                                                                               \
    X(scause, scause, CSR_scause, 1)                                                                         \
    X(stval, stval, CSR_stval, 1)                                                                            \
    X(sscratch, sscratch, CSR_sscratch, 1)                                                                   \
    X(satp, satp, CSR_satp, 1)                                                                               \
    X(mcounteren, mcounteren, CSR_mcounteren, 1)                                                             \
    X(scounteren, scounteren, CSR_scounteren, 1)                                                             \
    X(mcountinhibit, mcountinhibit, CSR_mcountinhibit, 1)                                                    \
    X(menvcfg, menvcfg, CSR_menvcfg, 1)                                                                      \
    X(senvcfg, senvcfg, CSR_senvcfg, 1)                                                                      \
    X(mseccfg, mseccfg, CSR_mseccfg, 1)                                                                      \
    X(mstateen0, mstateen[0], CSR_mstateen0, 1)                                                              \
    X(mstateen1, mstateen[1], CSR_mstateen1, 1)                                                              \
    X(mstateen2, mstateen[2], CSR_mstateen2, 1)                                                              \
    X(mstateen3, mstateen[3], CSR_mstateen3, 1)                                                              \
    X(tselect, tselect, CSR_tselect, 1)                                                                      \
    X(tcontrol, tcontrol, CSR_tcontrol, 1)                                                                   \
    RISCV_TRIGGER(X, 0) RISCV_TRIGGER(X, 1) RISCV_TRIGGER(X, 2) RISCV_TRIGGER(X, 3)                          \
    X(stimecmp, stimecmp, CSR_stimecmp, 1)                                                                   \
    X(mtimecmp, mtimecmp, NO_CSR, 1)                                                                         \
    X(seip_line, seip_line, NO_CSR, 0)                                                                       \
    X(pmpcfg0, pmpcfg[0], CSR_pmpcfg0, 1)                                                                    \
    X(pmpcfg2, pmpcfg[1], CSR_pmpcfg0 + 2, 1)                                                                \
    RISCV_PMPADDR(X, 0) RISCV_PMPADDR(X, 1) RISCV_PMPADDR(X, 2) RISCV_PMPADDR(X, 3)                          \
    RISCV_PMPADDR(X, 4) RISCV_PMPADDR(X, 5) RISCV_PMPADDR(X, 6) RISCV_PMPADDR(X, 7)                          \
    RISCV_PMPADDR(X, 8) RISCV_PMPADDR(X, 9) RISCV_PMPADDR(X, 10) RISCV_PMPADDR(X, 11)                        \
    RISCV_PMPADDR(X, 12) RISCV_PMPADDR(X, 13) RISCV_PMPADDR(X, 14) RISCV_PMPADDR(X, 15)                      \
    X(minstret_off, minstret_off, NO_CSR, 0)                                                                 \
    X(mcycle_off, mcycle_off, NO_CSR, 0)                                                                     \
    X(traps, traps, NO_CSR, 0)                                                                               \
    X(reservation, reservation, NO_CSR, 1)                                                                   \
    X(hartid, hartid, NO_CSR, 0)
/* With the vector extension alone, and behind them v0 to v31. */
#define RISCV_VECTOR_STATE(X)                                                                                \
    X(vs_dirty, vs_dirty, NO_CSR, 0)                                                                         \
    X(vstart, vstart, CSR_vstart, 1)                                                                         \
    X(vxsat, vxsat, CSR_vxsat, 1)                                                                            \
    X(vxrm, vxrm, CSR_vxrm, 1)                                                                               \
    X(vl, vl, CSR_vl, 0)                                                                                     \
    X(vtype, vtype, CSR_vtype, 0)
#define RISCV_TRIGGER(X, n) X(tdata1_##n, tdata1[n], NO_CSR, 1) X(tdata2_##n, tdata2[n], NO_CSR, 1)
#define RISCV_PMPADDR(X, n) X(pmpaddr##n, pmpaddr[n], CSR_pmpaddr0 + n, 1)

/* CSRs that are a view of the state: X(name). */
#define RISCV_VIEWS(X)                                                                                       \
    X(fcsr) X(sstatus) X(sie) X(sip) X(misa) X(cycle) X(time) X(instret) X(mcycle) X(minstret)               \
    X(tdata1) X(tdata2)                                                                                      \
    X(mvendorid) X(marchid) X(mimpid) X(mhartid) X(mconfigptr) X(vcsr) X(vlenb)
/* clang-format on */

enum { /* of RISCV_STATE, from 0 */
#define X(name, field, csr, writable) STATE_##name,
       RISCV_STATE(X) RISCV_VECTOR_STATE(X)
#undef X
           N_STATE_FIELDS
};

enum { /* the numbers of registers; x0 has none */
       REG_PC = 0,
       REG_X = 0, /* x1 is 1 */
       REG_F = 32,
       REG_STATE = 64,
       REG_VECTOR_STATE = REG_STATE + STATE_vs_dirty,
       REG_V = REG_STATE + N_STATE_FIELDS,
       REG_VIEWS = REG_V + 32,
};

/* clang-format off */
static const RegInfo riscv_regs[] = {
#define R(name) {#name, 1},
    R(pc) R(x1) R(x2) R(x3) R(x4) R(x5) R(x6) R(x7)
    R(x8) R(x9) R(x10) R(x11) R(x12) R(x13) R(x14) R(x15)
    R(x16) R(x17) R(x18) R(x19) R(x20) R(x21) R(x22) R(x23)
    R(x24) R(x25) R(x26) R(x27) R(x28) R(x29) R(x30) R(x31)
    R(f0) R(f1) R(f2) R(f3) R(f4) R(f5) R(f6) R(f7)
    R(f8) R(f9) R(f10) R(f11) R(f12) R(f13) R(f14) R(f15)
    R(f16) R(f17) R(f18) R(f19) R(f20) R(f21) R(f22) R(f23)
    R(f24) R(f25) R(f26) R(f27) R(f28) R(f29) R(f30) R(f31)
#define X(name, field, csr, writable) {#name, writable},
    RISCV_STATE(X) RISCV_VECTOR_STATE(X)
#undef X
    R(v0) R(v1) R(v2) R(v3) R(v4) R(v5) R(v6) R(v7)
    R(v8) R(v9) R(v10) R(v11) R(v12) R(v13) R(v14) R(v15)
    R(v16) R(v17) R(v18) R(v19) R(v20) R(v21) R(v22) R(v23)
    R(v24) R(v25) R(v26) R(v27) R(v28) R(v29) R(v30) R(v31)
#undef R
#define X(name) {#name, CSR_##name >> 10 != 3}, /* SPEC: 2.1: the top bits 3 mean read-only */
    RISCV_VIEWS(X)
#undef X
};
/* clang-format on */
enum { N_REGS = sizeof(riscv_regs) / sizeof(riscv_regs[0]) };
_Static_assert((int)N_REGS > (int)REG_VIEWS, "64 registers stand before the state");

static const int16_t state_csr[] = {
#define X(name, field, csr, writable) (csr),
    RISCV_STATE(X) RISCV_VECTOR_STATE(X)
#undef X
};
static const int16_t view_csr[] = {
#define X(name) CSR_##name,
    RISCV_VIEWS(X)
#undef X
};
_Static_assert((size_t)N_REGS == REG_VIEWS + sizeof(view_csr) / sizeof(view_csr[0]), "the lists agree");

static uint64_t *state_field(Hart *h, uint32_t reg)
{
    GuestHart *g = h->g;
    if (reg == REG_PC)
        return &h->pc;
    if (reg < REG_STATE)
        return &h->slot[reg < REG_F ? SLOT_X + (reg - REG_X) : SLOT_F + (reg - REG_F)];
    switch (reg - REG_STATE) {
#define X(name, field, csr, writable)                                                                        \
    case STATE_##name:                                                                                       \
        return &g->field;
        RISCV_STATE(X) RISCV_VECTOR_STATE(X)
#undef X
    }
    return NULL;
}

static uint64_t riscv_get_state(Hart *h, uint32_t reg)
{
    const uint64_t *field = state_field(h, reg);
    return field ? *field : 0;
}

static void riscv_set_state(Hart *h, uint32_t reg, uint64_t value)
{
    uint64_t *field = state_field(h, reg);
    if (field)
        *field = value;
}

/* The CSR that a register is to a debugger, or NO_CSR. */
static int reg_csr(uint32_t reg)
{
    if (reg >= REG_VIEWS)
        return reg < N_REGS ? view_csr[reg - REG_VIEWS] : NO_CSR;
    return reg >= REG_STATE && reg < REG_V ? state_csr[reg - REG_STATE] : NO_CSR;
}

static uint32_t riscv_reg_bits(const Machine *m, uint32_t reg)
{
    const int csr = reg_csr(reg);
    if (reg >= REG_V && reg < REG_VIEWS)
        return m->feature[FEATURE_v] ? m->feature[FEATURE_vlen] : 0;
    if (reg >= REG_VECTOR_STATE && reg < REG_V)
        return m->feature[FEATURE_v] ? 64 : 0;
    return csr == NO_CSR || riscv_csr_exists(m, (uint32_t)csr) ? 64 : 0;
}

static uint64_t *riscv_wide_reg(Hart *h, uint32_t reg)
{
    GuestHart *g = h->g;
    return reg >= REG_V && reg < REG_VIEWS && g->vlenb ? &g->v[(reg - REG_V) * (g->vlenb / 8)] : NULL;
}

static uint64_t riscv_get_reg(Hart *h, uint32_t reg)
{
    const int csr = reg_csr(reg);
    const uint64_t *wide = riscv_wide_reg(h, reg);
    uint64_t value = 0;
    if (wide)
        return *wide;
    if (csr == NO_CSR)
        return riscv_get_state(h, reg);
    return riscv_csr_read_debug(h, (uint32_t)csr, &value) ? 0 : value;
}

static bool riscv_set_reg(Hart *h, uint32_t reg, uint64_t value)
{
    if (reg >= N_REGS || !riscv_regs[reg].writable || riscv_reg_bits(h->m, reg) != 64)
        return false;
    const int csr = reg_csr(reg);
    if (csr != NO_CSR)
        return riscv_csr_write_debug(h, (uint32_t)csr, value) == 0;
    if (reg == REG_PC && (value & 1))
        return false;
    if (reg == REG_STATE + STATE_priv && value != PRV_U && value != PRV_S && value != PRV_M)
        return false;
    riscv_set_state(h, reg, value);
    if (reg >= REG_STATE)
        riscv_state_loaded(h);
    return true;
}

static uint32_t riscv_tb_flags(Hart *h)
{
    /* By the context, in which blocks are looked up: NX may have come since it was chosen. */
    const uint64_t key = h->fctx->key;
    return (h->g->fs_off ? TBF_FS_OFF : 0) | (h->g->vs_off ? TBF_VS_OFF : 0) |
           (key >> FETCH_KEY_FP_PLAIN_BIT & 1 ? TBF_FP_PLAIN : 0) |
           (key >> FETCH_KEY_BARE_BIT & 1 ? TB_BARE_DATA : 0) |
           (key >> FETCH_KEY_OPEN_BIT & 1 ? TB_OPEN_RAM : 0);
}

static void riscv_init(Machine *m)
{
#define X(name, def, legal) m->feature[FEATURE_##name] = (def);
    RISCV_FEATURES(X)
#undef X
}

static bool riscv_set_feature(Machine *m, const char *feature, uint32_t value)
{
    bool known = false;
#define X(name, def, legal)                                                                                  \
    if (!strcmp(feature, #name) && (legal)) {                                                                \
        m->feature[FEATURE_##name] = value;                                                                  \
        known = true;                                                                                        \
    }
    RISCV_FEATURES(X)
#undef X
    for (uint32_t i = 0; i < m->n_harts; i++)
        riscv_state_loaded(m->hart[i]);
    return known;
}

static void riscv_turn_ended(Hart *h)
{
    h->g->reservation = ~0ull;
}

/* gdb's numbers: x0..x31, pc, f0..f31, then CSRs. SPEC: gdb, org.gnu.gdb.riscv.* */
static uint64_t riscv_debug_reg(Hart *h, uint32_t number)
{
    uint64_t value = 0;
    if (number < 32)
        return h->slot[SLOT_X + number];
    if (number == 32)
        return hart_insn_pc(h);
    if (number < 65)
        return h->slot[SLOT_F + number - 33];
    return riscv_csr_read_debug(h, number - 65, &value) ? 0 : value;
}

static void riscv_debug_context(Hart *h, uint8_t *priv, uint64_t *context, uint64_t args[8])
{
    *priv = (uint8_t)h->g->priv;
    /* Linux and its like keep the current task in tp while in the kernel, and then sscratch is 0; else in
     * sscratch. */
    *context = h->g->sscratch ? h->g->sscratch : h->slot[SLOT_X + 4];
    for (uint32_t i = 0; i < 8; i++)
        args[i] = h->slot[SLOT_X + 10 + i];
}

/* By how often the code of Debian's kernel and of the C library names them. */
static const uint8_t hot_slots[] = {
    15, 10, 14, 8, 2,  1, 11, 13, 12, 9,  18, 19, 20, 16, 21,
    22, 17, 23, 6, 24, 4, 25, 26, 27, 28, 29, 30, 31, 5,  7,
};

static const Helper riscv_helpers[] = {
#define X(name, flags) {#name, helper_##name, (flags)},
    RISCV_HELPERS(X)
#undef X
};

const GuestOps riscv64_guest = {
    .name = "riscv64",
    .helpers = riscv_helpers,
    .n_helpers = N_HELPERS,
    .hot_slots = hot_slots,
    .n_hot_slots = sizeof(hot_slots),
    .init = riscv_init,
    .set_feature = riscv_set_feature,
    .reset = riscv_reset,
    .tb_flags = riscv_tb_flags,
    .translate = riscv_translate,
    .insn_bytes = riscv_insn_bytes,
    .pending_irq = riscv_pending_irq,
    .take_irq = riscv_take_irq,
    .wakes = riscv_wakes,
    .timer_deadline = riscv_timer_deadline,
    .turn_ended = riscv_turn_ended,
    .data_key = riscv_data_key,
    .fetch_key = riscv_fetch_key,
    .walk = riscv_walk,
    .raise_mem = riscv_raise_mem,
    .access_fault = riscv_access_fault,
    .irq_line = riscv_irq_line,
    .watches_page = riscv_watches_page,
    .data_trigger = riscv_trigger_data,
    .regs = riscv_regs,
    .n_regs = N_REGS,
    .reg_bits = riscv_reg_bits,
    .get_reg = riscv_get_reg,
    .set_reg = riscv_set_reg,
    .n_state = REG_VIEWS,
    .get_state = riscv_get_state,
    .set_state = riscv_set_state,
    .wide_reg = riscv_wide_reg,
    .state_loaded = riscv_state_loaded,
    .debug_reg = riscv_debug_reg,
    .debug_context = riscv_debug_context,
    .disasm = riscv_disasm,
};

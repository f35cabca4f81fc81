/* x86_fp.c: floating-point helpers put as SSE2 and FMA instructions into the block.
 *
 * The host's result is taken where it cannot differ from the helper's: round to nearest even, operands boxed,
 * and the result a normal number well away from underflow. Then no flag but "inexact" can be raised and no
 * NaN is involved. All else is the helper's, out of line. Once fflags.NX is set nothing more can change;
 * until then MXCSR tells. A block of TBF_FP_PLAIN asks neither for the flag nor for the rounding mode.
 * host_enter() sees to it that MXCSR is at its default. This file and x86_amo.c know a guest: its
 * helpers by their names, see helpers.h. SPEC: unprivileged, chapters 11 and 12
 */
#include "../core/brief.h" /* writes each block once */

#include "x86_fp.h"

#if defined(__x86_64__)

#include "../guest/riscv/cpu.h"
#include "../guest/riscv/riscv.h"

enum { RM_RTZ = 1, RM_DYN = 7, MXCSR_PE_BIT = 5, MXCSR_UNUSUAL = 0x1d };

/* FP_CMP compares b to a but for equality. 0fba /6 clears a bit, /7 flips it. */
#define FP_INLINES(f)                                                                                        \
    {"fadd_" f, FP_BIN, f[0], f[0], 0x0f58}, {"fsub_" f, FP_BIN, f[0], f[0], 0x0f5c},                        \
        {"fmul_" f, FP_BIN, f[0], f[0], 0x0f59}, {"fdiv_" f, FP_BIN, f[0], f[0], 0x0f5e},                    \
        {"fsqrt_" f, FP_UN, f[0], f[0], 0x0f51}, {"fmadd_" f, FP_FMA, f[0], f[0], 0xa9},                     \
        {"fmsub_" f, FP_FMA, f[0], f[0], 0xab}, {"fnmsub_" f, FP_FMA, f[0], f[0], 0xad},                     \
        {"fnmadd_" f, FP_FMA, f[0], f[0], 0xaf}, {"feq_" f, FP_CMP, f[0], 'l', CC_E},                        \
        {"flt_" f, FP_CMP, f[0], 'l', CC_A}, {"fle_" f, FP_CMP, f[0], 'l', CC_AE},                           \
        {"fsgnj_" f, FP_SIGN, f[0], f[0], 0}, {"fsgnjn_" f, FP_SIGN, f[0], f[0], 7},                         \
        {"fsgnjx_" f, FP_SIGN, f[0], f[0], 6}, {"fcvt_w_" f, FP_TO_INT, f[0], 'w', 0x0f2c},                  \
        {"fcvt_l_" f, FP_TO_INT, f[0], 'l', 0x0f2c}
static const FpInline inlines[] = {
    {"", FP_NONE, 0, 0, 0},
    FP_INLINES("s"),
    FP_INLINES("d"),
    {"fcvt_s_d", FP_UN, 'd', 's', 0x0f5a},
    {"fcvt_d_s", FP_UN, 's', 'd', 0x0f5a},
    {"fcvt_d_w", FP_FROM_INT, 'w', 'd', 0x0f2a},
    {"fcvt_d_wu", FP_FROM_INT, 'u', 'd', 0x0f2a},
};

void fp_init(CodeBuf *cb)
{
    const GuestOps *guest = cb->m->guest;
    for (uint32_t i = 0; i < guest->n_helpers; i++) {
        cb->fp[i] = 0;
        for (uint8_t j = 1; j < sizeof inlines / sizeof *inlines; j++)
            if (!strcmp(guest->helpers[i].name, inlines[j].name) &&
                (inlines[j].kind != FP_FMA || cb->has_fma))
                cb->fp[i] = j;
    }
}

/* The rounding mode where it is a constant, or -1. */
static int64_t known_mode(const Gen *g, const IrOp *op, const FpInline *f)
{
    if (f->kind != FP_FMA)
        return op->c == IR_CONST ? op->imm : -1;
    const IrOp *before = op - 1; /* the front end stores the mode right before */
    if (op == g->tb->ops || before->op != IR_STENV || before->off != HART_GUEST_OFF(rm) ||
        before->b != IR_CONST)
        return -1;
    return before->imm;
}

static bool is_for_helper(const IrOp *op)
{
    return op->op == IR_STENV && op->b == IR_CONST &&
           (op->off == HART_GUEST_OFF(rm) || op->off == HART_GUEST_OFF(rm_insn));
}

bool fp_defers(const Gen *g, const IrOp *op)
{
    const IrOp *end = g->tb->ops + g->tb->n_ops, *call = op;
    if (!g->m->sw.inline_fp)
        return false;
    while (call < end && is_for_helper(call))
        call++;
    return call > op && call < end && call->op == IR_CALL && g->cb->fp[call->off];
}

/* Fields that only the helper of this call reads: stored when it is called. */
static void store_deferred(Gen *g, const IrOp *op)
{
    while (op > g->tb->ops && fp_defers(g, op - 1))
        gen_store_env_now(g, --op);
}

static bool operands_fit(const Gen *g, const IrOp *op, const FpInline *f)
{
    const uint16_t ref[] = {op->a, op->b, op->c};
    const unsigned n = f->kind == FP_FMA ? 3 : f->kind == FP_UN || f->kind == FP_TO_INT ? 1 : 2;
    if (op->d == IR_NONE || op->a == IR_CONST)
        return false;
    if (f->kind == FP_FROM_INT)
        return op->c == IR_CONST;
    for (unsigned i = 0; i < n; i++)
        if (ref[i] >= IR_SLOTS || gen_slot(g, ref[i]).kind != O_MEM)
            return false;
    if (f->kind == FP_SIGN)
        return op->a == op->b;
    if (f->kind == FP_CMP)
        return true;
    const int64_t rm = known_mode(g, op, f);
    return f->kind == FP_TO_INT ? rm == RM_RTZ : rm == 0 || rm == RM_DYN;
}

bool fp_reads_xmm(const Gen *g, const IrOp *op)
{
    const FpKind kind = op->op == IR_CALL && g->m->sw.inline_fp ? inlines[g->cb->fp[op->off]].kind : FP_NONE;
    return kind == FP_BIN || kind == FP_FMA || kind == FP_UN || kind == FP_CMP || kind == FP_TO_INT;
}

/* Does the block hold only while rounding is to nearest and "inexact" is accrued? */
static bool is_plain(const Gen *g)
{
    return g->tb->flags & TBF_FP_PLAIN;
}

static void check_mode(Gen *g, int64_t rm)
{
    if (rm != RM_DYN || is_plain(g))
        return;
    em_alu_oi(g->a, EM_W, X_CMP, opnd_env((size_t)HART_GUEST_OFF(frm)), 0);
    gen_slow_if(g, CC_NE);
}

static void check_boxes(Gen *g, const IrOp *op, const FpInline *f)
{
    const uint16_t ref[] = {op->a, op->b, op->c};
    const unsigned n = f->kind == FP_FMA ? 3 : f->kind == FP_BIN || f->kind == FP_CMP ? 2 : 1;
    if (f->from != 's')
        return;
    for (unsigned i = 0; i < n; i++) {
        Opnd o = gen_slot(g, ref[i]);
        o.disp += 4;
        em_alu_oi(g->a, 0, X_CMP, o, -1);
        gen_slow_if(g, CC_NE);
    }
}

/* A result has to be normal, and at least twice the least such number. The sign is out and the exponent on
 * top, one up: others are below 3. A single in xmm0 goes to rax, boxed. */
static void check_result(Gen *g, const FpInline *f, unsigned xmm)
{
    Asm *a = g->a;
    const bool d = f->to == 'd';
    const unsigned reg = d ? RAX : RCX, exp_at = d ? 21 : 24;
    em_rm(a, EM_66 | (d ? EM_W : 0u), 0x0f7e, xmm, opnd_reg(RAX));
    if (d)
        em_shift_i(a, EM_W, X_SHR, RAX, 31);
    else
        em_lea(a, 0, RCX, opnd_idx(RAX, RAX, 0));
    em_alu_oi(a, 0, X_ADD, opnd_reg(reg), 1 << exp_at);
    em_alu_oi(a, 0, X_CMP, opnd_reg(reg), 3 << exp_at);
    gen_slow_if(g, CC_B);
    if (!d) {
        em_mov_ri(a, RCX, (int64_t)0xffffffff00000000);
        em_alu_ro(a, EM_W, X_OR, RAX, opnd_reg(RCX));
    }
}

/* As long as the flag is not set, inexact results must be noticed. Keeps rax. */
static void check_inexact(Gen *g, const IrOp *op)
{
    if (is_plain(g))
        return;
    em_rm(g->a, 0, 0xf6, 0, opnd_env((size_t)HART_GUEST_OFF(fflags)));
    em_8(g->a, FFLAGS_NX);
    gen_stub(g, STUB_FP_INEXACT, op, em_jcc32(g->a, CC_E));
}

static void gen_compare_fp(Gen *g, const IrOp *op, const FpInline *f)
{
    const bool swapped = f->code != CC_E;
    const unsigned first = fp_in_reg(g, XMM0, f->from, swapped ? op->b : op->a);
    em_rm(g->a, f->from == 'd' ? EM_66 : 0, 0x0f2e, first, fp_opnd(g, swapped ? op->a : op->b));
    gen_slow_if(g, CC_P);
    em_rm(g->a, EM_BM, 0x0f90 | f->code, 0, opnd_reg(RAX));
    em_rm(g->a, EM_BM, 0x0fb6, RAX, opnd_reg(RAX));
}

bool gen_fp(Gen *g, const IrOp *op)
{
    const FpInline *f = &inlines[g->cb->fp[op->off]];
    if (f->kind == FP_NONE || !g->m->sw.inline_fp || !operands_fit(g, op, f)) {
        store_deferred(g, op);
        return false;
    }
    g->slow = NULL;
    if (f->kind != FP_CMP && f->kind != FP_SIGN)
        check_mode(g, known_mode(g, op, f));
    check_boxes(g, op, f);
    switch ((FpKind)f->kind) {
    case FP_CMP:
        gen_compare_fp(g, op, f);
        break;
    case FP_SIGN:
        fp_emit_sign(g, op, f);
        break;
    case FP_FROM_INT:
        fp_emit_from_int(g, op, f);
        break;
    case FP_TO_INT: /* what does not fit gives the least integer */
        fp_emit_core(g, op, f);
        em_alu_oi(g->a, f->to == 'l' ? EM_W : 0, X_CMP, opnd_reg(RAX), 1);
        gen_slow_if(g, CC_O);
        if (f->to == 'w')
            em_rm(g->a, EM_W, 0x63, RAX, opnd_reg(RAX));
        check_inexact(g, op);
        break;
    default:
        fp_emit_core(g, op, f);
        check_result(g, f, fp_target(g, op, f));
        if (f->from == f->to || f->to == 's')
            check_inexact(g, op);
        break;
    }
    fp_result(g, op, fp_gives_double(f), fp_target(g, op, f));
    if (g->slow)
        gen_stub(g, STUB_FP_SLOW, op, g->slow);
    return true;
}

static void load_mxcsr(Gen *g)
{
    em_8(g->a, 0x0f); /* ldmxcsr [rip + …] */
    em_8(g->a, 0xae);
    em_8(g->a, 0x15);
    em_rel32(g->a, g->cb->mxcsr);
}

/* fflags.NX from the MXCSR at [rsp - 8]. Changes rcx. */
static void accrue_inexact(Gen *g)
{
    em_rm(g->a, 0, 0x8b, RCX, opnd_mem(RSP, -8));
    em_shift_i(g->a, 0, X_SHR, RCX, MXCSR_PE_BIT);
    em_alu_oi(g->a, 0, X_AND, opnd_reg(RCX), FFLAGS_NX);
    em_alu_or(g->a, EM_W, X_OR, opnd_env((size_t)HART_GUEST_OFF(fflags)), RCX);
}

/* The copies of an op's operands, out of line: the jump here may have come before they were loaded, and the
 * result may have taken a register of theirs. The slots still have their values. */
static void reload_operands(Gen *g, const IrOp *op)
{
    const uint16_t ref[] = {op->a, op->b, op->c};
    for (unsigned i = 0; i < 3; i++)
        if (ref[i] < IR_GLOBALS && g->xmm_used & UINT64_C(1) << ref[i]) {
            fp_reload(g, UINT64_C(1) << ref[i]);
            g->xmm |= UINT64_C(1) << ref[i];
        }
}

void stub_fp_inexact(Gen *g, const Stub *s)
{
    em_bind32(g->a, s->at);
    em_mov_ro(g->a, RDX, opnd_reg(RAX));
    reload_operands(g, s->op);
    load_mxcsr(g);
    fp_emit_core(g, s->op, &inlines[g->cb->fp[s->op->off]]);
    em_rm(g->a, 0, 0x0fae, 3, opnd_mem(RSP, -8));
    accrue_inexact(g);
    em_mov_ro(g->a, RAX, opnd_reg(RDX));
    em_jmp(g->a, s->back);
}

/* Zeros and subnormal numbers between doubles: the host's flags tell whether its result is the guest's. */
static void second_try(Gen *g, const Stub *s)
{
    const IrOp *op = s->op;
    const FpInline *f = &inlines[g->cb->fp[op->off]];
    const unsigned t = fp_target(g, op, f);
    if (f->from != 'd' || !fp_gives_double(f))
        return;
    em_alu_oi(g->a, EM_W, X_CMP, opnd_env((size_t)HART_GUEST_OFF(frm)), 0);
    uint8_t *other_mode = em_jcc32(g->a, CC_NE);
    reload_operands(g, op);
    load_mxcsr(g);
    fp_emit_core(g, op, f);
    em_rm(g->a, 0, 0x0fae, 3, opnd_mem(RSP, -8));
    em_rm(g->a, 0, 0xf6, 0, opnd_mem(RSP, -8));
    em_8(g->a, MXCSR_UNUSUAL);
    uint8_t *unusual = em_jcc32(g->a, CC_NE);
    em_rm(g->a, EM_66, 0x0f2e, t, opnd_reg(t));
    uint8_t *nan = em_jcc32(g->a, CC_P);
    accrue_inexact(g);
    fp_result(g, op, true, t);
    em_jmp(g->a, s->back);
    em_bind32(g->a, other_mode);
    em_bind32(g->a, unusual);
    em_bind32(g->a, nan);
}

void stub_fp_slow(Gen *g, const Stub *s)
{
    gen_slow_here(g, s->at);
    second_try(g, s);
    store_deferred(g, s->op);
    gen_call_helper(g, s->op);
    fp_reload(g, g->xmm);
    em_jmp(g->a, s->back);
}

#endif

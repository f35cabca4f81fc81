/* x86_fp.c: floating-point helpers put as SSE2 and FMA instructions into the block.
 *
 * The host's result is taken where it cannot differ from the helper's: round to nearest even, operands boxed,
 * and the result a normal number well away from underflow. Then no flag but "inexact" can be raised and no
 * NaN is involved. All else is the helper's, out of line. Once fflags.NX is set nothing more can change;
 * until then MXCSR tells. host_enter() sees to it that MXCSR is at its default. This is the one file of the
 * back end that knows a guest: its helpers are known by their names, see helpers.h. SPEC: unprivileged,
 * chapters 11 and 12
 */
#include "x86.h"

#if defined(__x86_64__)

#include "../guest/riscv/cpu.h"

enum { XMM0, XMM1, FIRST_COPY = 2, N_XMM = 16 };
enum { RM_RTZ = 1, RM_DYN = 7, FFLAGS_NX = 1, MXCSR_PE_BIT = 5, MXCSR_UNUSUAL = 0x1d };

typedef enum { FP_NONE, FP_BIN, FP_FMA, FP_UN, FP_CMP, FP_SIGN, FP_TO_INT, FP_FROM_INT } FpKind;
typedef struct {
    const char *name;
    uint8_t kind;
    uint8_t from, to; /* 's', 'd', or 'w' and 'l': integers of 32 and 64 bits, 'u': unsigned of 32 */
    uint16_t code;    /* opcode, condition (FP_CMP), or bit operation (FP_SIGN; 0: none) */
} FpInline;

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

static unsigned scalar(unsigned format)
{
    return format == 'd' ? EM_F2 : EM_F3;
}

/* A condition under which the helper has to do it. The jumps are linked through their displacements. */
static void slow_if(Gen *g, unsigned cc)
{
    uint8_t *at = em_jcc32(g->a, cc);
    uint32_t link = g->fp_slow ? (uint32_t)(at - g->fp_slow) : 0;
    memcpy(at, &link, 4);
    g->fp_slow = at;
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

/* ---- copies of slots ---- */

static bool reads_xmm(const Gen *g, const IrOp *op)
{
    const FpKind kind = op->op == IR_CALL && g->m->sw.inline_fp ? inlines[g->cb->fp[op->off]].kind : FP_NONE;
    return kind == FP_BIN || kind == FP_FMA || kind == FP_UN || kind == FP_CMP || kind == FP_TO_INT;
}

void fp_assign(Gen *g)
{
    uint16_t uses[IR_GLOBALS] = {0};
    memset(g->xmm_of, 0, sizeof g->xmm_of);
    g->xmm_used = g->xmm = 0;
    for (unsigned i = 0; i < g->tb->n_ops; i++) {
        const IrOp *op = &g->tb->ops[i];
        const uint16_t ref[] = {op->a, op->b, op->c};
        for (unsigned j = 0; j < 3 && reads_xmm(g, op); j++)
            if (ref[j] < IR_GLOBALS && g->reg_of[ref[j]] < 0)
                uses[ref[j]]++;
    }
    for (unsigned reg = FIRST_COPY; reg < N_XMM && g->m->sw.fp_copies; reg++) {
        unsigned most = 0;
        for (unsigned slot = 1; slot < IR_GLOBALS; slot++)
            if (uses[slot] > uses[most])
                most = slot;
        if (!uses[most])
            break;
        uses[most] = 0;
        g->xmm_of[most] = (uint8_t)reg;
        g->xmm_used |= UINT64_C(1) << most;
    }
    if (g->loops) /* else each is loaded where it is first used */
        g->xmm = g->xmm_used;
}

void fp_reload(Gen *g, uint64_t slots)
{
    for (; slots; slots &= slots - 1) {
        const unsigned slot = (unsigned)__builtin_ctzll(slots);
        em_rm(g->a, EM_F2, 0x0f10, g->xmm_of[slot], opnd_slot_mem(slot));
    }
}

void fp_after_op(Gen *g, const IrOp *op)
{
    const uint64_t d = (ir_op_flags(op->op) & IRF_DEF) && op->d < IR_GLOBALS ? UINT64_C(1) << op->d : 0;
    const uint64_t lost = g->called ? g->xmm_used : g->copied ? 0 : d & g->xmm_used;
    if (g->loops)
        fp_reload(g, lost);
    else
        g->xmm &= ~lost;
}

/* Where an operation finds slot's value. */
static Opnd fp_opnd(Gen *g, unsigned slot)
{
    const uint64_t bit = UINT64_C(1) << (slot % 64);
    if (slot >= IR_GLOBALS || !(g->xmm_used & bit))
        return gen_slot(g, slot);
    if (!(g->xmm & bit))
        fp_reload(g, bit);
    g->xmm |= bit;
    return opnd_reg(g->xmm_of[slot]);
}

/* xmm = slot's value */
static void fp_get(Gen *g, unsigned xmm, unsigned format, unsigned slot)
{
    const Opnd from = fp_opnd(g, slot);
    em_rm(g->a, from.kind == O_REG ? 0 : scalar(format), from.kind == O_REG ? 0x0f28 : 0x0f10, xmm, from);
}

static void check_mode(Gen *g, int64_t rm)
{
    if (rm != RM_DYN)
        return;
    em_alu_oi(g->a, EM_W, X_CMP, opnd_env((size_t)HART_GUEST_OFF(frm)), 0);
    slow_if(g, CC_NE);
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
        slow_if(g, CC_NE);
    }
}

/* The operation alone. The result is left in xmm0, or in rax if it is an integer. */
static void emit_core(Gen *g, const IrOp *op, const FpInline *f)
{
    const unsigned s = scalar(f->from);
    Opnd b;
    switch ((FpKind)f->kind) {
    case FP_BIN:
        fp_get(g, XMM0, f->from, op->a);
        em_rm(g->a, s, f->code, XMM0, fp_opnd(g, op->b));
        break;
    case FP_FMA:
        b = fp_opnd(g, op->b);
        fp_get(g, XMM0, f->from, op->a);
        if (b.kind != O_REG)
            fp_get(g, XMM1, f->from, op->b);
        em_vex(g->a, 1, 2, f->from == 'd', f->code, XMM0, b.kind == O_REG ? b.reg : XMM1, fp_opnd(g, op->c));
        break;
    case FP_UN:
        em_rm(g->a, 0, 0x0f57, XMM0, opnd_reg(XMM0)); /* xorps: no wait for what was in xmm0 */
        em_rm(g->a, s, f->code, XMM0, fp_opnd(g, op->a));
        break;
    case FP_TO_INT:
        em_rm(g->a, s | (f->to == 'l' ? EM_W : 0u), f->code, RAX, fp_opnd(g, op->a));
        break;
    default:
        break;
    }
}

/* A result in xmm0 goes to rax, a single boxed, if it is normal and at least twice the least such number. */
static void take_result(Gen *g, const FpInline *f)
{
    Asm *a = g->a;
    const bool d = f->to == 'd';
    em_rm(a, EM_66 | (d ? EM_W : 0u), 0x0f7e, XMM0, opnd_reg(RAX));
    em_lea(a, d ? EM_W : 0, RCX, opnd_idx(RAX, RAX, 0)); /* the sign is out, the exponent on top */
    if (d) {
        em_alu_rip(a, X_SUB, RCX, g->cb->fp_least);
        em_alu_rip(a, X_CMP, RCX, g->cb->fp_range);
    } else {
        em_alu_oi(a, 0, X_SUB, opnd_reg(RCX), 2 << 24);
        em_alu_oi(a, 0, X_CMP, opnd_reg(RCX), (int32_t)0xfd000000);
    }
    slow_if(g, CC_AE);
    if (!d) {
        em_mov_ri(a, RCX, (int64_t)0xffffffff00000000);
        em_alu_ro(a, EM_W, X_OR, RAX, opnd_reg(RCX));
    }
}

/* As long as the flag is not set, inexact results must be noticed. Keeps rax. */
static void check_inexact(Gen *g, const IrOp *op)
{
    em_rm(g->a, 0, 0xf6, 0, opnd_env((size_t)HART_GUEST_OFF(fflags)));
    em_8(g->a, FFLAGS_NX);
    gen_stub(g, STUB_FP_INEXACT, op, em_jcc32(g->a, CC_E));
}

static void gen_compare_fp(Gen *g, const IrOp *op, const FpInline *f)
{
    const bool swapped = f->code != CC_E;
    fp_get(g, XMM0, f->from, swapped ? op->b : op->a);
    em_rm(g->a, f->from == 'd' ? EM_66 : 0, 0x0f2e, XMM0, fp_opnd(g, swapped ? op->a : op->b));
    slow_if(g, CC_P);
    em_rm(g->a, EM_BM, 0x0f90 | f->code, 0, opnd_reg(RAX));
    em_rm(g->a, EM_BM, 0x0fb6, RAX, opnd_reg(RAX));
}

static void gen_sign(Gen *g, const IrOp *op, const FpInline *f)
{
    em_mov_ro(g->a, RAX, gen_slot(g, op->a));
    if (!f->code)
        return;
    em_rm(g->a, EM_W, 0x0fba, f->code, opnd_reg(RAX));
    em_8(g->a, f->from == 'd' ? 63 : 31);
}

static void gen_from_int(Gen *g, const IrOp *op, const FpInline *f)
{
    em_mov32_ro(g->a, RAX, gen_slot(g, op->a));
    em_rm(g->a, 0, 0x0f57, XMM0, opnd_reg(XMM0));
    em_rm(g->a, EM_F2 | (f->from == 'u' ? EM_W : 0u), f->code, XMM0, opnd_reg(RAX));
    em_rm(g->a, EM_66 | EM_W, 0x0f7e, XMM0, opnd_reg(RAX));
}

/* The result, in rax and (doubles) in xmm0, goes to its slot and to the slot's copy. */
static void fp_result(Gen *g, const IrOp *op, bool in_xmm0)
{
    em_mov_or(g->a, gen_slot(g, op->d), RAX);
    if (op->d >= IR_GLOBALS || !g->xmm_of[op->d])
        return;
    if (in_xmm0)
        em_rm(g->a, 0, 0x0f28, g->xmm_of[op->d], opnd_reg(XMM0));
    else
        em_rm(g->a, EM_66 | EM_W, 0x0f6e, g->xmm_of[op->d], opnd_reg(RAX));
    g->xmm |= UINT64_C(1) << op->d;
    g->copied = true;
}

bool gen_fp(Gen *g, const IrOp *op)
{
    const FpInline *f = &inlines[g->cb->fp[op->off]];
    if (f->kind == FP_NONE || !g->m->sw.inline_fp || !operands_fit(g, op, f)) {
        store_deferred(g, op);
        return false;
    }
    g->fp_slow = NULL;
    if (f->kind != FP_CMP && f->kind != FP_SIGN)
        check_mode(g, known_mode(g, op, f));
    check_boxes(g, op, f);
    switch ((FpKind)f->kind) {
    case FP_CMP:
        gen_compare_fp(g, op, f);
        break;
    case FP_SIGN:
        gen_sign(g, op, f);
        break;
    case FP_FROM_INT:
        gen_from_int(g, op, f);
        break;
    case FP_TO_INT: /* what does not fit gives the least integer */
        emit_core(g, op, f);
        em_alu_oi(g->a, f->to == 'l' ? EM_W : 0, X_CMP, opnd_reg(RAX), 1);
        slow_if(g, CC_O);
        if (f->to == 'w')
            em_rm(g->a, EM_W, 0x63, RAX, opnd_reg(RAX));
        check_inexact(g, op);
        break;
    default:
        emit_core(g, op, f);
        take_result(g, f);
        if (f->from == f->to || f->to == 's')
            check_inexact(g, op);
        break;
    }
    fp_result(g, op, f->to == 'd' && (f->kind == FP_BIN || f->kind == FP_FMA || f->kind == FP_UN));
    if (g->fp_slow)
        gen_stub(g, STUB_FP_SLOW, op, g->fp_slow);
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

void stub_fp_inexact(Gen *g, const Stub *s)
{
    em_bind32(g->a, s->at);
    em_mov_ro(g->a, RDX, opnd_reg(RAX));
    load_mxcsr(g);
    emit_core(g, s->op, &inlines[g->cb->fp[s->op->off]]);
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
    const bool has_result = f->kind == FP_BIN || f->kind == FP_FMA || f->kind == FP_UN;
    const uint16_t ref[] = {op->a, op->b, op->c};
    if (f->from != 'd' || f->to != 'd' || !has_result)
        return;
    em_alu_oi(g->a, EM_W, X_CMP, opnd_env((size_t)HART_GUEST_OFF(frm)), 0);
    uint8_t *other_mode = em_jcc32(g->a, CC_NE);
    for (unsigned i = 0; i < 3; i++) /* the jump here may have come before they were loaded */
        if (ref[i] < IR_GLOBALS)
            fp_reload(g, g->xmm_used & UINT64_C(1) << ref[i]);
    load_mxcsr(g);
    emit_core(g, op, f);
    em_rm(g->a, 0, 0x0fae, 3, opnd_mem(RSP, -8));
    em_rm(g->a, 0, 0xf6, 0, opnd_mem(RSP, -8));
    em_8(g->a, MXCSR_UNUSUAL);
    uint8_t *unusual = em_jcc32(g->a, CC_NE);
    em_rm(g->a, EM_66, 0x0f2e, XMM0, opnd_reg(XMM0));
    uint8_t *nan = em_jcc32(g->a, CC_P);
    accrue_inexact(g);
    em_rm(g->a, EM_66 | EM_W, 0x0f7e, XMM0, opnd_reg(RAX));
    fp_result(g, op, true);
    em_jmp(g->a, s->back);
    em_bind32(g->a, other_mode);
    em_bind32(g->a, unusual);
    em_bind32(g->a, nan);
}

void stub_fp_slow(Gen *g, const Stub *s)
{
    for (uint8_t *at = s->at;;) {
        uint32_t link;
        memcpy(&link, at, 4);
        em_bind32(g->a, at);
        if (!link)
            break;
        at -= link;
    }
    second_try(g, s);
    store_deferred(g, s->op);
    gen_call_helper(g, s->op);
    fp_reload(g, g->xmm);
    em_jmp(g->a, s->back);
}

#endif

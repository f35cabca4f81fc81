/* x86_fpops.c: the host's floating-point instructions, and where their operands and results are. */
#include "x86_fp.h"

#if defined(__x86_64__)

static unsigned scalar(unsigned format)
{
    return format == 'd' ? EM_F2 : EM_F3;
}

/* xmm = slot's value */
static void fp_get(Gen *g, unsigned xmm, unsigned format, unsigned slot)
{
    const Opnd from = fp_opnd(g, slot);
    if (from.kind == O_REG && from.reg == xmm)
        return;
    em_rm(g->a, from.kind == O_REG ? 0 : scalar(format), from.kind == O_REG ? 0x0f28 : 0x0f10, xmm, from);
}

unsigned fp_in_reg(Gen *g, unsigned xmm, unsigned format, unsigned slot)
{
    const Opnd from = fp_opnd(g, slot);
    if (from.kind == O_REG)
        return from.reg;
    fp_get(g, xmm, format, slot);
    return xmm;
}

unsigned fp_target(const Gen *g, const IrOp *op, const FpInline *f)
{
    const bool direct = f->to == 'd' && (f->kind == FP_FROM_INT || (f->kind == FP_BIN && g->cb->has_fma) ||
                                         f->kind == FP_FMA);
    return direct && op->d < IR_GLOBALS ? g->xmm_of[op->d] : XMM0;
}

/* t = ±a * b ± c by the form that needs no copies, or one. */
static void emit_fma(Gen *g, const IrOp *op, const FpInline *f, unsigned t)
{
    enum { FORM_213, FORM_231 = 0x10 }; /* t = t * x + y, t = x * y + t */
    const Opnd a = fp_opnd(g, op->a), b = fp_opnd(g, op->b), c = fp_opnd(g, op->c);
    unsigned form = FORM_213, x = op->b, y = op->c;
    if (t != XMM0 && opnd_is_reg(c, t)) {
        form = FORM_231, x = op->a, y = op->b;
    } else if (t != XMM0 && opnd_is_reg(b, t)) {
        x = op->a;
    } else if (!opnd_is_reg(a, t)) {
        fp_get(g, t, f->from, op->a);
    }
    const unsigned first = fp_in_reg(g, XMM1, f->from, x);
    em_vex(g->a, 1, 2, f->from == 'd', f->code + form, t, first, fp_opnd(g, y));
}

void fp_emit_core(Gen *g, const IrOp *op, const FpInline *f)
{
    const unsigned s = scalar(f->from), t = fp_target(g, op, f);
    unsigned a;
    switch ((FpKind)f->kind) {
    case FP_BIN:
        if (g->cb->has_fma) { /* and so AVX */
            a = fp_in_reg(g, XMM0, f->from, op->a);
            em_vex(g->a, f->from == 'd' ? 3 : 2, 1, 0, f->code & 0xff, t, a, fp_opnd(g, op->b));
            break;
        }
        fp_get(g, XMM0, f->from, op->a);
        em_rm(g->a, s, f->code, XMM0, fp_opnd(g, op->b));
        break;
    case FP_FMA:
        emit_fma(g, op, f, t);
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

void fp_emit_sign(Gen *g, const IrOp *op, const FpInline *f)
{
    const unsigned copy = fp_copy_of(g, op->a);
    if (copy) /* sooner there than in memory */
        em_rm(g->a, EM_66 | EM_W, 0x0f7e, copy, opnd_reg(RAX));
    else
        em_mov_ro(g->a, RAX, gen_slot(g, op->a));
    if (!f->code)
        return;
    em_rm(g->a, EM_W, 0x0fba, f->code, opnd_reg(RAX));
    em_8(g->a, f->from == 'd' ? 63 : 31);
}

void fp_emit_from_int(Gen *g, const IrOp *op, const FpInline *f)
{
    const unsigned t = fp_target(g, op, f);
    em_mov32_ro(g->a, RAX, gen_slot(g, op->a));
    em_rm(g->a, 0, 0x0f57, t, opnd_reg(t));
    em_rm(g->a, EM_F2 | (f->from == 'u' ? EM_W : 0u), f->code, t, opnd_reg(RAX));
}

void fp_result(Gen *g, const IrOp *op, bool in_xmm, unsigned xmm)
{
    const unsigned copy = op->d < IR_GLOBALS ? g->xmm_of[op->d] : 0;
    const Opnd d = gen_slot(g, op->d);
    if (!in_xmm)
        em_mov_or(g->a, d, RAX);
    else if (d.kind == O_REG)
        em_rm(g->a, EM_66 | EM_W, 0x0f7e, xmm, d);
    else
        em_rm(g->a, EM_F2, 0x0f11, xmm, d);
    if (!copy)
        return;
    if (!in_xmm)
        em_rm(g->a, EM_66 | EM_W, 0x0f6e, copy, opnd_reg(RAX));
    else if (copy != xmm)
        em_rm(g->a, 0, 0x0f28, copy, opnd_reg(xmm));
    g->xmm |= UINT64_C(1) << op->d;
    g->copied = true;
}

bool fp_gives_double(const FpInline *f)
{
    return f->to == 'd' &&
           (f->kind == FP_BIN || f->kind == FP_FMA || f->kind == FP_UN || f->kind == FP_FROM_INT);
}

#endif

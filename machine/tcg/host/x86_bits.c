/* x86_bits.c: rotations, counts of bits, order of bytes. Uses rax and rcx. */
#include "x86.h"

#if defined(__x86_64__)

static void rotate_const(Gen *g, Opnd d, Opnd a, unsigned n, unsigned w)
{
    const unsigned r = d.kind == O_REG ? d.reg : RAX;
    if (g->cb->has_bmi2 && a.kind != O_IMM && !opnd_is_reg(a, r)) {
        em_vex(g->a, 3, 3, w ? 1 : 0, 0xf0, r, 0, a); /* rorx */
        em_8(g->a, n);
        return;
    }
    if (w)
        em_mov_ro(g->a, r, a);
    else if (!opnd_is_reg(a, r))
        em_mov32_ro(g->a, r, a);
    em_shift_i(g->a, w, X_ROR, r, n);
}

void gen_rotate(Gen *g, const IrOp *op, bool is32)
{
    Opnd d = gen_slot(g, op->d), a = gen_opnd(g, op, op->a), b = gen_opnd(g, op, op->b);
    const unsigned w = is32 ? 0 : EM_W, r = d.kind == O_REG ? d.reg : RAX;
    if (b.kind == O_IMM) {
        rotate_const(g, d, a, (unsigned)b.imm & (is32 ? 31 : 63), w);
    } else {
        em_rm(g->a, 0, 0x8b, RCX, b);
        if (w)
            em_mov_ro(g->a, r, a);
        else if (!opnd_is_reg(a, r))
            em_mov32_ro(g->a, r, a);
        em_rm(g->a, w, 0xd3, X_ROR, opnd_reg(r));
    }
    if (is32 && !(op->flags & IR_LOW_ONLY))
        gen_store_sext32(g, d, opnd_reg(r));
    else
        em_mov_or(g->a, d, r);
}

/* Zeros before (behind) the first one; `bits` if there is none. */
void gen_count_zeros(Gen *g, const IrOp *op, bool leading, unsigned bits)
{
    Opnd d = gen_slot(g, op->d), a = gen_in_reg_or_mem(g, gen_opnd(g, op, op->a), RAX);
    const unsigned w = bits == 64 ? EM_W : 0, r = d.kind == O_REG ? d.reg : RAX;
    if (g->cb->has_lzcnt) {
        em_rm(g->a, EM_F3 | w, leading ? 0x0fbd : 0x0fbc, r, a);
    } else { /* bsr (bsf) leaves a register undefined if there is none */
        em_rm(g->a, w, leading ? 0x0fbd : 0x0fbc, RAX, a);
        em_mov_ri_keep(g->a, RCX, leading ? 2 * bits - 1 : bits);
        em_rm(g->a, EM_W, 0x0f40 | CC_E, RAX, opnd_reg(RCX));
        if (leading)
            em_alu_oi(g->a, 0, X_XOR, opnd_reg(RAX), (int32_t)bits - 1);
        em_mov_ro(g->a, r, opnd_reg(RAX));
    }
    em_mov_or(g->a, d, r);
}

void gen_count_ones(Gen *g, const IrOp *op, unsigned bits)
{
    Opnd d = gen_slot(g, op->d), a = gen_in_reg_or_mem(g, gen_opnd(g, op, op->a), RAX);
    const unsigned r = d.kind == O_REG ? d.reg : RAX;
    em_rm(g->a, EM_F3 | (bits == 64 ? EM_W : 0u), 0x0fb8, r, a);
    em_mov_or(g->a, d, r);
}

void gen_bswap(Gen *g, const IrOp *op)
{
    Opnd d = gen_slot(g, op->d);
    const unsigned r = d.kind == O_REG ? d.reg : RAX;
    em_mov_ro(g->a, r, gen_opnd(g, op, op->a));
    em_8(g->a, 0x48 | (r & 8 ? 1u : 0));
    em_8(g->a, 0x0f);
    em_8(g->a, 0xc8 | (r & 7));
    em_mov_or(g->a, d, r);
}

#endif

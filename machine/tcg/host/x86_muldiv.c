/* x86_muldiv.c: products and quotients. Uses rax, rcx and rdx. */
#include "x86.h"

#if defined(__x86_64__)

void gen_mul(Gen *g, const IrOp *op, bool is32)
{
    Opnd d = gen_slot(g, op->d), a = gen_opnd(g, op, op->a), b = gen_opnd(g, op, op->b);
    unsigned w = is32 ? 0 : EM_W;
    if (a.kind == O_IMM || (opnd_same(d, b) && b.kind == O_REG))
        opnd_swap(&a, &b);
    a = gen_in_reg_or_mem(g, a, RCX);
    if (b.kind == O_IMM && is32)
        b.imm = (int32_t)b.imm;
    unsigned r = gen_target_reg(d, b);
    if (b.kind == O_IMM && fits_s32(b.imm)) {
        em_rm(g->a, w, fits_s8(b.imm) ? 0x6b : 0x69, r, a);
        if (fits_s8(b.imm))
            em_8(g->a, (unsigned)b.imm);
        else
            em_32(g->a, (uint32_t)b.imm);
    } else if (b.kind == O_IMM) {
        em_mov_ri(g->a, RAX, b.imm);
        em_rm(g->a, w, 0x0faf, RAX, a);
        r = RAX;
    } else {
        em_mov_ro(g->a, r, a);
        em_rm(g->a, w, 0x0faf, r, b);
    }
    if (is32)
        gen_store_sext32(g, d, opnd_reg(r));
    else
        em_mov_or(g->a, d, r);
}

void gen_mul_high(Gen *g, const IrOp *op)
{
    Opnd d = gen_slot(g, op->d), a = gen_opnd(g, op, op->a);
    Opnd b = gen_in_reg_or_mem(g, gen_opnd(g, op, op->b), RCX);
    em_mov_ro(g->a, RAX, a);
    em_rm(g->a, EM_W, 0xf7, op->op == IR_MULHS ? 5 : 4, b);
    if (op->op == IR_MULHSU) { /* a < 0: the unsigned product counted b << 64 too much */
        em_mov_ro(g->a, RAX, a);
        em_shift_i(g->a, EM_W, X_SAR, RAX, 63);
        em_alu_ro(g->a, EM_W, X_AND, RAX, b);
        em_alu_ro(g->a, EM_W, X_SUB, RDX, opnd_reg(RAX));
    }
    em_mov_or(g->a, d, RDX);
}

void gen_div(Gen *g, const IrOp *op, bool is_signed, bool rem, bool is32)
{
    Asm *a = g->a;
    Opnd d = gen_slot(g, op->d);
    unsigned w = is32 ? 0 : EM_W;
    uint8_t *special, *zero, *done, *done2 = NULL;
    em_mov_ro(a, RCX, gen_opnd(g, op, op->b));
    em_mov_ro(a, RAX, gen_opnd(g, op, op->a));
    if (is_signed) { /* -1 overflows and 0 traps: both are special */
        em_lea(a, w, RDX, opnd_mem(RCX, 1));
        em_alu_oi(a, w, X_CMP, opnd_reg(RDX), 1);
        special = em_jcc8(a, CC_BE);
        if (w)
            em_8(a, 0x48);
        em_8(a, 0x99);
        em_rm(a, w, 0xf7, 7, opnd_reg(RCX));
    } else {
        em_rm(a, w, 0x85, RCX, opnd_reg(RCX));
        special = em_jcc8(a, CC_E);
        em_mov_ri(a, RDX, 0);
        em_rm(a, w, 0xf7, 6, opnd_reg(RCX));
    }
    if (rem)
        em_mov_ro(a, RAX, opnd_reg(RDX));
    done = em_jmp8(a);
    em_bind8(a, special);
    if (rem && is_signed) { /* b = 0: a; b = -1: 0 */
        em_rm(a, w, 0xf7, 2, opnd_reg(RCX));
        em_alu_ro(a, w, X_AND, RAX, opnd_reg(RCX));
    } else if (!rem) {
        if (is_signed) {
            em_rm(a, w, 0x85, RCX, opnd_reg(RCX));
            zero = em_jcc8(a, CC_E);
            em_rm(a, w, 0xf7, 3, opnd_reg(RAX));
            done2 = em_jmp8(a);
            em_bind8(a, zero);
        }
        em_alu_oi(a, EM_W, X_OR, opnd_reg(RAX), -1);
    }
    em_bind8(a, done);
    if (done2)
        em_bind8(a, done2);
    if (is32)
        gen_store_sext32(g, d, opnd_reg(RAX));
    else
        em_mov_or(a, d, RAX);
}

#endif

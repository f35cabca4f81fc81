/* x86_alu.c: arithmetic, logic, shifts, compares. Uses rax; shifts rcx too, products and quotients rdx too.
 */
#include "../core/brief.h" /* writes each block once */

#include "x86.h"

#if defined(__x86_64__)

/* d = d op b */
static void binop_in_place(Gen *g, unsigned n, Opnd d, Opnd b)
{
    if (b.kind == O_IMM) {
        em_alu_oi(g->a, EM_W, n, d, (int32_t)b.imm);
    } else if (d.kind == O_REG) {
        em_alu_ro(g->a, EM_W, n, d.reg, b);
    } else {
        unsigned r = b.kind == O_REG ? b.reg : RAX;
        em_mov_ro(g->a, r, b);
        em_alu_or(g->a, EM_W, n, d, r);
    }
    g->flags_of = d;
    g->flags_at = g->a->p;
}

/* d = a op constant that only a register holds; op commutes. */
static void binop_long_imm(Gen *g, unsigned n, Opnd d, Opnd a, int64_t imm)
{
    if (n == X_AND && (uint64_t)imm <= UINT32_MAX) {
        unsigned r = d.kind == O_REG ? d.reg : RAX;
        if ((uint64_t)imm == UINT32_MAX || !opnd_is_reg(a, r))
            em_mov32_ro(g->a, r, a);
        if ((uint64_t)imm != UINT32_MAX)
            em_alu_oi(g->a, 0, X_AND, opnd_reg(r), (int32_t)imm);
        em_mov_or(g->a, d, r);
        return;
    }
    unsigned r = gen_target_reg(d, a);
    em_mov_ri(g->a, r, imm);
    if (opnd_same(d, a)) {
        em_alu_or(g->a, EM_W, n, d, RAX);
        return;
    }
    em_alu_ro(g->a, EM_W, n, r, a);
    em_mov_or(g->a, d, r);
}

/* r = a + b, without more moves than needed. */
static void add_to(Gen *g, unsigned w, unsigned r, Opnd a, Opnd b)
{
    if (a.kind == O_REG && b.kind == O_REG) {
        em_lea(g->a, w, r, opnd_idx(a.reg, b.reg, 0));
    } else if (a.kind == O_REG && b.kind == O_IMM) {
        em_lea(g->a, w, r, opnd_mem(a.reg, (int32_t)b.imm));
    } else {
        if (w)
            em_mov_ro(g->a, r, a);
        else
            em_mov32_ro(g->a, r, a);
        em_alu_ro(g->a, w, X_ADD, r, b);
    }
}

static void gen_binop(Gen *g, const IrOp *op, unsigned n)
{
    Opnd d = gen_slot(g, op->d), a = gen_opnd(g, op, op->a), b = gen_opnd(g, op, op->b);
    if (n == X_SUB && b.kind == O_IMM) {
        n = X_ADD;
        b.imm = (int64_t)(0 - (uint64_t)b.imm);
    }
    if (n != X_SUB && (a.kind == O_IMM || (opnd_same(d, b) && !opnd_same(d, a))))
        opnd_swap(&a, &b);
    if (a.kind == O_IMM && b.kind == O_IMM)
        a = gen_in_reg_or_mem(g, a, RCX);
    if (b.kind == O_IMM && !fits_s32(b.imm)) {
        binop_long_imm(g, n, d, a, b.imm);
        return;
    }
    if (opnd_same(d, a)) {
        binop_in_place(g, n, d, b);
        return;
    }
    if (n == X_SUB && opnd_same(d, b) && d.kind == O_REG) {
        if (a.kind == O_IMM && !fits_s32(a.imm))
            a = gen_in_reg_or_mem(g, a, RAX);
        em_rm(g->a, EM_W, 0xf7, 3, d);
        em_alu_ro(g->a, EM_W, X_ADD, d.reg, a);
        return;
    }
    unsigned r = gen_target_reg(d, b);
    if (n == X_ADD) {
        add_to(g, EM_W, r, a, b);
    } else {
        em_mov_ro(g->a, r, a);
        em_alu_ro(g->a, EM_W, n, r, b);
    }
    em_mov_or(g->a, d, r);
}

static void gen_binop32(Gen *g, const IrOp *op, unsigned n)
{
    Opnd d = gen_slot(g, op->d), a = gen_opnd(g, op, op->a), b = gen_opnd(g, op, op->b);
    if (b.kind == O_IMM)
        b.imm = (int32_t)b.imm;
    if (n == X_SUB && b.kind == O_IMM) {
        n = X_ADD;
        b.imm = (int32_t)(0 - (uint32_t)b.imm);
    }
    if (n == X_ADD && a.kind == O_IMM) {
        opnd_swap(&a, &b);
        b.imm = (int32_t)b.imm;
    }
    if (n == X_ADD && b.kind == O_IMM && b.imm == 0 && a.kind != O_IMM) {
        gen_store_sext32(g, d, a);
        return;
    }
    if (opnd_same(d, a) && d.kind == O_REG) {
        em_alu_ro(g->a, 0, n, d.reg, b);
        gen_store_sext32(g, d, d);
        return;
    }
    if (n == X_ADD) {
        add_to(g, 0, RAX, a, b);
    } else {
        em_mov32_ro(g->a, RAX, a);
        em_alu_ro(g->a, 0, n, RAX, b);
    }
    gen_store_sext32(g, d, opnd_reg(RAX));
}

static void gen_shift_imm(Gen *g, unsigned n, Opnd d, Opnd a, unsigned count, bool is32)
{
    unsigned r = d.kind == O_REG ? d.reg : RAX;
    if (!is32) {
        if (n == X_SHL && count == 1 && a.kind == O_REG && !opnd_same(a, opnd_reg(r)))
            em_lea(g->a, EM_W, r, opnd_idx(a.reg, a.reg, 0));
        else {
            em_mov_ro(g->a, r, a);
            em_shift_i(g->a, EM_W, n, r, count);
        }
        em_mov_or(g->a, d, r);
        return;
    }
    if (n == X_SAR || count == 0) {
        em_rm(g->a, EM_W, 0x63, r, gen_in_reg_or_mem(g, a, RAX));
        em_shift_i(g->a, EM_W, X_SAR, r, count);
    } else {
        if (!opnd_is_reg(a, r))
            em_mov32_ro(g->a, r, a);
        em_shift_i(g->a, 0, n, r, count);
        if (n == X_SHL)
            em_rm(g->a, EM_W, 0x63, r, opnd_reg(r));
    }
    em_mov_or(g->a, d, r);
}

static void gen_shift(Gen *g, const IrOp *op, unsigned n, bool is32)
{
    static const uint8_t vex_pp[] = {[X_SHL] = 1, [X_SHR] = 3, [X_SAR] = 2};
    Opnd d = gen_slot(g, op->d), a = gen_opnd(g, op, op->a), b = gen_opnd(g, op, op->b);
    unsigned w = is32 ? 0 : EM_W, r;
    if (b.kind == O_IMM) {
        gen_shift_imm(g, n, d, a, (unsigned)b.imm & (is32 ? 31 : 63), is32);
        return;
    }
    if (g->cb->has_bmi2) {
        r = d.kind == O_REG ? d.reg : RAX;
        a = gen_in_reg_or_mem(g, a, RAX);
        if (b.kind != O_REG) {
            em_rm(g->a, 0, 0x8b, RCX, b);
            b = opnd_reg(RCX);
        }
        em_vex(g->a, vex_pp[n], 2, w ? 1 : 0, 0xf7, r, b.reg, a);
    } else {
        em_rm(g->a, 0, 0x8b, RCX, b);
        r = gen_target_reg(d, opnd_reg(RCX));
        if (!opnd_is_reg(a, r)) {
            if (is32)
                em_mov32_ro(g->a, r, a);
            else
                em_mov_ro(g->a, r, a);
        }
        em_rm(g->a, w, 0xd3, n, opnd_reg(r));
    }
    if (is32)
        gen_store_sext32(g, d, opnd_reg(r));
    else
        em_mov_or(g->a, d, r);
}

/* Narrowing: how to encode `op r, a`. */
static void gen_extend(Gen *g, const IrOp *op, unsigned flags, uint32_t opcode)
{
    Opnd d = gen_slot(g, op->d), a = gen_in_reg_or_mem(g, gen_opnd(g, op, op->a), RAX);
    unsigned r = d.kind == O_REG ? d.reg : RAX;
    em_rm(g->a, flags, opcode, r, a);
    em_mov_or(g->a, d, r);
}

static void gen_mov(Gen *g, const IrOp *op)
{
    Opnd d = gen_slot(g, op->d), a = gen_opnd(g, op, op->a);
    if (a.kind == O_IMM) {
        gen_store_imm(g, d, a.imm);
        return;
    }
    if (opnd_same(d, a))
        return;
    unsigned r = a.kind == O_REG ? a.reg : d.kind == O_REG ? d.reg : RAX;
    em_mov_ro(g->a, r, a);
    em_mov_or(g->a, d, r);
}

unsigned gen_compare(Gen *g, const IrOp *op)
{
    static const uint8_t straight[] = {[IR_EQ] = CC_E,  [IR_NE] = CC_NE, [IR_LT] = CC_L,
                                       [IR_GE] = CC_GE, [IR_LTU] = CC_B, [IR_GEU] = CC_AE};
    static const uint8_t swapped[] = {[IR_EQ] = CC_E,  [IR_NE] = CC_NE, [IR_LT] = CC_G,
                                      [IR_GE] = CC_LE, [IR_LTU] = CC_A, [IR_GEU] = CC_BE};
    Opnd a = gen_opnd(g, op, op->a), b = gen_opnd(g, op, op->b);
    unsigned cc = straight[op->cond];
    if (a.kind == O_IMM) {
        opnd_swap(&a, &b);
        cc = swapped[op->cond];
    }
    if (b.kind == O_IMM && (!fits_s32(b.imm) || a.kind == O_IMM))
        b = gen_in_reg_or_mem(g, b, RAX);
    if (b.kind == O_IMM && b.imm == 0 && op->cond <= IR_NE && g->flags_at == g->a->p &&
        opnd_same(a, g->flags_of))
        return cc;
    if (a.kind == O_IMM) /* both are the op's one constant */
        a = b;
    if (a.kind == O_MEM && b.kind == O_MEM) {
        em_mov_ro(g->a, RAX, a);
        a = opnd_reg(RAX);
    }
    if (a.kind == O_REG && b.kind == O_IMM && b.imm == 0)
        em_rm(g->a, EM_W, 0x85, a.reg, a);
    else if (b.kind == O_IMM)
        em_alu_oi(g->a, EM_W, X_CMP, a, (int32_t)b.imm);
    else if (a.kind == O_REG)
        em_alu_ro(g->a, EM_W, X_CMP, a.reg, b);
    else
        em_alu_or(g->a, EM_W, X_CMP, a, b.reg);
    return cc;
}

static void gen_setcc(Gen *g, const IrOp *op)
{
    Opnd d = gen_slot(g, op->d);
    bool free_d = d.kind == O_REG && op->d != op->a && op->d != op->b;
    unsigned r = free_d ? d.reg : RAX;
    if (free_d)
        em_mov_ri(g->a, r, 0);
    unsigned cc = gen_compare(g, op);
    em_rm(g->a, EM_BM, 0x0f90 | cc, 0, opnd_reg(r));
    if (free_d)
        return;
    r = d.kind == O_REG ? d.reg : RAX;
    em_rm(g->a, EM_BM, 0x0fb6, r, opnd_reg(RAX));
    em_mov_or(g->a, d, r);
}

static void gen_select(Gen *g, const IrOp *op)
{
    Opnd d = gen_slot(g, op->d), c = gen_opnd(g, op, op->c);
    unsigned cc = gen_compare(g, op);
    if (c.kind == O_IMM) {
        em_mov_ri_keep(g->a, RCX, c.imm);
        c = opnd_reg(RCX);
    }
    unsigned r = d.kind == O_REG ? d.reg : RAX;
    em_mov_ro(g->a, r, d);
    em_rm(g->a, EM_W, 0x0f40 | cc, r, c);
    em_mov_or(g->a, d, r);
}

void gen_alu(Gen *g, const IrOp *op)
{
    switch (op->op) {
    case IR_MOV:
        gen_mov(g, op);
        break;
    case IR_ADD:
        gen_binop(g, op, X_ADD);
        break;
    case IR_SUB:
        gen_binop(g, op, X_SUB);
        break;
    case IR_AND:
        gen_binop(g, op, X_AND);
        break;
    case IR_OR:
        gen_binop(g, op, X_OR);
        break;
    case IR_XOR:
        gen_binop(g, op, X_XOR);
        break;
    case IR_ADD32S:
        gen_binop32(g, op, X_ADD);
        break;
    case IR_SUB32S:
        gen_binop32(g, op, X_SUB);
        break;
    case IR_SHL:
    case IR_SHL32S:
        gen_shift(g, op, X_SHL, op->op == IR_SHL32S);
        break;
    case IR_SHR:
    case IR_SHR32S:
        gen_shift(g, op, X_SHR, op->op == IR_SHR32S);
        break;
    case IR_SAR:
    case IR_SAR32S:
        gen_shift(g, op, X_SAR, op->op == IR_SAR32S);
        break;
    case IR_SEXT8:
        gen_extend(g, op, EM_W | EM_BM, 0x0fbe);
        break;
    case IR_SEXT16:
        gen_extend(g, op, EM_W, 0x0fbf);
        break;
    case IR_SEXT32:
        gen_extend(g, op, EM_W, 0x63);
        break;
    case IR_ZEXT8:
        gen_extend(g, op, EM_BM, 0x0fb6);
        break;
    case IR_ZEXT16:
        gen_extend(g, op, 0, 0x0fb7);
        break;
    case IR_ZEXT32:
        gen_extend(g, op, 0, 0x8b);
        break;
    case IR_MUL:
    case IR_MUL32S:
        gen_mul(g, op, op->op == IR_MUL32S);
        break;
    case IR_MULHS:
    case IR_MULHU:
    case IR_MULHSU:
        gen_mul_high(g, op);
        break;
    case IR_DIVS:
    case IR_DIVS32S:
        gen_div(g, op, true, false, op->op == IR_DIVS32S);
        break;
    case IR_DIVU:
    case IR_DIVU32S:
        gen_div(g, op, false, false, op->op == IR_DIVU32S);
        break;
    case IR_REMS:
    case IR_REMS32S:
        gen_div(g, op, true, true, op->op == IR_REMS32S);
        break;
    case IR_REMU:
    case IR_REMU32S:
        gen_div(g, op, false, true, op->op == IR_REMU32S);
        break;
    case IR_ROTR:
    case IR_ROTR32S:
        gen_rotate(g, op, op->op == IR_ROTR32S);
        break;
    case IR_CLZ:
    case IR_CLZ32:
        gen_count_zeros(g, op, true, op->op == IR_CLZ ? 64 : 32);
        break;
    case IR_CTZ:
    case IR_CTZ32:
        gen_count_zeros(g, op, false, op->op == IR_CTZ ? 64 : 32);
        break;
    case IR_POPCNT:
    case IR_POPCNT32:
        gen_count_ones(g, op, op->op == IR_POPCNT ? 64 : 32);
        break;
    case IR_BSWAP:
        gen_bswap(g, op);
        break;
    case IR_SETCC:
        gen_setcc(g, op);
        break;
    case IR_SELECT:
        gen_select(g, op);
        break;
    default:
        __builtin_unreachable();
    }
}

#endif

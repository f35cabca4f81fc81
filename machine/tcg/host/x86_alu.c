/* x86_alu.c: arithmetic, logic, shifts, compares. Uses rax; shifts rcx too, products and quotients rdx too.
 */
#include "x86.h"

#if defined(__x86_64__)

/* The register to compute d in: d's own, unless an operand still to be read lives there. */
static unsigned target_reg(Opnd d, Opnd later)
{
    return d.kind == O_REG && !opnd_same(d, later) ? d.reg : RAX;
}

/* A constant too long for an instruction, or any, goes into a register first. */
static Opnd in_reg_or_mem(Gen *g, Opnd o, unsigned scratch)
{
    if (o.kind != O_IMM)
        return o;
    em_mov_ri(g->a, scratch, o.imm);
    return opnd_reg(scratch);
}

static void swap(Opnd *a, Opnd *b)
{
    Opnd t = *a;
    *a = *b;
    *b = t;
}

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
    unsigned r = target_reg(d, a);
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
        swap(&a, &b);
    if (a.kind == O_IMM && b.kind == O_IMM)
        a = in_reg_or_mem(g, a, RCX);
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
            a = in_reg_or_mem(g, a, RAX);
        em_rm(g->a, EM_W, 0xf7, 3, d);
        em_alu_ro(g->a, EM_W, X_ADD, d.reg, a);
        return;
    }
    unsigned r = target_reg(d, b);
    if (n == X_ADD) {
        add_to(g, EM_W, r, a, b);
    } else {
        em_mov_ro(g->a, r, a);
        em_alu_ro(g->a, EM_W, n, r, b);
    }
    em_mov_or(g->a, d, r);
}

/* movsxd d, r32 */
static void store_sext32(Gen *g, Opnd d, Opnd from)
{
    unsigned r = d.kind == O_REG ? d.reg : RAX;
    em_rm(g->a, EM_W, 0x63, r, from);
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
        swap(&a, &b);
        b.imm = (int32_t)b.imm;
    }
    if (n == X_ADD && b.kind == O_IMM && b.imm == 0 && a.kind != O_IMM) {
        store_sext32(g, d, a);
        return;
    }
    if (opnd_same(d, a) && d.kind == O_REG) {
        em_alu_ro(g->a, 0, n, d.reg, b);
        store_sext32(g, d, d);
        return;
    }
    if (n == X_ADD) {
        add_to(g, 0, RAX, a, b);
    } else {
        em_mov32_ro(g->a, RAX, a);
        em_alu_ro(g->a, 0, n, RAX, b);
    }
    store_sext32(g, d, opnd_reg(RAX));
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
        em_rm(g->a, EM_W, 0x63, r, in_reg_or_mem(g, a, RAX));
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
        a = in_reg_or_mem(g, a, RAX);
        if (b.kind != O_REG) {
            em_rm(g->a, 0, 0x8b, RCX, b);
            b = opnd_reg(RCX);
        }
        em_vex(g->a, vex_pp[n], 2, w ? 1 : 0, 0xf7, r, b.reg, a);
    } else {
        em_rm(g->a, 0, 0x8b, RCX, b);
        r = target_reg(d, opnd_reg(RCX));
        if (!opnd_is_reg(a, r)) {
            if (is32)
                em_mov32_ro(g->a, r, a);
            else
                em_mov_ro(g->a, r, a);
        }
        em_rm(g->a, w, 0xd3, n, opnd_reg(r));
    }
    if (is32)
        store_sext32(g, d, opnd_reg(r));
    else
        em_mov_or(g->a, d, r);
}

/* Narrowing: how to encode `op r, a`. */
static void gen_extend(Gen *g, const IrOp *op, unsigned flags, uint32_t opcode)
{
    Opnd d = gen_slot(g, op->d), a = in_reg_or_mem(g, gen_opnd(g, op, op->a), RAX);
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

static void gen_mul(Gen *g, const IrOp *op, bool is32)
{
    Opnd d = gen_slot(g, op->d), a = gen_opnd(g, op, op->a), b = gen_opnd(g, op, op->b);
    unsigned w = is32 ? 0 : EM_W;
    if (a.kind == O_IMM || (opnd_same(d, b) && b.kind == O_REG))
        swap(&a, &b);
    a = in_reg_or_mem(g, a, RCX);
    if (b.kind == O_IMM && is32)
        b.imm = (int32_t)b.imm;
    unsigned r = target_reg(d, b);
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
        store_sext32(g, d, opnd_reg(r));
    else
        em_mov_or(g->a, d, r);
}

static void gen_mul_high(Gen *g, const IrOp *op)
{
    Opnd d = gen_slot(g, op->d), a = gen_opnd(g, op, op->a);
    Opnd b = in_reg_or_mem(g, gen_opnd(g, op, op->b), RCX);
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

static void gen_div(Gen *g, const IrOp *op, bool is_signed, bool rem, bool is32)
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
        store_sext32(g, d, opnd_reg(RAX));
    else
        em_mov_or(a, d, RAX);
}

unsigned gen_compare(Gen *g, const IrOp *op)
{
    static const uint8_t straight[] = {
        [IR_EQ] = CC_E, [IR_NE] = CC_NE, [IR_LT] = CC_L, [IR_GE] = CC_GE, [IR_LTU] = CC_B, [IR_GEU] = CC_AE};
    static const uint8_t swapped[] = {
        [IR_EQ] = CC_E, [IR_NE] = CC_NE, [IR_LT] = CC_G, [IR_GE] = CC_LE, [IR_LTU] = CC_A, [IR_GEU] = CC_BE};
    Opnd a = gen_opnd(g, op, op->a), b = gen_opnd(g, op, op->b);
    unsigned cc = straight[op->cond];
    if (a.kind == O_IMM) {
        swap(&a, &b);
        cc = swapped[op->cond];
    }
    if (b.kind == O_IMM && (!fits_s32(b.imm) || a.kind == O_IMM))
        b = in_reg_or_mem(g, b, RAX);
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

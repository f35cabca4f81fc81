/* fuzz_blocks.c: random numbers, and random blocks of IR made of them. */
#include "fuzz.h"

static const uint64_t PC_BASE = UINT64_C(0xffffffff80001000);

uint64_t rng_state;

uint64_t rng(void)
{
    uint64_t x = rng_state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint32_t below(uint32_t n)
{
    return (uint32_t)(rng() % n);
}

uint64_t value(void)
{
    static const uint64_t odd[] = {0,
                                   1,
                                   ~0ull,
                                   1ull << 63,
                                   ~(1ull << 63),
                                   1ull << 31,
                                   0x7fffffff,
                                   0xffffffff,
                                   0xffffffff80000000,
                                   0x80,
                                   0xff,
                                   0x7f,
                                   0x8000,
                                   0xffff,
                                   4096,
                                   0xffffffff00000000};
    switch (below(5)) {
    case 0:
        return odd[below(sizeof odd / sizeof *odd)];
    case 1:
        return (uint64_t)(int64_t)(int8_t)rng();
    case 2:
        return (uint32_t)rng();
    case 3:
        return (uint64_t)(int64_t)(int32_t)rng();
    default:
        return rng();
    }
}

uint64_t tb_pc(uint32_t i)
{
    return PC_BASE + i * 2 * IR_MAX_INSNS +
           (i == N_TBS - 1 ? 4 * WB_PAGE_SIZE : 0); /* the last is on another page */
}

static uint16_t any_slot(const IrBlock *ir)
{
    if (ir->n_temps && below(3) == 0)
        return (uint16_t)(IR_GLOBALS + below(ir->n_temps < 6 ? ir->n_temps : 6) +
                          (ir->n_temps > 6 ? ir->n_temps - 6 : 0));
    return (uint16_t)(below(4) ? 1 + below(16) : below(IR_GLOBALS));
}

static uint16_t dest_slot(IrBlock *ir)
{
    if (below(4) == 0 && ir->n_temps < 100)
        return below(2) || !ir->n_temps ? IR_NONE : (uint16_t)(IR_GLOBALS + below(ir->n_temps));
    uint16_t s = (uint16_t)(below(4) ? 1 + below(16) : 1 + below(IR_GLOBALS - 1));
    return s == 2 || s == 5 ? 6 : s; /* 2 and 5 hold addresses */
}

static uint16_t dest_slot_global(void)
{
    return (uint16_t)(6 + below(20));
}

/* The temporary must have no reader before its first write: made after the operands are chosen. */
static uint16_t settle_dest(IrBlock *ir, uint16_t d)
{
    return d == IR_NONE ? ir_temp(ir) : d;
}

static void set_const(IrOp *o, uint16_t *ref)
{
    *ref = IR_CONST;
    o->imm = (int64_t)value();
}

static void gen_pure_op(IrBlock *ir)
{
    uint16_t a = any_slot(ir), b = any_slot(ir), c = any_slot(ir), d = dest_slot(ir);
    IrOpcode op = (IrOpcode)(IR_MOV + below(IR_SELECT - IR_MOV + 1));
    if (op == IR_SELECT && d == IR_NONE)
        d = 9;
    d = settle_dest(ir, d);
    if (below(4) == 0)
        a = d < IR_GLOBALS ? d : a;
    if (below(4) == 0)
        b = d < IR_GLOBALS ? d : b;
    IrOp *o = ir_emit(ir, op);
    uint8_t flags = ir_op_flags(op);
    o->cond = (uint8_t)below(6);
    o->d = d;
    o->a = a;
    if (flags & IRF_USE_B)
        o->b = b;
    if (flags & IRF_USE_C)
        o->c = c;
    switch (below(6)) {
    case 0:
        set_const(o, &o->a);
        break;
    case 1:
    case 2:
        if (flags & IRF_USE_B)
            set_const(o, &o->b);
        break;
    case 3:
        if (flags & IRF_USE_C)
            set_const(o, &o->c);
        break;
    default:
        break;
    }
}

/* Two shifts that the optimiser may take for a rotation or an extension. */
static void gen_shifts(IrBlock *ir)
{
    static const uint8_t join[] = {IR_OR, IR_XOR, IR_ADD, IR_AND};
    const bool is32 = below(2);
    const uint16_t from = (uint16_t)(1 + below(16)), d = (uint16_t)(6 + below(8)),
                   e = (uint16_t)(6 + below(8));
    const unsigned bits = is32 ? 32 : 64, n = below(bits),
                   m = below(8) ? (bits - n) & (bits - 1) : below(bits);
    if (below(3)) {
        ir_op2i(ir, is32 ? IR_SHR32S : IR_SHR, d, from, n);
        if (below(4) == 0)
            ir_op2i(ir, IR_ADD, (uint16_t)(6 + below(8)), from, 1);
        ir_op2i(ir, is32 ? IR_SHL32S : IR_SHL, e, from, m);
        ir_op2(ir, (IrOpcode)join[below(4)], (uint16_t)(6 + below(8)), below(2) ? d : e, below(2) ? e : d);
    } else {
        const unsigned k = 64 - (8u << below(3));
        ir_op2i(ir, IR_SHL, d, below(2) ? d : from, k);
        if (below(4) == 0)
            ir_op2(ir, IR_ADD32S, (uint16_t)(6 + below(8)), from, d);
        ir_op2i(ir, below(2) ? IR_SHR : IR_SAR, below(2) ? d : e, d, below(6) ? k : below(64));
    }
}

static void gen_mem_op(IrBlock *ir)
{
    uint16_t base = below(6) ? (below(2) ? 2 : 5) : any_slot(ir);
    int32_t off = below(3) ? (int32_t)below(512) * 8 - 2048 : (int32_t)below(4 * 4096) - 4096;
    if (below(4) == 0)
        off = (int32_t)below(48) - 16;
    uint8_t size = (uint8_t)below(4);
    if (below(2)) {
        uint8_t mo = size | (below(2) ? MO_SIGN : 0);
        if (below(6) == 0)
            mo = MO_32 | MO_BOX;
        ir_ld(ir, mo, settle_dest(ir, dest_slot(ir)), base, off);
        if (below(12) == 0)
            set_const(&ir->ops[ir->n_ops - 1], &ir->ops[ir->n_ops - 1].a);
    } else {
        ir_st(ir, size, base, off, any_slot(ir));
        if (below(5) == 0)
            set_const(&ir->ops[ir->n_ops - 1], &ir->ops[ir->n_ops - 1].b);
    }
    IrOp *o = &ir->ops[ir->n_ops - 1];
    if (o->a == IR_CONST)
        o->imm = below(3) ? (int64_t)(ram_vaddr + 4096) : (int64_t)value();
}

static void gen_env_op(IrBlock *ir)
{
    int32_t off = (int32_t)offsetof(Hart, guest) + 64 + 8 * (int32_t)below(32) + (int32_t)below(2);
    uint8_t size = (uint8_t)below(4);
    switch (below(3)) {
    case 0:
        ir_ldenv(ir, size | (below(2) ? MO_SIGN : 0), settle_dest(ir, dest_slot(ir)), off);
        break;
    case 1:
        ir_stenv(ir, size, off, any_slot(ir));
        break;
    default:
        ir_stenvi(ir, size, off, (int64_t)value());
        break;
    }
}

static void gen_call_op(IrBlock *ir)
{
    uint16_t arg[3];
    for (unsigned i = 0; i < 3; i++)
        arg[i] = any_slot(ir);
    int which = below(8) == 0 ? 2 : (int)below(2);
    uint16_t d = dest_slot(ir);
    d = d == IR_NONE && below(2) ? IR_NONE : settle_dest(ir, d);
    if (below(3) == 0)
        arg[below(3)] = IR_CONST;
    ir_call(ir, which, d, arg[0], arg[1], arg[2], (int64_t)value());
}

static uint64_t target(void)
{
    return below(4) ? tb_pc(below(N_TBS)) : PC_BASE + 2 * below(4000);
}

/* Instructions that are one access each, near each other: they may share a look-up. */
static uint32_t gen_neighbours(IrBlock *ir, uint32_t index, uint32_t from, uint32_t n)
{
    const uint16_t base = below(8) ? (below(2) ? 2 : 5) : (uint16_t)(1 + below(16));
    const int32_t off = (int32_t)below(4 * 4096) - 4096;
    uint32_t i = from;
    for (uint32_t k = 2 + below(6); k-- > 0 && i < n; i++) {
        const uint8_t size = (uint8_t)below(4);
        const int32_t at = off + (int32_t)below(below(6) ? 64 : 1024);
        if (i > from)
            ir_insn(ir, tb_pc(index) + 2 * i, 2);
        ir->n_temps = 0;
        if (below(3) == 0)
            gen_pure_op(ir);
        if (below(2))
            ir_ld(ir, size | (below(2) ? MO_SIGN : 0), below(4) ? dest_slot_global() : base, base, at);
        else
            ir_st(ir, size, base, at, any_slot(ir));
    }
    return i - 1;
}

void gen_block(IrBlock *ir, uint32_t index)
{
    ir->n_ops = ir->n_insns = ir->n_temps = ir->n_exits = 0;
    const bool straight = below(8) == 0; /* long, no calls, hardly a branch */
    uint32_t n = below(8) ? 1 + below(8) : 1 + below(IR_MAX_INSNS);
    if (straight)
        n = IR_MAX_INSNS - below(64);
    for (uint32_t i = 0; i < n; i++) {
        ir_insn(ir, tb_pc(index) + 2 * i, 2);
        ir->n_temps = 0;
        if (below(4) == 0) {
            i = gen_neighbours(ir, index, i, n);
            continue;
        }
        for (uint32_t k = below(5); k-- > 0;) {
            uint32_t what = below(18);
            if (what > 15)
                gen_shifts(ir);
            else if (what < 9)
                gen_pure_op(ir);
            else if (what < 13)
                gen_mem_op(ir);
            else if (what < 14)
                gen_env_op(ir);
            else if (!straight)
                gen_call_op(ir);
        }
        if (below(straight ? 64 : 4) == 0 && ir->n_exits < IR_MAX_EXITS - 1) {
            ir_brcond(ir, (IrCond)below(6), any_slot(ir), any_slot(ir), target());
            IrOp *o = &ir->ops[ir->n_ops - 1];
            if (below(3) == 0)
                set_const(o, below(2) ? &o->a : &o->b);
            if (below(3) == 0 && o->a == IR_CONST)
                o->imm = 0;
        }
    }
    switch (below(4)) {
    case 0:
        ir_exit(ir, target());
        break;
    case 1: {
        uint16_t from = any_slot(ir), t = ir_temp(ir);
        if (below(2))
            ir_movi(ir, t, (int64_t)target());
        else
            ir_op2i(ir, IR_AND, t, from, -2);
        ir_goto_ind(ir, t, (int)below(3));
        break;
    }
    default:
        ir_goto(ir, target());
        break;
    }
}

/* x86_regs.c: scratch registers for the values of a block: its temporaries, and what it keeps in a guest
 * register only until the next write, with no exit between that could show it.
 */
#include "x86.h"

#if defined(__x86_64__)

/* Which of rcx, rdx, rsi an op overwrites. A helper's call overwrites rsi only for values that live on. */
unsigned regs_op_clobbers(const IrOp *op)
{
    const unsigned rcx = 1u << RCX, rdx = 1u << RDX;
    if (op->a == IR_CONST && op->b == IR_CONST)
        return rcx | rdx;
    switch (op->op) {
    case IR_SHL:
    case IR_SHR:
    case IR_SAR:
    case IR_SHL32S:
    case IR_SHR32S:
    case IR_SAR32S:
    case IR_ROTR:
    case IR_ROTR32S:
        return op->b == IR_CONST ? 0 : rcx;
    case IR_SELECT:
        return rcx;
    case IR_LDENV:
        return rdx;
    case IR_NOP:
    case IR_INSN:
    case IR_MOV:
    case IR_ADD:
    case IR_SUB:
    case IR_AND:
    case IR_OR:
    case IR_XOR:
    case IR_ADD32S:
    case IR_SUB32S:
    case IR_SEXT8:
    case IR_SEXT16:
    case IR_SEXT32:
    case IR_ZEXT8:
    case IR_ZEXT16:
    case IR_ZEXT32:
    case IR_BSWAP:
    case IR_POPCNT:
    case IR_POPCNT32:
    case IR_MUL:
    case IR_MUL32S:
    case IR_SETCC:
    case IR_STENV:
    case IR_BRCOND:
        return 0;
    default:
        return rcx | rdx;
    }
}

typedef struct {
    uint16_t first, last; /* ops: the one that makes the value, and its last reader */
} Range;

static bool reg_survives(const TB *tb, Range r, unsigned reg)
{
    for (unsigned i = r.first; i <= r.last; i++) {
        const IrOp *op = &tb->ops[i];
        if (regs_op_clobbers(op) & 1u << reg)
            return false;
        if (op->op == IR_CALL && reg == RSI && i > r.first && i < r.last)
            return false;
    }
    return true;
}

static bool may_leave(const Gen *g, const IrOp *op)
{
    const uint32_t quiet = HF_PURE | HF_NOLEAVE;
    if (op->op == IR_CALL)
        return !(g->m->guest->helpers[op->off].flags & quiet);
    return ir_op_flags((IrOpcode)op->op) & IRF_EXIT;
}

static void range_use(Range *range, uint16_t slot, unsigned i)
{
    if (slot < IR_SLOTS)
        range[slot].last = (uint16_t)i;
}

/* last_use[i]: last reader of the value that op i makes, if the value lives in the block alone; else 0. Notes
 * the temporaries. */
static void find_values(Gen *g, uint16_t last_use[IR_MAX_OPS])
{
    const TB *tb = g->tb;
    Range range[IR_SLOTS];
    uint64_t open[IR_SLOTS / 64] = {0}; /* slots whose value no exit has seen; none ever sees a temporary */
    memset(last_use, 0, tb->n_ops * sizeof *last_use);
    for (unsigned i = 0; i < tb->n_ops; i++) {
        const IrOp *op = &tb->ops[i];
        range_use(range, op->a, i);
        range_use(range, op->b, i);
        range_use(range, op->c, i);
        if (may_leave(g, op))
            open[0] = 0;
        if (!(ir_op_flags((IrOpcode)op->op) & IRF_DEF) || op->d >= IR_SLOTS)
            continue;
        const uint64_t bit = UINT64_C(1) << op->d % 64;
        uint64_t *word = &open[op->d / 64];
        g->used[op->d] = true;
        if (op->op == IR_SELECT) { /* goes on with the value there is */
            range_use(range, op->d, i);
            *word = op->d < IR_GLOBALS ? *word & ~bit : *word;
            continue;
        }
        if (*word & bit)
            last_use[range[op->d].first] = range[op->d].last;
        range[op->d] = (Range){(uint16_t)i, (uint16_t)i};
        *word =
            op->d >= IR_GLOBALS || (ir_op_flags((IrOpcode)op->op) & IRF_PURE) ? *word | bit : *word & ~bit;
    }
    for (unsigned s = IR_GLOBALS; s < IR_SLOTS; s++)
        if (open[s / 64] >> s % 64 & 1)
            last_use[range[s].first] = range[s].last;
}

/* Gives a value a slot of its own. Returns 0 if there is none. */
static uint16_t rename_value(Gen *g, Range r)
{
    TB *tb = g->tb;
    const uint16_t from = tb->ops[r.first].d, to = regs_spare_slot(g);
    if (!to)
        return 0;
    tb->ops[r.first].d = to;
    for (unsigned i = r.first + 1u; i <= r.last; i++) {
        IrOp *op = &tb->ops[i];
        const uint8_t flags = ir_op_flags((IrOpcode)op->op);
        if ((flags & IRF_USE_A) && op->a == from)
            op->a = to;
        if ((flags & IRF_USE_B) && op->b == from)
            op->b = to;
        if ((flags & IRF_USE_C) && op->c == from)
            op->c = to;
        if (op->op == IR_SELECT && op->d == from)
            op->d = to;
    }
    return to;
}

uint16_t regs_spare_slot(Gen *g)
{
    for (uint16_t s = IR_SLOTS - 1; s >= IR_GLOBALS; s--)
        if (!g->used[s]) {
            g->used[s] = true;
            return s;
        }
    return 0;
}

/* A temporary that the next and last op jumps to is made where that wants it. */
static bool is_jump_target(const TB *tb, unsigned i)
{
    const IrOp *op = &tb->ops[i], *next = op + 1;
    return i + 2 == tb->n_ops && op->op == IR_AND && op->b == IR_CONST && next->op == IR_GOTO_IND &&
           next->a == op->d && op->d >= IR_GLOBALS;
}

/* A register that is free for all of a value's life, or -1. */
static int free_reg(Gen *g, Range r, int busy_until[3])
{
    static const uint8_t pool[] = {RSI, RDX, RCX};
    if (is_jump_target(g->tb, r.first))
        return RAX;
    for (unsigned j = 0; j < sizeof pool; j++)
        if (busy_until[j] < (int)r.first && reg_survives(g->tb, r, pool[j])) {
            busy_until[j] = r.last;
            if (pool[j] == RSI)
                memset(g->rsi_busy + r.first, 1, r.last - r.first + 1u);
            return pool[j];
        }
    return -1;
}

/* A value gets a register if one is free and survives it; else it stays where its slot is. */
void regs_assign(Gen *g)
{
    TB *tb = g->tb;
    uint16_t last_use[IR_MAX_OPS];
    int busy_until[] = {-1, -1, -1};
    memset(g->used, 0, sizeof g->used);
    memset(g->rsi_busy, 0, tb->n_ops);
    find_values(g, last_use);
    for (unsigned i = 0; i < tb->n_ops; i++) {
        const uint16_t d = tb->ops[i].d;
        const Range r = {(uint16_t)i, last_use[i]};
        if (last_use[i] <= i || (d < IR_GLOBALS && (g->reg_of[d] >= 0 || !g->m->sw.locals)))
            continue;
        const int reg = free_reg(g, r, busy_until);
        if (reg < 0)
            continue;
        const uint16_t slot = rename_value(g, r);
        if (!slot)
            return;
        g->reg_of[slot] = (int8_t)reg;
    }
}

#endif

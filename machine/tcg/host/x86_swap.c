/* x86_swap.c: in a block that jumps to itself, pinned registers it needs little hold slots it needs much.
 *
 * The exchange is made before the loop, and undone wherever the block is left or C is called, so that
 * everybody else finds the pinned slots in their registers. A slot driven out lives in env, like any that is
 * not pinned.
 */
#include "x86.h"

#if defined(__x86_64__)

/* How often the loop's ops name each slot; slots of calls are left where helpers' expansions look for them.
 */
static void count_slots(const Gen *g, uint16_t count[IR_GLOBALS], uint64_t *fixed)
{
    const TB *tb = g->tb;
    unsigned end = tb->n_ops; /* of the loop: behind it the block goes on */
    while (!tb_jumps_to_self(g->m, tb, &tb->ops[end - 1]))
        end--;
    *fixed = 1; /* slot 0 may be a constant register: it is never written */
    for (unsigned i = 0; i < tb->n_ops; i++) {
        const IrOp *op = &tb->ops[i];
        const uint16_t ref[] = {op->d, op->a, op->b, op->c};
        for (unsigned j = 0; j < 4; j++) {
            if (ref[j] >= IR_GLOBALS)
                continue;
            count[ref[j]] += i < end;
            if (op->op == IR_CALL)
                *fixed |= UINT64_C(1) << ref[j];
        }
    }
}

/* Of the slots in a register (or, if `out`, of the others) the one that is named least (most); 0: none. */
static unsigned pick(const Gen *g, const uint16_t count[IR_GLOBALS], uint64_t fixed, bool out)
{
    unsigned best = 0;
    for (unsigned slot = 1; slot < IR_GLOBALS; slot++) {
        if (fixed >> slot & 1 || (g->reg_of[slot] < 0) != out)
            continue;
        if (!best || (out ? count[slot] > count[best] : count[slot] < count[best]))
            best = slot;
    }
    return best;
}

void swap_assign(Gen *g)
{
    enum { LEAST_GAIN = 2 };
    uint16_t count[IR_GLOBALS] = {0};
    uint64_t fixed;
    g->n_swaps = 0;
    if (!g->loops || !g->m->sw.loop_pins)
        return;
    count_slots(g, count, &fixed);
    while (g->n_swaps < N_PIN_REGS) {
        const unsigned home = pick(g, count, fixed, false), guest = pick(g, count, fixed, true);
        if (!home || !guest || count[guest] < count[home] + LEAST_GAIN)
            break;
        const int8_t reg = g->reg_of[home];
        g->reg_of[home] = -1;
        g->reg_of[guest] = reg;
        fixed |= UINT64_C(1) << home | UINT64_C(1) << guest;
        g->swap[g->n_swaps].reg = (uint8_t)reg;
        g->swap[g->n_swaps].home = (uint8_t)home;
        g->swap[g->n_swaps++].guest = (uint8_t)guest;
    }
}

void swap_in(Gen *g)
{
    for (unsigned i = 0; i < g->n_swaps; i++)
        em_mov_or(g->a, opnd_slot_mem(g->swap[i].home), g->swap[i].reg);
    swap_in_again(g);
}

/* Behind a call of C, which changed no slot, and before which swap_out() was: env holds everything. */
void swap_in_again(Gen *g)
{
    for (unsigned i = 0; i < g->n_swaps; i++)
        em_mov_ro(g->a, g->swap[i].reg, opnd_slot_mem(g->swap[i].guest));
}

/* Like swap_in(), without a change of the flags or another register. */
void swap_out(Gen *g)
{
    for (unsigned i = 0; i < g->n_swaps; i++) {
        em_mov_or(g->a, opnd_slot_mem(g->swap[i].guest), g->swap[i].reg);
        em_mov_ro(g->a, g->swap[i].reg, opnd_slot_mem(g->swap[i].home));
    }
}

#endif

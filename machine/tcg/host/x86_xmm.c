/* x86_xmm.c: copies of floating-point slots in xmm registers; env always has the value too.
 *
 * In a block that jumps to itself every copy is valid wherever no op is under way; in others a copy is loaded
 * where it is first used.
 */
#include "x86.h"

#if defined(__x86_64__)

enum { FIRST_COPY = 2, N_XMM = 16 };

void fp_assign(Gen *g)
{
    uint16_t uses[IR_GLOBALS] = {0};
    memset(g->xmm_of, 0, sizeof g->xmm_of);
    g->xmm_used = g->xmm = 0;
    for (unsigned i = 0; i < g->tb->n_ops; i++) {
        const IrOp *op = &g->tb->ops[i];
        const uint16_t ref[] = {op->a, op->b, op->c};
        for (unsigned j = 0; j < 3 && fp_reads_xmm(g, op); j++)
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

Opnd fp_opnd(Gen *g, unsigned slot)
{
    const uint64_t bit = UINT64_C(1) << (slot % 64);
    if (slot >= IR_GLOBALS || !(g->xmm_used & bit))
        return gen_slot(g, slot);
    if (!(g->xmm & bit))
        fp_reload(g, bit);
    g->xmm |= bit;
    return opnd_reg(g->xmm_of[slot]);
}

unsigned fp_copy_of(const Gen *g, unsigned slot)
{
    return slot < IR_GLOBALS && g->xmm & UINT64_C(1) << slot ? g->xmm_of[slot] : 0;
}

#endif

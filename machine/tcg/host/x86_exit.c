/* x86_exit.c: how a block is entered and left: budget, branches, chain slots, indirect jumps, helpers.
 *
 * At the entry the budget loses the whole block. Whoever leaves after i instructions gives n - i back, but
 * for those who leave with h->leave set: the run loop corrects these.
 */
#include "../core/brief.h" /* writes each block once */

#include "x86.h"

#if defined(__x86_64__)

/* Steps of the block not taken when it is left by this op, whose instruction completes. */
static uint32_t steps_left(const Gen *g, const IrOp *op)
{
    return g->tb->n_insns - ((uint32_t)op->off + 1);
}

static void gen_give_back(Gen *g, uint32_t steps)
{
    if (steps)
        em_alu_oi(g->a, EM_W, X_ADD, opnd_reg(R_BUDGET), (int32_t)steps);
}

static bool is_self_loop(const Gen *g, const IrOp *op)
{
    return tb_jumps_to_self(g->m, g->tb, op);
}

/* Links stay in one page; elsewhere a translation may change under them. Other jumps go by the jump cache. */
static bool is_far(const Gen *g, const IrOp *op)
{
    return g->m->sw.jump_cache && ((op->imm2 ^ g->tb->pc) & WB_PAGE_MASK);
}

/* A rel32 is patched while other code may be cached around it: aligned, it changes at once. */
static unsigned pad_for_rel32(const uint8_t *at)
{
    return (unsigned)(-(uintptr_t)at & 3);
}

/* What a loop needs in registers is loaded before it. */
void gen_entry(Gen *g)
{
    swap_in(g);
    fp_reload(g, g->xmm);
    g->loop = g->a->p;
    em_alu_oi(g->a, EM_W, X_SUB, opnd_reg(R_BUDGET), g->tb->n_insns);
    gen_stub(g, STUB_BUDGET, NULL, em_jcc32(g->a, CC_L));
}

void gen_brcond(Gen *g, const IrOp *op)
{
    uint8_t *start = g->a->p;
    uint32_t left = steps_left(g, op);
    unsigned cc = gen_compare(g, op);
    if (left == 0 && is_self_loop(g, op)) {
        em_jcc(g->a, cc, g->loop);
        return;
    }
    /* If no steps are to be given back, the jump itself gets patched; no nop between it and the compare. */
    if (left == 0 && !is_far(g, op) && !g->n_swaps) {
        size_t size = (size_t)(g->a->p - start);
        unsigned pad = pad_for_rel32(g->a->p + 2);
        memmove(start + pad, start, size);
        g->a->p = start;
        em_nop(g->a, pad);
        g->a->p += size;
        uint8_t *at = em_jcc32(g->a, cc);
        g->tb->chain[op->exit].patch_off = (uint32_t)(at - g->entry);
        gen_stub(g, STUB_TAIL, op, at);
        return;
    }
    gen_stub(g, STUB_SIDE, op, em_jcc32(g->a, cc));
}

/* To the block of a jump-cache entry at [rcx + disp] if it is of the pc in rax; else out, as from a cold
 * block. */
static void gen_jump_by_entry(Gen *g, int32_t disp)
{
    em_alu_ro(g->a, EM_W, X_CMP, RAX, opnd_mem(RCX, disp + (int32_t)offsetof(JumpEntry, pc)));
    em_jcc(g->a, CC_NE, g->cb->exit_pc);
    em_rm(g->a, 0, 0xff, 4, opnd_mem(RCX, disp + (int32_t)offsetof(JumpEntry, entry)));
}

/* To the block at pc, by the jump cache if that is on. */
static void gen_jump_to_pc(Gen *g, uint64_t pc)
{
    em_mov_ri(g->a, RAX, (int64_t)pc);
    if (!g->m->sw.jump_cache) {
        em_jmp(g->a, g->cb->exit_pc);
        return;
    }
    em_mov_ro(g->a, RCX, opnd_env(offsetof(Hart, fctx)));
    gen_jump_by_entry(g, (int32_t)(offsetof(FetchCtx, jc) + jc_offset(pc)));
}

/* A jump to patch, and the stub to which it leads until then. */
static uint8_t *gen_chain_jump(Gen *g, const IrOp *op)
{
    em_nop(g->a, pad_for_rel32(g->a->p + 1));
    em_8(g->a, 0xe9);
    em_32(g->a, 0);
    g->tb->chain[op->exit].patch_off = (uint32_t)(g->a->p - 4 - g->entry);
    return g->a->p - 4;
}

/* Out of the block to a known pc, by way of the jump cache or a slot whose stub comes later. */
static void gen_jump_out(Gen *g, const IrOp *op)
{
    swap_out(g);
    if (is_far(g, op))
        gen_jump_to_pc(g, op->imm2);
    else
        gen_stub(g, STUB_TAIL, op, gen_chain_jump(g, op));
}

void gen_goto(Gen *g, const IrOp *op)
{
    gen_give_back(g, steps_left(g, op));
    if (is_self_loop(g, op))
        em_jmp(g->a, g->loop);
    else
        gen_jump_out(g, op);
}

void stub_exit(Gen *g, const Stub *s)
{
    em_bind32(g->a, s->at);
    if (s->kind == STUB_BUDGET) {
        swap_out(g);
        gen_give_back(g, g->tb->n_insns);
        em_mov_ri(g->a, RAX, (int64_t)g->tb->pc);
        em_jmp(g->a, g->cb->exit_pc);
        return;
    }
    if (s->kind == STUB_SIDE) {
        gen_give_back(g, steps_left(g, s->op));
        if (is_self_loop(g, s->op)) {
            em_jmp(g->a, g->loop);
            return;
        }
        swap_out(g);
        if (is_far(g, s->op)) {
            gen_jump_to_pc(g, s->op->imm2);
            return;
        }
        gen_chain_jump(g, s->op);
    }
    g->tb->chain[s->op->exit].stub_off = (uint32_t)(g->a->p - g->entry);
    em_mov_ri(g->a, RAX, s->op->exit);
    em_mov_ri(g->a, RCX, (int64_t)s->op->imm2);
    em_lea_rip(g->a, RDX, gen_tb_ptr(g));
    em_jmp(g->a, g->cb->exit_chain);
}

/* rcx = jump-cache entry of the pc in rax, as jc_offset() has it. */
static void gen_jump_entry(Gen *g)
{
    Opnd nine_pc = opnd_idx(RAX, RAX, 0);
    nine_pc.scale = 3;
    em_lea(g->a, 0, RCX, nine_pc);
    em_alu_oi(g->a, 0, X_AND, opnd_reg(RCX), (JC_SIZE - 1) * (int32_t)sizeof(JumpEntry));
    em_alu_ro(g->a, EM_W, X_ADD, RCX, opnd_env(offsetof(Hart, fctx)));
}

/* Calls and returns (op->flags) are looked up like any other jump. */
void gen_goto_ind(Gen *g, const IrOp *op)
{
    em_mov_ro(g->a, RAX, gen_opnd(g, op, op->a));
    swap_out(g);
    gen_give_back(g, steps_left(g, op));
    if (g->m->sw.jump_cache) {
        gen_jump_entry(g);
        gen_jump_by_entry(g, offsetof(FetchCtx, jc));
    } else {
        em_jmp(g->a, g->cb->exit_pc);
    }
}

void gen_leave_behind(Gen *g, const IrOp *access)
{
    swap_out(g);
    gen_give_back(g, g->tb->n_insns - (access->exit + 1u));
    gen_jump_to_pc(g, tb_insn_next_pc(g->tb, access->exit));
}

void gen_exit(Gen *g, const IrOp *op)
{
    swap_out(g);
    gen_give_back(g, steps_left(g, op));
    em_mov_ri(g->a, RAX, (int64_t)op->imm2);
    em_jmp(g->a, g->cb->exit_pc);
}

void gen_call(Gen *g, const IrOp *op)
{
    if (!gen_fp(g, op) && !gen_amo(g, op))
        gen_call_helper(g, op);
}

/* The jumps are linked through their displacements. */
void gen_slow_if(Gen *g, unsigned cc)
{
    uint8_t *at = em_jcc32(g->a, cc);
    const uint32_t link = g->slow ? (uint32_t)(at - g->slow) : 0;
    memcpy(at, &link, 4);
    g->slow = at;
}

void gen_slow_here(Gen *g, uint8_t *last)
{
    for (uint32_t link = 1; link; last -= link) {
        memcpy(&link, last, 4);
        em_bind32(g->a, last);
    }
}

void stub_helper(Gen *g, const Stub *s)
{
    gen_slow_here(g, s->at);
    gen_call_helper(g, s->op);
    fp_reload(g, g->xmm);
    em_jmp(g->a, s->back);
}

void gen_call_helper(Gen *g, const IrOp *op)
{
    const Helper *helper = &g->m->guest->helpers[op->off];
    bool noleave = helper->flags & (HF_PURE | HF_NOLEAVE);
    g->called = true;
    /* in this order: only rsi may hold a temporary that is an argument */
    if (op->c != IR_NONE)
        em_mov_ro(g->a, RCX, gen_opnd(g, op, op->c));
    if (op->b != IR_NONE)
        em_mov_ro(g->a, RDX, gen_opnd(g, op, op->b));
    if (op->a != IR_NONE)
        em_mov_ro(g->a, RSI, gen_opnd(g, op, op->a));
    if (!noleave) {
        em_rm(g->a, 0, 0xc6, 0, opnd_env(offsetof(Hart, site)));
        em_8(g->a, op->exit);
        em_lea_rip(g->a, RAX, gen_tb_ptr(g));
    }
    swap_out(g);
    em_call(g->a, g->cb->helper[op->off]);
    if (!noleave) {
        if (op->d < IR_GLOBALS)
            gen_stub(g, STUB_LEAVE_D, op, em_jcc32(g->a, CC_NE));
        else
            em_jcc(g->a, CC_NE, g->cb->leave);
    }
    swap_in_again(g);
    if (op->d != IR_NONE)
        em_mov_or(g->a, gen_slot(g, op->d), RAX);
}

void stub_leave_d(Gen *g, const Stub *s)
{
    em_bind32(g->a, s->at);
    em_mov_ri_keep(g->a, RCX, s->op->d);
    em_jmp(g->a, g->cb->leave_d);
}

#endif

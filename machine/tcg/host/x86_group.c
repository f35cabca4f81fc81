/* x86_group.c: one TLB look-up for the accesses through one base register that lie near each other.
 *
 * The first access of a group, its head, looks up a page and checks that all of the group's bytes are in it;
 * the others use the host address found. Near RAM (Gen.near) has it at a fixed distance from the base, and
 * only the check is shared. That stays right as long as C is not called: only there do translations change.
 * So a slow path looks up every group again whose accesses are not all done, and where that fails the block
 * is left behind the instruction; the run goes on in another block.
 */
#include "x86.h"

#if defined(__x86_64__)

enum { MAX_SPAN = 512, MAX_OPEN = 4 };

static bool is_access(const IrOp *op)
{
    return op->op == IR_LD || op->op == IR_ST;
}

static bool changes_translations(const Gen *g, unsigned i)
{
    const IrOp *op = &g->tb->ops[i];
    if (op->op == IR_CALL)
        return !(g->m->guest->helpers[op->off].flags & (HF_PURE | HF_NOLEAVE)) && !g->cb->fp[op->off];
    /* A block can be left behind an access only where its instruction ends. */
    return is_access(op) && !op->cond;
}

typedef struct {
    uint8_t group[MAX_OPEN]; /* number in Gen.group, + 1; 0: free */
    unsigned next;           /* to be replaced */
} Open;

static void join(Gen *g, Open *open, unsigned i)
{
    const IrOp *op = &g->tb->ops[i];
    const int32_t end = op->off + (1 << (op->flags & MO_SIZE));
    unsigned k = 0;
    while (k < MAX_OPEN && !(open->group[k] && g->group[open->group[k] - 1].base == op->a &&
                             g->group[open->group[k] - 1].kind == op->op))
        k++;
    if (k < MAX_OPEN) {
        Group *gr = &g->group[open->group[k] - 1];
        const int32_t lo = op->off < gr->lo ? op->off : gr->lo, hi = end > gr->hi ? end : gr->hi;
        if (hi - lo <= MAX_SPAN && (!g->near || fits_s32(op->off + g->distance))) {
            gr->lo = lo, gr->hi = hi, gr->last = (uint16_t)i;
            g->group_of[i] = open->group[k];
            return;
        }
    } else {
        k = open->next++ % MAX_OPEN;
    }
    g->group[g->n_groups] = (Group){
        .base = op->a, .kind = op->op, .lo = op->off, .hi = end, .first = (uint16_t)i, .last = (uint16_t)i};
    open->group[k] = g->group_of[i] = (uint8_t)++g->n_groups;
}

/* Does op i leave something else in rcx than the pointer of this group? */
static bool spoils_rcx(const Gen *g, unsigned group, unsigned i)
{
    const IrOp *op = &g->tb->ops[i];
    if (g->group_of[i] == group)
        return g->group[group - 1].reg == RSI;
    return regs_op_clobbers(op) & 1u << RCX ||
           ((ir_op_flags((IrOpcode)op->op) & IRF_DEF) && op->d < IR_SLOTS && g->reg_of[op->d] == RCX);
}

/* Where the pointer is kept: in rcx if nothing between needs that, in rsi if that is free, else in env. */
static void choose_home(Gen *g, unsigned group)
{
    Group *gr = &g->group[group - 1];
    bool rcx = true, rsi = true;
    for (unsigned i = gr->first + 1u; i <= gr->last; i++) {
        rcx &= !spoils_rcx(g, group, i);
        rsi &= !g->rsi_busy[i] && g->tb->ops[i].op != IR_CALL;
    }
    rsi &= !g->rsi_busy[gr->first];
    if (rcx)
        return;
    if (rsi) {
        gr->reg = RSI;
        memset(g->rsi_busy + gr->first, 1, gr->last - gr->first + 1u);
    } else if (!(gr->home = regs_spare_slot(g))) {
        for (unsigned i = gr->first; i <= gr->last; i++)
            if (g->group_of[i] == group)
                g->group_of[i] = 0;
        gr->last = gr->first;
    }
}

void group_assign(Gen *g)
{
    Open open = {.next = 0};
    g->n_groups = g->in_rcx = 0;
    memset(g->group_of, 0, g->tb->n_ops);
    if (!g->m->sw.group_mem || !g->m->sw.inline_mem)
        return;
    for (unsigned i = 0; i < g->tb->n_ops; i++) {
        const IrOp *op = &g->tb->ops[i];
        if (changes_translations(g, i))
            memset(open.group, 0, sizeof open.group);
        else if (is_access(op) && op->a < IR_SLOTS)
            join(g, &open, i);
        for (unsigned k = 0; k < MAX_OPEN; k++)
            if (open.group[k] && (ir_op_flags((IrOpcode)op->op) & IRF_DEF) &&
                op->d == g->group[open.group[k] - 1].base)
                open.group[k] = 0;
    }
    for (unsigned k = 1; k <= g->n_groups; k++) {
        Group *gr = &g->group[k - 1];
        gr->reg = RCX;
        if (gr->first == gr->last)
            g->group_of[gr->first] = 0;
        else if (!g->near)
            choose_home(g, k);
    }
}

void group_before_op(Gen *g, const IrOp *op)
{
    const unsigned i = (unsigned)(op - g->tb->ops);
    if (g->in_rcx && spoils_rcx(g, g->in_rcx, i))
        g->in_rcx = 0;
}

/* The register that has the base: the slot's, or rax, into which fetch_base() brings it. */
static unsigned base_reg(const Gen *g, const Group *gr)
{
    const Opnd base = gen_slot(g, gr->base);
    return base.kind == O_REG ? base.reg : RAX;
}

static unsigned fetch_base(Gen *g, const Group *gr)
{
    const unsigned r = base_reg(g, gr);
    em_mov_ro(g->a, r, gen_slot(g, gr->base));
    return r;
}

/* The group's pointer to its register, from the TLB. Returns the jump where that fails. */
static uint8_t *look_up(Gen *g, const Group *gr)
{
    const size_t table = gr->kind == IR_ST ? offsetof(DataCtx, wr) : offsetof(DataCtx, rd);
    const unsigned r = fetch_base(g, gr);
    if (gen_has_bounds(g, &g->tb->ops[gr->first]))
        return gen_bounds(g, r, gr->lo, (unsigned)(gr->hi - gr->lo));
    gen_tlb_index(g, r, gr->lo);
    em_lea(g->a, EM_W, RDX, opnd_mem(r, gr->hi - 1));
    em_alu_oi(g->a, EM_W, X_AND, opnd_reg(RDX), (int32_t)WB_PAGE_MASK);
    em_alu_ro(g->a, EM_W, X_CMP, RDX, opnd_idx(R_DCTX, RCX, (int32_t)(table + offsetof(TlbEntry, tag))));
    uint8_t *miss = em_jcc32(g->a, CC_NE);
    if (g->near)
        return miss;
    gen_addend(g, gr->reg, table);
    em_alu_ro(g->a, EM_W, X_ADD, gr->reg, opnd_reg(r));
    if (gr->home)
        em_mov_or(g->a, opnd_slot_mem(gr->home), gr->reg);
    return miss;
}

bool group_address(Gen *g, const IrOp *op, Opnd *host, uint8_t **miss)
{
    const unsigned i = (unsigned)(op - g->tb->ops), group = g->group_of[i];
    if (!group)
        return false;
    const Group *gr = &g->group[group - 1];
    if (g->near) {
        if (gr->first == i)
            *miss = look_up(g, gr);
        else
            fetch_base(g, gr);
        *host = opnd_mem(base_reg(g, gr), (int32_t)(op->off + g->distance));
        return true;
    }
    if (gr->first == i)
        *miss = look_up(g, gr);
    else if (gr->reg == RCX && g->in_rcx != group)
        em_mov_ro(g->a, RCX, opnd_slot_mem(gr->home));
    if (gr->reg == RCX)
        g->in_rcx = (uint8_t)group;
    *host = opnd_mem(gr->reg, op->off);
    return true;
}

void group_again(Gen *g, const IrOp *op)
{
    const unsigned i = (unsigned)(op - g->tb->ops), own = g->group_of[i];
    uint8_t *miss[MAX_OPEN + 1];
    unsigned n = 0;
    for (unsigned k = 1; k <= g->n_groups; k++)
        if (k != own && g->group[k - 1].first < i && g->group[k - 1].last > i)
            miss[n++] = look_up(g, &g->group[k - 1]);
    if (own && g->group[own - 1].last > i) /* at last: its pointer may be wanted in rcx */
        miss[n++] = look_up(g, &g->group[own - 1]);
    if (!n)
        return;
    uint8_t *go_on = em_jmp32(g->a);
    for (unsigned k = 0; k < n; k++)
        em_bind32(g->a, miss[k]);
    gen_leave_behind(g, op);
    em_bind32(g->a, go_on);
}

#endif

/* x86_span.c: in a long block that is no loop, pinned registers hold other slots for spans of its ops.
 *
 * A slot that is named often soon takes the register of the one that is named last (Belady's choice); a
 * pinned slot comes back to its own register alone. Gen.swap says at every op what is exchanged, so exits and
 * calls of C undo it as they do in loops: see x86_swap.c. What is out of line is compiled later, and goes
 * back to what was exchanged at its op.
 */
#include "x86.h"

#if defined(__x86_64__)

enum {
    LEAST_INSNS = 40,  /* of a block: what is exchanged is paid for at its end … */
    INSNS_A_SIDE = 16, /* … and wherever it is left, so this many a branch at least */
    WINDOW = 32,       /* ops */
    LEAST_USES = 2,    /* in the window */
    NEVER = IR_MAX_OPS,
};

/* Which ops name a slot, ascending. */
typedef struct {
    uint16_t at[4 * IR_MAX_OPS];
    uint16_t begin[IR_GLOBALS + 1];
    uint16_t next[IR_GLOBALS]; /* the first that has not been passed */
} Uses;

typedef struct {
    uint16_t slot[4];
    unsigned n;
} Names;

/* A result comes last. */
static Names names_of(const IrOp *op)
{
    const uint8_t flags = ir_op_flags((IrOpcode)op->op);
    const uint16_t ref[] = {op->a, op->b, op->c, op->d};
    const uint8_t use[] = {IRF_USE_A, IRF_USE_B, IRF_USE_C, IRF_DEF};
    Names names = {.n = 0};
    for (unsigned j = 0; j < 4; j++)
        if (flags & use[j] && ref[j] && ref[j] < IR_GLOBALS)
            names.slot[names.n++] = ref[j];
    return names;
}

static void find_uses(const TB *tb, Uses *uses)
{
    uint16_t count[IR_GLOBALS + 1] = {0};
    for (unsigned i = 0; i < tb->n_ops; i++) {
        const Names names = names_of(&tb->ops[i]);
        for (unsigned j = 0; j < names.n; j++)
            count[names.slot[j]]++;
    }
    unsigned sum = 0;
    for (unsigned s = 0; s < IR_GLOBALS; s++) {
        uses->begin[s] = uses->next[s] = (uint16_t)sum;
        sum += count[s];
    }
    uses->begin[IR_GLOBALS] = (uint16_t)sum;
    for (unsigned i = 0; i < tb->n_ops; i++) {
        const Names names = names_of(&tb->ops[i]);
        for (unsigned j = 0; j < names.n; j++)
            uses->at[uses->next[names.slot[j]]++] = (uint16_t)i;
    }
    memcpy(uses->next, uses->begin, sizeof uses->next);
}

/* The op at or behind i that names a slot for the nth time, from 1 on. */
static unsigned nth_use(Uses *uses, unsigned slot, unsigned i, unsigned n)
{
    while (uses->next[slot] < uses->begin[slot + 1] && uses->at[uses->next[slot]] < i)
        uses->next[slot]++;
    const unsigned k = uses->next[slot] + n - 1;
    return k < uses->begin[slot + 1] ? uses->at[k] : NEVER;
}

/* What the registers hold while the spans are chosen. */
typedef struct {
    uint8_t slot[N_PIN_REGS], reg[N_PIN_REGS], home[N_PIN_REGS];
    bool dirty[N_PIN_REGS]; /* env has another value */
    unsigned n;
} Regs;

/* The register to take: its slot is named last, and not before `until`; -1: there is none. */
static int victim(const Regs *regs, Uses *uses, unsigned slot, unsigned i, unsigned until)
{
    int best = -1;
    unsigned latest = until;
    for (unsigned k = 0; k < regs->n; k++) {
        if (regs->home[k] == slot)
            return nth_use(uses, regs->slot[k], i, 1) > until ? (int)k : -1;
        const unsigned next = nth_use(uses, regs->slot[k], i, 1);
        if (next > latest) {
            best = (int)k;
            latest = next;
        }
    }
    return best;
}

static void choose(Gen *g, Regs *regs, Uses *uses, unsigned slot, unsigned i, bool load)
{
    const unsigned last = nth_use(uses, slot, i, LEAST_USES);
    if (last == NEVER || last > i + WINDOW || g->n_spans == MAX_SPANS)
        return;
    const int k = victim(regs, uses, slot, i, last);
    if (k < 0)
        return;
    g->span[g->n_spans++] = (Span){.at = (uint16_t)i,
                                   .reg = regs->reg[k],
                                   .home = regs->home[k],
                                   .out = regs->slot[k],
                                   .in = (uint8_t)slot,
                                   .store = regs->dirty[k],
                                   .load = load};
    regs->slot[k] = (uint8_t)slot;
    regs->dirty[k] = false;
}

static int held_in(const Regs *regs, unsigned slot)
{
    for (unsigned k = 0; k < regs->n; k++)
        if (regs->slot[k] == slot)
            return (int)k;
    return -1;
}

static bool is_suitable(const Gen *g)
{
    unsigned branches = 0;
    if (g->loops || !g->m->sw.block_pins || !g->m->sw.pin || g->tb->n_insns < LEAST_INSNS)
        return false;
    for (unsigned i = 0; i < g->tb->n_ops; i++) {
        if (g->tb->ops[i].op == IR_CALL)
            return false;
        branches += g->tb->ops[i].op == IR_BRCOND;
    }
    return g->tb->n_insns >= INSNS_A_SIDE * branches;
}

void span_assign(Gen *g)
{
    Uses uses;
    Regs regs = {.n = 0};
    g->n_spans = g->at_span = 0;
    if (!is_suitable(g))
        return;
    find_uses(g->tb, &uses);
    for (unsigned s = 1; s < IR_GLOBALS; s++)
        if (g->reg_of[s] >= 0) {
            regs.slot[regs.n] = regs.home[regs.n] = (uint8_t)s;
            regs.dirty[regs.n] = true;
            regs.reg[regs.n++] = (uint8_t)g->reg_of[s];
        }
    for (unsigned i = 0; i < g->tb->n_ops; i++) {
        const IrOp *op = &g->tb->ops[i];
        const uint8_t flags = ir_op_flags((IrOpcode)op->op);
        const Names names = names_of(op);
        for (unsigned j = 0; j < names.n; j++) {
            const bool result = (flags & IRF_DEF) && j + 1 == names.n && names.slot[j] == op->d;
            /* where the op may leave, its result is as it was */
            const bool load = !result || (flags & IRF_EXIT) || op->op == IR_SELECT;
            if (held_in(&regs, names.slot[j]) < 0)
                choose(g, &regs, &uses, names.slot[j], i, load);
            const int k = held_in(&regs, names.slot[j]);
            if (result && k >= 0)
                regs.dirty[k] = true;
        }
    }
}

static void note_swap(Gen *g, const Span *span)
{
    unsigned k = 0;
    while (k < g->n_swaps && g->swap[k].reg != span->reg)
        k++;
    if (span->in == span->home) {
        g->swap[k] = g->swap[--g->n_swaps];
        return;
    }
    g->swap[k].reg = span->reg;
    g->swap[k].home = span->home;
    g->swap[k].guest = span->in;
    g->n_swaps += k == g->n_swaps;
}

static void begin_span(Gen *g, const Span *span)
{
    g->reg_of[span->out] = -1;
    g->reg_of[span->in] = (int8_t)span->reg;
    note_swap(g, span);
}

void span_before_op(Gen *g, const IrOp *op)
{
    for (; g->at_span < g->n_spans && &g->tb->ops[g->span[g->at_span].at] == op; g->at_span++) {
        const Span *span = &g->span[g->at_span];
        if (span->store)
            em_mov_or(g->a, opnd_slot_mem(span->out), span->reg);
        if (span->load)
            em_mov_ro(g->a, span->reg, opnd_slot_mem(span->in));
        begin_span(g, span);
    }
}

void span_go_to(Gen *g, unsigned at)
{
    if (at < g->at_span) {
        memcpy(g->reg_of, g->cb->pin_of, IR_GLOBALS * sizeof *g->reg_of);
        g->n_swaps = g->at_span = 0;
    }
    for (; g->at_span < at; g->at_span++)
        begin_span(g, &g->span[g->at_span]);
}

#endif

/* stacktree.c: see stacktree.h. Nodes are an array in which each comes behind the one below it; a hash table
 * finds a node by what it is on top of and its target. */
#include "stacktree.h"
#include "api.h"
#include "array.h"

#include <string.h>

enum { FIRST_NODES = 1 << 12, FREE = 0 /* a root is on top of nothing, and never looked for */ };

struct WbStackTree {
    CallStacks stacks; /* a frame's id: its node */
    StackNode *node;
    uint32_t n_nodes, cap_nodes;
    uint32_t *place;                /* hash table of nodes, four times cap_nodes places */
    uint64_t at;                    /* the first step that is not counted yet */
    uint32_t hart;                  /* whose turn it is */
    uint32_t current[WB_MAX_HARTS]; /* each hart's node */
};

static uint32_t root_of(uint64_t mode)
{
    return mode == 0 ? STACKTREE_USER : STACKTREE_KERNEL;
}

/* ---- nodes ---- */

static uint32_t *place_of(const WbStackTree *t, uint32_t below, uint64_t target)
{
    const uint32_t mask = t->cap_nodes * 4 - 1;
    const uint64_t hash = (target ^ (uint64_t)below << 32 ^ below) * UINT64_C(0x9e3779b97f4a7c15);
    uint32_t at = (uint32_t)(hash >> 32) & mask;
    while (t->place[at] != FREE &&
           (t->node[t->place[at]].below != below || t->node[t->place[at]].target != target))
        at = (at + 1) & mask;
    return &t->place[at];
}

static bool grow(WbStackTree *t)
{
    uint32_t *place = calloc((size_t)t->cap_nodes * 8, sizeof(*place));
    if (!place || !array_grow((void **)&t->node, &t->cap_nodes, FIRST_NODES, sizeof(StackNode))) {
        free(place);
        return false;
    }
    free(t->place);
    t->place = place;
    for (uint32_t i = N_STACKTREE_ROOTS; i < t->n_nodes; i++)
        *place_of(t, t->node[i].below, t->node[i].target) = i;
    return true;
}

/* The node of a call on top of another one; false: no memory. */
static bool node_on(WbStackTree *t, uint32_t below, uint64_t target, uint32_t *out)
{
    *out = below;
    if (below == STACKTREE_MORE || t->node[below].target == STACKTREE_DEEPER)
        return true;
    const uint32_t depth = t->node[below].depth + 1;
    if (depth > STACKTREE_DEPTH)
        target = STACKTREE_DEEPER;
    uint32_t *place = place_of(t, below, target);
    *out = *place;
    if (*place != FREE)
        return true;
    *out = STACKTREE_MORE;
    if (t->n_nodes == STACKTREE_NODES)
        return true;
    if (t->n_nodes == t->cap_nodes) {
        if (!grow(t))
            return false;
        place = place_of(t, below, target);
    }
    t->node[t->n_nodes] = (StackNode){.target = target, .below = below, .depth = depth};
    *out = *place = t->n_nodes++;
    return true;
}

/* ---- records ---- */

/* What runs from here on where a frame is on top, in a mode. */
static uint32_t node_of(const WbStackTree *t, uint32_t frame, uint64_t mode)
{
    return frame == CALLSTACKS_NONE ? root_of(mode) : (uint32_t)t->stacks.frame[frame].id;
}

/* Gives the steps before a position to what has run. */
static void count_to(WbStackTree *t, uint64_t icount)
{
    if (icount <= t->at)
        return;
    t->node[t->current[t->hart]].steps += icount - t->at;
    t->at = icount;
}

static bool take_call(WbStackTree *t, const ProbeRecord *r, uint32_t *node)
{
    const uint32_t id = callstacks_call(&t->stacks, r);
    if (id == CALLSTACKS_NONE)
        return false;
    StackFrame *f = &t->stacks.frame[id];
    if (!node_on(t, node_of(t, f->below, r->priv), r->a, node))
        return false;
    f->id = (int32_t)*node;
    return true;
}

static uint32_t take_return(WbStackTree *t, const ProbeRecord *r)
{
    StackFrame ended;
    callstacks_return(&t->stacks, r, &ended);
    return node_of(t, callstacks_settle(&t->stacks, r->value, r->extra, r->priv), r->priv);
}

static bool take(WbStackTree *t, const ProbeRecord *r)
{
    if (r->kind == PROBE_TURN) {
        count_to(t, r->icount);
        t->hart = r->hart;
        return true;
    }
    count_to(t, r->icount + 1);
    t->hart = r->hart;
    uint32_t *node = &t->current[r->hart];
    switch (r->kind) {
    case PROBE_CALL:
        return take_call(t, r, node);
    case PROBE_RET:
        *node = take_return(t, r);
        break;
    case PROBE_TRAP:
        if (r->op != r->old)
            *node = root_of(r->op);
        break;
    case PROBE_XRET:
        *node = node_of(t, callstacks_settle(&t->stacks, r->b, r->extra, r->op), r->op);
        break;
    }
    return true;
}

int wb_stacktree_feed(WbStackTree *t, const void *records, uint32_t n)
{
    const ProbeRecord *r = records;
    for (const ProbeRecord *end = r + n; r < end; r++)
        if (r->hart >= WB_MAX_HARTS || !take(t, r))
            return -1;
    return 0;
}

const uint64_t *wb_stacktree_nodes(WbStackTree *t, uint64_t end, uint32_t *n, uint64_t *forgotten)
{
    count_to(t, end);
    *n = t->n_nodes;
    *forgotten = t->stacks.forgotten;
    return &t->node[0].target;
}

/* ---- life ---- */

WbStackTree *wb_stacktree_create(uint64_t icount, uint32_t hart, int user)
{
    WbStackTree *t = hart < WB_MAX_HARTS ? calloc(1, sizeof(*t)) : NULL;
    if (!t)
        return NULL;
    t->at = icount;
    t->hart = hart;
    t->current[hart] = user ? STACKTREE_USER : STACKTREE_KERNEL;
    t->n_nodes = N_STACKTREE_ROOTS;
    t->cap_nodes = FIRST_NODES;
    t->node = calloc(t->cap_nodes, sizeof(*t->node));
    t->place = calloc((size_t)t->cap_nodes * 4, sizeof(*t->place));
    if (callstacks_init(&t->stacks) && t->node && t->place)
        return t;
    wb_stacktree_destroy(t);
    return NULL;
}

void wb_stacktree_destroy(WbStackTree *t)
{
    if (!t)
        return;
    callstacks_deinit(&t->stacks);
    free(t->node);
    free(t->place);
    free(t);
}

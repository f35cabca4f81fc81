/* callpairs.c: see callpairs.h. Stacks are lists of frames in one pool; a hash table finds the top of each.
 */
#include "callpairs.h"
#include "api.h"

#include <stdlib.h>
#include <string.h>

enum { NONE = 0, FIRST_FRAMES = 1 << 10, FIRST_ROWS = 1 << 14, NO_ROW = -1 };

typedef struct {
    uint64_t area, mode; /* which stack */
    uint64_t sp, ret, icount;
    int32_t row;    /* in `rows`, or NO_ROW */
    uint32_t below; /* the next frame outwards, NONE at the bottom; of a free frame: the next free one */
    uint32_t depth;
} Frame;

struct WbCallPairs {
    Frame *frame; /* 1..n_frames; frame 0 is NONE */
    uint32_t n_frames, cap_frames, open, free;
    uint32_t *top; /* hash table of frames on top of their stacks, NONE: an empty place */
    uint32_t size; /* of `top`, a power of two, at least twice the stacks that there can be */
    CallRow *rows;
    uint32_t n_rows, cap_rows;
    CallReturn *returns;
    uint32_t n_returns, cap_returns;
};

static bool grow(void **array, uint32_t *cap, uint32_t first, size_t size)
{
    const uint32_t more = *cap ? *cap * 2 : first;
    void *got = more > *cap ? realloc(*array, more * size) : NULL;
    if (!got)
        return false;
    *array = got;
    *cap = more;
    return true;
}

/* ---- stacks ---- */

static uint32_t home(const WbCallPairs *p, uint64_t area, uint64_t mode)
{
    const uint64_t hash = (area ^ mode << 60) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(hash >> 32) & (p->size - 1);
}

/* The place of a stack in the table: where its top is, or the empty place where it belongs. */
static uint32_t place_of(const WbCallPairs *p, uint64_t area, uint64_t mode)
{
    uint32_t at = home(p, area, mode);
    while (p->top[at] != NONE && (p->frame[p->top[at]].area != area || p->frame[p->top[at]].mode != mode))
        at = (at + 1) & (p->size - 1);
    return at;
}

/* Empties a place; what stands behind it moves up, so that every search still ends where it should. */
static void vacate(WbCallPairs *p, uint32_t hole)
{
    const uint32_t mask = p->size - 1;
    for (uint32_t at = (hole + 1) & mask; p->top[at] != NONE; at = (at + 1) & mask) {
        const Frame *f = &p->frame[p->top[at]];
        if (((at - home(p, f->area, f->mode)) & mask) >= ((at - hole) & mask)) {
            p->top[hole] = p->top[at];
            hole = at;
        }
    }
    p->top[hole] = NONE;
}

static void forget_all(WbCallPairs *p)
{
    p->n_frames = p->open = 0;
    p->free = NONE;
    memset(p->top, 0, p->size * sizeof(*p->top));
}

static bool grow_frames(WbCallPairs *p)
{
    uint32_t *top = calloc((size_t)p->cap_frames * 4, sizeof(*top));
    if (!top || !grow((void **)&p->frame, &p->cap_frames, FIRST_FRAMES, sizeof(Frame))) {
        free(top);
        return false;
    }
    uint32_t *old = p->top;
    const uint32_t n = p->size;
    p->top = top;
    p->size = p->cap_frames * 2;
    for (uint32_t i = 0; i < n; i++)
        if (old[i] != NONE)
            p->top[place_of(p, p->frame[old[i]].area, p->frame[old[i]].mode)] = old[i];
    free(old);
    return true;
}

/* Takes the top frame off the stack at a place; false: it was the last one, and the place is not the stack's
 * now. */
static bool pop(WbCallPairs *p, uint32_t at)
{
    const uint32_t gone = p->top[at];
    const uint32_t below = p->frame[gone].below;
    p->frame[gone].below = p->free;
    p->free = gone;
    p->open--;
    if (below == NONE) {
        vacate(p, at);
        return false;
    }
    p->top[at] = below;
    return true;
}

/* Returns the frame, NONE: no memory. */
static uint32_t push(WbCallPairs *p, const Frame *what)
{
    if (p->open >= CALLPAIRS_FRAMES)
        forget_all(p);
    if (p->free == NONE && p->n_frames + 1 >= p->cap_frames && !grow_frames(p))
        return NONE;
    const uint32_t at = place_of(p, what->area, what->mode);
    const uint32_t below = p->top[at];
    const uint32_t id = p->free != NONE ? p->free : ++p->n_frames;
    if (id == p->free)
        p->free = p->frame[id].below;
    p->frame[id] = *what;
    p->frame[id].below = below;
    p->frame[id].depth = below == NONE ? 0 : p->frame[below].depth + 1;
    p->top[at] = id;
    p->open++;
    return id;
}

/* ---- records ---- */

static void stack_of(const ProbeRecord *r, uint64_t *area, uint64_t *mode)
{
    const bool kernel = r->value >> 63;
    *area = kernel ? (r->value - 1) >> CALLPAIRS_STACK_SHIFT : r->extra;
    *mode = kernel ? CALLROW_OPEN : r->priv;
}

static bool take_call(WbCallPairs *p, const ProbeRecord *r)
{
    if (p->n_rows == p->cap_rows && !grow((void **)&p->rows, &p->cap_rows, FIRST_ROWS, sizeof(CallRow)))
        return false;
    Frame f = {.sp = r->value, .ret = r->b, .icount = r->icount, .row = (int32_t)p->n_rows};
    stack_of(r, &f.area, &f.mode);
    const uint32_t at = place_of(p, f.area, f.mode);
    for (bool more = p->top[at] != NONE; more;) {
        const Frame *top = &p->frame[p->top[at]];
        if ((int64_t)top->sp > (int64_t)f.sp || (top->sp == f.sp && top->ret != f.ret))
            break;
        more = pop(p, at);
    }
    const uint32_t id = push(p, &f);
    if (id == NONE)
        return false;
    CallRow *row = &p->rows[p->n_rows++];
    *row = (CallRow){.icount = r->icount,
                     .hart = r->hart,
                     .depth = p->frame[id].depth,
                     .pc = r->pc,
                     .target = r->a,
                     .context = r->extra,
                     .ret_icount = CALLROW_OPEN};
    memcpy(row->args, r->args, sizeof(row->args));
    return true;
}

static bool complete(WbCallPairs *p, const Frame *f, const ProbeRecord *r)
{
    if (f->row != NO_ROW) {
        p->rows[f->row].ret_icount = r->icount;
        p->rows[f->row].ret = r->args[0];
        return true;
    }
    if (p->n_returns == p->cap_returns &&
        !grow((void **)&p->returns, &p->cap_returns, FIRST_ROWS, sizeof(CallReturn)))
        return false;
    p->returns[p->n_returns++] = (CallReturn){r->icount, r->args[0], f->icount};
    return true;
}

static bool take_return(WbCallPairs *p, const ProbeRecord *r)
{
    uint64_t area, mode;
    stack_of(r, &area, &mode);
    const uint32_t at = place_of(p, area, mode);
    for (bool more = p->top[at] != NONE; more && (int64_t)p->frame[p->top[at]].sp < (int64_t)r->value;)
        more = pop(p, at);
    const uint32_t again = place_of(p, area, mode);
    uint32_t found = p->top[again], inner = 0;
    while (found != NONE && p->frame[found].sp == r->value && p->frame[found].ret != r->a) {
        if (++inner == CALLPAIRS_SAME_SP)
            return true;
        found = p->frame[found].below;
    }
    if (found == NONE || p->frame[found].sp != r->value)
        return true;
    if (!complete(p, &p->frame[found], r))
        return false;
    for (; inner > 0; inner--)
        pop(p, again); /* not the last of the stack: `found` is below */
    pop(p, again);
    return true;
}

void wb_callpairs_clear(WbCallPairs *p)
{
    for (uint32_t i = 1; i <= p->n_frames; i++)
        p->frame[i].row = NO_ROW;
    p->n_rows = p->n_returns = 0;
}

int wb_callpairs_feed(WbCallPairs *p, const void *records, uint32_t n)
{
    const ProbeRecord *r = records;
    for (const ProbeRecord *end = r + n; r < end; r++)
        if (r->kind == PROBE_CALL ? !take_call(p, r) : r->kind == PROBE_RET && !take_return(p, r))
            return -1;
    return 0;
}

const uint64_t *wb_callpairs_rows(const WbCallPairs *p, uint32_t *n)
{
    *n = p->n_rows;
    return (const uint64_t *)p->rows;
}

const uint64_t *wb_callpairs_returns(const WbCallPairs *p, uint32_t *n)
{
    *n = p->n_returns;
    return (const uint64_t *)p->returns;
}

/* ---- life and state ---- */

WbCallPairs *wb_callpairs_create(void)
{
    WbCallPairs *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->size = FIRST_FRAMES * 2;
    p->cap_frames = FIRST_FRAMES;
    p->frame = calloc(p->cap_frames, sizeof(*p->frame));
    p->top = calloc(p->size, sizeof(*p->top));
    if (p->frame && p->top)
        return p;
    wb_callpairs_destroy(p);
    return NULL;
}

void wb_callpairs_destroy(WbCallPairs *p)
{
    if (!p)
        return;
    free(p->frame);
    free(p->top);
    free(p->rows);
    free(p->returns);
    free(p);
}

uint32_t wb_callpairs_open(const WbCallPairs *p)
{
    return p->open;
}

void wb_callpairs_save(const WbCallPairs *p, uint64_t *out)
{
    for (uint32_t at = 0; at < p->size; at++) {
        if (p->top[at] == NONE)
            continue;
        uint64_t *end = out + ((size_t)p->frame[p->top[at]].depth + 1) * CALLPAIRS_STATE_WORDS;
        out = end;
        for (uint32_t i = p->top[at]; i != NONE; i = p->frame[i].below) {
            const Frame *f = &p->frame[i];
            const uint64_t words[CALLPAIRS_STATE_WORDS] = {f->area, f->mode, f->sp, f->ret, f->icount};
            end -= CALLPAIRS_STATE_WORDS;
            memcpy(end, words, sizeof(words));
        }
    }
}

int wb_callpairs_load(WbCallPairs *p, const uint64_t *in, uint32_t n)
{
    forget_all(p);
    if (n > CALLPAIRS_FRAMES)
        return -1;
    for (uint32_t i = 0; i < n; i++, in += CALLPAIRS_STATE_WORDS) {
        const Frame f = {
            .area = in[0], .mode = in[1], .sp = in[2], .ret = in[3], .icount = in[4], .row = NO_ROW};
        if (push(p, &f) == NONE)
            return -1;
    }
    return 0;
}

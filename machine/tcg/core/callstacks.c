/* callstacks.c: see callstacks.h. Stacks are lists of frames in one pool; a hash table finds the top of each.
 */
#include "callstacks.h"
#include "array.h"

#include <string.h>

enum { NONE = CALLSTACKS_NONE, FIRST_FRAMES = 1 << 10 };
#define KERNEL_MODE (~UINT64_C(0)) /* of stacks that are told apart by address alone */

static uint32_t home(const CallStacks *s, uint64_t area, uint64_t mode)
{
    const uint64_t hash = (area ^ mode << 60) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(hash >> 32) & (s->size - 1);
}

/* The place of a stack in the table: where its top is, or the empty place where it belongs. */
static uint32_t place_of(const CallStacks *s, uint64_t area, uint64_t mode)
{
    uint32_t at = home(s, area, mode);
    while (s->top[at] != NONE && (s->frame[s->top[at]].area != area || s->frame[s->top[at]].mode != mode))
        at = (at + 1) & (s->size - 1);
    return at;
}

/* Empties a place; what stands behind it moves up, so that every search still ends where it should. */
static void vacate(CallStacks *s, uint32_t hole)
{
    const uint32_t mask = s->size - 1;
    for (uint32_t at = (hole + 1) & mask; s->top[at] != NONE; at = (at + 1) & mask) {
        const StackFrame *f = &s->frame[s->top[at]];
        if (((at - home(s, f->area, f->mode)) & mask) >= ((at - hole) & mask)) {
            s->top[hole] = s->top[at];
            hole = at;
        }
    }
    s->top[hole] = NONE;
}

void callstacks_forget(CallStacks *s)
{
    s->n_frames = s->open = 0;
    s->free = NONE;
    memset(s->top, 0, s->size * sizeof(*s->top));
}

static bool grow_frames(CallStacks *s)
{
    uint32_t *top = calloc((size_t)s->cap_frames * 4, sizeof(*top));
    if (!top || !array_grow((void **)&s->frame, &s->cap_frames, FIRST_FRAMES, sizeof(StackFrame))) {
        free(top);
        return false;
    }
    uint32_t *old = s->top;
    const uint32_t n = s->size;
    s->top = top;
    s->size = s->cap_frames * 2;
    for (uint32_t i = 0; i < n; i++)
        if (old[i] != NONE)
            s->top[place_of(s, s->frame[old[i]].area, s->frame[old[i]].mode)] = old[i];
    free(old);
    return true;
}

/* Takes the top frame off the stack at a place; false: it was the last one, and the place is not the stack's
 * now. */
static bool pop(CallStacks *s, uint32_t at)
{
    const uint32_t gone = s->top[at];
    const uint32_t below = s->frame[gone].below;
    s->frame[gone].below = s->free;
    s->free = gone;
    s->open--;
    if (below == NONE) {
        vacate(s, at);
        return false;
    }
    s->top[at] = below;
    return true;
}

uint32_t callstacks_push(CallStacks *s, const StackFrame *what)
{
    if (s->open >= CALLSTACKS_FRAMES) {
        s->forgotten += s->open;
        callstacks_forget(s);
    }
    if (s->free == NONE && s->n_frames + 1 >= s->cap_frames && !grow_frames(s))
        return NONE;
    const uint32_t at = place_of(s, what->area, what->mode);
    const uint32_t below = s->top[at];
    const uint32_t id = s->free != NONE ? s->free : ++s->n_frames;
    if (id == s->free)
        s->free = s->frame[id].below;
    s->frame[id] = *what;
    s->frame[id].below = below;
    s->frame[id].depth = below == NONE ? 0 : s->frame[below].depth + 1;
    s->top[at] = id;
    s->open++;
    return id;
}

/* ---- records ---- */

static void stack_of(uint64_t sp, uint64_t context, uint64_t mode, StackFrame *f)
{
    const bool kernel = sp >> 63;
    f->sp = sp;
    f->area = kernel ? (sp - 1) >> CALLSTACKS_SHIFT : context;
    f->mode = kernel ? KERNEL_MODE : mode;
}

uint32_t callstacks_call(CallStacks *s, const ProbeRecord *r)
{
    StackFrame f = {.ret = r->b, .icount = r->icount};
    stack_of(r->value, r->extra, r->priv, &f);
    const uint32_t at = place_of(s, f.area, f.mode);
    for (bool more = s->top[at] != NONE; more;) {
        const StackFrame *top = &s->frame[s->top[at]];
        if ((int64_t)top->sp > (int64_t)f.sp || (top->sp == f.sp && top->ret != f.ret))
            break;
        more = pop(s, at);
    }
    return callstacks_push(s, &f);
}

uint32_t callstacks_settle(CallStacks *s, uint64_t sp, uint64_t context, uint64_t mode)
{
    StackFrame key;
    stack_of(sp, context, mode, &key);
    const uint32_t at = place_of(s, key.area, key.mode);
    for (bool more = s->top[at] != NONE; more && (int64_t)s->frame[s->top[at]].sp < (int64_t)sp;)
        more = pop(s, at);
    return s->top[place_of(s, key.area, key.mode)];
}

bool callstacks_return(CallStacks *s, const ProbeRecord *r, StackFrame *ended)
{
    const uint32_t top = callstacks_settle(s, r->value, r->extra, r->priv);
    uint32_t found = top, inner = 0;
    while (found != NONE && s->frame[found].sp == r->value && s->frame[found].ret != r->a) {
        if (++inner == CALLSTACKS_SAME_SP)
            return false;
        found = s->frame[found].below;
    }
    if (found == NONE || s->frame[found].sp != r->value)
        return false;
    *ended = s->frame[found];
    const uint32_t at = place_of(s, ended->area, ended->mode);
    for (; inner > 0; inner--)
        pop(s, at); /* not the last of the stack: `found` is below */
    pop(s, at);
    return true;
}

/* ---- life ---- */

bool callstacks_init(CallStacks *s)
{
    *s = (CallStacks){.size = FIRST_FRAMES * 2, .cap_frames = FIRST_FRAMES};
    s->frame = calloc(s->cap_frames, sizeof(*s->frame));
    s->top = calloc(s->size, sizeof(*s->top));
    return s->frame && s->top;
}

void callstacks_deinit(CallStacks *s)
{
    free(s->frame);
    free(s->top);
}

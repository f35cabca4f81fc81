/* callpairs.c: see callpairs.h. */
#include "callpairs.h"
#include "api.h"
#include "array.h"

#include <string.h>

enum { FIRST_ROWS = 1 << 14, NO_ROW = -1 };

struct WbCallPairs {
    CallStacks stacks; /* a frame's id: its row in `rows`, or NO_ROW */
    CallRow *rows;
    uint32_t n_rows, cap_rows;
    CallReturn *returns;
    uint32_t n_returns, cap_returns;
};

static bool take_call(WbCallPairs *p, const ProbeRecord *r)
{
    if (p->n_rows == p->cap_rows && !array_grow((void **)&p->rows, &p->cap_rows, FIRST_ROWS, sizeof(CallRow)))
        return false;
    const uint32_t id = callstacks_call(&p->stacks, r);
    if (id == CALLSTACKS_NONE)
        return false;
    StackFrame *f = &p->stacks.frame[id];
    f->id = (int32_t)p->n_rows;
    CallRow *row = &p->rows[p->n_rows++];
    *row = (CallRow){.icount = r->icount,
                     .hart = r->hart,
                     .depth = f->depth,
                     .pc = r->pc,
                     .target = r->a,
                     .context = r->extra,
                     .ret_icount = CALLROW_OPEN};
    memcpy(row->args, r->args, sizeof(row->args));
    return true;
}

static bool take_return(WbCallPairs *p, const ProbeRecord *r)
{
    StackFrame f;
    if (!callstacks_return(&p->stacks, r, &f))
        return true;
    if (f.id != NO_ROW) {
        p->rows[f.id].ret_icount = r->icount;
        p->rows[f.id].ret = r->args[0];
        return true;
    }
    if (p->n_returns == p->cap_returns &&
        !array_grow((void **)&p->returns, &p->cap_returns, FIRST_ROWS, sizeof(CallReturn)))
        return false;
    p->returns[p->n_returns++] = (CallReturn){r->icount, r->args[0], f.icount};
    return true;
}

void wb_callpairs_clear(WbCallPairs *p)
{
    for (uint32_t i = 1; i <= p->stacks.n_frames; i++)
        p->stacks.frame[i].id = NO_ROW;
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
    if (!p || callstacks_init(&p->stacks))
        return p;
    wb_callpairs_destroy(p);
    return NULL;
}

void wb_callpairs_destroy(WbCallPairs *p)
{
    if (!p)
        return;
    callstacks_deinit(&p->stacks);
    free(p->rows);
    free(p->returns);
    free(p);
}

uint32_t wb_callpairs_open(const WbCallPairs *p)
{
    return p->stacks.open;
}

void wb_callpairs_save(const WbCallPairs *p, uint64_t *out)
{
    const CallStacks *s = &p->stacks;
    for (uint32_t at = 0; at < s->size; at++) {
        if (s->top[at] == CALLSTACKS_NONE)
            continue;
        uint64_t *end = out + ((size_t)s->frame[s->top[at]].depth + 1) * CALLPAIRS_STATE_WORDS;
        out = end;
        for (uint32_t i = s->top[at]; i != CALLSTACKS_NONE; i = s->frame[i].below) {
            const StackFrame *f = &s->frame[i];
            const uint64_t words[CALLPAIRS_STATE_WORDS] = {f->area, f->mode, f->sp, f->ret, f->icount};
            end -= CALLPAIRS_STATE_WORDS;
            memcpy(end, words, sizeof(words));
        }
    }
}

int wb_callpairs_load(WbCallPairs *p, const uint64_t *in, uint32_t n)
{
    callstacks_forget(&p->stacks);
    if (n > CALLSTACKS_FRAMES)
        return -1;
    for (uint32_t i = 0; i < n; i++, in += CALLPAIRS_STATE_WORDS) {
        const StackFrame f = {
            .area = in[0], .mode = in[1], .sp = in[2], .ret = in[3], .icount = in[4], .id = NO_ROW};
        if (callstacks_push(&p->stacks, &f) == CALLSTACKS_NONE)
            return -1;
    }
    return 0;
}

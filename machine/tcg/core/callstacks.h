/* callstacks.h: the calls that are open, stack by stack, by the records that probes made of calls and
 * returns. Knows no machine: it is fed in the run's order.
 *
 * A call opens a frame on its stack; a return closes the innermost frame of its stack that has its target as
 * return address and its stack pointer. Frames below the stack pointer of a later call or return were left in
 * another way. Stacks: the kernel's (stack pointers with bit 63 set) are told apart by address, all others by
 * context and mode.
 */
#ifndef WB_CALLSTACKS_H
#define WB_CALLSTACKS_H

#include "probe.h"

enum {
    CALLSTACKS_SHIFT = 14,       /* a kernel's stack lies in one block of so many bits of address */
    CALLSTACKS_FRAMES = 1 << 20, /* open calls at most; one more, and all are forgotten: they never return */
    CALLSTACKS_SAME_SP = 64,     /* frames with one stack pointer that a return looks through */
    CALLSTACKS_NONE = 0,         /* no frame */
};

typedef struct {
    uint64_t area, mode; /* which stack */
    uint64_t sp, ret, icount;
    int32_t id;     /* the owner's: what it keeps for this call */
    uint32_t below; /* the next frame outwards, NONE at the bottom; of a free frame: the next free one */
    uint32_t depth;
} StackFrame;

typedef struct {
    StackFrame *frame; /* 1..n_frames; frame 0 is NONE */
    uint32_t n_frames, cap_frames, open, free;
    uint32_t *top;      /* hash table of frames on top of their stacks, NONE: an empty place */
    uint32_t size;      /* of `top`, a power of two, at least twice the stacks that there can be */
    uint64_t forgotten; /* frames, as there were too many */
} CallStacks;

/* false: no memory. */
bool callstacks_init(CallStacks *s);
void callstacks_deinit(CallStacks *s);
/* Puts a frame with its stack, pointers and id on top of its stack; returns it, NONE: no memory. */
uint32_t callstacks_push(CallStacks *s, const StackFrame *what);
/* Takes the record of a call; returns its frame, whose id is the caller's to set, NONE: no memory. */
uint32_t callstacks_call(CallStacks *s, const ProbeRecord *r);
/* Takes the record of a return; true: it ended a call, whose frame was this one. */
bool callstacks_return(CallStacks *s, const ProbeRecord *r, StackFrame *ended);
/* The frame on top of a stack, behind what lies below a stack pointer; NONE: the stack has no call open. */
uint32_t callstacks_settle(CallStacks *s, uint64_t sp, uint64_t context, uint64_t mode);
void callstacks_forget(CallStacks *s);

#endif

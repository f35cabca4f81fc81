/* callpairs.h: pairs calls with returns, by the records that probes made of them. Knows no machine: it is fed
 * in the run's order, whichever machine made the records, and what is open can be saved and restored between
 * two feeds.
 *
 * A call opens a frame on its stack; a return closes the innermost frame of its stack that has its target as
 * return address and its stack pointer. Frames below the stack pointer of a later call or return were left in
 * another way. Stacks: the kernel's (stack pointers with bit 63 set) are told apart by address, all others by
 * context and mode.
 */
#ifndef WB_CALLPAIRS_H
#define WB_CALLPAIRS_H

#include "probe.h"

enum {
    CALLPAIRS_STACK_SHIFT = 14, /* a kernel's stack lies in one block of so many bits of address */
    CALLPAIRS_FRAMES = 1 << 20, /* open calls at most; one more, and all are forgotten: they never return */
    CALLPAIRS_SAME_SP = 64,     /* frames with one stack pointer that a return looks through */
    CALLPAIRS_STATE_WORDS = 5,  /* of a saved frame */
};

/* A call, as Python reads it; ret_icount is CALLROW_OPEN where no return came. */
#define CALLROW_OPEN (~UINT64_C(0))
typedef struct {
    uint64_t icount, hart, depth, pc, target, context, ret_icount, args[8], ret;
} CallRow;
_Static_assert(sizeof(CallRow) == 128, "Python reads 16 words");

/* The return of a call whose row was cleared before. */
typedef struct {
    uint64_t ret_icount, ret, icount;
} CallReturn;
_Static_assert(sizeof(CallReturn) == 24, "Python reads 3 words");

/* The functions are in cdef.h: wb_callpairs_… */

#endif

/* callpairs.h: pairs calls with returns (callstacks.h), by the records that probes made of them. Knows no
 * machine: it is fed in the run's order, whichever machine made the records, and what is open can be saved
 * and restored between two feeds.
 */
#ifndef WB_CALLPAIRS_H
#define WB_CALLPAIRS_H

#include "callstacks.h"

enum { CALLPAIRS_STATE_WORDS = 5 }; /* of a saved frame */

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

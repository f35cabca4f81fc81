/* stacktree.h: how many steps ran under each stack of calls (callstacks.h), by the records of CALL, RET,
 * TRAP, XRET and TURN probes. Knows no machine: it is fed in the run's order.
 *
 * A node is a call's target on top of another node; below all are the roots, one for each kind of code that
 * runs with no call open. The step of a call, a return or a trap belongs to the stack before it. A trap into
 * another mode begins with no call open; a return from a trap goes on with the calls that are open where the
 * stack pointer then is. What a hart runs is its own from the first step of its turn.
 *
 * Calls deeper than STACKTREE_DEPTH are one node on the deepest; calls that would need more than
 * STACKTREE_NODES are one root.
 */
#ifndef WB_STACKTREE_H
#define WB_STACKTREE_H

#include "callstacks.h"

enum {
    STACKTREE_NODES = 1 << 21,
    STACKTREE_DEPTH = 512,
};

/* The roots: the first nodes. */
enum { STACKTREE_KERNEL, STACKTREE_USER, STACKTREE_MORE, N_STACKTREE_ROOTS };

/* A node, as Python reads it. */
typedef struct {
    uint64_t target; /* STACKTREE_DEEPER: calls deeper than can be told */
    uint64_t steps;  /* with this stack, not with those on top of it */
    uint32_t below, depth;
} StackNode;
#define STACKTREE_DEEPER (~UINT64_C(0)) /* odd: no call's target */
_Static_assert(sizeof(StackNode) == 24, "Python reads 3 words");

/* The functions are in cdef.h: wb_stacktree_… */

#endif

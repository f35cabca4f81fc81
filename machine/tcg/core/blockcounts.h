/* blockcounts.h: how often each instruction ran, counted by blocks: a block adds one for the number of its
 * instructions that ran, and what that is for each of them is summed up in the end.
 */
#ifndef WB_BLOCKCOUNTS_H
#define WB_BLOCKCOUNTS_H

#include "histogram.h"

#include <stdlib.h>

enum { BLOCKCOUNTS_MAX = 1 << 22 }; /* instructions of blocks: more, and the blocks must go first */

typedef struct {
    uint64_t pc;
    uint64_t ended; /* how often this was the last instruction of its block that ran */
    bool first;     /* of its block */
} BlockInsn;

typedef struct {
    BlockInsn *insn; /* of all blocks, one behind the other */
    uint32_t n, cap;
    uint32_t running; /* the first instruction of the block that runs, or BLOCKCOUNTS_NO_BLOCK */
    uint64_t since;   /* the position where it began */
} BlockCounts;
#define BLOCKCOUNTS_NO_BLOCK UINT32_MAX

/* Adds an instruction; false: no memory. */
bool blockcounts_add(BlockCounts *b, uint64_t pc, bool first);
/* The steps of the block that runs are those before a position; then none runs. */
static inline void blockcounts_settle(BlockCounts *b, uint64_t icount)
{
    if (b->running != BLOCKCOUNTS_NO_BLOCK && icount > b->since) {
        const uint64_t last = b->running + (icount - b->since) - 1;
        if (last >= b->n)
            abort(); /* a step that no block took was not told: a wrong count */
        b->insn[last].ended++;
    }
    b->running = BLOCKCOUNTS_NO_BLOCK;
}
/* Adds what was counted to a histogram; counts begin anew. No block runs. */
void blockcounts_fold(BlockCounts *b, Histogram *into);
/* Counts begin anew, of the same blocks. */
void blockcounts_clear(BlockCounts *b);
void blockcounts_deinit(BlockCounts *b);

#endif

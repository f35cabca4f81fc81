/* blockcounts.c: see blockcounts.h. */
#include "blockcounts.h"
#include "array.h"

enum { FIRST_INSNS = 1 << 14 };

bool blockcounts_add(BlockCounts *b, uint64_t pc, bool first)
{
    if (b->n == b->cap && !array_grow((void **)&b->insn, &b->cap, FIRST_INSNS, sizeof(*b->insn)))
        return false;
    b->insn[b->n++] = (BlockInsn){.pc = pc, .first = first};
    return true;
}

void blockcounts_fold(BlockCounts *b, Histogram *into)
{
    uint64_t ran = 0; /* an instruction ran where it or one behind it was the last */
    for (uint32_t i = b->n; i-- > 0;) {
        BlockInsn *insn = &b->insn[i];
        ran += insn->ended;
        insn->ended = 0;
        if (ran)
            histogram_add(into, insn->pc, ran);
        if (insn->first)
            ran = 0;
    }
}

void blockcounts_clear(BlockCounts *b)
{
    for (uint32_t i = 0; i < b->n; i++)
        b->insn[i].ended = 0;
    b->running = BLOCKCOUNTS_NO_BLOCK;
}

void blockcounts_deinit(BlockCounts *b)
{
    free(b->insn);
}

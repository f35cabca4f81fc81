/* fuzz.h: what the parts of the fuzzing program share: fuzz.c has the rounds, fuzz_blocks.c makes the blocks,
 * fuzz_guest.c is the guest that they run on. */
#ifndef WB_FUZZ_H
#define WB_FUZZ_H

#include "../../../../machine/tcg/guest/guest.h"

enum { PAGES = 6, RAM_BYTES = PAGES * WB_PAGE_SIZE, N_TBS = 4 };

typedef struct {
    uint8_t *ram;
    uint64_t log; /* digest of everything a helper or a slow path could see */
    DataCtx ctx[2];
    FetchCtx fctx;
} Side;

/* fuzz_blocks.c: everything that is drawn follows from rng_state */
extern uint64_t rng_state;
uint64_t rng(void);
uint32_t below(uint32_t n);
uint64_t value(void); /* often one at an end of some range */
uint64_t tb_pc(uint32_t i);
void gen_block(IrBlock *ir, uint32_t index);

/* fuzz_guest.c */
extern uint64_t ram_vaddr; /* where the round's RAM begins */
extern const GuestOps fuzz_guest;
/* Of the budget, at the instruction under way: that is where the block is, whatever block it is. */
uint64_t steps_left(const Hart *h);

#endif

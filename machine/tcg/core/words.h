/* words.h: what the optimiser knows of 32-bit values in 64-bit slots. Used by opt.c alone. */
#ifndef WB_WORDS_H
#define WB_WORDS_H

#include "ir.h"

typedef struct {
    int16_t def[IR_SLOTS];       /* the op that wrote a slot last, or -1 */
    uint16_t number[IR_SLOTS];   /* of the slot's value: copies share it */
    uint16_t number_a[IR_SLOTS]; /* of operand a of the op in `def`, when it ran */
    uint16_t numbers;            /* given so far */
    uint8_t s_bits[IR_SLOTS];    /* the slot is the sign extension of this many low bits … */
    uint8_t z_bits[IR_SLOTS];    /* … and the zero extension of this many; 64: nothing is known */
} Words;

void words_init(Words *w);
/* Forwards, before op i is noted: extensions of what is extended become moves, two shifts and an OR a
 * rotation, two shifts an extension. Never adds an op. */
void words_fold(Words *w, IrOp *ops, uint32_t i);
void words_note(Words *w, const IrOp *ops, uint32_t i);

/* Backwards: a form of the op that may leave anything above bit 31 of d. */
void words_relax(IrOp *o);
/* Does the op look above bit 31 of operand a (b)? need: does somebody look there in d. */
bool words_reads_high_a(const IrOp *o, bool need);
bool words_reads_high_b(const IrOp *o, bool need);

#endif

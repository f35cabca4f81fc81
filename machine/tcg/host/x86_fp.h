/* x86_fp.h: between what decides on a floating-point expansion (x86_fp.c) and what emits it (x86_fpops.c). */
#ifndef WB_X86_FP_H
#define WB_X86_FP_H

#include "x86.h"

enum { XMM0, XMM1 };

typedef enum { FP_NONE, FP_BIN, FP_FMA, FP_UN, FP_CMP, FP_SIGN, FP_TO_INT, FP_FROM_INT } FpKind;
typedef struct {
    const char *name;
    uint8_t kind;
    uint8_t from, to; /* 's', 'd', or 'w' and 'l': integers of 32 and 64 bits, 'u': unsigned of 32 */
    uint16_t code;    /* opcode, condition (FP_CMP), or bit operation (FP_SIGN; 0: none) */
} FpInline;

/* The register that has slot's value: its copy's, or `xmm`, where it is fetched in the format 's' or 'd'. */
unsigned fp_in_reg(Gen *g, unsigned xmm, unsigned format, unsigned slot);
/* Where the host leaves a floating-point result: a double in the copy of its slot, if that has one. */
unsigned fp_target(const Gen *g, const IrOp *op, const FpInline *f);
/* Does the host leave a double there, and not an integer or a boxed single in rax? */
bool fp_gives_double(const FpInline *f);
/* The operation alone; it reads its operands' slots or copies and writes no slot. */
void fp_emit_core(Gen *g, const IrOp *op, const FpInline *f);
void fp_emit_sign(Gen *g, const IrOp *op, const FpInline *f);
void fp_emit_from_int(Gen *g, const IrOp *op, const FpInline *f);
/* The result, in `xmm` if the host gave a double, else in rax, goes to its slot and to the slot's copy. */
void fp_result(Gen *g, const IrOp *op, bool in_xmm, unsigned xmm);

#endif

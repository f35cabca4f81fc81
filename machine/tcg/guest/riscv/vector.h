/* vector.h: the vector extension: the table of its instructions, and what their helpers share.
 *
 * An instruction is a line in rvv.decode (its encodings), a row here (the shape of its operands) and a
 * function (what it makes of an element, or of all of them). From the rows follow its translation, the checks
 * of its register groups and the loop over its elements. Loads and stores are one helper: what they do is in
 * the encoding.
 *
 * Elements behind vl and those that are masked off stay as they are, which both policies allow. SPEC: vector
 * 1.0 (sections below are its), 3.4.3
 */
#ifndef WB_RISCV_VECTOR_H
#define WB_RISCV_VECTOR_H

#include "cpu.h"
#include "softfloat.h"

#include <string.h>

#define VTYPE_VILL (1ull << 63)

/* Shapes. a is vs2, b is vs1 or a scalar, d is vd; a width is SEW unless a flag says otherwise. */
enum {
    V_WIDE = 1 << 0,       /* d is of 2 * SEW */
    V_WIDE_A = 1 << 1,     /* a is of 2 * SEW */
    V_MASK = 1 << 2,       /* d is a mask */
    V_SIGNED_A = 1 << 3,   /* sign-extended to 64 bits, else zero-extended */
    V_SIGNED_B = 1 << 4,   /* the same */
    V_UNARY = 1 << 5,      /* there is no b */
    V_UIMM = 1 << 6,       /* an immediate is unsigned */
    V_CARRY = 1 << 7,      /* v0 is an operand, and no mask */
    V_FP = 1 << 8,         /* floating point of SEW bits … */
    V_FP_WIDE = 1 << 9,    /* … or of 2 * SEW bits */
    V_HALF_A = 1 << 10,    /* a is of SEW / 2 … */
    V_QUARTER_A = 1 << 11, /* … or a quarter … */
    V_EIGHTH_A = 1 << 12,  /* … or an eighth */
    V_ANY_TYPE = 1 << 13,  /* vtype does not matter */
    V_TO_X = 1 << 14,      /* the destination is an x register */
    V_TO_F = 1 << 15,      /* or an f register */
    V_SIGNED = V_SIGNED_A | V_SIGNED_B,
    V_IS_FP = V_FP | V_FP_WIDE,
};

/* clang-format off */
/* Element by element: X(name, shape); vk_<name> is the function of an element. */
#define RVV_INTEGER(X)                                                                                       \
    X(vadd, 0) X(vsub, 0) X(vrsub, 0) X(vand, 0) X(vor, 0) X(vxor, 0)                                        \
    X(vminu, 0) X(vmin, V_SIGNED) X(vmaxu, 0) X(vmax, V_SIGNED)                                              \
    X(vsll, V_UIMM) X(vsrl, V_UIMM) X(vsra, V_UIMM | V_SIGNED_A)                                             \
    X(vnsrl, V_UIMM | V_WIDE_A) X(vnsra, V_UIMM | V_WIDE_A | V_SIGNED_A)                                     \
    X(vadc, V_CARRY) X(vsbc, V_CARRY) X(vmadc, V_CARRY | V_MASK) X(vmsbc, V_CARRY | V_MASK)                  \
    X(vmerge, V_CARRY) X(vmv_v, 0)                                                                           \
    X(vmseq, V_MASK) X(vmsne, V_MASK) X(vmsltu, V_MASK) X(vmslt, V_MASK | V_SIGNED)                          \
    X(vmsleu, V_MASK) X(vmsle, V_MASK | V_SIGNED) X(vmsgtu, V_MASK) X(vmsgt, V_MASK | V_SIGNED)              \
    X(vmul, 0) X(vmulh, V_SIGNED) X(vmulhu, 0) X(vmulhsu, V_SIGNED_A)                                        \
    X(vdivu, 0) X(vdiv, V_SIGNED) X(vremu, 0) X(vrem, V_SIGNED)                                              \
    X(vmadd, 0) X(vnmsub, 0) X(vmacc, 0) X(vnmsac, 0)                                                        \
    X(vwaddu, V_WIDE) X(vwadd, V_WIDE | V_SIGNED) X(vwsubu, V_WIDE) X(vwsub, V_WIDE | V_SIGNED)              \
    X(vwaddu_w, V_WIDE | V_WIDE_A) X(vwadd_w, V_WIDE | V_WIDE_A | V_SIGNED)                                  \
    X(vwsubu_w, V_WIDE | V_WIDE_A) X(vwsub_w, V_WIDE | V_WIDE_A | V_SIGNED)                                  \
    X(vwmulu, V_WIDE) X(vwmulsu, V_WIDE | V_SIGNED_A) X(vwmul, V_WIDE | V_SIGNED)                            \
    X(vwmaccu, V_WIDE) X(vwmacc, V_WIDE | V_SIGNED)                                                          \
    X(vwmaccus, V_WIDE | V_SIGNED_A) X(vwmaccsu, V_WIDE | V_SIGNED_B)                                        \
    X(vzext_vf2, V_UNARY | V_HALF_A) X(vsext_vf2, V_UNARY | V_HALF_A | V_SIGNED_A)                           \
    X(vzext_vf4, V_UNARY | V_QUARTER_A) X(vsext_vf4, V_UNARY | V_QUARTER_A | V_SIGNED_A)                     \
    X(vzext_vf8, V_UNARY | V_EIGHTH_A) X(vsext_vf8, V_UNARY | V_EIGHTH_A | V_SIGNED_A)
#define RVV_FIXED(X)                                                                                         \
    X(vsaddu, 0) X(vsadd, V_SIGNED) X(vssubu, 0) X(vssub, V_SIGNED)                                          \
    X(vaaddu, 0) X(vaadd, V_SIGNED) X(vasubu, 0) X(vasub, V_SIGNED) X(vsmul, V_SIGNED)                       \
    X(vssrl, V_UIMM) X(vssra, V_UIMM | V_SIGNED_A)                                                           \
    X(vnclipu, V_UIMM | V_WIDE_A) X(vnclip, V_UIMM | V_WIDE_A | V_SIGNED_A)
#define RVV_FLOAT(X)                                                                                         \
    X(vfadd, V_FP) X(vfsub, V_FP) X(vfrsub, V_FP) X(vfmul, V_FP) X(vfdiv, V_FP) X(vfrdiv, V_FP)              \
    X(vfmin, V_FP) X(vfmax, V_FP) X(vfsgnj, V_FP) X(vfsgnjn, V_FP) X(vfsgnjx, V_FP)                          \
    X(vfmacc, V_FP) X(vfnmacc, V_FP) X(vfmsac, V_FP) X(vfnmsac, V_FP)                                        \
    X(vfmadd, V_FP) X(vfnmadd, V_FP) X(vfmsub, V_FP) X(vfnmsub, V_FP)                                        \
    X(vfwadd, V_FP | V_WIDE) X(vfwsub, V_FP | V_WIDE) X(vfwmul, V_FP | V_WIDE)                               \
    X(vfwadd_w, V_FP | V_WIDE | V_WIDE_A) X(vfwsub_w, V_FP | V_WIDE | V_WIDE_A)                              \
    X(vfwmacc, V_FP | V_WIDE) X(vfwnmacc, V_FP | V_WIDE)                                                     \
    X(vfwmsac, V_FP | V_WIDE) X(vfwnmsac, V_FP | V_WIDE)                                                     \
    X(vmfeq, V_FP | V_MASK) X(vmfne, V_FP | V_MASK) X(vmflt, V_FP | V_MASK) X(vmfle, V_FP | V_MASK)          \
    X(vmfgt, V_FP | V_MASK) X(vmfge, V_FP | V_MASK)                                                          \
    X(vfmerge, V_FP | V_CARRY) X(vfmv_v, V_FP)                                                               \
    X(vfsqrt, V_FP | V_UNARY) X(vfrsqrt7, V_FP | V_UNARY) X(vfrec7, V_FP | V_UNARY)                          \
    X(vfclass, V_FP | V_UNARY)                                                                               \
    X(vfcvt_xu_f, V_FP | V_UNARY) X(vfcvt_x_f, V_FP | V_UNARY)                                               \
    X(vfcvt_rtz_xu_f, V_FP | V_UNARY) X(vfcvt_rtz_x_f, V_FP | V_UNARY)                                       \
    X(vfcvt_f_xu, V_FP | V_UNARY) X(vfcvt_f_x, V_FP | V_UNARY)                                               \
    X(vfwcvt_xu_f, V_FP | V_WIDE | V_UNARY) X(vfwcvt_x_f, V_FP | V_WIDE | V_UNARY)                           \
    X(vfwcvt_rtz_xu_f, V_FP | V_WIDE | V_UNARY) X(vfwcvt_rtz_x_f, V_FP | V_WIDE | V_UNARY)                   \
    X(vfwcvt_f_xu, V_FP_WIDE | V_WIDE | V_UNARY)                                                             \
    X(vfwcvt_f_x, V_FP_WIDE | V_WIDE | V_UNARY | V_SIGNED_A)                                                 \
    X(vfwcvt_f_f, V_FP | V_WIDE | V_UNARY)                                                                   \
    X(vfncvt_xu_f, V_FP_WIDE | V_WIDE_A | V_UNARY) X(vfncvt_x_f, V_FP_WIDE | V_WIDE_A | V_UNARY)             \
    X(vfncvt_rtz_xu_f, V_FP_WIDE | V_WIDE_A | V_UNARY) X(vfncvt_rtz_x_f, V_FP_WIDE | V_WIDE_A | V_UNARY)     \
    X(vfncvt_f_xu, V_FP | V_WIDE_A | V_UNARY) X(vfncvt_f_x, V_FP | V_WIDE_A | V_UNARY)                       \
    X(vfncvt_f_f, V_FP | V_WIDE_A | V_UNARY) X(vfncvt_rod_f_f, V_FP | V_WIDE_A | V_UNARY)
#define RVV_ELEMENTWISE(X) RVV_INTEGER(X) RVV_FIXED(X) RVV_FLOAT(X)

/* Reductions: X(name, shape, function of the result so far and an element); the former is of d's width. */
#define RVV_REDUCTIONS(X)                                                                                    \
    X(vredsum, 0, vadd) X(vredand, 0, vand) X(vredor, 0, vor) X(vredxor, 0, vxor)                            \
    X(vredminu, 0, vminu) X(vredmin, V_SIGNED, vmin) X(vredmaxu, 0, vmaxu) X(vredmax, V_SIGNED, vmax)        \
    X(vwredsumu, V_WIDE, vadd) X(vwredsum, V_WIDE | V_SIGNED, vadd)                                          \
    X(vfredusum, V_FP, vfadd) X(vfredosum, V_FP, vfadd) X(vfredmin, V_FP, vfmin) X(vfredmax, V_FP, vfmax)    \
    X(vfwredusum, V_FP | V_WIDE, vfwadd_w) X(vfwredosum, V_FP | V_WIDE, vfwadd_w)

/* The others, each with a function of its own: X(name, shape); its result goes to x or f, or nowhere. */
#define RVV_WHOLE(X)                                                                                         \
    X(vmand, 0) X(vmnand, 0) X(vmandn, 0) X(vmxor, 0) X(vmor, 0) X(vmnor, 0) X(vmorn, 0) X(vmxnor, 0)        \
    X(vcpop, V_TO_X) X(vfirst, V_TO_X) X(vmsbf, 0) X(vmsof, 0) X(vmsif, 0) X(viota, 0) X(vid, 0)             \
    X(vmv_x_s, V_TO_X) X(vmv_s_x, 0) X(vfmv_f_s, V_FP | V_TO_F) X(vfmv_s_f, V_FP)                            \
    X(vslideup, V_UIMM) X(vslidedown, V_UIMM) X(vslide1up, 0) X(vslide1down, 0)                              \
    X(vfslide1up, V_FP) X(vfslide1down, V_FP)                                                                \
    X(vrgather, V_UIMM) X(vrgatherei16, 0) X(vcompress, 0) X(vmvr, V_ANY_TYPE)
/* clang-format on */

enum {
#define X(name, ...) VE_##name,
    RVV_ELEMENTWISE(X)
#undef X
};
enum {
#define X(name, ...) VR_##name,
    RVV_REDUCTIONS(X)
#undef X
};
enum {
#define X(name, ...) VW_##name,
    RVV_WHOLE(X)
#undef X
};

/* An instruction under way. */
typedef struct {
    Hart *h;
    GuestHart *g;
    uint32_t insn, shape;
    uint32_t vd, vs1, vs2;
    uint32_t vl, vstart, vlmax;
    int sew, lmul; /* log2: of bytes of an element; of registers in a group, negative for parts of one */
    bool masked;
    bool carry;        /* V_CARRY: v0's bit for this element */
    bool saturated;    /* what vxsat gets */
    SfRound rm;        /* of V_FP … */
    uint32_t fp_flags; /* … and what fflags get */
    uint64_t x;        /* the scalar operand: of an x register, an immediate, or a number of SEW bits */
} VOp;

/* vector.c */

/* Takes apart an encoding, with the scalar operand x, and checks what every instruction asks for. False: the
 * trap is taken. */
bool v_begin(VOp *o, Hart *h, uint32_t insn, uint32_t shape, uint64_t x);
/* The instruction is complete: vstart and what accrues. */
void v_end(VOp *o);
/* Raises the exception of an illegal instruction; returns 0, for helpers. */
uint64_t v_illegal(VOp *o);
/* May elements of 2^eew bytes be in the registers from reg on? *regs: how many, as a log2. */
bool v_group(const VOp *o, uint32_t reg, int eew, int *regs);
/* Checks a destination's elements against a source's: SPEC: 5.2 */
bool v_overlap_legal(uint32_t dest, int dest_eew, int dest_regs, uint32_t src, int src_eew, int src_regs);
/* Do they share a register? */
bool v_overlaps(uint32_t a, int a_regs, uint32_t b, int b_regs);
void riscv_vector_loaded(Hart *h); /* see riscv_state_loaded() */

/* The mask's EEW where v_overlap_legal() asks for one: less than any element's. */
enum { EEW_MASK = -1 };

static inline uint8_t *v_at(const VOp *o, uint32_t reg, uint64_t i, int eew)
{
    return (uint8_t *)o->g->v + reg * o->g->vlenb + (i << eew);
}

/* Element i of the group at reg, zero-extended. */
static inline uint64_t v_get(const VOp *o, uint32_t reg, uint64_t i, int eew)
{
    uint64_t value = 0;
    const uint8_t *at = v_at(o, reg, i, eew);
    switch (eew) {
    case 0:
        return *at;
    case 1:
        memcpy(&value, at, 2);
        return value;
    case 2:
        memcpy(&value, at, 4);
        return value;
    default:
        memcpy(&value, at, 8);
        return value;
    }
}

static inline uint64_t v_extend(uint64_t value, int eew, bool is_signed)
{
    const int up = 64 - (8 << eew);
    return is_signed ? (uint64_t)((int64_t)(value << up) >> up) : value << up >> up;
}

static inline void v_set(const VOp *o, uint32_t reg, uint64_t i, int eew, uint64_t value)
{
    memcpy(v_at(o, reg, i, eew), &value, (size_t)1 << eew);
}

static inline bool v_bit(const VOp *o, uint32_t reg, uint64_t i)
{
    return *v_at(o, reg, i / 8, 0) >> (i % 8) & 1;
}

static inline void v_put_bit(const VOp *o, uint32_t reg, uint64_t i, bool bit)
{
    uint8_t *at = v_at(o, reg, i / 8, 0);
    *at = (uint8_t)((*at & ~(1u << (i % 8))) | (uint32_t)bit << (i % 8));
}

static inline bool v_active(const VOp *o, uint64_t i)
{
    return !o->masked || v_bit(o, 0, i);
}

static inline int v_bits(const VOp *o)
{
    return 8 << o->sew;
}

/* The functions of elements: a, b and d as the shape has them; a result's bits above its width are dropped.
 */
typedef uint64_t VElement(VOp *o, uint64_t a, uint64_t b, uint64_t d);
#define X(name, ...) VElement vk_##name;
RVV_ELEMENTWISE(X)
#undef X
/* vector_fast.c: all elements at once, none masked off and vstart 0; b is the scalar or vs1. NULL: there is
 * no such loop for the row. */
typedef void VFast(const VOp *o, bool vector_b);
VFast *v_fast(uint32_t row);
/* The functions of whole instructions. */
typedef uint64_t VWhole(VOp *o);
#define X(name, ...) VWhole vw_##name;
RVV_WHOLE(X)
#undef X

#endif

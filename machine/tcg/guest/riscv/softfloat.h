/* softfloat.h: IEEE 754 binary32 and binary64 in integer arithmetic, exact on every host, with RISC-V's
 * choices where the standard leaves one: canonical NaNs, saturating conversions, tininess after rounding.
 *
 * Values are bit images in the low bits of a uint64_t; a result has all bits above its format clear. Flags
 * are or-ed into *flags. Nothing here reads or writes any other state. SPEC: IEEE 754-2019; unprivileged,
 * chapters 11, 12
 */
#ifndef WB_RISCV_SOFTFLOAT_H
#define WB_RISCV_SOFTFLOAT_H

#include <stdbool.h>
#include <stdint.h>

/* Rounding modes and flags have the values of fcsr. SPEC: unprivileged, 11.2 */
typedef enum {
    SF_RNE, /* nearest, ties to even */
    SF_RTZ, /* towards zero */
    SF_RDN, /* down */
    SF_RUP, /* up */
    SF_RMM, /* nearest, ties to larger magnitude */
    SF_N_ROUNDS
} SfRound;
enum { SF_NX = 1, SF_UF = 2, SF_OF = 4, SF_DZ = 8, SF_NV = 16 };

/* Sign changes of a fused multiply-add: of the product, of the addend. */
enum { SF_NEG_PRODUCT = 1, SF_NEG_ADDEND = 2 };

/* Integer formats of conversions. */
typedef enum { SF_I32, SF_U32, SF_I64, SF_U64 } SfInt;

/* X(name, fraction bits, exponent bits) */
#define SF_FORMATS(X) X(f32, 23, 8) X(f64, 52, 11)

#define SF_DECLARE(f, frac, exp)                                                                             \
    uint64_t f##_add(uint64_t a, uint64_t b, SfRound rm, uint32_t *flags);                                   \
    uint64_t f##_sub(uint64_t a, uint64_t b, SfRound rm, uint32_t *flags);                                   \
    uint64_t f##_mul(uint64_t a, uint64_t b, SfRound rm, uint32_t *flags);                                   \
    uint64_t f##_div(uint64_t a, uint64_t b, SfRound rm, uint32_t *flags);                                   \
    uint64_t f##_sqrt(uint64_t a, SfRound rm, uint32_t *flags);                                              \
    /* ±(a * b) ± c, rounded once; neg: SF_NEG_* */                                                          \
    uint64_t f##_fma(uint64_t a, uint64_t b, uint64_t c, uint32_t neg, SfRound rm, uint32_t *flags);         \
    /* minimumNumber and maximumNumber; -0 is less than +0 */                                                \
    uint64_t f##_min(uint64_t a, uint64_t b, uint32_t *flags);                                               \
    uint64_t f##_max(uint64_t a, uint64_t b, uint32_t *flags);                                               \
    bool f##_eq(uint64_t a, uint64_t b, uint32_t *flags); /* quiet */                                        \
    bool f##_lt(uint64_t a, uint64_t b, uint32_t *flags); /* signalling */                                   \
    bool f##_le(uint64_t a, uint64_t b, uint32_t *flags); /* signalling */                                   \
    uint32_t f##_classify(uint64_t a);                    /* one of the ten bits of FCLASS */                \
    /* Saturates; a NaN gives the largest value. 32-bit results are sign-extended, unsigned ones too. */     \
    uint64_t f##_to_int(uint64_t a, SfInt type, SfRound rm, uint32_t *flags);                                \
    uint64_t f##_from_int(uint64_t a, SfInt type, SfRound rm, uint32_t *flags);
SF_FORMATS(SF_DECLARE)
#undef SF_DECLARE

uint64_t f32_from_f64(uint64_t a, SfRound rm, uint32_t *flags);
uint64_t f64_from_f32(uint64_t a, SfRound rm, uint32_t *flags);
/* binary16 is converted from and to, and nothing else (Zfhmin). */
uint64_t f16_from_f32(uint64_t a, SfRound rm, uint32_t *flags);
uint64_t f16_from_f64(uint64_t a, SfRound rm, uint32_t *flags);
uint64_t f32_from_f16(uint64_t a, SfRound rm, uint32_t *flags);
uint64_t f64_from_f16(uint64_t a, SfRound rm, uint32_t *flags);

#define F16_NAN 0x7e00u
#define F32_NAN 0x7fc00000u
#define F64_NAN 0x7ff8000000000000ull

#endif

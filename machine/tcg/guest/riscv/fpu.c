/* fpu.c: F, D and Zfhmin on register images: NaN boxing, rounding modes and accrued flags around softfloat.
 * SPEC: unprivileged, chapters 11 (F) and 12 (D)
 */
#include "../../core/brief.h" /* as softfloat.c */

#include "cpu.h"
#include "softfloat.h"

/* SPEC: unprivileged, 12.2: a single in a register has all upper bits set; anything else reads as the
 * canonical NaN. */
static inline uint64_t unbox_s(uint64_t image)
{
    return image >> 32 == UINT32_MAX ? (uint32_t)image : F32_NAN;
}
static inline uint64_t box_s(uint64_t value)
{
    return value | ~(uint64_t)UINT32_MAX;
}
static inline uint64_t unbox_h(uint64_t image)
{
    return image >> 16 == UINT64_MAX >> 16 ? (uint16_t)image : F16_NAN;
}
static inline uint64_t box_h(uint64_t value)
{
    return value | ~(uint64_t)UINT16_MAX;
}
static inline uint64_t unbox_d(uint64_t image)
{
    return image;
}
static inline uint64_t box_d(uint64_t value)
{
    return value;
}

/* The rounding mode of an instruction whose rm field is rm. false: it is reserved and the trap is taken.
 * Reserved fields are the translator's to refuse; what frm holds shows only now. SPEC: unprivileged, 11.2 */
static inline bool resolve_rm(Hart *h, uint64_t rm, SfRound *mode)
{
    const GuestHart *g = h->g;
    const uint64_t m = rm == 7 ? g->frm : rm;
    if (m >= SF_N_ROUNDS) {
        riscv_raise(h, EXC_ILLEGAL, (uint32_t)g->rm_insn);
        return false;
    }
    *mode = (SfRound)m;
    return true;
}

static inline void accrue(Hart *h, uint32_t flags)
{
    if (flags) {
        h->g->fflags |= flags;
        h->g->fs_dirty = 1;
    }
}

/* Runs `expr`, which may name mode and flags, under the rounding mode rm. */
#define ROUNDED(h, rm, expr)                                                                                 \
    SfRound mode;                                                                                            \
    uint32_t flags = 0;                                                                                      \
    if (!resolve_rm(h, rm, &mode))                                                                           \
        return 0;                                                                                            \
    const uint64_t result = (expr);                                                                          \
    accrue(h, flags);                                                                                        \
    return result

#define EXACT(h, expr)                                                                                       \
    uint32_t flags = 0;                                                                                      \
    const uint64_t result = (expr);                                                                          \
    accrue(h, flags);                                                                                        \
    return result

#define HELPER(name) uint64_t helper_##name(Hart *h, uint64_t a, uint64_t b, uint64_t c)
#define UNUSED(x)    (void)(x)

#define FP_ARITH(op, s, f)                                                                                   \
    HELPER(f##op##_##s)                                                                                      \
    {                                                                                                        \
        ROUNDED(h, c, box_##s(SF_##s(op)(unbox_##s(a), unbox_##s(b), mode, &flags)));                        \
    }
#define FP_FUSED(name, s, neg)                                                                               \
    HELPER(name##_##s)                                                                                       \
    {                                                                                                        \
        ROUNDED(h, h->g->rm,                                                                                 \
                box_##s(SF_##s(fma)(unbox_##s(a), unbox_##s(b), unbox_##s(c), neg, mode, &flags)));          \
    }
#define FP_PICK(op, s)                                                                                       \
    HELPER(f##op##_##s)                                                                                      \
    {                                                                                                        \
        UNUSED(c);                                                                                           \
        EXACT(h, box_##s(SF_##s(op)(unbox_##s(a), unbox_##s(b), &flags)));                                   \
    }
#define FP_COMPARE(op, s)                                                                                    \
    HELPER(f##op##_##s)                                                                                      \
    {                                                                                                        \
        UNUSED(c);                                                                                           \
        EXACT(h, SF_##s(op)(unbox_##s(a), unbox_##s(b), &flags));                                            \
    }
/* sign: what to make of the signs of a and b, at bit `top` */
#define FP_SIGN(name, s, top, sign)                                                                          \
    HELPER(name##_##s)                                                                                       \
    {                                                                                                        \
        UNUSED(h), UNUSED(c);                                                                                \
        const uint64_t x = unbox_##s(a), y = unbox_##s(b), bit = 1ull << (top);                              \
        return box_##s((x & ~bit) | ((sign) & bit));                                                         \
    }
#define FP_TO_INT(name, s, type)                                                                             \
    HELPER(fcvt_##name##_##s)                                                                                \
    {                                                                                                        \
        UNUSED(b);                                                                                           \
        ROUNDED(h, c, SF_##s(to_int)(unbox_##s(a), type, mode, &flags));                                     \
    }
#define FP_FROM_INT(name, s, type)                                                                           \
    HELPER(fcvt_##s##_##name)                                                                                \
    {                                                                                                        \
        UNUSED(b);                                                                                           \
        ROUNDED(h, c, box_##s(SF_##s(from_int)(a, type, mode, &flags)));                                     \
    }

#define SF_s(op) f32_##op
#define SF_d(op) f64_##op

/* SPEC: unprivileged, 11.6: FNMADD is -(a * b) - c, FNMSUB is -(a * b) + c. */
#define FP_FORMAT(s, top)                                                                                    \
    FP_ARITH(add, s, f)                                                                                      \
    FP_ARITH(sub, s, f)                                                                                      \
    FP_ARITH(mul, s, f)                                                                                      \
    FP_ARITH(div, s, f)                                                                                      \
    HELPER(fsqrt_##s)                                                                                        \
    {                                                                                                        \
        UNUSED(b);                                                                                           \
        ROUNDED(h, c, box_##s(SF_##s(sqrt)(unbox_##s(a), mode, &flags)));                                    \
    }                                                                                                        \
    FP_FUSED(fmadd, s, 0)                                                                                    \
    FP_FUSED(fmsub, s, SF_NEG_ADDEND)                                                                        \
    FP_FUSED(fnmsub, s, SF_NEG_PRODUCT)                                                                      \
    FP_FUSED(fnmadd, s, SF_NEG_PRODUCT | SF_NEG_ADDEND)                                                      \
    FP_PICK(min, s)                                                                                          \
    FP_PICK(max, s)                                                                                          \
    FP_COMPARE(eq, s)                                                                                        \
    FP_COMPARE(lt, s)                                                                                        \
    FP_COMPARE(le, s)                                                                                        \
    HELPER(fclass_##s)                                                                                       \
    {                                                                                                        \
        UNUSED(h), UNUSED(b), UNUSED(c);                                                                     \
        return SF_##s(classify)(unbox_##s(a));                                                               \
    }                                                                                                        \
    FP_SIGN(fsgnj, s, top, y)                                                                                \
    FP_SIGN(fsgnjn, s, top, ~y)                                                                              \
    FP_SIGN(fsgnjx, s, top, x ^ y)                                                                           \
    FP_TO_INT(w, s, SF_I32)                                                                                  \
    FP_TO_INT(wu, s, SF_U32)                                                                                 \
    FP_TO_INT(l, s, SF_I64)                                                                                  \
    FP_TO_INT(lu, s, SF_U64)                                                                                 \
    FP_FROM_INT(w, s, SF_I32)                                                                                \
    FP_FROM_INT(wu, s, SF_U32)                                                                               \
    FP_FROM_INT(l, s, SF_I64)                                                                                \
    FP_FROM_INT(lu, s, SF_U64)

FP_FORMAT(s, 31)
FP_FORMAT(d, 63)

#define FP_CONVERT(to, from, expr)                                                                           \
    HELPER(fcvt_##to##_##from)                                                                               \
    {                                                                                                        \
        UNUSED(b);                                                                                           \
        ROUNDED(h, c, box_##to(expr(unbox_##from(a), mode, &flags)));                                        \
    }
FP_CONVERT(s, d, f32_from_f64)
FP_CONVERT(d, s, f64_from_f32)
FP_CONVERT(s, h, f32_from_f16)
FP_CONVERT(h, s, f16_from_f32)
FP_CONVERT(d, h, f64_from_f16)
FP_CONVERT(h, d, f16_from_f64)

/* vector_fp.c: floating-point arithmetic on elements of 32 and 64 bits, by the functions of the scalar
 * instructions. SPEC: vector 1.0, chapter 13 */
#include "../../core/brief.h" /* as softfloat.c */

#include "vector.h"

#define ELEMENT(name, expr)                                                                                  \
    uint64_t vk_##name(VOp *o, uint64_t a, uint64_t b, uint64_t d)                                           \
    {                                                                                                        \
        (void)a, (void)b, (void)d;                                                                           \
        uint32_t *const flags = &o->fp_flags;                                                                \
        (void)flags;                                                                                         \
        return (uint64_t)(expr);                                                                             \
    }

/* By SEW */
#define F(op)   (o->sew == 2 ? f32_##op : f64_##op)
#define SIGN    (o->sew == 2 ? 1ull << 31 : 1ull << 63)
#define INT(t)  (o->sew == 2 ? SF_##t##32 : SF_##t##64)
#define WIDE(x) f64_from_f32(x, o->rm, flags)

ELEMENT(vfadd, F(add)(a, b, o->rm, flags))
ELEMENT(vfsub, F(sub)(a, b, o->rm, flags))
ELEMENT(vfrsub, F(sub)(b, a, o->rm, flags))
ELEMENT(vfmul, F(mul)(a, b, o->rm, flags))
ELEMENT(vfdiv, F(div)(a, b, o->rm, flags))
ELEMENT(vfrdiv, F(div)(b, a, o->rm, flags))
ELEMENT(vfmin, F(min)(a, b, flags))
ELEMENT(vfmax, F(max)(a, b, flags))
ELEMENT(vfsqrt, F(sqrt)(a, o->rm, flags))
ELEMENT(vfsgnj, (a & ~SIGN) | (b & SIGN))
ELEMENT(vfsgnjn, (a & ~SIGN) | (~b & SIGN))
ELEMENT(vfsgnjx, a ^ (b & SIGN))
ELEMENT(vfclass, F(classify)(a))
ELEMENT(vfmerge, o->carry ? b : a)
ELEMENT(vfmv_v, b)

/* 13.6: the accumulating ones add to d, the others multiply it */
ELEMENT(vfmacc, F(fma)(a, b, d, 0, o->rm, flags))
ELEMENT(vfnmacc, F(fma)(a, b, d, SF_NEG_PRODUCT | SF_NEG_ADDEND, o->rm, flags))
ELEMENT(vfmsac, F(fma)(a, b, d, SF_NEG_ADDEND, o->rm, flags))
ELEMENT(vfnmsac, F(fma)(a, b, d, SF_NEG_PRODUCT, o->rm, flags))
ELEMENT(vfmadd, F(fma)(d, b, a, 0, o->rm, flags))
ELEMENT(vfnmadd, F(fma)(d, b, a, SF_NEG_PRODUCT | SF_NEG_ADDEND, o->rm, flags))
ELEMENT(vfmsub, F(fma)(d, b, a, SF_NEG_ADDEND, o->rm, flags))
ELEMENT(vfnmsub, F(fma)(d, b, a, SF_NEG_PRODUCT, o->rm, flags))

ELEMENT(vfwadd, f64_add(WIDE(a), WIDE(b), o->rm, flags))
ELEMENT(vfwsub, f64_sub(WIDE(a), WIDE(b), o->rm, flags))
ELEMENT(vfwadd_w, f64_add(a, WIDE(b), o->rm, flags))
ELEMENT(vfwsub_w, f64_sub(a, WIDE(b), o->rm, flags))
ELEMENT(vfwmul, f64_mul(WIDE(a), WIDE(b), o->rm, flags))
ELEMENT(vfwmacc, f64_fma(WIDE(a), WIDE(b), d, 0, o->rm, flags))
ELEMENT(vfwnmacc, f64_fma(WIDE(a), WIDE(b), d, SF_NEG_PRODUCT | SF_NEG_ADDEND, o->rm, flags))
ELEMENT(vfwmsac, f64_fma(WIDE(a), WIDE(b), d, SF_NEG_ADDEND, o->rm, flags))
ELEMENT(vfwnmsac, f64_fma(WIDE(a), WIDE(b), d, SF_NEG_PRODUCT, o->rm, flags))

ELEMENT(vmfeq, F(eq)(a, b, flags))
ELEMENT(vmfne, !F(eq)(a, b, flags))
ELEMENT(vmflt, F(lt)(a, b, flags))
ELEMENT(vmfle, F(le)(a, b, flags))
ELEMENT(vmfgt, F(lt)(b, a, flags))
ELEMENT(vmfge, F(le)(b, a, flags))

/* ---- conversions: 13.17 to 13.19 ---- */

ELEMENT(vfcvt_xu_f, F(to_int)(a, INT(U), o->rm, flags))
ELEMENT(vfcvt_x_f, F(to_int)(a, INT(I), o->rm, flags))
ELEMENT(vfcvt_rtz_xu_f, F(to_int)(a, INT(U), SF_RTZ, flags))
ELEMENT(vfcvt_rtz_x_f, F(to_int)(a, INT(I), SF_RTZ, flags))
ELEMENT(vfcvt_f_xu, F(from_int)(a, INT(U), o->rm, flags))
ELEMENT(vfcvt_f_x, F(from_int)(a, INT(I), o->rm, flags))

ELEMENT(vfwcvt_xu_f, f32_to_int(a, SF_U64, o->rm, flags))
ELEMENT(vfwcvt_x_f, f32_to_int(a, SF_I64, o->rm, flags))
ELEMENT(vfwcvt_rtz_xu_f, f32_to_int(a, SF_U64, SF_RTZ, flags))
ELEMENT(vfwcvt_rtz_x_f, f32_to_int(a, SF_I64, SF_RTZ, flags))
/* from 16 or 32 bits, extended to 64 */
ELEMENT(vfwcvt_f_xu, (o->sew == 1 ? f32_from_int : f64_from_int)(a, SF_U64, o->rm, flags))
ELEMENT(vfwcvt_f_x, (o->sew == 1 ? f32_from_int : f64_from_int)(a, SF_I64, o->rm, flags))
ELEMENT(vfwcvt_f_f, WIDE(a))

/* To an integer of half the width. Of 16 bits there is no scalar conversion: a wider one, then clipped. */
static uint64_t to_half(VOp *o, uint64_t a, bool is_signed, SfRound rm)
{
    if (o->sew == 2)
        return f64_to_int(a, is_signed ? SF_I32 : SF_U32, rm, &o->fp_flags);
    const int64_t most = is_signed ? INT16_MAX : UINT16_MAX, least = is_signed ? INT16_MIN : 0;
    uint32_t flags = 0;
    const int64_t value = (int64_t)f32_to_int(a, SF_I64, rm, &flags);
    if (value >= least && value <= most) {
        o->fp_flags |= flags;
        return (uint64_t)value;
    }
    o->fp_flags |= SF_NV;
    return (uint64_t)(value < least ? least : most);
}

/* Round to odd: towards zero, and the lowest bit tells that there was more. 13.19 */
static uint64_t to_half_odd(VOp *o, uint64_t a)
{
    uint32_t flags = 0;
    const uint64_t result = f32_from_f64(a, SF_RTZ, &flags);
    o->fp_flags |= flags;
    return result | (flags & SF_NX ? 1 : 0);
}

ELEMENT(vfncvt_xu_f, to_half(o, a, false, o->rm))
ELEMENT(vfncvt_x_f, to_half(o, a, true, o->rm))
ELEMENT(vfncvt_rtz_xu_f, to_half(o, a, false, SF_RTZ))
ELEMENT(vfncvt_rtz_x_f, to_half(o, a, true, SF_RTZ))
ELEMENT(vfncvt_f_xu, f32_from_int(a, SF_U64, o->rm, flags))
ELEMENT(vfncvt_f_x, f32_from_int(a, SF_I64, o->rm, flags))
ELEMENT(vfncvt_f_f, f32_from_f64(a, o->rm, flags))
ELEMENT(vfncvt_rod_f_f, to_half_odd(o, a))

/* ---- estimates of seven bits: 13.9, 13.10 ---- */

typedef struct {
    int frac, exp; /* widths in bits */
    uint64_t sign, inf, nan;
    int bias;
} Layout;

static Layout layout(const VOp *o)
{
    if (o->sew == 2)
        return (Layout){23, 8, 1ull << 31, 0xffull << 23, F32_NAN, 127};
    return (Layout){52, 11, 1ull << 63, 0x7ffull << 52, F64_NAN, 1023};
}

/* The estimates are the middle of their interval's exact values, rounded to eight bits of which the first is
 * one and not kept: that is what the tables of the specification hold. */

/* 1 / x for 1 <= x < 2, x = 1 + (index + 1/2) / 128 */
static uint64_t reciprocal_bits(uint64_t index)
{
    const uint64_t x = 257 + 2 * index; /* of 256 */
    return (65536 + x / 2) / x - 128;
}

/* 1 / sqrt(x): indexes from 64 up are x = 1 + (index - 64 + 1/2) / 64, those below x = 2 + (index + 1/2) / 32
 */
static uint64_t root_bits(uint64_t index)
{
    const uint64_t x = index >= 64 ? 129 + 2 * (index - 64) : 2 * (129 + 2 * index); /* of 128 */
    uint64_t y = 255;
    while ((2 * y - 1) * (2 * y - 1) * x > 1u << 25) /* y - 1/2 > 256 / sqrt(x / 128) */
        y--;
    return y - 128;
}

/* Exponent field and fraction of a number that is not zero; a subnormal one's are those it had with more
 * exponents below. */
static int normalise(Layout f, uint64_t a, uint64_t *frac)
{
    int exp = (int)((a & f.inf) >> f.frac);
    *frac = a & ((1ull << f.frac) - 1);
    if (exp)
        return exp;
    const int up = __builtin_clzll(*frac) - (63 - f.frac);
    *frac = (*frac << up) & ((1ull << f.frac) - 1);
    return 1 - up;
}

static uint64_t estimate_root(VOp *o, uint64_t a)
{
    const Layout f = layout(o);
    const uint32_t class = F(classify)(a);
    uint64_t frac;
    if (class & (1 << 0 | 1 << 1 | 1 << 2 | 1 << 8)) { /* less than -0, or a signalling NaN */
        o->fp_flags |= SF_NV;
        return f.nan;
    }
    if (class & 1 << 9)
        return f.nan;
    if (class & 1 << 7)
        return 0;
    if (class & (1 << 3 | 1 << 4)) {
        o->fp_flags |= SF_DZ;
        return (a & f.sign) | f.inf;
    }
    const int exp = normalise(f, a, &frac);
    const uint64_t index = (uint64_t)(exp & 1) << 6 | frac >> (f.frac - 6);
    const int out = (3 * f.bias - 1 - exp) >> 1;
    return (uint64_t)out << f.frac | root_bits(index) << (f.frac - 7);
}

static uint64_t estimate_reciprocal(VOp *o, uint64_t a)
{
    const Layout f = layout(o);
    const uint32_t class = F(classify)(a);
    const uint64_t sign = a & f.sign;
    uint64_t frac;
    if (class & (1 << 8 | 1 << 9)) {
        o->fp_flags |= class & 1 << 8 ? SF_NV : 0;
        return f.nan;
    }
    if (class & (1 << 0 | 1 << 7))
        return sign;
    if (class & (1 << 3 | 1 << 4)) {
        o->fp_flags |= SF_DZ;
        return sign | f.inf;
    }
    const int exp = normalise(f, a, &frac);
    if (exp < -1) { /* too small: the reciprocal overflows */
        o->fp_flags |= SF_OF | SF_NX;
        const bool to_finite = o->rm == SF_RTZ || o->rm == (sign ? SF_RUP : SF_RDN);
        return (sign | f.inf) - to_finite;
    }
    uint64_t out = reciprocal_bits(frac >> (f.frac - 7)) << (f.frac - 7);
    const int out_exp = 2 * f.bias - 1 - exp;
    if (out_exp > 0)
        return sign | (uint64_t)out_exp << f.frac | out;
    out = (out | 1ull << f.frac) >> (1 - out_exp); /* subnormal: the leading one is seen */
    return sign | out;
}

ELEMENT(vfrsqrt7, estimate_root(o, a))
ELEMENT(vfrec7, estimate_reciprocal(o, a))

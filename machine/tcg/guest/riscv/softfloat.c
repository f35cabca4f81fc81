/* softfloat.c: see softfloat.h. One algorithm an operation, for every format: unpack, compute on a
 * significand whose leading one is bit 62, round and pack.
 *
 * A finite non-zero number is sig * 2^(exp - 62) with 2^62 <= sig < 2^63. The widest format has 53
 * significant bits, so ten bits are to spare; what falls off below them is jammed: or-ed into bit 0, where it
 * can decide a rounding and nothing else.
 */
#include "../../core/brief.h" /* host code asks here for what the host's unit does not answer */

#include "softfloat.h"

#define INLINE static inline __attribute__((always_inline))

typedef unsigned __int128 Wide;

typedef struct {
    int frac, exp; /* widths in bits; constants at every call */
} Format;

enum { LEAD = 62 };
typedef enum { SF_ZERO, SF_FINITE, SF_INF, SF_QNAN, SF_SNAN } Kind;

typedef struct {
    uint64_t sig;
    int32_t exp;
    uint8_t kind; /* Kind */
    bool sign;
} Number;

INLINE int bias(Format f)
{
    return (1 << (f.exp - 1)) - 1;
}
INLINE uint64_t exp_mask(Format f)
{
    return (1ull << f.exp) - 1;
}
INLINE uint64_t sign_bit(Format f)
{
    return 1ull << (f.frac + f.exp);
}
INLINE uint64_t pack_inf(Format f, bool sign)
{
    return (sign ? sign_bit(f) : 0) | exp_mask(f) << f.frac;
}
INLINE uint64_t pack_zero(Format f, bool sign)
{
    return sign ? sign_bit(f) : 0;
}
/* SPEC: unprivileged, 11.3: every NaN result is this one. */
INLINE uint64_t pack_nan(Format f)
{
    return exp_mask(f) << f.frac | 1ull << (f.frac - 1);
}
INLINE uint64_t invalid(Format f, uint32_t *flags)
{
    *flags |= SF_NV;
    return pack_nan(f);
}

INLINE Number unpack(Format f, uint64_t a)
{
    const uint64_t frac = a & ((1ull << f.frac) - 1), e = (a >> f.frac) & exp_mask(f);
    Number n = {.sign = (a & sign_bit(f)) != 0};
    if (e == exp_mask(f)) {
        n.kind = !frac ? SF_INF : frac >> (f.frac - 1) ? SF_QNAN : SF_SNAN;
    } else if (e) {
        n.kind = SF_FINITE;
        n.exp = (int32_t)e - bias(f);
        n.sig = (1ull << f.frac | frac) << (LEAD - f.frac);
    } else if (frac) {
        const int up = __builtin_clzll(frac) - (63 - LEAD);
        n.kind = SF_FINITE;
        n.sig = frac << up;
        n.exp = 1 - bias(f) + (LEAD - f.frac) - up;
    }
    return n;
}

INLINE bool is_nan(Number n)
{
    return n.kind >= SF_QNAN;
}

/* The canonical NaN that an operation with a NaN operand gives. */
INLINE uint64_t nan_result(Format f, bool signalling, uint32_t *flags)
{
    return signalling ? invalid(f, flags) : pack_nan(f);
}

INLINE uint64_t shift_jam(uint64_t x, int n)
{
    if (n <= 0)
        return x;
    return n < 64 ? x >> n | ((x << (64 - n)) != 0) : x != 0;
}
INLINE Wide shift_jam_wide(Wide x, int n)
{
    if (n <= 0)
        return x;
    return n < 128 ? x >> n | ((x << (128 - n)) != 0) : x != 0;
}

/* Added to a number before its low `bits` are dropped, this rounds it. Odd: the lowest bit that is kept. */
INLINE uint64_t round_term(int bits, bool odd, bool sign, SfRound rm)
{
    const uint64_t half = 1ull << (bits - 1), all = half | (half - 1);
    switch (rm) {
    case SF_RNE:
        return half - 1 + odd;
    case SF_RDN:
        return sign ? all : 0;
    case SF_RUP:
        return sign ? 0 : all;
    case SF_RMM:
        return half;
    default:
        return 0;
    }
}

/* sig without its low `bits`, rounded; in units of them. */
INLINE uint64_t round_bits(uint64_t sig, int bits, bool sign, SfRound rm)
{
    return (sig + round_term(bits, sig >> bits & 1, sign, rm)) >> bits;
}

static uint64_t pack_overflow(Format f, bool sign, SfRound rm, uint32_t *flags)
{
    const bool to_inf = rm == SF_RNE || rm == SF_RMM || rm == (sign ? SF_RDN : SF_RUP);
    *flags |= SF_OF | SF_NX;
    return pack_inf(f, sign) - !to_inf; /* one below infinity is the largest finite number */
}

/* Rounds sig * 2^(exp - 62), 2^62 <= sig < 2^63, to the format. */
INLINE uint64_t round_pack(Format f, bool sign, int32_t exp, uint64_t sig, SfRound rm, uint32_t *flags)
{
    const int drop = LEAD - f.frac;
    int64_t e = (int64_t)exp + bias(f);
    if (e >= (int64_t)exp_mask(f))
        return pack_overflow(f, sign, rm, flags);
    bool tiny = false;
    if (e < 1) {
        /* Tiny after rounding: rounded to full precision with an unbounded exponent it is still below the
         * least normal number. Only e = 0 can be carried up there. SPEC: unprivileged, 11.2 */
        tiny = e < 0 || round_bits(sig, drop, sign, rm) >> (f.frac + 1) == 0;
        sig = shift_jam(sig, 1 - e > 64 ? 64 : (int)(1 - e));
        e = 1;
    }
    const bool inexact = (sig & ((1ull << drop) - 1)) != 0;
    const uint64_t kept = round_bits(sig, drop, sign, rm);
    if (inexact)
        *flags |= tiny ? SF_NX | SF_UF : SF_NX;
    /* The leading one of a normal number adds one to the exponent; so does a carry out of the fraction. */
    const uint64_t out = ((uint64_t)(e - 1) << f.frac) + kept;
    if (out >= exp_mask(f) << f.frac)
        return pack_overflow(f, sign, rm, flags);
    return (sign ? sign_bit(f) : 0) | out;
}

/* The same for any wide value x * 2^(exp - 124), x != 0. */
INLINE uint64_t round_pack_wide(Format f, bool sign, int32_t exp, Wide x, SfRound rm, uint32_t *flags)
{
    const uint64_t high = (uint64_t)(x >> 64);
    const int lz = high ? __builtin_clzll(high) : 64 + __builtin_clzll((uint64_t)x);
    const int lead = 127 - lz;
    const uint64_t sig =
        lead >= LEAD ? (uint64_t)shift_jam_wide(x, lead - LEAD) : (uint64_t)x << (LEAD - lead);
    return round_pack(f, sign, exp + lead - 2 * LEAD, sig, rm, flags);
}

/* ---- add, multiply, divide, root ---- */

INLINE bool zero_sum_sign(bool a, bool b, SfRound rm)
{
    return a == b ? a : rm == SF_RDN;
}

INLINE uint64_t add(Format f, uint64_t a_bits, uint64_t b_bits, SfRound rm, uint32_t *flags)
{
    Number a = unpack(f, a_bits), b = unpack(f, b_bits);
    if (is_nan(a) || is_nan(b))
        return nan_result(f, a.kind == SF_SNAN || b.kind == SF_SNAN, flags);
    if (a.kind == SF_INF || b.kind == SF_INF) {
        if (a.kind == b.kind && a.sign != b.sign)
            return invalid(f, flags);
        return pack_inf(f, a.kind == SF_INF ? a.sign : b.sign);
    }
    if (a.kind == SF_ZERO && b.kind == SF_ZERO)
        return pack_zero(f, zero_sum_sign(a.sign, b.sign, rm));
    const bool a_less = a.exp < b.exp || (a.exp == b.exp && a.sig < b.sig);
    if (a.kind == SF_ZERO || (b.kind != SF_ZERO && a_less)) {
        const Number t = a;
        a = b;
        b = t;
    }
    /* b may be zero, whose significand is. */
    const uint64_t low = shift_jam(b.sig, a.exp - b.exp > 64 ? 64 : a.exp - b.exp);
    uint64_t sig = a.sig + low;
    int up = -(int)(sig >> (LEAD + 1));
    if (a.sign != b.sign) {
        /* Jammed bits mean that the exponents differ by ten or more: then at most one bit cancels. */
        sig = a.sig - low;
        if (!sig)
            return pack_zero(f, rm == SF_RDN);
        up = __builtin_clzll(sig) - (63 - LEAD);
    }
    return round_pack(f, a.sign, a.exp - up, up < 0 ? shift_jam(sig, 1) : sig << up, rm, flags);
}

INLINE uint64_t mul(Format f, uint64_t a_bits, uint64_t b_bits, SfRound rm, uint32_t *flags)
{
    const Number a = unpack(f, a_bits), b = unpack(f, b_bits);
    const bool sign = a.sign != b.sign;
    if (is_nan(a) || is_nan(b))
        return nan_result(f, a.kind == SF_SNAN || b.kind == SF_SNAN, flags);
    if (a.kind == SF_INF || b.kind == SF_INF)
        return a.kind == SF_ZERO || b.kind == SF_ZERO ? invalid(f, flags) : pack_inf(f, sign);
    if (a.kind == SF_ZERO || b.kind == SF_ZERO)
        return pack_zero(f, sign);
    return round_pack_wide(f, sign, a.exp + b.exp, (Wide)a.sig * b.sig, rm, flags);
}

INLINE uint64_t divide(Format f, uint64_t a_bits, uint64_t b_bits, SfRound rm, uint32_t *flags)
{
    const Number a = unpack(f, a_bits), b = unpack(f, b_bits);
    const bool sign = a.sign != b.sign;
    if (is_nan(a) || is_nan(b))
        return nan_result(f, a.kind == SF_SNAN || b.kind == SF_SNAN, flags);
    if (a.kind == b.kind && a.kind != SF_FINITE) /* inf / inf, 0 / 0 */
        return invalid(f, flags);
    if (a.kind == SF_INF || b.kind == SF_ZERO) {
        if (a.kind == SF_FINITE)
            *flags |= SF_DZ;
        return pack_inf(f, sign);
    }
    if (a.kind == SF_ZERO || b.kind == SF_INF)
        return pack_zero(f, sign);
    const int less = a.sig < b.sig;
    const Wide top = (Wide)a.sig << (LEAD + less);
    const uint64_t quotient = (uint64_t)(top / b.sig), jam = top % b.sig != 0;
    return round_pack(f, sign, a.exp - b.exp - less, quotient | jam, rm, flags);
}

INLINE uint64_t square_root(Format f, uint64_t a_bits, SfRound rm, uint32_t *flags)
{
    const Number a = unpack(f, a_bits);
    if (is_nan(a))
        return nan_result(f, a.kind == SF_SNAN, flags);
    if (a.kind == SF_ZERO)
        return a_bits;
    if (a.sign)
        return invalid(f, flags);
    if (a.kind == SF_INF)
        return a_bits;
    /* root = floor(sqrt(sig * 2^62)), digit by digit from bit 62, as far as the format needs: rest is
     * sig * 2^62 - root^2, and adding `bit` to root takes (2 * root + bit) * bit from it. */
    const int odd = a.exp & 1;
    Wide rest = (Wide)a.sig << (LEAD + odd);
    uint64_t root = 0;
    for (int i = LEAD; i >= LEAD - f.frac - 2; i--) {
        const uint64_t bit = 1ull << i;
        const Wide step = ((Wide)root * 2 + bit) << i;
        if (step <= rest) {
            rest -= step;
            root |= bit;
        }
    }
    return round_pack(f, false, (a.exp - odd) / 2, root | (rest != 0), rm, flags);
}

INLINE uint64_t fused(Format f, uint64_t a_bits, uint64_t b_bits, uint64_t c_bits, uint32_t neg, SfRound rm,
                      uint32_t *flags)
{
    const Number a = unpack(f, a_bits), b = unpack(f, b_bits);
    Number c = unpack(f, c_bits);
    bool sign = (a.sign != b.sign) != ((neg & SF_NEG_PRODUCT) != 0);
    c.sign ^= (neg & SF_NEG_ADDEND) != 0;
    /* SPEC: unprivileged, 11.6: infinity times zero is invalid even if the addend is a quiet NaN. */
    const bool no_product =
        (a.kind == SF_INF && b.kind == SF_ZERO) || (a.kind == SF_ZERO && b.kind == SF_INF);
    if (is_nan(a) || is_nan(b) || is_nan(c) || no_product)
        return nan_result(f, a.kind == SF_SNAN || b.kind == SF_SNAN || c.kind == SF_SNAN || no_product,
                          flags);
    if (a.kind == SF_INF || b.kind == SF_INF)
        return c.kind == SF_INF && c.sign != sign ? invalid(f, flags) : pack_inf(f, sign);
    if (c.kind == SF_INF)
        return pack_inf(f, c.sign);
    if (a.kind == SF_ZERO || b.kind == SF_ZERO) {
        if (c.kind == SF_ZERO)
            return pack_zero(f, zero_sum_sign(sign, c.sign, rm));
        return neg & SF_NEG_ADDEND ? c_bits ^ sign_bit(f) : c_bits;
    }
    /* Both in units of 2^(exp - 124); the product below 2^126, the addend, which may be zero, below 2^125.
     * Twenty low bits of the product are zero, so jamming it means that the addend is far larger, and the
     * other way round. */
    Wide sum = (Wide)a.sig * b.sig, addend = (Wide)c.sig << LEAD;
    int32_t exp = a.exp + b.exp;
    if (c.kind == SF_ZERO || exp >= c.exp) {
        addend = shift_jam_wide(addend, exp - c.exp);
    } else {
        sum = shift_jam_wide(sum, c.exp - exp);
        exp = c.exp;
    }
    if (sign == c.sign) {
        sum += addend;
    } else if (sum == addend) {
        return pack_zero(f, rm == SF_RDN);
    } else {
        sign = sum > addend ? sign : c.sign;
        sum = sum > addend ? sum - addend : addend - sum;
    }
    return round_pack_wide(f, sign, exp, sum, rm, flags);
}

/* ---- order ---- */

/* Bit images of numbers in their order, -0 before +0. */
INLINE int64_t order_key(Format f, uint64_t a)
{
    const int64_t size = (int64_t)(a & (sign_bit(f) - 1));
    return a & sign_bit(f) ? -size - 1 : size;
}

INLINE uint64_t pick(Format f, uint64_t a_bits, uint64_t b_bits, bool want_max, uint32_t *flags)
{
    const Number a = unpack(f, a_bits), b = unpack(f, b_bits);
    if (a.kind == SF_SNAN || b.kind == SF_SNAN)
        *flags |= SF_NV;
    if (is_nan(a))
        return is_nan(b) ? pack_nan(f) : b_bits;
    if (is_nan(b))
        return a_bits;
    return (order_key(f, a_bits) < order_key(f, b_bits)) != want_max ? a_bits : b_bits;
}

typedef enum { CMP_EQ, CMP_LT, CMP_LE } Compare;

INLINE bool compare(Format f, uint64_t a_bits, uint64_t b_bits, Compare how, uint32_t *flags)
{
    const Number a = unpack(f, a_bits), b = unpack(f, b_bits);
    if (is_nan(a) || is_nan(b)) {
        if (how != CMP_EQ || a.kind == SF_SNAN || b.kind == SF_SNAN)
            *flags |= SF_NV;
        return false;
    }
    const bool zeros = a.kind == SF_ZERO && b.kind == SF_ZERO;
    const int64_t x = order_key(f, a_bits), y = order_key(f, b_bits);
    return how == CMP_LT ? !zeros && x < y : zeros || x == y || (how == CMP_LE && x < y);
}

/* SPEC: unprivileged, table 11.5 */
INLINE uint32_t classify(Format f, uint64_t a)
{
    const Number n = unpack(f, a);
    const bool subnormal = n.kind == SF_FINITE && n.exp < 1 - bias(f);
    if (is_nan(n))
        return n.kind == SF_SNAN ? 1u << 8 : 1u << 9;
    const int size = n.kind == SF_INF ? 0 : n.kind == SF_ZERO ? 3 : subnormal ? 2 : 1;
    return 1u << (n.sign ? size : 7 - size);
}

/* ---- conversions ---- */

/* SPEC: unprivileged, 11.7, table 11.4 */
INLINE uint64_t to_int(Format f, uint64_t a, SfInt type, SfRound rm, uint32_t *flags)
{
    const bool is_signed = type == SF_I32 || type == SF_I64, is_word = type == SF_I32 || type == SF_U32;
    const uint64_t umax = is_word ? UINT32_MAX : UINT64_MAX;
    const uint64_t max = is_signed ? umax >> 1 : umax, min_size = is_signed ? max + 1 : 0;
    const Number n = unpack(f, a);
    const bool sign = n.sign && !is_nan(n);
    uint64_t whole = 0, rest = 0;
    bool out_of_range = n.kind >= SF_INF || (n.kind == SF_FINITE && n.exp > 63);
    if (n.kind == SF_FINITE && !out_of_range) {
        /* fixed point: 64 bits before the point, 64 behind */
        const int up = n.exp + 64 - LEAD;
        const Wide x = up >= 0 ? (Wide)n.sig << up : shift_jam_wide(n.sig, up < -127 ? 127 : -up);
        whole = (uint64_t)(x >> 64);
        rest = (uint64_t)x;
        if (__builtin_add_overflow(rest, round_term(64, whole & 1, sign, rm), &(uint64_t){0}))
            out_of_range = ++whole == 0;
        out_of_range |= whole > (sign ? min_size : max);
    }
    if (out_of_range) {
        *flags |= SF_NV;
        whole = sign ? min_size : max;
    } else if (rest) {
        *flags |= SF_NX;
    }
    const uint64_t value = sign ? 0 - whole : whole;
    return is_word ? (uint64_t)(int64_t)(int32_t)value : value;
}

INLINE uint64_t from_int(Format f, uint64_t a, SfInt type, SfRound rm, uint32_t *flags)
{
    if (type == SF_I32)
        a = (uint64_t)(int64_t)(int32_t)a;
    else if (type == SF_U32)
        a = (uint32_t)a;
    const bool sign = (type == SF_I32 || type == SF_I64) && a >> 63;
    const uint64_t size = sign ? 0 - a : a;
    if (!size)
        return pack_zero(f, false);
    return round_pack_wide(f, sign, 2 * LEAD, size, rm, flags);
}

INLINE uint64_t convert(Format to, Format from, uint64_t a, SfRound rm, uint32_t *flags)
{
    const Number n = unpack(from, a);
    if (is_nan(n))
        return nan_result(to, n.kind == SF_SNAN, flags);
    if (n.kind == SF_INF)
        return pack_inf(to, n.sign);
    if (n.kind == SF_ZERO)
        return pack_zero(to, n.sign);
    return round_pack(to, n.sign, n.exp, n.sig, rm, flags);
}

/* ---- the formats ---- */

#define SF_DEFINE(f, frac, exp)                                                                              \
    static const Format fmt_##f = {frac, exp};                                                               \
    uint64_t f##_add(uint64_t a, uint64_t b, SfRound rm, uint32_t *flags)                                    \
    {                                                                                                        \
        return add(fmt_##f, a, b, rm, flags);                                                                \
    }                                                                                                        \
    uint64_t f##_sub(uint64_t a, uint64_t b, SfRound rm, uint32_t *flags)                                    \
    {                                                                                                        \
        return f##_add(a, b ^ sign_bit(fmt_##f), rm, flags);                                                 \
    }                                                                                                        \
    uint64_t f##_mul(uint64_t a, uint64_t b, SfRound rm, uint32_t *flags)                                    \
    {                                                                                                        \
        return mul(fmt_##f, a, b, rm, flags);                                                                \
    }                                                                                                        \
    uint64_t f##_div(uint64_t a, uint64_t b, SfRound rm, uint32_t *flags)                                    \
    {                                                                                                        \
        return divide(fmt_##f, a, b, rm, flags);                                                             \
    }                                                                                                        \
    uint64_t f##_sqrt(uint64_t a, SfRound rm, uint32_t *flags)                                               \
    {                                                                                                        \
        return square_root(fmt_##f, a, rm, flags);                                                           \
    }                                                                                                        \
    uint64_t f##_fma(uint64_t a, uint64_t b, uint64_t c, uint32_t neg, SfRound rm, uint32_t *flags)          \
    {                                                                                                        \
        return fused(fmt_##f, a, b, c, neg, rm, flags);                                                      \
    }                                                                                                        \
    uint64_t f##_min(uint64_t a, uint64_t b, uint32_t *flags)                                                \
    {                                                                                                        \
        return pick(fmt_##f, a, b, false, flags);                                                            \
    }                                                                                                        \
    uint64_t f##_max(uint64_t a, uint64_t b, uint32_t *flags)                                                \
    {                                                                                                        \
        return pick(fmt_##f, a, b, true, flags);                                                             \
    }                                                                                                        \
    bool f##_eq(uint64_t a, uint64_t b, uint32_t *flags)                                                     \
    {                                                                                                        \
        return compare(fmt_##f, a, b, CMP_EQ, flags);                                                        \
    }                                                                                                        \
    bool f##_lt(uint64_t a, uint64_t b, uint32_t *flags)                                                     \
    {                                                                                                        \
        return compare(fmt_##f, a, b, CMP_LT, flags);                                                        \
    }                                                                                                        \
    bool f##_le(uint64_t a, uint64_t b, uint32_t *flags)                                                     \
    {                                                                                                        \
        return compare(fmt_##f, a, b, CMP_LE, flags);                                                        \
    }                                                                                                        \
    uint32_t f##_classify(uint64_t a)                                                                        \
    {                                                                                                        \
        return classify(fmt_##f, a);                                                                         \
    }                                                                                                        \
    uint64_t f##_to_int(uint64_t a, SfInt type, SfRound rm, uint32_t *flags)                                 \
    {                                                                                                        \
        return to_int(fmt_##f, a, type, rm, flags);                                                          \
    }                                                                                                        \
    uint64_t f##_from_int(uint64_t a, SfInt type, SfRound rm, uint32_t *flags)                               \
    {                                                                                                        \
        return from_int(fmt_##f, a, type, rm, flags);                                                        \
    }
SF_FORMATS(SF_DEFINE)

uint64_t f32_from_f64(uint64_t a, SfRound rm, uint32_t *flags)
{
    return convert(fmt_f32, fmt_f64, a, rm, flags);
}

uint64_t f64_from_f32(uint64_t a, SfRound rm, uint32_t *flags)
{
    return convert(fmt_f64, fmt_f32, a, rm, flags);
}

static const Format fmt_f16 = {10, 5};

uint64_t f16_from_f32(uint64_t a, SfRound rm, uint32_t *flags)
{
    return convert(fmt_f16, fmt_f32, a, rm, flags);
}

uint64_t f16_from_f64(uint64_t a, SfRound rm, uint32_t *flags)
{
    return convert(fmt_f16, fmt_f64, a, rm, flags);
}

uint64_t f32_from_f16(uint64_t a, SfRound rm, uint32_t *flags)
{
    return convert(fmt_f32, fmt_f16, a, rm, flags);
}

uint64_t f64_from_f16(uint64_t a, SfRound rm, uint32_t *flags)
{
    return convert(fmt_f64, fmt_f16, a, rm, flags);
}

/* vector_fixed.c: fixed-point arithmetic on elements: saturation, and rounding by vxrm. SPEC: vector 1.0,
 * chapter 12 */
#include "vector.h"

typedef __int128 I128;

#define ELEMENT(name, expr)                                                                                  \
    uint64_t vk_##name(VOp *o, uint64_t a, uint64_t b, uint64_t d)                                           \
    {                                                                                                        \
        (void)d;                                                                                             \
        return (uint64_t)(expr);                                                                             \
    }

/* An operand in full: unsigned ones are never negative. */
#define S(x) ((I128)(int64_t)(x))
#define U(x) ((I128)(uint64_t)(x))

enum { VXRM_RNU, VXRM_RNE, VXRM_RDN, VXRM_ROD };

/* value / 2^n, rounded. SPEC: 3.8 */
static I128 round_shift(const VOp *o, I128 value, uint32_t n)
{
    if (!n)
        return value;
    const I128 kept = value >> n;
    const bool half = value >> (n - 1) & 1, below = (value & (((I128)1 << (n - 1)) - 1)) != 0;
    switch (o->g->vxrm) {
    case VXRM_RNU:
        return kept + half;
    case VXRM_RNE:
        return kept + (half && (below || (kept & 1)));
    case VXRM_ROD:
        return kept | (half || below);
    default:
        return kept;
    }
}

static uint64_t clip(VOp *o, I128 value, I128 least, I128 most)
{
    if (value >= least && value <= most)
        return (uint64_t)value;
    o->saturated = true;
    return (uint64_t)(value < least ? least : most);
}

static uint64_t clip_signed(VOp *o, I128 value)
{
    const I128 half = (I128)1 << (v_bits(o) - 1);
    return clip(o, value, -half, half - 1);
}

static uint64_t clip_unsigned(VOp *o, I128 value)
{
    return clip(o, value, 0, ((I128)1 << v_bits(o)) - 1);
}

static uint32_t count(const VOp *o, uint64_t b)
{
    return b & (uint32_t)((o->shape & V_WIDE_A ? 2 : 1) * v_bits(o) - 1);
}

ELEMENT(vsaddu, clip_unsigned(o, U(a) + U(b)))
ELEMENT(vsadd, clip_signed(o, S(a) + S(b)))
ELEMENT(vssubu, clip_unsigned(o, U(a) - U(b)))
ELEMENT(vssub, clip_signed(o, S(a) - S(b)))
ELEMENT(vaaddu, round_shift(o, U(a) + U(b), 1))
ELEMENT(vaadd, round_shift(o, S(a) + S(b), 1))
ELEMENT(vasubu, round_shift(o, U(a) - U(b), 1))
ELEMENT(vasub, round_shift(o, S(a) - S(b), 1))
ELEMENT(vsmul, clip_signed(o, round_shift(o, S(a) * S(b), (uint32_t)v_bits(o) - 1)))
ELEMENT(vssrl, round_shift(o, U(a), count(o, b)))
ELEMENT(vssra, round_shift(o, S(a), count(o, b)))
ELEMENT(vnclipu, clip_unsigned(o, round_shift(o, U(a), count(o, b))))
ELEMENT(vnclip, clip_signed(o, round_shift(o, S(a), count(o, b))))

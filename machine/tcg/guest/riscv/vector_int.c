/* vector_int.c: integer arithmetic on elements. SPEC: vector 1.0, chapter 11 */
#include "vector.h"

#define ELEMENT(name, expr)                                                                                  \
    uint64_t vk_##name(VOp *o, uint64_t a, uint64_t b, uint64_t d)                                           \
    {                                                                                                        \
        (void)o, (void)a, (void)b, (void)d;                                                                  \
        return (uint64_t)(expr);                                                                             \
    }

typedef unsigned __int128 U128;
typedef __int128 I128;

/* Shifts take as many bits of their count as count the bits of what is shifted. */
static uint32_t count(const VOp *o, uint64_t b)
{
    return b & (uint32_t)((o->shape & V_WIDE_A ? 16 : 8) * (1 << o->sew) - 1);
}

ELEMENT(vadd, a + b)
ELEMENT(vsub, a - b)
ELEMENT(vrsub, b - a)
ELEMENT(vand, a &b)
ELEMENT(vor, a | b)
ELEMENT(vxor, a ^ b)
ELEMENT(vminu, a < b ? a : b)
ELEMENT(vmin, (int64_t)a < (int64_t)b ? a : b)
ELEMENT(vmaxu, a > b ? a : b)
ELEMENT(vmax, (int64_t)a > (int64_t)b ? a : b)
ELEMENT(vsll, a << count(o, b))
ELEMENT(vsrl, a >> count(o, b))
ELEMENT(vsra, (int64_t)a >> count(o, b))
ELEMENT(vnsrl, a >> count(o, b))
ELEMENT(vnsra, (int64_t)a >> count(o, b))

/* 11.4 */
ELEMENT(vadc, a + b + o->carry)
ELEMENT(vsbc, a - b - o->carry)
ELEMENT(vmadc, ((U128)a + b + o->carry) >> v_bits(o))
ELEMENT(vmsbc, (U128)a < (U128)b + o->carry)
ELEMENT(vmerge, o->carry ? b : a)
ELEMENT(vmv_v, b)

ELEMENT(vmseq, a == b)
ELEMENT(vmsne, a != b)
ELEMENT(vmsltu, a < b)
ELEMENT(vmslt, (int64_t)a < (int64_t)b)
ELEMENT(vmsleu, a <= b)
ELEMENT(vmsle, (int64_t)a <= (int64_t)b)
ELEMENT(vmsgtu, a > b)
ELEMENT(vmsgt, (int64_t)a > (int64_t)b)

ELEMENT(vmul, a *b)
ELEMENT(vmulhu, (U128)a *b >> v_bits(o))
ELEMENT(vmulh, (U128)((I128)(int64_t)a * (int64_t)b) >> v_bits(o))
ELEMENT(vmulhsu, (U128)((I128)(int64_t)a * (I128)b) >> v_bits(o))

/* 11.11: by zero and on overflow as the scalar instructions. Operands are extended, so the one overflow there
 * is at 64 bits is the host's too. */
ELEMENT(vdivu, b ? a / b : ~0ull)
ELEMENT(vremu, b ? a % b : a)
ELEMENT(vdiv, !b ? ~0ull : b == ~0ull ? 0 - a : (uint64_t)((int64_t)a / (int64_t)b))
ELEMENT(vrem, !b ? a : b == ~0ull ? 0 : (uint64_t)((int64_t)a % (int64_t)b))

/* 11.13 */
ELEMENT(vmacc, d + a * b)
ELEMENT(vnmsac, d - a * b)
ELEMENT(vmadd, d *b + a)
ELEMENT(vnmsub, a - d * b)

/* Operands are extended as the shape says, so what is widened is what is not; products of 32 bits fit. */
ELEMENT(vwaddu, a + b)
ELEMENT(vwadd, a + b)
ELEMENT(vwsubu, a - b)
ELEMENT(vwsub, a - b)
ELEMENT(vwaddu_w, a + b)
ELEMENT(vwadd_w, a + b)
ELEMENT(vwsubu_w, a - b)
ELEMENT(vwsub_w, a - b)
ELEMENT(vwmulu, a *b)
ELEMENT(vwmulsu, a *b)
ELEMENT(vwmul, a *b)
ELEMENT(vwmaccu, d + a * b)
ELEMENT(vwmacc, d + a * b)
ELEMENT(vwmaccus, d + a * b)
ELEMENT(vwmaccsu, d + a * b)
ELEMENT(vzext_vf2, a)
ELEMENT(vsext_vf2, a)
ELEMENT(vzext_vf4, a)
ELEMENT(vsext_vf4, a)
ELEMENT(vzext_vf8, a)
ELEMENT(vsext_vf8, a)

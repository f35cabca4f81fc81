/* vector_fast.c: the commonest integer instructions once more, as loops of one width. They do what the
 * functions of elements do, from the first element to vl, with none masked off; helper_v_elementwise() has
 * made the checks. */
#include "vector.h"

/* One width: U and S are its types; b, unless it is a vector, stands still. */
#define ARITHMETIC_LOOP(U, S, expr)                                                                          \
    {                                                                                                        \
        typedef S Signed;                                                                                    \
        enum { BITS = 8 * sizeof(U) };                                                                       \
        const U scalar = (U)o->x, *as = (const U *)v_at(o, o->vs2, 0, 0);                                    \
        const U *bs = vector_b ? (const U *)v_at(o, o->vs1, 0, 0) : &scalar;                                 \
        U *ds = (U *)v_at(o, o->vd, 0, 0);                                                                   \
        for (uint32_t i = 0; i < o->vl; i++, bs += vector_b) {                                               \
            const U a = as[i], b = *bs, d = ds[i];                                                           \
            (void)(Signed)a, (void)b, (void)d, (void)BITS;                                                   \
            ds[i] = (U)(expr);                                                                               \
        }                                                                                                    \
        break;                                                                                               \
    }

/* Bits go out by eights: those elements have been read by then, should the mask lie over them. */
#define COMPARISON_LOOP(U, S, expr)                                                                          \
    {                                                                                                        \
        typedef S Signed;                                                                                    \
        const U scalar = (U)o->x, *as = (const U *)v_at(o, o->vs2, 0, 0);                                    \
        const U *bs = vector_b ? (const U *)v_at(o, o->vs1, 0, 0) : &scalar;                                 \
        uint8_t *ds = v_at(o, o->vd, 0, 0);                                                                  \
        for (uint32_t i = 0; i < o->vl; i += 8) {                                                            \
            const uint32_t n = o->vl - i < 8 ? o->vl - i : 8;                                                \
            uint32_t bits = 0;                                                                               \
            for (uint32_t k = 0; k < n; k++, bs += vector_b) {                                               \
                const U a = as[i + k], b = *bs;                                                              \
                (void)(Signed)a;                                                                             \
                bits |= (uint32_t)(expr) << k;                                                               \
            }                                                                                                \
            ds[i / 8] = (uint8_t)(bits | (n < 8 ? ds[i / 8] >> n << n : 0));                                 \
        }                                                                                                    \
        break;                                                                                               \
    }

#define FAST(name, loop, expr)                                                                               \
    static void fast_##name(const VOp *o, bool vector_b)                                                     \
    {                                                                                                        \
        switch (o->sew) {                                                                                    \
        case 0:                                                                                              \
            loop(uint8_t, int8_t, expr);                                                                     \
        case 1:                                                                                              \
            loop(uint16_t, int16_t, expr);                                                                   \
        case 2:                                                                                              \
            loop(uint32_t, int32_t, expr);                                                                   \
        default:                                                                                             \
            loop(uint64_t, int64_t, expr);                                                                   \
        }                                                                                                    \
    }

/* clang-format off */
#define FASTS(A, C)                                                                                          \
    A(vadd, a + b) A(vsub, a - b) A(vrsub, b - a) A(vand, a & b) A(vor, a | b) A(vxor, a ^ b)                \
    A(vminu, a < b ? a : b) A(vmaxu, a > b ? a : b)                                                          \
    A(vmin, (Signed)a < (Signed)b ? a : b) A(vmax, (Signed)a > (Signed)b ? a : b)                            \
    A(vsll, (uint64_t)a << (b & (BITS - 1))) A(vsrl, a >> (b & (BITS - 1)))                                  \
    A(vsra, (Signed)a >> (b & (BITS - 1)))                                                                   \
    A(vmul, (uint64_t)a * b) A(vmacc, d + (uint64_t)a * b) A(vmv_v, b)                                       \
    C(vmseq, a == b) C(vmsne, a != b) C(vmsltu, a < b) C(vmsleu, a <= b) C(vmsgtu, a > b)                    \
    C(vmslt, (Signed)a < (Signed)b) C(vmsle, (Signed)a <= (Signed)b) C(vmsgt, (Signed)a > (Signed)b)
/* clang-format on */

#define A(name, expr) FAST(name, ARITHMETIC_LOOP, expr)
#define C(name, expr) FAST(name, COMPARISON_LOOP, expr)
FASTS(A, C)
#undef A
#undef C

VFast *v_fast(uint32_t row)
{
    switch (row) {
#define X(name, expr)                                                                                        \
    case VE_##name:                                                                                          \
        return fast_##name;
        FASTS(X, X)
#undef X
    default:
        return NULL;
    }
}

/* Holds softfloat against the host's own floating-point unit: every operation, the four rounding modes that
 * SSE has, results and flags, on corner values and random ones; and RMM against exact 113-bit arithmetic.
 * Usage: softfloat_host ROUNDS [SEED]. Prints the number of comparisons; exit code 1 on the first that
 * differ.
 */
#include <fenv.h>
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "softfloat.h"

typedef unsigned long long Bits;

static uint64_t rng_state;
static unsigned long long n_checks, n_errors;

static uint64_t rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state * 0x2545f4914f6cdd1dull;
}

/* ---- operands ---- */

static const uint64_t corner64[] = {
    0x0000000000000000, 0x8000000000000000, 0x0000000000000001, 0x8000000000000001, 0x000fffffffffffff,
    0x0010000000000000, 0x8010000000000000, 0x0010000000000001, 0x001fffffffffffff, 0x3ff0000000000000,
    0xbff0000000000000, 0x3ff0000000000001, 0x3fefffffffffffff, 0x3fe0000000000000, 0xbfe0000000000000,
    0x4000000000000000, 0x3ff8000000000000, 0x7fefffffffffffff, 0xffefffffffffffff, 0x7ff0000000000000,
    0xfff0000000000000, 0x7ff8000000000000, 0xfff8000000000001, 0x7ff0000000000001, 0xfff7ffffffffffff,
    0x41dfffffffc00000, 0x41e0000000000000, 0x41dfffffffe00000, 0xc1e0000000000000, 0xc1e0000000100000,
    0x41efffffffe00000, 0x41f0000000000000, 0x43dfffffffffffff, 0x43e0000000000000, 0xc3e0000000000000,
    0xc3e0000000000001, 0x43efffffffffffff, 0x43f0000000000000, 0xbfefffffffffffff, 0x4330000000000001,
};
enum { N_CORNER = sizeof(corner64) / sizeof(corner64[0]) };

static uint64_t random_f64(void)
{
    const uint64_t r = rng();
    switch (r % 8) {
    case 0:
        return corner64[rng() % N_CORNER];
    case 1: /* near one, so that sums and products meet */
        return (rng() & 0x800fffffffffffff) | (1023 - 60 + rng() % 120) << 52;
    case 2: /* few bits: ties */
        return (rng() & 0x800f800000000000) | (1023 - 30 + rng() % 60) << 52 | (rng() & 1);
    case 3: /* subnormal, and just above */
        return (rng() & 0x800fffffffffffff) >> (rng() % 52 * (rng() & 1)) | (rng() % 3) << 52;
    case 4: /* long runs of ones */
        return (rng() & 0x8000000000000000) | (1023 - 70 + rng() % 140) << 52 |
               (0x000fffffffffffff - (1ull << rng() % 52));
    case 5: /* near the ends of the exponents */
        return (rng() & 0x800fffffffffffff) | (rng() & 1 ? 0x7fe - rng() % 60 : rng() % 60) << 52;
    case 6: /* halfway in binary32 */
        return (rng() & 0x800fffffe0000000) | 0x10000000 | (1023 - 155 + rng() % 290) << 52;
    default:
        return rng();
    }
}

static uint64_t random_f32(void)
{
    uint32_t flags = 0;
    const uint64_t r = rng();
    switch (r % 4) {
    case 0:
        return (uint32_t)rng();
    case 1:
        return (uint32_t)((rng() & 0x807fffff) | (127 - 30 + rng() % 60) << 23);
    case 2:
        return (uint32_t)((rng() & 0x807fffff) >> (rng() % 23 * (rng() & 1)) | (rng() & 0x80000000) |
                          (rng() % 2) << 23);
    default:
        return f32_from_f64(random_f64(), SF_RNE, &flags);
    }
}

/* ---- the host ---- */

static float as_f32(uint64_t a)
{
    const uint32_t bits = (uint32_t)a;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static double as_f64(uint64_t a)
{
    double d;
    memcpy(&d, &a, 8);
    return d;
}
static uint64_t bits_f32(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return (bits & 0x7fffffff) > 0x7f800000 ? F32_NAN : bits;
}
static uint64_t bits_f64(double d)
{
    uint64_t bits;
    memcpy(&bits, &d, 8);
    return (bits & INT64_MAX) > 0x7ff0000000000000 ? F64_NAN : bits;
}

static const unsigned mxcsr_round[] = {_MM_ROUND_NEAREST, _MM_ROUND_TOWARD_ZERO, _MM_ROUND_DOWN,
                                       _MM_ROUND_UP};
static const int fe_round[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};

static void host_begin(SfRound rm)
{
    __asm__ volatile("" ::: "memory");
    _mm_setcsr(0x1f80 | mxcsr_round[rm]);
}
static uint32_t host_end(void)
{
    __asm__ volatile("" ::: "memory");
    const unsigned csr = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return (csr & 1 ? SF_NV : 0) | (csr & 4 ? SF_DZ : 0) | (csr & 8 ? SF_OF : 0) | (csr & 16 ? SF_UF : 0) |
           (csr & 32 ? SF_NX : 0);
}

static void check(const char *op, SfRound rm, uint64_t a, uint64_t b, uint64_t c, uint64_t got,
                  uint32_t got_flags, uint64_t want, uint32_t want_flags)
{
    n_checks++;
    if (got == want && got_flags == want_flags)
        return;
    printf("%s rm=%d a=%016llx b=%016llx c=%016llx: got %016llx flags %02x, want %016llx flags %02x\n", op,
           (int)rm, (Bits)a, (Bits)b, (Bits)c, (Bits)got, got_flags, (Bits)want, want_flags);
    if (++n_errors > 20)
        exit(1);
}

/* One SSE instruction on registers, out of the compiler's sight. */
#define SSE2OP(insn, d, s) __asm__ volatile(insn " %1, %0" : "+x"(d) : "x"(s))

#define CHECK_BIN(f, type, op, insn)                                                                         \
    do {                                                                                                     \
        uint32_t flags = 0;                                                                                  \
        const uint64_t got = f##_##op(a, b, rm, &flags);                                                     \
        type x = as_##f(a);                                                                                  \
        const type y = as_##f(b);                                                                            \
        host_begin(rm);                                                                                      \
        SSE2OP(insn, x, y);                                                                                  \
        const uint32_t want = host_end();                                                                    \
        check(#f "_" #op, rm, a, b, 0, got, flags, bits_##f(x), want);                                       \
    } while (0)

#define CHECK_FMA(f, type, insn, neg)                                                                        \
    do {                                                                                                     \
        uint32_t flags = 0;                                                                                  \
        const uint64_t got = f##_fma(a, b, c, neg, rm, &flags);                                              \
        type x = as_##f(a);                                                                                  \
        const type y = as_##f(b), z = as_##f(c);                                                             \
        host_begin(rm);                                                                                      \
        __asm__ volatile(insn " %2, %1, %0" : "+x"(x) : "x"(y), "x"(z));                                     \
        uint32_t want = host_end();                                                                          \
        /* RISC-V: infinity times zero is invalid also beside a quiet NaN */                                 \
        if (f##_classify(c) == 1u << 9 && is_inf_times_zero(f##_classify(a), f##_classify(b)))               \
            want |= SF_NV;                                                                                   \
        check(#f "_fma " insn, rm, a, b, c, got, flags, bits_##f(x), want);                                  \
    } while (0)

static bool is_inf_times_zero(uint32_t a, uint32_t b)
{
    const uint32_t inf = 1u << 0 | 1u << 7, zero = 1u << 3 | 1u << 4;
    return ((a & inf) && (b & zero)) || ((a & zero) && (b & inf));
}

#define CHECK_CMP(f, type, op, insn, test)                                                                   \
    do {                                                                                                     \
        uint32_t flags = 0;                                                                                  \
        const bool got = f##_##op(a, b, &flags);                                                             \
        const type x = as_##f(a), y = as_##f(b);                                                             \
        uint8_t yes, ordered;                                                                                \
        host_begin(SF_RNE);                                                                                  \
        __asm__ volatile(insn " %2, %3\n\t" test " %0\n\tsetnp %1"                                           \
                         : "=r"(yes), "=r"(ordered)                                                          \
                         : "x"(x), "x"(y)                                                                    \
                         : "cc");                                                                            \
        const uint32_t want = host_end();                                                                    \
        check(#f "_" #op, SF_RNE, a, b, 0, got, flags, yes && ordered, want);                                \
    } while (0)

/* cvtsd2si and its like give the same "indefinite" for everything that does not fit: then RISC-V's value is
 * taken from the operand alone. */
#define CHECK_TO_INT(f, type, itype, sf, insn, lo, hi)                                                       \
    do {                                                                                                     \
        uint32_t flags = 0;                                                                                  \
        const uint64_t got = f##_to_int(a, sf, rm, &flags);                                                  \
        const type x = as_##f(a);                                                                            \
        itype i;                                                                                             \
        host_begin(rm);                                                                                      \
        __asm__ volatile(insn " %1, %0" : "=r"(i) : "x"(x));                                                 \
        const uint32_t want = host_end();                                                                    \
        const uint64_t value = want & SF_NV ? (uint64_t)(x < 0 ? (lo) : (hi)) : (uint64_t)(int64_t)i;        \
        check(#f "_to_int " #sf, rm, a, 0, 0, got, flags, value, want);                                      \
    } while (0)

/* Unsigned: what the signed conversion of twice the width gives, or for 64 bits, where no number above 2^63
 * has a fraction, the cast. */
#define CHECK_TO_UINT(f, type, insn)                                                                         \
    do {                                                                                                     \
        uint32_t flags = 0, flags64 = 0;                                                                     \
        const uint64_t got = f##_to_int(a, SF_U32, rm, &flags), got64 = f##_to_int(a, SF_U64, rm, &flags64); \
        const type x = as_##f(a);                                                                            \
        int64_t i;                                                                                           \
        host_begin(rm);                                                                                      \
        __asm__ volatile(insn " %1, %0" : "=r"(i) : "x"(x));                                                 \
        const uint32_t want = host_end();                                                                    \
        const bool nan = x != x, big = !nan && x >= 9223372036854775808.0,                                   \
                   huge = !nan && x >= 18446744073709551616.0;                                               \
        const bool fits = !nan && !big && i >= 0 && !(want & SF_NV);                                         \
        const bool fits32 = fits && i <= UINT32_MAX;                                                         \
        check(#f "_to_int SF_U32", rm, a, 0, 0, got, flags,                                                  \
              fits32         ? (uint64_t)(int32_t)i                                                          \
              : nan || x > 0 ? ~0ull                                                                         \
                             : 0,                                                                            \
              fits32 ? want : SF_NV);                                                                        \
        check(#f "_to_int SF_U64", rm, a, 0, 0, got64, flags64,                                              \
              fits          ? (uint64_t)i                                                                    \
              : huge || nan ? ~0ull                                                                          \
              : big         ? (uint64_t)x                                                                    \
                            : 0,                                                                             \
              fits           ? want                                                                          \
              : big && !huge ? 0                                                                             \
                             : SF_NV);                                                                       \
    } while (0)

#define CHECK_FROM_INT(f, type, itype, sf, insn, value)                                                      \
    do {                                                                                                     \
        uint32_t flags = 0;                                                                                  \
        const uint64_t got = f##_from_int(i, sf, rm, &flags);                                                \
        type x = 0;                                                                                          \
        const itype v = (itype)(value);                                                                      \
        host_begin(rm);                                                                                      \
        __asm__ volatile(insn " %1, %0" : "+x"(x) : "r"(v));                                                 \
        const uint32_t want = host_end();                                                                    \
        check(#f "_from_int " #sf, rm, i, 0, 0, got, flags, bits_##f(x), want);                              \
    } while (0)

/* x87 holds every 64-bit integer, and its stores round. */
#define CHECK_FROM_U64(f, type)                                                                              \
    do {                                                                                                     \
        uint32_t flags = 0;                                                                                  \
        const uint64_t got = f##_from_int(i, SF_U64, rm, &flags);                                            \
        const long double exact = (long double)i;                                                            \
        fesetround(fe_round[rm]);                                                                            \
        volatile type x = (type)exact;                                                                       \
        fesetround(FE_TONEAREST);                                                                            \
        check(#f "_from_int SF_U64", rm, i, 0, 0, got, flags, bits_##f(x),                                   \
              (long double)x == exact ? 0 : SF_NX);                                                          \
    } while (0)

#define CHECK_FORMAT(f, type, ss)                                                                            \
    static void check_##f(uint64_t a, uint64_t b, uint64_t c, SfRound rm)                                    \
    {                                                                                                        \
        CHECK_BIN(f, type, add, "add" ss);                                                                   \
        CHECK_BIN(f, type, sub, "sub" ss);                                                                   \
        CHECK_BIN(f, type, mul, "mul" ss);                                                                   \
        CHECK_BIN(f, type, div, "div" ss);                                                                   \
        uint32_t flags = 0;                                                                                  \
        const uint64_t got = f##_sqrt(a, rm, &flags);                                                        \
        type x = as_##f(a);                                                                                  \
        host_begin(rm);                                                                                      \
        __asm__ volatile("sqrt" ss " %0, %0" : "+x"(x));                                                     \
        const uint32_t want = host_end();                                                                    \
        check(#f "_sqrt", rm, a, 0, 0, got, flags, bits_##f(x), want);                                       \
        CHECK_FMA(f, type, "vfmadd213" ss, 0);                                                               \
        CHECK_FMA(f, type, "vfmsub213" ss, SF_NEG_ADDEND);                                                   \
        CHECK_FMA(f, type, "vfnmadd213" ss, SF_NEG_PRODUCT);                                                 \
        CHECK_FMA(f, type, "vfnmsub213" ss, SF_NEG_PRODUCT | SF_NEG_ADDEND);                                 \
        CHECK_CMP(f, type, eq, "ucomi" ss, "sete");                                                          \
        CHECK_CMP(f, type, lt, "comi" ss, "seta");                                                           \
        CHECK_CMP(f, type, le, "comi" ss, "setae");                                                          \
        CHECK_TO_INT(f, type, int32_t, SF_I32, "cvt" ss "2si", (int64_t)INT32_MIN, INT32_MAX);               \
        CHECK_TO_INT(f, type, int64_t, SF_I64, "cvt" ss "2si", INT64_MIN, INT64_MAX);                        \
        CHECK_TO_UINT(f, type, "cvt" ss "2si");                                                              \
    }
CHECK_FORMAT(f32, float, "ss")
CHECK_FORMAT(f64, double, "sd")

static void check_ints(uint64_t i, SfRound rm)
{
    CHECK_FROM_INT(f32, float, int32_t, SF_I32, "cvtsi2ssl", i);
    CHECK_FROM_INT(f64, double, int32_t, SF_I32, "cvtsi2sdl", i);
    CHECK_FROM_INT(f32, float, int64_t, SF_U32, "cvtsi2ssq", (uint32_t)i);
    CHECK_FROM_INT(f64, double, int64_t, SF_U32, "cvtsi2sdq", (uint32_t)i);
    CHECK_FROM_INT(f32, float, int64_t, SF_I64, "cvtsi2ssq", i);
    CHECK_FROM_INT(f64, double, int64_t, SF_I64, "cvtsi2sdq", i);
    CHECK_FROM_U64(f32, float);
    CHECK_FROM_U64(f64, double);
}

static void check_widths(uint64_t d, uint64_t s, SfRound rm)
{
    uint32_t flags = 0;
    uint64_t got = f32_from_f64(d, rm, &flags);
    float x = 0;
    double y = as_f64(d);
    host_begin(rm);
    __asm__ volatile("cvtsd2ss %1, %0" : "+x"(x) : "x"(y));
    uint32_t want = host_end();
    check("f32_from_f64", rm, d, 0, 0, got, flags, bits_f32(x), want);
    flags = 0;
    got = f64_from_f32(s, rm, &flags);
    x = as_f32(s);
    host_begin(rm);
    __asm__ volatile("cvtss2sd %1, %0" : "+x"(y) : "x"(x));
    want = host_end();
    check("f64_from_f32", rm, s, 0, 0, got, flags, bits_f64(y), want);
}

/* ---- what no host instruction does ---- */

static bool is_negative(uint64_t a, int top)
{
    return (a >> top) & 1;
}

#define CHECK_PICK(f, type, top)                                                                             \
    static void check_pick_##f(uint64_t a, uint64_t b)                                                       \
    {                                                                                                        \
        const type x = as_##f(a), y = as_##f(b);                                                             \
        const bool snan = f##_classify(a) == 1u << 8 || f##_classify(b) == 1u << 8;                          \
        const uint64_t nan = bits_##f(__builtin_nan(""));                                                    \
        uint64_t low, high;                                                                                  \
        if (x != x || y != y)                                                                                \
            low = high = x == x ? a : y == y ? b : nan;                                                      \
        else if (x < y || (x == y && is_negative(a, top)))                                                   \
            low = a, high = b;                                                                               \
        else                                                                                                 \
            low = b, high = a;                                                                               \
        uint32_t flags = 0;                                                                                  \
        const uint64_t min = f##_min(a, b, &flags);                                                          \
        check(#f "_min", SF_RNE, a, b, 0, min, flags, low, snan ? SF_NV : 0);                                \
        flags = 0;                                                                                           \
        const uint64_t max = f##_max(a, b, &flags);                                                          \
        check(#f "_max", SF_RNE, a, b, 0, max, flags, high, snan ? SF_NV : 0);                               \
        static const int sizes[] = {9, 0, 3, 2, 1};                                                          \
        const int kind = __builtin_fpclassify(0, 1, 4, 3, 2, x);                                             \
        const int size = sizes[kind];                                                                        \
        const uint32_t bit = kind == 0 ? 1u << (f##_is_signalling(a) ? 8 : 9)                                \
                                       : 1u << (is_negative(a, top) ? size : 7 - size);                      \
        check(#f "_classify", SF_RNE, a, 0, 0, f##_classify(a), 0, bit, 0);                                  \
    }
static bool f32_is_signalling(uint64_t a)
{
    return !(a & 0x400000);
}
static bool f64_is_signalling(uint64_t a)
{
    return !(a & 0x8000000000000);
}
CHECK_PICK(f32, float, 31)
CHECK_PICK(f64, double, 63)

/* RMM lies between the two neighbours that RDN and RUP give, on the side of the exact value, ties away from
 * zero; its flags are those of RNE, but where the choice itself overflows or reaches the least normal number.
 */
#define CHECK_RMM(f, type, name, expr, exact)                                                                \
    do {                                                                                                     \
        uint32_t fl = 0, fd = 0, fu = 0;                                                                     \
        SfRound rm = SF_RMM;                                                                                 \
        uint32_t *flags = &fl;                                                                               \
        const uint64_t got = (expr);                                                                         \
        rm = SF_RDN, flags = &fd;                                                                            \
        const uint64_t down = (expr);                                                                        \
        rm = SF_RUP, flags = &fu;                                                                            \
        const uint64_t up = (expr);                                                                          \
        const __float128 e = (exact), d = as_##f(down), u = as_##f(up);                                      \
        if (!(d - d == 0) || !(u - u == 0)) /* at infinity there is no midpoint */                           \
            break;                                                                                           \
        const __float128 twice = e + e, mid = d + u;                                                         \
        const bool take_up = e < 0 ? twice > mid : twice >= mid;                                             \
        check(name " RMM", SF_RMM, a, b, 0, got, fl & SF_NX,                                                 \
              down == up ? down                                                                              \
              : take_up  ? up                                                                                \
                         : down,                                                                             \
              down == up ? 0 : SF_NX);                                                                       \
    } while (0)

#define IS_FINITE(x) ((x) - (x) == 0)
static void check_rmm(uint64_t a, uint64_t b)
{
    const double x = as_f64(a), y = as_f64(b);
    if (IS_FINITE(x) && IS_FINITE(y)) {
        CHECK_RMM(f64, double, "f64_mul", f64_mul(a, b, rm, flags), (__float128)x *y);
        const int gap = (int)((a >> 52) & 2047) - (int)((b >> 52) & 2047);
        if (gap > -55 && gap < 55 && x != -y)
            CHECK_RMM(f64, double, "f64_add", f64_add(a, b, rm, flags), (__float128)x + y);
        if (x != 0)
            CHECK_RMM(f32, float, "f32_from_f64", f32_from_f64(a, rm, flags), (__float128)x);
    }
    uint32_t fl = 0;
    if (x > -1e18 && x < 1e18) {
        const double size = x < 0 ? -x : x;
        const int64_t whole = (int64_t)size, rounded = whole + (size - (double)whole >= 0.5);
        const uint64_t got = f64_to_int(a, SF_I64, SF_RMM, &fl);
        check("f64_to_int RMM", SF_RMM, a, 0, 0, got, fl, (uint64_t)(x < 0 ? -rounded : rounded),
              (double)whole == size ? 0 : SF_NX);
    }
}

static void check_all(uint64_t a, uint64_t b, uint64_t c)
{
    for (int rm = SF_RNE; rm <= SF_RUP; rm++)
        check_f64(a, b, c, (SfRound)rm);
    check_pick_f64(a, b);
    check_rmm(a, b);
}

int main(int argc, char **argv)
{
    const long rounds = argc > 1 ? strtol(argv[1], NULL, 0) : 1000;
    rng_state = argc > 2 ? strtoull(argv[2], NULL, 0) * 2 + 1 : 0x9e3779b97f4a7c15ull;
    for (int i = 0; i < N_CORNER; i++)
        for (int j = 0; j < N_CORNER; j++) {
            check_all(corner64[i], corner64[j], corner64[(i * 7 + j * 3) % N_CORNER]);
            for (int rm = SF_RNE; rm <= SF_RUP; rm++) {
                uint32_t fl = 0;
                const uint64_t a = f32_from_f64(corner64[i], SF_RTZ, &fl),
                               b = f32_from_f64(corner64[j], SF_RUP, &fl);
                check_f32(a, b, f32_from_f64(corner64[(i + j) % N_CORNER], SF_RNE, &fl), (SfRound)rm);
                check_ints(corner64[i] ^ (uint64_t)j, (SfRound)rm);
            }
        }
    for (long i = 0; i < rounds; i++) {
        check_all(random_f64(), random_f64(), random_f64());
        const uint64_t a = random_f32(), b = random_f32(), c = random_f32();
        const uint64_t d = random_f64(), n = rng() >> (rng() % 64);
        check_pick_f32(a, b);
        for (int rm = SF_RNE; rm <= SF_RUP; rm++) {
            check_f32(a, b, c, (SfRound)rm);
            check_widths(d, a, (SfRound)rm);
            check_ints(rng() & 1 ? n : 0 - n, (SfRound)rm);
        }
    }
    printf("%llu comparisons, %llu differ\n", n_checks, n_errors);
    return n_errors != 0;
}

/* bitmanip.c: the instructions of Zbb and Zbc that the IR has no op for. SPEC: unprivileged, chapter "B" */
#include "cpu.h"

#define HELPER1(name, expr)                                                                                  \
    uint64_t helper_##name(Hart *h, uint64_t a, uint64_t b, uint64_t c)                                      \
    {                                                                                                        \
        (void)h, (void)b, (void)c;                                                                           \
        return (uint64_t)(expr);                                                                             \
    }

HELPER1(clz, a ? __builtin_clzll(a) : 64)
HELPER1(clzw, (uint32_t)a ? __builtin_clz((uint32_t)a) : 32)
HELPER1(ctz, a ? __builtin_ctzll(a) : 64)
HELPER1(ctzw, (uint32_t)a ? __builtin_ctz((uint32_t)a) : 32)
HELPER1(cpop, __builtin_popcountll(a))
HELPER1(cpopw, __builtin_popcount((uint32_t)a))
HELPER1(rev8, __builtin_bswap64(a))

uint64_t helper_orc_b(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    (void)h, (void)b, (void)c;
    const uint64_t low7 = 0x7f7f7f7f7f7f7f7full;
    /* bit 7 of each byte: is any bit of it set? */
    const uint64_t any = (((a & low7) + low7) | a) & ~low7;
    return (any >> 7) * 0xff;
}

/* The product of polynomials over GF(2), 127 bits. */
static unsigned __int128 carryless(uint64_t a, uint64_t b)
{
    unsigned __int128 product = 0;
    for (; b; b &= b - 1)
        product ^= (unsigned __int128)a << __builtin_ctzll(b);
    return product;
}

uint64_t helper_clmul(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    (void)h, (void)c;
    return (uint64_t)carryless(a, b);
}

uint64_t helper_clmulh(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    (void)h, (void)c;
    return (uint64_t)(carryless(a, b) >> 64);
}

uint64_t helper_clmulr(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    (void)h, (void)c;
    return (uint64_t)(carryless(a, b) >> 63);
}

/* bitmanip.c: the instructions of Zbc, which the IR has no ops for. SPEC: unprivileged, chapter "B" */
#include "cpu.h"

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

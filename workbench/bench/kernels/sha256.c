/* sha256.c: SHA-256 (FIPS 180-4) over one buffer. The constants are made, not tabled: the first 32 bits of
 * the fractional parts of roots of primes. */
#include "kernel.h"

enum { BYTES = 64 * 1024, ROUNDS = 1000 };

const char kernel_name[] = "sha256";
static uint32_t constant[64], start[8];
static uint8_t buffer[BYTES];

/* floor(2^32 * fraction of p^(1/n)), n = 2 or 3, by bisection in integers. */
static uint32_t root_fraction(uint64_t p, unsigned n)
{
    uint64_t low = 0, high = UINT64_C(1) << 36;
    while (high - low > 1) {
        const uint64_t mid = (low + high) / 2;
        unsigned __int128 power = mid;
        for (unsigned i = 1; i < n; i++)
            power *= mid;
        if (power <= (unsigned __int128)p << (32 * n))
            low = mid;
        else
            high = mid;
    }
    return (uint32_t)low;
}

static void make_constants(void)
{
    uint32_t found = 0;
    for (uint64_t p = 2; found < 64; p++) {
        uint64_t d = 2;
        while (d * d <= p && p % d)
            d++;
        if (d * d <= p)
            continue;
        if (found < 8)
            start[found] = root_fraction(p, 2);
        constant[found++] = root_fraction(p, 3);
    }
}

static uint32_t rotate(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}

static void compress(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[64], s[8];
    for (unsigned i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (unsigned i = 16; i < 64; i++) {
        const uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] +
               (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    for (unsigned i = 0; i < 8; i++)
        s[i] = state[i];
    for (unsigned i = 0; i < 64; i++) {
        const uint32_t t1 = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
                            ((s[4] & s[5]) ^ (~s[4] & s[6])) + constant[i] + w[i];
        const uint32_t t2 = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) +
                            ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        s[7] = s[6], s[6] = s[5], s[5] = s[4], s[4] = s[3] + t1;
        s[3] = s[2], s[2] = s[1], s[1] = s[0], s[0] = t1 + t2;
    }
    for (unsigned i = 0; i < 8; i++)
        state[i] += s[i];
}

uint64_t kernel_run(void)
{
    uint32_t state[8];
    make_constants();
    for (uint32_t i = 0; i < BYTES; i++)
        buffer[i] = (uint8_t)(i * 7 + 3);
    for (unsigned i = 0; i < 8; i++)
        state[i] = start[i];
    for (unsigned round = 0; round < ROUNDS; round++)
        for (uint32_t at = 0; at < BYTES; at += 64)
            compress(state, buffer + at);
    return (uint64_t)state[0] << 32 | state[7];
}

/* chacha.c: blocks of ChaCha20: sixteen words in use at once, and no branch in a round. SPEC: RFC 8439, 2.3 */
#include "kernel.h"

enum { WORDS = 16, BLOCKS = 2000000 };

const char kernel_name[] = "chacha";

static inline uint32_t rotl(uint32_t x, unsigned n)
{
    return x << n | x >> (32 - n);
}

#define QUARTER(a, b, c, d)                                                                                  \
    (a += b, d = rotl(d ^ a, 16), c += d, b = rotl(b ^ c, 12), a += b, d = rotl(d ^ a, 8), c += d,           \
     b = rotl(b ^ c, 7))

static void block(const uint32_t in[WORDS], uint32_t out[WORDS])
{
    uint32_t x[WORDS];
    for (unsigned i = 0; i < WORDS; i++)
        x[i] = in[i];
    for (unsigned round = 0; round < 10; round++) {
        QUARTER(x[0], x[4], x[8], x[12]);
        QUARTER(x[1], x[5], x[9], x[13]);
        QUARTER(x[2], x[6], x[10], x[14]);
        QUARTER(x[3], x[7], x[11], x[15]);
        QUARTER(x[0], x[5], x[10], x[15]);
        QUARTER(x[1], x[6], x[11], x[12]);
        QUARTER(x[2], x[7], x[8], x[13]);
        QUARTER(x[3], x[4], x[9], x[14]);
    }
    for (unsigned i = 0; i < WORDS; i++)
        out[i] = x[i] + in[i];
}

uint64_t kernel_run(void)
{
    uint32_t state[WORDS] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}, out[WORDS];
    uint64_t seed = 1, result = 0;
    for (unsigned i = 4; i < WORDS; i++)
        state[i] = (uint32_t)next_random(&seed);
    for (unsigned n = 0; n < BLOCKS; n++) {
        block(state, out);
        result ^= (uint64_t)out[n % WORDS] << n % 32;
        state[12]++;
    }
    return result;
}

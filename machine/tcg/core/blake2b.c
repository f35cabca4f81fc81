/* blake2b.c: see blake2b.h. The compression function is written once, over vectors with a message in each
 * lane; it is compiled for each width that hosts have, and the widest that this host has is used. */
#include "blake2b.h"

#include <stdbool.h>
#include <string.h>

enum { WORDS = 16, BLOCK = 128, ROUNDS = 12 };

/* SPEC: RFC 7693 section 2.6 */
static const uint64_t iv[8] = {
    UINT64_C(0x6a09e667f3bcc908), UINT64_C(0xbb67ae8584caa73b), UINT64_C(0x3c6ef372fe94f82b),
    UINT64_C(0xa54ff53a5f1d36f1), UINT64_C(0x510e527fade682d1), UINT64_C(0x9b05688c2b3e6c1f),
    UINT64_C(0x1f83d9abfb41bd6b), UINT64_C(0x5be0cd19137e2179),
};

/* SPEC: RFC 7693 section 2.7; rounds 10 and 11 use rows 0 and 1 */
static const uint8_t sigma[10][WORDS] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

/* Copies the block at `at` of a message, with zeros behind its end; whole blocks are used where they lie. */
static const uint8_t *block_of(const uint8_t *msg, uint64_t len, uint64_t at, uint8_t tail[BLOCK])
{
    if (len - at >= BLOCK)
        return msg + at;
    memset(tail, 0, BLOCK);
    memcpy(tail, msg + at, len - at);
    return tail;
}

#define LANES 1
#define LANES_TARGET
#define LANES_HASH hash_1
#include "blake2b_lanes.c.inc"

#if defined(__x86_64__)
#define LANES        4
#define LANES_TARGET __attribute__((target("avx2")))
#define LANES_HASH   hash_4
#include "blake2b_lanes.c.inc"

#define LANES        8
#define LANES_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq")))
#define LANES_HASH   hash_8
#include "blake2b_lanes.c.inc"

static uint64_t hash_wide(const uint8_t *const *msg, uint64_t len, uint64_t n, uint8_t (*out)[BLAKE2B_BYTES])
{
    uint64_t i = 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        for (; i + 8 <= n; i += 8)
            hash_8(msg + i, len, out + i);
    if (__builtin_cpu_supports("avx2"))
        for (; i + 4 <= n; i += 4)
            hash_4(msg + i, len, out + i);
    return i;
}
#else
static uint64_t hash_wide(const uint8_t *const *msg, uint64_t len, uint64_t n, uint8_t (*out)[BLAKE2B_BYTES])
{
    (void)msg, (void)len, (void)n, (void)out;
    return 0;
}
#endif

void blake2b_256(const uint8_t *const *msg, uint64_t len, uint64_t n, uint8_t (*out)[BLAKE2B_BYTES])
{
    for (uint64_t i = hash_wide(msg, len, n, out); i < n; i++)
        hash_1(msg + i, len, out + i);
}

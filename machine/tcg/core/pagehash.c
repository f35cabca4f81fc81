/* pagehash.c: see pagehash.h. */
#include "pagehash.h"
#include "api.h"
#include "machine.h"

#include <string.h>

static const uint64_t LANE[4] = {UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xc2b2ae3d27d4eb4f),
                                 UINT64_C(0x165667b19e3779f9), UINT64_C(0xd6e8feb86659fd93)};

static inline uint64_t hash_word(uint64_t lane, const uint8_t *data, uint64_t k)
{
    uint64_t w;
    memcpy(&w, data, 8);
    const unsigned __int128 p = (unsigned __int128)(lane ^ w) * k;
    return (uint64_t)p + (lane << 1 | lane >> 63) + (uint64_t)(p >> 64);
}

/* Four lanes of multiply and fold, so that the host's multiplier is kept busy; not an array, which the
 * compiler would keep in memory. The host's own prefetching ends with a page. */
static void hash_page(const uint8_t *data, const uint8_t *next, uint64_t seed, uint64_t out[2])
{
    uint64_t a = (seed + 1) * LANE[0], b = (seed + 1) * LANE[1];
    uint64_t c = (seed + 1) * LANE[2], d = (seed + 1) * LANE[3];
    for (uint32_t at = 0; at < WB_PAGE_SIZE; at += 32) {
        if (at % 64 == 0)
            __builtin_prefetch(next + at);
        a = hash_word(a, data + at, LANE[0]);
        b = hash_word(b, data + at + 8, LANE[1]);
        c = hash_word(c, data + at + 16, LANE[2]);
        d = hash_word(d, data + at + 24, LANE[3]);
    }
    out[0] = (a ^ (b << 23 | b >> 41)) * LANE[2] + d;
    out[1] = (c ^ (d << 31 | d >> 33)) * LANE[0] + b;
}

void pagehash_add(uint64_t sum[2], uint64_t number, const uint8_t *data, const uint8_t *next)
{
    uint64_t h[2];
    hash_page(data, next, number, h);
    sum[0] = (sum[0] << 5 | sum[0] >> 59) * 3 + h[0];
    sum[1] = (sum[1] << 7 | sum[1] >> 57) * 5 + h[1];
}

void wb_checksum(const uint8_t *data, uint64_t n, uint64_t out[2])
{
    out[0] = out[1] = 0;
    for (uint64_t i = 0; i < n; i++, data += WB_PAGE_SIZE)
        pagehash_add(out, i, data, i + 1 < n ? data + WB_PAGE_SIZE : data);
}

/* pageset.h: sets of RAM's pages as bitmaps; page n is bit n % 64 of word n / 64. */
#ifndef WB_PAGESET_H
#define WB_PAGESET_H

#include "api.h"

#include <stdbool.h>

static inline uint64_t pageset_words(uint64_t n_pages)
{
    return (n_pages + 63) / 64;
}

static inline bool pageset_has(const uint64_t *set, uint64_t page)
{
    return set[page / 64] >> (page % 64) & 1;
}

static inline void pageset_put(uint64_t *set, uint64_t page)
{
    set[page / 64] |= UINT64_C(1) << (page % 64);
}

static inline void pageset_drop(uint64_t *set, uint64_t page)
{
    set[page / 64] &= ~(UINT64_C(1) << (page % 64));
}

/* The first page of a set from `page` on; words * 64 behind the last one. */
static inline uint64_t pageset_next(const uint64_t *set, uint64_t words, uint64_t page)
{
    for (uint64_t i = page / 64; i < words; i++) {
        const uint64_t left = set[i] & (i == page / 64 ? ~UINT64_C(0) << (page % 64) : ~UINT64_C(0));
        if (left)
            return i * 64 + (uint64_t)__builtin_ctzll(left);
    }
    return words * 64;
}

#endif

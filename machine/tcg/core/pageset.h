/* pageset.h: sets of RAM's pages as bitmaps; page n is bit n % 64 of word n / 64. */
#ifndef WB_PAGESET_H
#define WB_PAGESET_H

#include "api.h"

static inline uint64_t pageset_words(uint64_t n_pages)
{
    return (n_pages + 63) / 64;
}

#endif

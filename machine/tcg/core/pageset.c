/* pageset.c: see pageset.h. Uses no Machine. */
#include "pageset.h"

void wb_set_add(uint64_t *set, const uint64_t *other, uint64_t words)
{
    for (uint64_t i = 0; i < words; i++)
        set[i] |= other[i];
}

void wb_set_remove(uint64_t *set, const uint64_t *other, uint64_t words)
{
    for (uint64_t i = 0; i < words; i++)
        set[i] &= ~other[i];
}

void wb_set_insert(uint64_t *set, const uint32_t *pages, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        pageset_put(set, pages[i]);
}

uint64_t wb_set_count(const uint64_t *set, uint64_t words)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < words; i++)
        n += (uint64_t)__builtin_popcountll(set[i]);
    return n;
}

void wb_set_pages(const uint64_t *set, uint64_t words, uint32_t *out)
{
    for (uint64_t page = pageset_next(set, words, 0); page < words * 64;
         page = pageset_next(set, words, page + 1))
        *out++ = (uint32_t)page;
}

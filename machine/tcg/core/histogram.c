/* histogram.c: see histogram.h. */
#include "histogram.h"

#include <stdlib.h>

enum { FIRST = 1 << 16, LARGEST = 1 << 26 };

bool histogram_grow(Histogram *t)
{
    const uint32_t size = t->size ? t->size * 2 : FIRST;
    HistogramEntry *entry = size <= LARGEST ? calloc(size, sizeof(*entry)) : NULL;
    if (!entry)
        return false;
    const Histogram old = *t;
    t->entry = entry;
    t->size = size;
    for (uint32_t i = 0; i < old.size; i++) {
        if (!old.entry[i].count)
            continue;
        uint32_t at = histogram_slot(t, old.entry[i].pc);
        while (entry[at].count)
            at = (at + 1) & (size - 1);
        entry[at] = old.entry[i];
    }
    free(old.entry);
    return true;
}

void histogram_clear(Histogram *t)
{
    free(t->entry);
    free(t->sorted);
    *t = (Histogram){0};
}

static int by_pc(const void *a, const void *b)
{
    const uint64_t one = ((const HistogramEntry *)a)->pc, other = ((const HistogramEntry *)b)->pc;
    return one < other ? -1 : one > other;
}

const HistogramEntry *histogram_sorted(Histogram *t, uint32_t *n)
{
    *n = 0;
    free(t->sorted);
    t->sorted = t->used ? malloc(t->used * sizeof(*t->sorted)) : NULL;
    if (!t->sorted) {
        t->lost += t->used;
        return NULL;
    }
    for (uint32_t i = 0; i < t->size; i++)
        if (t->entry[i].count)
            t->sorted[(*n)++] = t->entry[i];
    qsort(t->sorted, *n, sizeof(*t->sorted), by_pc);
    return t->sorted;
}

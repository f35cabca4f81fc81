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
    *t = (Histogram){0};
}

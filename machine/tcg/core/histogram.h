/* histogram.h: how often each program counter was met. An open-addressing table that grows. */
#ifndef WB_HISTOGRAM_H
#define WB_HISTOGRAM_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint64_t pc, count; /* count 0: free */
} HistogramEntry;

typedef struct {
    HistogramEntry *entry;
    uint32_t size; /* a power of two, or 0 */
    uint32_t used;
    uint64_t lost;          /* not counted: no memory to grow */
    HistogramEntry *sorted; /* what histogram_sorted() returned last */
} Histogram;

bool histogram_grow(Histogram *t);
void histogram_clear(Histogram *t);
/* Its entries by pc, until it is asked again or cleared; NULL: there are none, or no memory, which `lost`
 * tells. */
const HistogramEntry *histogram_sorted(Histogram *t, uint32_t *n);

static inline uint32_t histogram_slot(const Histogram *t, uint64_t pc)
{
    return (uint32_t)((pc * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (t->size - 1);
}

static inline void histogram_add(Histogram *t, uint64_t pc, uint64_t count)
{
    if (t->used >= t->size / 4 * 3 && !histogram_grow(t)) {
        t->lost += count;
        return;
    }
    for (uint32_t i = histogram_slot(t, pc);; i = (i + 1) & (t->size - 1)) {
        HistogramEntry *e = &t->entry[i];
        if (e->pc == pc && e->count) {
            e->count += count;
            return;
        }
        if (!e->count) {
            *e = (HistogramEntry){pc, count};
            t->used++;
            return;
        }
    }
}

#endif

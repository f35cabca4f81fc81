/* heapsort.c: heap sort with the comparison behind a function pointer. */
#include "kernel.h"

enum { ITEMS = 100 * 1000, ROUNDS = 24 };

const char kernel_name[] = "heapsort";
static uint32_t item[ITEMS];

typedef int Compare(const void *, const void *);

static int compare_words(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

Compare *volatile chosen = compare_words;

static void sift(uint32_t *v, size_t root, size_t n, Compare *compare)
{
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && compare(&v[child], &v[child + 1]) < 0)
            child++;
        if (compare(&v[root], &v[child]) >= 0)
            return;
        const uint32_t t = v[root];
        v[root] = v[child];
        v[child] = t;
    }
}

uint64_t kernel_run(void)
{
    uint64_t seed = 2463534242u, sum = 0;
    Compare *compare = chosen;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < ITEMS; i++)
            item[i] = (uint32_t)next_random(&seed);
        for (size_t i = ITEMS / 2; i-- > 0;)
            sift(item, i, ITEMS, compare);
        for (size_t n = ITEMS; --n > 0;) {
            const uint32_t t = item[0];
            item[0] = item[n];
            item[n] = t;
            sift(item, 0, n, compare);
        }
        for (size_t i = 1; i < ITEMS; i++)
            if (item[i - 1] > item[i])
                return 0;
        sum += item[ITEMS / 2];
    }
    return sum;
}

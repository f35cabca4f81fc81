/* array.h: arrays that grow. */
#ifndef WB_ARRAY_H
#define WB_ARRAY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* Gives an array of `*cap` elements twice as many, or `first`; false: no memory, and nothing has changed. */
static inline bool array_grow(void **array, uint32_t *cap, uint32_t first, size_t size)
{
    const uint32_t more = *cap ? *cap * 2 : first;
    void *got = more > *cap ? realloc(*array, more * size) : NULL;
    if (!got)
        return false;
    *array = got;
    *cap = more;
    return true;
}

#endif

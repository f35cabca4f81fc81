/* hostmem.c: see hostmem.h. */
#include "hostmem.h"

#include <string.h>
#include <sys/mman.h>

static void *map_at(uintptr_t at, size_t size, int flags)
{
    flags |= MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *made = mmap((void *)at, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    return made == MAP_FAILED ? NULL : made;
}

void *hostmem_map(size_t size)
{
    return map_at(0, size, 0);
}

void *hostmem_map_low(size_t size)
{
    const uintptr_t highest = 0x7e000000, lowest = 0x10000000, step = 0x2000000;
    void *made = NULL;
    for (uintptr_t at = highest; at >= lowest && !made; at -= step)
        made = map_at(at, size, MAP_FIXED_NOREPLACE);
    return made ? made : hostmem_map(size);
}

/* Emptied before it goes: the host's kernel holds no lock for that which another thread waits for, if it
 * wants memory meanwhile. */
void hostmem_unmap(void *at, size_t size)
{
    if (!at)
        return;
    madvise(at, size, MADV_DONTNEED);
    munmap(at, size);
}

void hostmem_clear(void *at, size_t size)
{
    if (madvise(at, size, MADV_DONTNEED))
        memset(at, 0, size);
}

void hostmem_populate(void *at, size_t size)
{
#ifdef MADV_POPULATE_WRITE
    madvise(at, size, MADV_POPULATE_WRITE); /* Linux before 5.14 has none: then stores fault */
#else
    (void)at;
    (void)size;
#endif
}

size_t hostmem_fill(void *begin, size_t size, size_t ready, size_t needed)
{
    enum { SPAN = 64 << 10 };
    if (needed <= ready)
        return ready;
    const size_t end = (needed + SPAN - 1) / SPAN * SPAN;
    hostmem_populate((uint8_t *)begin + ready, (end < size ? end : size) - ready);
    return end < size ? end : size;
}

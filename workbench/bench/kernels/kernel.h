/* kernel.h: what every kernel has: a name, a loop, and a result that shows that the work was done. */
#ifndef KERNEL_H
#define KERNEL_H

#include <stddef.h>
#include <stdint.h>

extern const char kernel_name[];
/* Does the work once and returns its result. */
uint64_t kernel_run(void);

/* A generator of numbers: xorshift, 64 bits. */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

#endif

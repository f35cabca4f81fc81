/* memcpy.c: copies words of 64 bits between two buffers. */
#include "kernel.h"

enum { WORDS = 32 * 1024, ROUNDS = 12000 };

const char kernel_name[] = "memcpy";
static uint64_t from[WORDS], to[WORDS];

uint64_t kernel_run(void)
{
    for (uint32_t i = 0; i < WORDS; i++)
        from[i] = i * UINT64_C(0x9e3779b97f4a7c15);
    uint64_t sum = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < WORDS; i++)
            to[i] = from[i];
        __asm__ volatile("" ::: "memory");
        sum += to[round % WORDS];
    }
    return sum;
}

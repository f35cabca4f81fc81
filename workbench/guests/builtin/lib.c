/* What the compiler and the rest of the kernel need of a C library, and a random generator. */
#include "kernel.h"

static u64 random_state;

void *memset(void *to, int value, u64 size)
{
    u8 *byte = to;
    while (size-- > 0)
        *byte++ = (u8)value;
    return to;
}

void *memcpy(void *to, const void *from, u64 size)
{
    u8 *target = to;
    const u8 *source = from;
    while (size-- > 0)
        *target++ = *source++;
    return to;
}

u64 string_length(const char *text)
{
    u64 length = 0;
    while (text[length] != 0)
        length++;
    return length;
}

bool string_equal(const char *a, const char *b)
{
    while (*a != 0 && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

void random_seed(u64 seed)
{
    random_state = seed;
}

/* SplitMix64: a counter and a mixing function, so that every seed is a good one. */
u64 random_next(void)
{
    random_state += 0x9e3779b97f4a7c15UL;
    u64 mixed = random_state;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9UL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebUL;
    return mixed ^ (mixed >> 31);
}

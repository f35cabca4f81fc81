/* sieve.c: the sieve of Eratosthenes over bytes. */
#include "kernel.h"

enum { LIMIT = 1 << 20, ROUNDS = 160 };

const char kernel_name[] = "sieve";
static uint8_t composite[LIMIT];

uint64_t kernel_run(void)
{
    uint64_t primes = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < LIMIT; i++)
            composite[i] = 0;
        for (uint32_t i = 2; i < LIMIT; i++) {
            if (composite[i])
                continue;
            primes++;
            for (uint64_t j = (uint64_t)i * i; j < LIMIT; j += i)
                composite[j] = 1;
        }
    }
    return primes;
}

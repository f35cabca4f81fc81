/* chase.c: follows pointers in a random ring of 32 KiB. */
#include "kernel.h"

enum { NODES = 4096, STEPS = 400 * 1000 * 1000 };

const char kernel_name[] = "chase";
static void *node[NODES];

uint64_t kernel_run(void)
{
    static uint16_t order[NODES];
    uint64_t seed = 88172645463325252u;
    for (uint32_t i = 0; i < NODES; i++)
        order[i] = (uint16_t)i;
    for (uint32_t i = NODES - 1; i > 0; i--) {
        const uint32_t j = next_random(&seed) % (i + 1);
        const uint16_t t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (uint32_t i = 0; i < NODES; i++)
        node[order[i]] = &node[order[(i + 1) % NODES]];
    void **p = &node[0];
    for (uint32_t i = 0; i < STEPS; i++)
        p = *p;
    return (uint64_t)(p - node);
}

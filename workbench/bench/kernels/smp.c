/* smp.c: checksums of many small buffers, which the harts take from one counter: the same work on any number of
 * harts. */
#include "kernel.h"

enum { TASKS = 60000, WORDS = 512, MAX_HARTS = 16 };

const char kernel_name[] = "smp";
static uint64_t buffer[MAX_HARTS][WORDS];
static uint64_t next_task, tasks_done, total;

void kernel_hart(void);

static uint64_t checksum(uint64_t *words, uint64_t seed)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < WORDS; i++)
        words[i] = next_random(&seed);
    for (unsigned i = 0; i < WORDS; i++)
        sum = (sum << 5 | sum >> 59) ^ words[i ^ 1];
    return sum;
}

void kernel_hart(void)
{
    uint64_t hart, task;
    __asm__ volatile("csrr %0, mhartid" : "=r"(hart));
    while ((task = __atomic_fetch_add(&next_task, 1, __ATOMIC_RELAXED)) < TASKS) {
        const uint64_t sum = checksum(buffer[hart % MAX_HARTS], task + 1);
        __atomic_fetch_add(&total, sum, __ATOMIC_RELAXED);
        __atomic_fetch_add(&tasks_done, 1, __ATOMIC_RELEASE);
    }
}

uint64_t kernel_run(void)
{
    kernel_hart();
    while (__atomic_load_n(&tasks_done, __ATOMIC_ACQUIRE) < TASKS)
        ;
    return total;
}

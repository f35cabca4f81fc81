/* atomics.c: a lock, counters, a set of bits and a stack without a lock: AMOs, and pairs of LR and SC. */
#include "kernel.h"

enum { NODES = 64, ROUNDS = 40000000 };

const char kernel_name[] = "atomics";

typedef struct Node {
    struct Node *next;
    uint64_t value;
} Node;

static Node pool[NODES];
static Node *top;
static uint32_t lock;
static uint64_t counter, bits, guarded;

static void push(Node *node)
{
    node->next = __atomic_load_n(&top, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&top, &node->next, node, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        ;
}

static Node *pop(void)
{
    Node *node = __atomic_load_n(&top, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&top, &node, node->next, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        ;
    return node;
}

uint64_t kernel_run(void)
{
    for (unsigned i = 0; i < NODES; i++)
        push(&pool[i]);
    for (unsigned n = 0; n < ROUNDS; n++) {
        Node *node = pop();
        node->value += __atomic_fetch_add(&counter, n, __ATOMIC_RELAXED);
        while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
            ;
        guarded ^= node->value;
        __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
        __atomic_fetch_or(&bits, node->value & 0xff, __ATOMIC_RELAXED);
        push(node);
    }
    return counter ^ bits ^ guarded;
}

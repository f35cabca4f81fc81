/* vector.c: bytes copied, products added and a text's end found: with vector instructions, where it is built
 * for the guest. */
#include "kernel.h"

enum { BYTES = 16 * 1024, WORDS = BYTES / 8, ROUNDS = 5000 };

const char kernel_name[] = "vector";
static uint8_t text[BYTES], copy[BYTES];
static uint64_t x[WORDS], y[WORDS];

#if defined(__riscv)

/* mstatus.VS: the vector unit is on */
static void unit_on(void)
{
    __asm__ volatile("csrs mstatus, %0" ::"r"(1 << 9));
}

static void copy_bytes(uint8_t *to, const uint8_t *from, size_t n)
{
    for (size_t vl; n; n -= vl, to += vl, from += vl)
        __asm__ volatile(".option push\n.option arch, +v\n"
                         "vsetvli %0, %1, e8, m8, ta, ma\n"
                         "vle8.v v8, (%2)\n"
                         "vse8.v v8, (%3)\n"
                         ".option pop"
                         : "=&r"(vl)
                         : "r"(n), "r"(from), "r"(to)
                         : "memory");
}

/* to[i] += factor * from[i] */
static void add_products(uint64_t *to, uint64_t factor, const uint64_t *from, size_t n)
{
    for (size_t vl; n; n -= vl, to += vl, from += vl)
        __asm__ volatile(".option push\n.option arch, +v\n"
                         "vsetvli %0, %1, e64, m4, ta, ma\n"
                         "vle64.v v8, (%2)\n"
                         "vle64.v v16, (%3)\n"
                         "vmacc.vx v16, %4, v8\n"
                         "vse64.v v16, (%3)\n"
                         ".option pop"
                         : "=&r"(vl)
                         : "r"(n), "r"(from), "r"(to), "r"(factor)
                         : "memory");
}

/* Bytes before the first zero of n; n where there is none. */
static size_t find_zero(const uint8_t *from, size_t n)
{
    int64_t first = -1;
    size_t at = 0;
    for (size_t vl; at < n && first < 0; at += first < 0 ? vl : (size_t)first)
        __asm__ volatile(".option push\n.option arch, +v\n"
                         "vsetvli %0, %2, e8, m8, ta, ma\n"
                         "vle8.v v8, (%3)\n"
                         "vmseq.vi v0, v8, 0\n"
                         "vfirst.m %1, v0\n"
                         ".option pop"
                         : "=&r"(vl), "=&r"(first)
                         : "r"(n - at), "r"(from + at)
                         : "memory");
    return at;
}

#else

static void unit_on(void)
{
}

static void copy_bytes(uint8_t *to, const uint8_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = from[i];
}

static void add_products(uint64_t *to, uint64_t factor, const uint64_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] += factor * from[i];
}

static size_t find_zero(const uint8_t *from, size_t n)
{
    size_t at = 0;
    while (at < n && from[at])
        at++;
    return at;
}

#endif

uint64_t kernel_run(void)
{
    unit_on();
    for (size_t i = 0; i < BYTES; i++)
        text[i] = (uint8_t)(i % 255 + 1);
    for (size_t i = 0; i < WORDS; i++)
        x[i] = y[i] = i * UINT64_C(0x9e3779b97f4a7c15);
    uint64_t sum = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const size_t end = BYTES - 1 - round % 100;
        copy_bytes(copy, text, BYTES);
        copy[end] = 0;
        __asm__ volatile("" ::: "memory");
        sum += find_zero(copy, BYTES);
        add_products(y, round | 1, x, WORDS);
        sum ^= y[round % WORDS];
    }
    return sum;
}

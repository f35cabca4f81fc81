/* Programs of U-mode. All of it lies in sections of its own, which every user task has mapped read-only. */
#include "kernel.h"

#define USER_TEXT   __attribute__((section(".user.text"), noinline))
#define USER_STRING static const char __attribute__((section(".user.rodata")))

static inline __attribute__((always_inline)) u64 ask(u64 call, u64 first, u64 second)
{
    register u64 a0 __asm__("a0") = first;
    register u64 a1 __asm__("a1") = second;
    register u64 a7 __asm__("a7") = call;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a7) : "memory");
    return a0;
}

USER_TEXT static u64 user_append(char *to, u64 at, const char *text)
{
    while (*text != 0)
        to[at++] = *text++;
    return at;
}

USER_TEXT static u64 user_append_number(char *to, u64 at, u64 value)
{
    char digits[20];
    u64 count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (count > 0)
        to[at++] = digits[--count];
    return at;
}

USER_STRING sieve_text[] = " primes below ";

/* The primes below a limit, in a heap whose pages come as they are touched. */
USER_TEXT void user_sieve(u64 limit)
{
    volatile u8 *composite = (volatile u8 *)USER_HEAP;
    char line[64];
    u64 primes = 0;
    if (limit > 65536)
        limit = 65536;
    for (u64 n = 2; n < limit; n++) {
        if (composite[n] != 0)
            continue;
        primes++;
        for (u64 multiple = n * n; multiple < limit; multiple += n)
            composite[multiple] = 1;
    }
    u64 at = user_append_number(line, 0, primes);
    at = user_append(line, at, sieve_text);
    at = user_append_number(line, at, limit);
    ask(SYS_WRITE, (u64)line, at);
    ask(SYS_EXIT, 0, 0);
    __builtin_unreachable();
}

/* A number that the compiler must convert at run time: a constant would lie among the kernel's, out of reach.
 */
static inline __attribute__((always_inline)) double user_double(u64 value)
{
    __asm__("" : "+r"(value));
    return (double)value;
}

USER_STRING newton_text[] = "square roots, sum in millionths ";

/* The sum of the square roots of 1 to a limit, by Newton's method in floating point. */
USER_TEXT void user_newton(u64 limit)
{
    char line[64];
    double sum = user_double(0), two = user_double(2);
    for (u64 n = 1; n <= limit; n++) {
        double value = user_double(n), root = value;
        for (int step = 0; step < 20; step++)
            root = (root + value / root) / two;
        sum += root;
    }
    u64 at = user_append(line, 0, newton_text);
    at = user_append_number(line, at, (u64)(sum * user_double(1000000)));
    ask(SYS_WRITE, (u64)line, at);
    ask(SYS_EXIT, 0, 0);
    __builtin_unreachable();
}

USER_STRING polite_text[] = "yields, tick ";

/* A task that gives way again and again, and says so now and then. */
USER_TEXT void user_polite(u64 rounds)
{
    char line[64];
    for (u64 round = 1; round <= rounds; round++) {
        ask(SYS_YIELD, 0, 0);
        if (round % 32 == 0) {
            u64 at = user_append_number(line, 0, round);
            line[at++] = ' ';
            at = user_append(line, at, polite_text);
            at = user_append_number(line, at, ask(SYS_TICKS, 0, 0));
            ask(SYS_WRITE, (u64)line, at);
        }
    }
    ask(SYS_EXIT, 0, 0);
    __builtin_unreachable();
}

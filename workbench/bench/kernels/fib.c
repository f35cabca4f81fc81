/* fib.c: Fibonacci numbers by plain recursion; the compiler must not unroll it. */
#include "kernel.h"

const char kernel_name[] = "fib";

__attribute__((noinline, optimize("no-optimize-sibling-calls,no-inline"))) static uint64_t fib(uint64_t n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

uint64_t kernel_run(void)
{
    return fib(38);
}

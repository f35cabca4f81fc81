/* main.c: runs the kernel, prints `NAME RESULT` on the UART and powers off. */
#include "kernel.h"

#define UART  ((volatile uint8_t *)0x10000000)
#define POWER ((volatile uint32_t *)0x100000)

void kernel_main(void);

static void put_text(const char *text)
{
    while (*text)
        *UART = (uint8_t)*text++;
}

void kernel_main(void)
{
    const uint64_t result = kernel_run();
    char digits[] = " 0000000000000000\n";
    for (unsigned i = 0; i < 16; i++)
        digits[16 - i] = "0123456789abcdef"[(result >> (4 * i)) & 15];
    put_text("kernel ");
    put_text(kernel_name);
    put_text(digits);
    *POWER = 0x5555;
}

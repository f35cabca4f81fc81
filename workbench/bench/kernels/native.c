/* native.c: main() of a kernel that is built for the host: runs it and prints what main.c does. */
#include "kernel.h"

#include <inttypes.h>
#include <stdio.h>

int main(void)
{
    printf("kernel %s %016" PRIx64 "\n", kernel_name, kernel_run());
    return 0;
}

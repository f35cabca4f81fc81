# Entry of the kernel `smp`: every hart in M-mode at the start of RAM, each with a stack; hart 0 runs the kernel, the
# others its kernel_hart().

    .section .text.start, "ax"
    .globl _start
_start:
    csrr    t0, mhartid
    .option push
    .option norelax
    la      gp, __global_pointer$
    .option pop
    la      sp, stack_top
    slli    t1, t0, 12
    sub     sp, sp, t1
    bnez    t0, 1f
    call    kernel_main
    j       2f
1:  call    kernel_hart
2:  wfi
    j       2b

    .section .bss
    .balign 16
    .space  65536
stack_top:

# Entry of every kernel: hart 0 in M-mode at the start of RAM, floating point on, a stack, then run() once.

    .section .text.start, "ax"
    .globl _start
_start:
    csrr    t0, mhartid
    bnez    t0, 2f
    li      t0, 1 << 13
    csrs    mstatus, t0
    csrw    fcsr, zero
    .option push
    .option norelax
    la      gp, __global_pointer$
    .option pop
    la      sp, stack_top
    call    kernel_main
2:  wfi
    j       2b

    .section .bss
    .balign 16
    .space  65536
stack_top:

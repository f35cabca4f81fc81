# Entry from the SBI, traps, the switch between tasks and the way into U-mode.
#
# sscratch is 0 in the kernel, and the task's kernel stack in U-mode: a trap tells by it where it came from.

    .file   "start.S"
    .section .text.start, "ax"
    .globl _start
    .type _start, @function
_start:                             # a0 hart, a1 device tree; satp 0, interrupts off
    csrw    sie, zero
    csrw    sscratch, zero
    .option push
    .option norelax
    la      gp, __global_pointer$
    .option pop
    la      t0, bss_start
    la      t1, bss_end
1:  bgeu    t0, t1, 2f
    sd      zero, 0(t0)
    addi    t0, t0, 8
    j       1b
2:  la      sp, boot_stack_top
    li      s0, 0
    la      t0, trap_entry
    csrw    stvec, t0
    call    kmain
3:  wfi
    j       3b

    .text
    .balign 4
    .globl trap_entry
    .type trap_entry, @function
trap_entry:
    csrrw   sp, sscratch, sp
    bnez    sp, 1f
    csrr    sp, sscratch            # from the kernel: stay on its stack
1:  addi    sp, sp, -288
    sd      x1, 8(sp)
    sd      x3, 24(sp)
    sd      x4, 32(sp)
    sd      x5, 40(sp)
    sd      x6, 48(sp)
    sd      x7, 56(sp)
    sd      x8, 64(sp)
    sd      x9, 72(sp)
    sd      x10, 80(sp)
    sd      x11, 88(sp)
    sd      x12, 96(sp)
    sd      x13, 104(sp)
    sd      x14, 112(sp)
    sd      x15, 120(sp)
    sd      x16, 128(sp)
    sd      x17, 136(sp)
    sd      x18, 144(sp)
    sd      x19, 152(sp)
    sd      x20, 160(sp)
    sd      x21, 168(sp)
    sd      x22, 176(sp)
    sd      x23, 184(sp)
    sd      x24, 192(sp)
    sd      x25, 200(sp)
    sd      x26, 208(sp)
    sd      x27, 216(sp)
    sd      x28, 224(sp)
    sd      x29, 232(sp)
    sd      x30, 240(sp)
    sd      x31, 248(sp)
    csrrw   t0, sscratch, zero      # the interrupted stack pointer
    sd      t0, 16(sp)
    csrr    t0, sepc
    sd      t0, 256(sp)
    csrr    t0, sstatus
    sd      t0, 264(sp)
    csrr    t0, scause
    sd      t0, 272(sp)
    csrr    t0, stval
    sd      t0, 280(sp)
    .option push
    .option norelax
    la      gp, __global_pointer$
    .option pop
    mv      a0, sp
    call    trap_handle

    .globl trap_return
    .type trap_return, @function
trap_return:
    ld      t0, 264(sp)
    csrw    sstatus, t0
    ld      t1, 256(sp)
    csrw    sepc, t1
    andi    t0, t0, 256             # SPP: back to the kernel?
    bnez    t0, 1f
    addi    t0, sp, 288
    csrw    sscratch, t0
1:  ld      x1, 8(sp)
    ld      x3, 24(sp)
    ld      x4, 32(sp)
    ld      x5, 40(sp)
    ld      x6, 48(sp)
    ld      x7, 56(sp)
    ld      x8, 64(sp)
    ld      x9, 72(sp)
    ld      x10, 80(sp)
    ld      x11, 88(sp)
    ld      x12, 96(sp)
    ld      x13, 104(sp)
    ld      x14, 112(sp)
    ld      x15, 120(sp)
    ld      x16, 128(sp)
    ld      x17, 136(sp)
    ld      x18, 144(sp)
    ld      x19, 152(sp)
    ld      x20, 160(sp)
    ld      x21, 168(sp)
    ld      x22, 176(sp)
    ld      x23, 184(sp)
    ld      x24, 192(sp)
    ld      x25, 200(sp)
    ld      x26, 208(sp)
    ld      x27, 216(sp)
    ld      x28, 224(sp)
    ld      x29, 232(sp)
    ld      x30, 240(sp)
    ld      x31, 248(sp)
    ld      sp, 16(sp)
    sret

# context_switch(from, to): saves the callee's registers and the floating point state, loads the other's.
    .globl context_switch
    .type context_switch, @function
context_switch:
    sd      ra, 0(a0)
    sd      sp, 8(a0)
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    sd      s\n, (16 + 8 * \n)(a0)
    .endr
    csrr    t0, sstatus
    li      t1, 3 << 13
    and     t2, t0, t1
    bne     t2, t1, 1f              # clean or off: what was saved still holds
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    fsd     f\n, (112 + 8 * \n)(a0)
    .endr
    frcsr   t2
    sd      t2, 368(a0)
1:  csrs    sstatus, t1             # on, for the loads
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    fld     f\n, (112 + 8 * \n)(a1)
    .endr
    ld      t2, 368(a1)
    fscsr   t2
    csrc    sstatus, t1
    li      t1, 2 << 13             # clean: the next switch saves only what a task changed
    csrs    sstatus, t1
    ld      ra, 0(a1)
    ld      sp, 8(a1)
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    ld      s\n, (16 + 8 * \n)(a1)
    .endr
    ret

# First code of a kernel task: its context has the entry in s1.
    .globl task_trampoline
    .type task_trampoline, @function
task_trampoline:
    li      s0, 0
    csrsi   sstatus, 2
    jalr    s1
    li      a0, 0
    tail    task_exit

# user_enter(entry, stack, argument, kernel_stack)
    .globl user_enter
    .type user_enter, @function
user_enter:
    csrw    sepc, a0
    csrw    sscratch, a3
    li      t0, 1 << 8
    csrc    sstatus, t0
    li      t0, 1 << 5
    csrs    sstatus, t0
    mv      sp, a1
    mv      a0, a2
    .irp    r, ra, gp, tp, t0, t1, t2, s0, s1, a1, a2, a3, a4, a5, a6, a7, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, t3, t4, t5, t6
    li      \r, 0
    .endr
    sret

    .section .bss
    .balign 16
boot_stack:
    .space  8192
boot_stack_top:

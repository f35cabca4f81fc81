/* A kernel as operating system courses write it, on the bare board: it starts in M-mode on every hart, drops
 * to S-mode, turns Sv39 on, and drives the UART, the PLIC, Sstc timers and a virtio disk by interrupts. It
 * takes the lower half of the disk's features alone, looks for it in the first slot, and insists on QEMU's
 * vendor.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum { HARTS = 3, UART_IRQ = 10, DISK_IRQ = 1, TICK = 20000, RING = 8, BLOCK = 1024, BLOCKS = 48 };
#define REG8(a)  (*(volatile u8 *)(a))
#define REG32(a) (*(volatile u32 *)(a))
#define UART(r)  REG8(0x10000000 + (r))
#define DISK(r)  REG32(0x10001000 + (r))
#define PLIC(r)  REG32(0x0c000000 + (r))
#define csrr(r)                                                                                              \
    ({                                                                                                       \
        u64 v_;                                                                                              \
        __asm__ volatile("csrr %0, " #r : "=r"(v_));                                                         \
        v_;                                                                                                  \
    })
#define csrw(r, v) __asm__ volatile("csrw " #r ", %0" ::"r"((u64)(v)) : "memory")

void start(void), kmain(void), trapvec(void), user_code(void), user_end(void), enter_user(u64 entry);

__asm__(
    ".section .start, \"ax\"\n"
    ".globl _start\n"
    "_start: la sp, stacks\n"
    "csrr t0, mhartid\n"
    "addi t1, t0, 1\n"
    "slli t1, t1, 13\n"
    "add sp, sp, t1\n"
    "mv tp, t0\n"
    "call start\n"
    ".text\n.align 2\n"
    "trapvec: csrrw sp, sscratch, sp\n" /* from U-mode sscratch holds the hart's trap stack, else 0 */
    "bnez sp, 1f\n"
    "csrrw sp, sscratch, sp\n"
    "1: addi sp, sp, -256\n"
    ".irp r,1,3,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "sd x\\r, 8*\\r(sp)\n.endr\n"
    "csrr t0, sscratch\n sd t0, 16(sp)\n csrw sscratch, zero\n"
    "csrr t1, sepc\n sd t1, 0(sp)\n csrr t1, sstatus\n sd t1, 32(sp)\n"
    "mv a0, sp\n call trap\n"
    "ld t1, 0(sp)\n csrw sepc, t1\n ld t1, 32(sp)\n csrw sstatus, t1\n ld t0, 16(sp)\n csrw sscratch, t0\n"
    ".irp r,1,3,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "ld x\\r, 8*\\r(sp)\n.endr\n"
    "addi sp, sp, 256\n"
    "csrrw sp, sscratch, sp\n bnez sp, 2f\n csrrw sp, sscratch, sp\n 2: sret\n"
    "enter_user: csrw sepc, a0\n"
    "mv a0, tp\n li a1, 0x40001000\n" /* its counter is in the page behind its code */
    "csrw sscratch, sp\n li t0, 0x100\n csrc sstatus, t0\n li t0, 0x20\n csrs sstatus, t0\n sret\n"
    ".align 12\n"
    "user_code: slli a0, a0, 3\n add a1, a1, a0\n"
    "1: ld a2, 0(a1)\n addi a2, a2, 1\n sd a2, 0(a1)\n"
    "andi a3, a2, 1023\n bnez a3, 1b\n li a7, 7\n ecall\n j 1b\n"
    "user_end:\n");

__attribute__((aligned(16))) u8 stacks[8192 * (HARTS + 1)];
__attribute__((aligned(4096))) u64 root[512], middle[512], leaves[512];
__attribute__((aligned(4096))) u64 counters[512];
__attribute__((aligned(4096))) struct {
    u64 addr;
    u32 len;
    u16 flags, next;
} desc[RING];
__attribute__((aligned(4096))) struct {
    u16 flags, idx, ring[RING];
} avail;
__attribute__((aligned(4096))) volatile struct {
    u16 flags, idx;
    struct {
        u32 id, len;
    } ring[RING];
} used;
struct {
    u32 type, reserved;
    u64 sector;
} request;
volatile u8 disk_status;
volatile int disk_busy, tx_busy, ready, ticks[HARTS], calls[HARTS], disk_irqs[HARTS], lock;
u16 used_seen;
volatile char typed[64];
volatile u32 typed_in, typed_out;
u8 block[BLOCK];

static void acquire(void)
{
    while (__sync_lock_test_and_set(&lock, 1))
        ;
}

static void release(void)
{
    __sync_lock_release(&lock);
}

static u64 hart(void)
{
    u64 id;
    __asm__ volatile("mv %0, tp" : "=r"(id));
    return id;
}

/* Prints by the transmitter's interrupt: one character, then wait until the port says that it is gone. */
static void put(char c)
{
    while (tx_busy)
        __asm__ volatile("wfi");
    tx_busy = 1;
    UART(0) = (u8)c;
}

static void print(const char *s)
{
    while (*s)
        put(*s++);
}

static void number(u64 n)
{
    char digits[20];
    int count = 0;
    do
        digits[count++] = (char)('0' + n % 10);
    while (n /= 10);
    while (count)
        put(digits[--count]);
}

static void panic(const char *why)
{
    while (*why)
        UART(0) = (u8)*why++;
    REG32(0x100000) = 1 << 16 | 0x3333;
}

void start(void)
{
    csrw(mstatus, (csrr(mstatus) & ~0x1800ul) | 0x800);
    csrw(mepc, kmain);
    csrw(satp, 0);
    csrw(medeleg, 0xffff);
    csrw(mideleg, 0xffff);
    csrw(sie, csrr(sie) | 0x220);
    csrw(pmpaddr0, 0x3fffffffffffffull);
    csrw(pmpcfg0, 0xf);
    csrw(0x30a, csrr(0x30a) | 1ul << 63); /* menvcfg.STCE */
    csrw(mcounteren, csrr(mcounteren) | 2);
    csrw(0x14d, csrr(time) + TICK); /* stimecmp */
    __asm__ volatile("mret");
}

static void disk_start(void)
{
    if (DISK(0) != 0x74726976 || DISK(4) != 2 || DISK(8) != 2 || DISK(0xc) != 0x554d4551)
        panic("no disk in the first slot\n");
    DISK(0x70) = 0;
    DISK(0x70) = 1;
    DISK(0x70) = 3;
    DISK(0x20) =
        DISK(0x10) & ~(1u << 5 | 1u << 7 | 1u << 9 | 1u << 11 | 1u << 12 | 1u << 27 | 1u << 28 | 1u << 29);
    DISK(0x70) = 11;
    if (!(DISK(0x70) & 8))
        panic("FEATURES_OK is unset\n");
    DISK(0x30) = 0;
    if (DISK(0x44) || DISK(0x34) < RING)
        panic("queue 0 is not to be had\n");
    DISK(0x38) = RING;
    DISK(0x80) = (u32)(u64)desc;
    DISK(0x84) = (u32)((u64)desc >> 32);
    DISK(0x90) = (u32)(u64)&avail;
    DISK(0x94) = (u32)((u64)&avail >> 32);
    DISK(0xa0) = (u32)(u64)&used;
    DISK(0xa4) = (u32)((u64)&used >> 32);
    DISK(0x44) = 1;
    DISK(0x70) = 15;
}

static void disk_rw(u64 number_of_block, int write)
{
    const int at = (int)(number_of_block % (RING - 2)); /* chains wrap round the table */
    request.type = (u32)write;
    request.sector = number_of_block * (BLOCK / 512);
    desc[at].addr = (u64)&request, desc[at].len = 16, desc[at].flags = 1, desc[at].next = (u16)(at + 1);
    desc[at + 1].addr = (u64)block, desc[at + 1].len = BLOCK, desc[at + 1].flags = (u16)(1 | (write ? 0 : 2));
    desc[at + 1].next = (u16)(at + 2);
    desc[at + 2].addr = (u64)&disk_status, desc[at + 2].len = 1, desc[at + 2].flags = 2,
              desc[at + 2].next = 0;
    disk_status = 0xff;
    disk_busy = 1;
    avail.ring[avail.idx % RING] = (u16)at;
    __sync_synchronize();
    avail.idx++;
    __sync_synchronize();
    DISK(0x50) = 0;
    while (disk_busy)
        __asm__ volatile("wfi");
    if (disk_status)
        panic("the disk failed\n");
}

static void disk_interrupt(void)
{
    DISK(0x64) = DISK(0x60) & 3;
    __sync_synchronize();
    while (used_seen != used.idx) {
        used_seen++;
        disk_irqs[hart()]++;
        disk_busy = 0;
    }
}

static void uart_interrupt(void)
{
    (void)UART(2);
    if (UART(5) & 0x20)
        tx_busy = 0;
    while (UART(5) & 1)
        typed[typed_in++ % sizeof typed] = (char)UART(0);
}

static void external(void)
{
    const u64 base = 0x201004 + hart() * 0x2000;
    const u32 irq = PLIC(base);
    acquire();
    if (irq == UART_IRQ)
        uart_interrupt();
    else if (irq == DISK_IRQ)
        disk_interrupt();
    else if (irq)
        panic("an interrupt that nobody enabled\n");
    release();
    if (irq)
        PLIC(base) = irq;
}

void trap(u64 *frame)
{
    const u64 cause = csrr(scause);
    if (cause == (1ul << 63 | 9))
        external();
    else if (cause == (1ul << 63 | 5)) {
        ticks[hart()]++;
        csrw(0x14d, csrr(time) + TICK);
    } else if (cause == 8) {
        frame[0] += 4;
        calls[hart()]++;
    } else
        panic("a trap that nobody expects\n");
}

static void paging(void)
{
    __asm__ volatile("sfence.vma");
    csrw(satp, 8ul << 60 | (u64)root >> 12);
    __asm__ volatile("sfence.vma");
}

static void hart_start(void)
{
    paging();
    csrw(sscratch, 0);
    csrw(stvec, trapvec);
    PLIC(0x2080 + hart() * 0x100) = 1u << UART_IRQ | 1u << DISK_IRQ;
    PLIC(0x201000 + hart() * 0x2000) = 0;
}

static void page_tables(void)
{
    root[0] = 0xc7;                       /* the devices: a gigapage, V R W A D */
    root[2] = (0x80000000ul >> 2) | 0xcf; /* RAM, with X */
    root[1] = (u64)middle >> 2 | 1;       /* 0x40000000: the user's two pages */
    middle[0] = (u64)leaves >> 2 | 1;
    leaves[0] = (u64)user_code >> 2 | 0x5b; /* V R X U A */
    leaves[1] = (u64)counters >> 2 | 0x17;  /* V R W U, and hardware sets A and D */
}

static char key(void)
{
    while (typed_out == typed_in)
        __asm__ volatile("wfi");
    return typed[typed_out++ % sizeof typed];
}

static void try_disk(void)
{
    for (u64 n = 0; n < BLOCKS; n++) {
        for (int i = 0; i < BLOCK; i++)
            block[i] = (u8)(n * 7 + (u64)i);
        disk_rw(n, 1);
    }
    for (u64 n = BLOCKS; n-- > 0;) {
        disk_rw(n, 0);
        for (int i = 0; i < BLOCK; i++)
            if (block[i] != (u8)(n * 7 + (u64)i))
                panic("the disk lies\n");
    }
    number(BLOCKS);
    print(" blocks written and read back, ");
    number((u64)(disk_irqs[0] + disk_irqs[1] + disk_irqs[2]));
    print(" requests\n");
}

static void tell_users(void)
{
    while (calls[1] < 20 || calls[2] < 20 || ticks[0] < 3 || ticks[1] < 3 || ticks[2] < 3)
        __asm__ volatile("wfi");
    print(counters[1] >= 20 * 1024 && counters[2] >= 20 * 1024 ? "users run on both other harts\n"
                                                               : "users stand\n");
    print(leaves[1] >> 6 & 1 && leaves[1] >> 7 & 1 ? "A and D are set\n" : "A and D are clear\n");
}

void kmain(void)
{
    if (hart()) {
        while (!ready)
            ;
        __sync_synchronize();
        hart_start();
        enter_user(0x40000000);
    }
    UART(1) = 0, UART(3) = 0x80, UART(0) = 3, UART(1) = 0, UART(3) = 3, UART(2) = 7, UART(1) = 3;
    page_tables();
    PLIC(4 * UART_IRQ) = 1;
    PLIC(4 * DISK_IRQ) = 1;
    hart_start();
    disk_start();
    __sync_synchronize();
    ready = 1;
    csrw(sstatus, csrr(sstatus) | 2);
    print("kernel is up\n$ ");
    for (;;) {
        const char c = key();
        put(c);
        put('\n');
        if (c == 'd')
            try_disk();
        else if (c == 'u')
            tell_users();
        else if (c == 'q')
            REG32(0x100000) = 0x5555;
        print("$ ");
    }
}

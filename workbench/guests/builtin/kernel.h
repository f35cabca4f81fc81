/* The built-in guest: a small riscv64 kernel that boots, runs a few tasks and powers off.
 *
 * It runs in S-mode under any SBI, on one hart, at 0x80200000, mapped one to one. Boot order is in main.c.
 * Its boot carries one deliberate bug, a race with the timer interrupt; pool.c says where. */
#ifndef KERNEL_H
#define KERNEL_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;
typedef _Bool bool;
#define true  1
#define false 0
#define NULL  ((void *)0)

#define PAGE_SIZE     4096UL
#define TICKS_PER_SEC 10000

/* CSRs and their bits, by the names of the privileged specification. */
#define read_csr(name)                                                                                       \
    ({                                                                                                       \
        u64 value_;                                                                                          \
        __asm__ volatile("csrr %0, " name : "=r"(value_));                                                   \
        value_;                                                                                              \
    })
#define write_csr(name, value) __asm__ volatile("csrw " name ", %0" ::"r"((u64)(value)) : "memory")
#define set_csr(name, bits)    __asm__ volatile("csrs " name ", %0" ::"r"((u64)(bits)) : "memory")
#define clear_csr(name, bits)  __asm__ volatile("csrc " name ", %0" ::"r"((u64)(bits)) : "memory")
#define barrier()              __asm__ volatile("" ::: "memory")

#define SSTATUS_SIE      (1UL << 1)
#define SSTATUS_SPIE     (1UL << 5)
#define SSTATUS_SPP      (1UL << 8)
#define SSTATUS_FS       (3UL << 13)
#define SSTATUS_FS_INIT  (1UL << 13)
#define SSTATUS_FS_DIRTY (3UL << 13)
#define SIE_STIE         (1UL << 5)
#define SIE_SEIE         (1UL << 9)
#define SCAUSE_IRQ       (1UL << 63)

/* What start.S saves at every trap, in its order: x1..x31 at their numbers, then these. */
struct trapframe {
    u64 x[32]; /* x[0] is not used */
    u64 sepc;
    u64 sstatus;
    u64 scause;
    u64 stval;
};
enum { REG_RA = 1, REG_SP = 2, REG_A0 = 10, REG_A7 = 17 };

/* What a switch between tasks keeps: ra, sp, s0..s11, then the floating point state. */
struct context {
    u64 ra, sp, s[12];
    u64 f[32], fcsr;
};

/* print.c */
void print_init(void);
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
void panic(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void shutdown(bool failed) __attribute__((noreturn));
void console_write(const char *text, u64 length);
void console_enable_rx(u64 hart);
void console_interrupt(void);
char console_wait(void);

/* fdt.c */
struct bootinfo {
    u64 memory_base, memory_size;
    u64 timebase_hz;
    u64 seed;
    bool has_seed, has_sstc;
    char bootargs[128];
};
extern struct bootinfo bootinfo;
void fdt_read(const void *blob);
bool bootarg(const char *word);
u64 bootarg_number(const char *word, u64 otherwise);

/* lib.c */
void *memset(void *to, int value, u64 size);
void *memcpy(void *to, const void *from, u64 size);
u64 string_length(const char *text);
bool string_equal(const char *a, const char *b);
u64 random_next(void);
void random_seed(u64 seed);

/* vm.c */
#define PTE_V (1UL << 0)
#define PTE_R (1UL << 1)
#define PTE_W (1UL << 2)
#define PTE_X (1UL << 3)
#define PTE_U (1UL << 4)
#define PTE_A (1UL << 6)
#define PTE_D (1UL << 7)
void page_init(void);
void *page_alloc(void);
void page_free(void *page);
u64 pages_used(void);
void vm_init(void);
u64 *vm_new_space(void);
void vm_map_page(u64 *root, u64 vaddr, u64 paddr, u64 flags);
void vm_free_space(u64 *root);
u64 vm_satp(const u64 *root);

/* trap.c */
u64 irq_save(void);
void irq_restore(u64 was_on);
u64 now(void);
void timer_init(void);
void timer_stop(void);
void timer_restart(void);
void trap_handle(struct trapframe *frame);
extern u64 ticks;

/* pool.c */
enum owner { OWNER_FREE, OWNER_DRIVER, OWNER_TICK };
#define TICK_MAGIC   0x4b434954UL /* "TICK" */
#define DESC_MAGIC   0x43534544UL /* "DESC" */
#define BUFFER_WORDS 12
struct buffer {
    struct buffer *next;
    u64 owner;
    u64 magic;
    u64 serial;
    u64 words[BUFFER_WORDS];
};
struct pool {
    struct buffer *free;
    u64 buffers;
};
struct tick_queue {
    struct buffer *first, *last;
    u64 taken, lost;
};
extern struct pool pool;
extern struct tick_queue tick_queue;
void pool_init(void);
struct buffer *pool_get(enum owner owner);
void pool_put(struct buffer *buffer);
void tick_record(u64 sepc);
u64 tick_drain(void);

/* drivers.c */
void drivers_init(void);

/* sched.c */
enum task_state { TASK_UNUSED, TASK_READY, TASK_SLEEPING, TASK_DONE };
struct task {
    struct context context;
    const char *name;
    enum task_state state;
    u64 wake_tick;
    u64 *root;
    u8 *stack;
    u64 entry, argument;
    u64 user_pages, switches;
};
extern struct task *current;
void task_start_kernel(const char *name, void (*entry)(void));
void task_start_user(const char *name, u64 entry, u64 argument);
#define WAKE_BY_INPUT (~0UL)
void task_sleep(u64 until_tick);
void sched_wake(bool by_input);
u64 sched_user_tasks(void);
void task_exit(u64 code) __attribute__((noreturn));
void sched_run(void);
void sched_yield(void);
void sched_preempt(void);
bool user_fault(u64 vaddr);
void syscall_handle(struct trapframe *frame);

/* user.c: runs in U-mode, linked at USER_BASE, in pages of its own */
#define USER_BASE  0x00400000UL
#define USER_HEAP  0x20000000UL
#define USER_STACK 0x30000000UL /* grows down from here */
enum { SYS_EXIT, SYS_WRITE, SYS_YIELD, SYS_TICKS };

/* start.S */
void context_switch(struct context *from, struct context *to);
void trap_entry(void);
void user_enter(u64 entry, u64 stack, u64 argument, u64 kernel_stack) __attribute__((noreturn));
void task_trampoline(void);

/* kernel.ld */
extern u8 text_start[], text_end[], rodata_end[], kernel_end[], bss_start[], bss_end[];
extern u8 user_load[], user_start[], user_end[];

#endif

/* Traps and the timer.
 *
 * The timer ticks at TICKS_PER_SEC. Its first tick comes at a random phase, as it does on real machines,
 * where nothing ties a clock to the moment at which a kernel gets to run. */
#include "kernel.h"

enum { IRQ_TIMER = 5, IRQ_EXTERNAL = 9 };
enum { CAUSE_ECALL_U = 8, CAUSE_FETCH_PAGE = 12, CAUSE_LOAD_PAGE = 13, CAUSE_STORE_PAGE = 15 };
#define SBI_TIME 0x54494d45UL

u64 ticks;
static u64 period, next_tick;

u64 irq_save(void)
{
    u64 was_on;
    __asm__ volatile("csrrci %0, sstatus, 2" : "=r"(was_on)::"memory");
    return was_on & SSTATUS_SIE;
}

void irq_restore(u64 was_on)
{
    set_csr("sstatus", was_on);
}

u64 now(void)
{
    return read_csr("time");
}

static void timer_set(u64 at)
{
    if (bootinfo.has_sstc) {
        write_csr("0x14d", at); /* stimecmp */
        return;
    }
    register u64 a0 __asm__("a0") = at;
    register u64 a1 __asm__("a1") = 0;
    register u64 a6 __asm__("a6") = 0;
    register u64 a7 __asm__("a7") = SBI_TIME;
    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a6), "r"(a7) : "memory");
}

void timer_init(void)
{
    period = bootinfo.timebase_hz / TICKS_PER_SEC;
    u64 phase = random_next() % period;
    next_tick = now() + period + phase;
    timer_set(next_tick);
    set_csr("sie", SIE_STIE);
    log_line("timer: %s, %lu ticks a second, phase %lu of %lu", bootinfo.has_sstc ? "Sstc" : "SBI",
             (u64)TICKS_PER_SEC, phase, period);
    set_csr("sstatus", SSTATUS_SIE);
}

/* While every task waits for input, nothing needs a tick. */
void timer_stop(void)
{
    timer_set(~0UL);
}

void timer_restart(void)
{
    next_tick = now() + period;
    timer_set(next_tick);
}

static void timer_interrupt(const struct trapframe *frame)
{
    u64 time = now();
    ticks++;
    do {
        next_tick += period;
    } while (next_tick <= time);
    timer_set(next_tick);
    tick_record(frame->sepc);
    sched_wake(false);
    sched_preempt();
}

static void exception(struct trapframe *frame)
{
    switch (frame->scause) {
    case CAUSE_ECALL_U:
        frame->sepc += 4;
        set_csr("sstatus", SSTATUS_SIE);
        syscall_handle(frame);
        clear_csr("sstatus", SSTATUS_SIE);
        return;
    case CAUSE_LOAD_PAGE:
    case CAUSE_STORE_PAGE:
        if (user_fault(frame->stval))
            return;
        break;
    default:
        break;
    }
    panic("trap: scause %lu, sepc 0x%lx, stval 0x%lx", frame->scause, frame->sepc, frame->stval);
}

void trap_handle(struct trapframe *frame)
{
    if (frame->scause == (SCAUSE_IRQ | IRQ_TIMER))
        timer_interrupt(frame);
    else if (frame->scause == (SCAUSE_IRQ | IRQ_EXTERNAL))
        console_interrupt();
    else
        exception(frame);
}

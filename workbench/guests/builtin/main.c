/* The boot, from the SBI's jump to the last task's end.
 *
 * Boot arguments: `safe` no race; `echo` a console task that answers lines typed until `exit`; `spin=N` gives
 * newton N times the work. */
#include "kernel.h"

void kmain(u64 hart, const void *fdt);

extern void user_sieve(u64 limit);
extern void user_newton(u64 limit);
extern void user_polite(u64 rounds);

/* Looks after the tick records while other tasks run. */
static void tickd(void)
{
    u64 drained = 0, rounds = 0;
    do {
        task_sleep(ticks + 4);
        drained += tick_drain();
        if (++rounds % 4 == 0)
            log_line("tickd: %lu records, %lu lost", drained, tick_queue.lost);
    } while (sched_user_tasks() > 0);
}

/* Answers each line with its length and its letters reversed. */
static void echod(void)
{
    char line[81], reversed[81];
    u64 length = 0;
    log_line("echod: type a line; exit ends");
    for (;;) {
        char byte = console_wait();
        if (byte != '\r' && byte != '\n') {
            if (length < sizeof(line) - 1)
                line[length++] = byte;
            continue;
        }
        line[length] = 0;
        for (u64 i = 0; i < length; i++)
            reversed[i] = line[length - 1 - i];
        reversed[length] = 0;
        if (string_equal(line, "exit"))
            return;
        if (length > 0)
            log_line("echod: %lu characters: %s", length, reversed);
        length = 0;
    }
}

static void start_tasks(void)
{
    u64 spin = bootarg_number("spin", 1);
    task_start_kernel("tickd", tickd);
    if (bootarg("echo"))
        task_start_kernel("echod", echod);
    task_start_user("sieve", (u64)user_sieve, 8192);
    task_start_user("newton", (u64)user_newton, 200 * spin);
    task_start_user("polite", (u64)user_polite, 128);
}

void kmain(u64 hart, const void *fdt)
{
    fdt_read(fdt);
    print_init();
    log_line("workbench guest, built in");
    log_line("boot: hart %lu, device tree at 0x%lx, arguments \"%s\"", hart, (u64)fdt, bootinfo.bootargs);
    log_line("boot: memory 0x%lx, %lu MiB, clock %lu Hz", bootinfo.memory_base, bootinfo.memory_size >> 20,
             bootinfo.timebase_hz);
    random_seed(bootinfo.has_seed ? bootinfo.seed : now());
    log_line("random: seed from %s", bootinfo.has_seed ? "the device tree" : "the clock");
    page_init();
    vm_init();
    pool_init();
    timer_init();
    drivers_init();
    if (bootarg("echo"))
        console_enable_rx(hart);
    start_tasks();
    log_line("boot: done at tick %lu, %lu pages used", ticks, pages_used());
    sched_run();
    clear_csr("sstatus", SSTATUS_SIE);
    log_line("guest: all tasks ended, %lu ticks, %lu pages used; powering off", ticks, pages_used());
    shutdown(false);
}

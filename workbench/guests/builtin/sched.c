/* Tasks, a round-robin scheduler, and what U-mode tasks can ask for.
 *
 * Every switch goes through the scheduler's own context, which is that of the boot. Interrupts are off across
 * a switch; each side has them back as it left them. */
#include "kernel.h"

#define MAX_TASKS       8
#define HEAP_BYTES      (64UL << 10)
#define STACK_BYTES     (16UL << 10)
#define SSTATUS_SUM     (1UL << 18)
#define MAX_WRITE_BYTES 120

static struct task tasks[MAX_TASKS];
static struct context scheduler;
struct task *current;

static struct task *task_new(const char *name)
{
    for (u64 i = 0; i < MAX_TASKS; i++) {
        struct task *task = &tasks[i];
        if (task->state != TASK_UNUSED)
            continue;
        task->name = name;
        task->state = TASK_READY;
        task->stack = page_alloc();
        task->context.ra = (u64)task_trampoline;
        task->context.sp = (u64)task->stack + PAGE_SIZE;
        return task;
    }
    panic("no room for task %s", name);
}

void task_start_kernel(const char *name, void (*entry)(void))
{
    struct task *task = task_new(name);
    task->context.s[1] = (u64)entry;
    log_line("sched: task %s, in the kernel", name);
}

static void task_enter_user(void)
{
    clear_csr("sstatus", SSTATUS_SIE);
    user_enter(current->entry, USER_STACK, current->argument, (u64)current->stack + PAGE_SIZE);
}

void task_start_user(const char *name, u64 entry, u64 argument)
{
    struct task *task = task_new(name);
    task->context.s[1] = (u64)task_enter_user;
    task->entry = entry;
    task->argument = argument;
    task->root = vm_new_space();
    u64 size = (u64)(user_end - user_start);
    for (u64 at = 0; at < size; at += PAGE_SIZE)
        vm_map_page(task->root, USER_BASE + at, (u64)user_load + at, PTE_R | PTE_X | PTE_U | PTE_A);
    log_line("sched: task %s, in user mode at 0x%lx", name, entry);
}

/* Go back to the scheduler; returns when the task is chosen again. Interrupts are off. */
static void task_leave(void)
{
    context_switch(&current->context, &scheduler);
}

void sched_yield(void)
{
    u64 on = irq_save();
    task_leave();
    irq_restore(on);
}

/* Called at the end of a tick, interrupts off: let another task run. */
void sched_preempt(void)
{
    if (current != NULL && current->state == TASK_READY)
        task_leave();
}

void task_sleep(u64 until_tick)
{
    u64 on = irq_save();
    current->wake_tick = until_tick;
    current->state = TASK_SLEEPING;
    task_leave();
    irq_restore(on);
}

void task_exit(u64 code)
{
    clear_csr("sstatus", SSTATUS_SIE);
    log_line("sched: task %s ends with %lu: %lu switches, %lu pages", current->name, code, current->switches,
             current->user_pages);
    current->state = TASK_DONE;
    task_leave();
    panic("task %s runs after its end", current->name);
}

void sched_wake(bool by_input)
{
    for (u64 i = 0; i < MAX_TASKS; i++) {
        struct task *task = &tasks[i];
        if (task->state != TASK_SLEEPING)
            continue;
        if (by_input ? task->wake_tick == WAKE_BY_INPUT : task->wake_tick <= ticks)
            task->state = TASK_READY;
    }
}

u64 sched_user_tasks(void)
{
    u64 count = 0;
    for (u64 i = 0; i < MAX_TASKS; i++)
        count += tasks[i].root != NULL;
    return count;
}

static void task_bury(struct task *task)
{
    if (task->root != NULL)
        vm_free_space(task->root);
    page_free(task->stack);
    *task = (struct task){.state = TASK_UNUSED};
}

static void task_run(struct task *task)
{
    current = task;
    task->switches++;
    write_csr("satp", vm_satp(task->root));
    __asm__ volatile("sfence.vma" ::: "memory");
    context_switch(&scheduler, &task->context);
    write_csr("satp", vm_satp(NULL));
    __asm__ volatile("sfence.vma" ::: "memory");
    current = NULL;
    if (task->state == TASK_DONE)
        task_bury(task);
}

/* Wait for an interrupt and take it. */
static void sched_idle(bool needs_ticks)
{
    if (!needs_ticks)
        timer_stop();
    __asm__ volatile("wfi");
    set_csr("sstatus", SSTATUS_SIE);
    clear_csr("sstatus", SSTATUS_SIE);
    if (!needs_ticks)
        timer_restart();
}

/* Run the tasks in turn until all have ended. */
void sched_run(void)
{
    u64 on = irq_save();
    for (;;) {
        bool any = false, ran = false, needs_ticks = false;
        for (u64 i = 0; i < MAX_TASKS; i++) {
            any |= tasks[i].state != TASK_UNUSED;
            if (tasks[i].state == TASK_READY) {
                task_run(&tasks[i]);
                ran = true;
            }
            needs_ticks |= tasks[i].state == TASK_SLEEPING && tasks[i].wake_tick != WAKE_BY_INPUT;
        }
        if (!any)
            break;
        if (!ran)
            sched_idle(needs_ticks);
    }
    irq_restore(on);
}

/* A user page that is touched for the first time: give it. */
bool user_fault(u64 vaddr)
{
    bool heap = vaddr >= USER_HEAP && vaddr < USER_HEAP + HEAP_BYTES;
    bool stack = vaddr >= USER_STACK - STACK_BYTES && vaddr < USER_STACK;
    if (current == NULL || current->root == NULL || !(heap || stack))
        return false;
    vm_map_page(current->root, vaddr & ~(PAGE_SIZE - 1), (u64)page_alloc(),
                PTE_R | PTE_W | PTE_U | PTE_A | PTE_D);
    current->user_pages++;
    return true;
}

static bool user_range(u64 vaddr, u64 size)
{
    return size <= HEAP_BYTES &&
           ((vaddr >= USER_BASE && vaddr + size <= USER_BASE + (u64)(user_end - user_start)) ||
            (vaddr >= USER_HEAP && vaddr + size <= USER_HEAP + HEAP_BYTES) ||
            (vaddr >= USER_STACK - STACK_BYTES && vaddr + size <= USER_STACK));
}

static u64 sys_write(u64 vaddr, u64 size)
{
    char text[MAX_WRITE_BYTES + 1];
    if (size > MAX_WRITE_BYTES || !user_range(vaddr, size))
        return ~0UL;
    set_csr("sstatus", SSTATUS_SUM);
    memcpy(text, (const void *)vaddr, size);
    clear_csr("sstatus", SSTATUS_SUM);
    text[size] = 0;
    u64 on = irq_save(); /* a line at a time */
    log_line("%s: %s", current->name, text);
    irq_restore(on);
    return size;
}

void syscall_handle(struct trapframe *frame)
{
    u64 *a = &frame->x[REG_A0];
    switch (frame->x[REG_A7]) {
    case SYS_EXIT:
        task_exit(a[0]);
    case SYS_WRITE:
        a[0] = sys_write(a[0], a[1]);
        break;
    case SYS_YIELD:
        sched_yield();
        break;
    case SYS_TICKS:
        a[0] = ticks;
        break;
    default:
        a[0] = ~0UL;
    }
}

/* run.c: the run loop: whose turn it is, until when, interrupts, idle time.
 *
 * What is decided here is a function of the state at a position alone, so a run that stopped and
 * went on is the same run. A slice ends at the first deadline; every instruction that can change what is
 * pending or enabled leaves its block, and the checks below come before the next one.
 */
#include "mach_priv.h"
#include "probe.h"
#include "../guest/guest.h"
#include "../host/host.h"
#include "api.h"

#define NEVER (~UINT64_C(0))

static bool hart_runnable(Machine *m, Hart *h)
{
    if (h->stopped)
        return false;
    if (h->waiting && m->guest->wakes(h))
        h->waiting = WAIT_NONE;
    return !h->waiting;
}

static void turn_end(Machine *m)
{
    Hart *h = m->hart[m->cur_hart];
    const uint64_t now = m->icount_end;
    h->steps += now - m->turn_start;
    m->turn_start = now;
    if (m->n_harts > 1)
        m->guest->turn_ended(h);
}

/* Chooses the hart of the next slice; NULL: nobody can run. */
static Hart *schedule(Machine *m)
{
    Hart *h = m->hart[m->cur_hart];
    if (m->n_harts == 1)
        return hart_runnable(m, h) ? h : NULL;
    if (m->icount_end < m->quantum_end && hart_runnable(m, h))
        return h;
    for (uint32_t i = 1; i <= m->n_harts; i++) {
        const uint32_t next = (m->cur_hart + i) % m->n_harts;
        if (!hart_runnable(m, m->hart[next]))
            continue;
        turn_end(m);
        m->cur_hart = next;
        m->quantum_end = m->icount_end + m->quantum;
        if (probe_wants(m, PROBE_TURN)) {
            const Happening what = {.kind = PROBE_TURN, .at = next, .a = next};
            probe_tell(m->hart[next], &what);
        }
        return m->hart[next];
    }
    return NULL;
}

static uint64_t next_timer(Machine *m)
{
    uint64_t next = NEVER;
    for (uint32_t i = 0; i < m->n_harts; i++) {
        const uint64_t t = m->hart[i]->stopped ? NEVER : m->guest->timer_deadline(m->hart[i]);
        next = t < next ? t : next;
    }
    return next;
}

static uint64_t next_deadline(Machine *m)
{
    const uint64_t timer = next_timer(m);
    return timer < m->device_deadline ? timer : m->device_deadline;
}

/* First icount at which virtual time has reached t. */
static uint64_t icount_of(const Machine *m, uint64_t t)
{
    if (t == NEVER)
        return NEVER;
    const uint64_t now = mach_vtime(m, m->icount_end);
    return t <= now ? m->icount_end : m->icount_end + (t - now + m->ns_per_step - 1) / m->ns_per_step;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Folds what the leaving instruction did into pc and budget, by the block's table. */
static Leave settle(Hart *h)
{
    const Leave leave = (Leave)h->leave;
    TB *tb = h->cur_tb;
    h->leave = LEAVE_NONE;
    h->cur_tb = NULL;
    h->exit_tb = NULL;
    if (!tb) {
        if (probe_counts_blocks(h->m))
            probe_block_left(h->m);
        h->budget -= leave == LEAVE_JUMP; /* a fetch that trapped is a step */
        return leave;
    }
    const bool done = leave == LEAVE_JUMP || leave == LEAVE_AFTER || leave == LEAVE_GONE;
    h->budget += tb->n_insns - h->site - done;
    if (leave == LEAVE_AFTER)
        h->pc = tb_insn_next_pc(tb, h->site);
    else if (leave != LEAVE_JUMP && leave != LEAVE_GONE)
        h->pc = tb_insn_pc(tb, h->site);
    return leave;
}

/* Runs the instruction at pc alone, with MMIO and stores to code allowed. */
static Leave step_one(Hart *h)
{
    TB *tb = tb_find(h, true);
    if (tb)
        interp_run(h, tb);
    h->exit_tb = NULL;
    return settle(h);
}

static void run_tb(Hart *h, TB *tb)
{
    Machine *m = h->m;
    if (h->exit_tb)
        tb_link(m, h->exit_tb, (uint32_t)h->exit_slot, tb);
    h->exit_tb = NULL;
    if (!tb->code && tb->runs >= m->hot_runs && tb_compile(m, tb))
        softmmu_remember_tb(h, tb); /* where its code is */
    if (tb->code && m->sw.jit)
        host_enter(m->code, h, tb);
    else
        interp_run(h, tb);
}

/* Runs a hart until its budget is used up or something needs the checks of mach_run(). */
static void run_slice(Hart *h)
{
    Machine *m = h->m;
    h->exit_tb = NULL;
    m->recheck = 0;
    while (h->budget > 0) {
        TB *tb = tb_find(h, false);
        if (tb && tb->n_insns <= h->budget && !tb->single)
            run_tb(h, tb);
        else if (tb) {
            const bool alone = tb->single; /* to translate one instruction may flush this block */
            if (step_one(h) != LEAVE_NONE || alone || m->recheck)
                return;
            continue;
        }
        if (!h->leave)
            continue;
        const Leave leave = settle(h);
        if (leave == LEAVE_SINGLE) {
            step_one(h);
            return;
        }
        if (leave != LEAVE_JUMP || m->guest->pending_irq(h) >= 0 || probe_stopping(m) || probe_full(m))
            return;
    }
}

static void take_interrupt(Hart *h, int irq)
{
    if (probe_counts_blocks(h->m))
        probe_block_left(h->m);
    h->m->guest->take_irq(h, irq);
    h->leave = LEAVE_NONE;
    h->m->icount_end++;
}

/* Every hart waits. Returns true when virtual time jumped and the loop goes on. */
static bool idle(Machine *m, ExitReason *reason)
{
    if (m->idle_asks) {
        *reason = WB_EXIT_IDLE;
        return false;
    }
    const uint64_t next = next_deadline(m), now = mach_vtime(m, m->icount_end);
    if (next == NEVER) {
        *reason = WB_EXIT_HALTED;
        return false;
    }
    if (next > now)
        m->warp_ns += next - now;
    return true;
}

static void slice(Machine *m, Hart *h, uint64_t until)
{
    if (m->guest->fetch_key(h) != h->fctx->key)
        softmmu_regime_changed(h); /* to blocks that rely on more: see GuestOps.tb_flags */
    uint64_t end = min_u64(until, icount_of(m, next_deadline(m)));
    if (m->n_harts > 1)
        end = min_u64(end, m->quantum_end);
    /* A deadline that is already due and masked must not stop the hart. */
    if (end <= m->icount_end)
        end = m->icount_end + 1;
    h->budget = (int64_t)(end - m->icount_end);
    m->icount_end = end;
    run_slice(h);
    m->icount_end -= (uint64_t)h->budget;
    h->budget = 0;
    h->cur_tb = NULL;
}

ExitReason mach_run(Machine *m, uint64_t until)
{
    ExitReason reason = WB_EXIT_UNTIL;
    m->running = 1;
    m->probes->stopped = -1;
    for (;;) {
        if (m->host_error) {
            m->host_error = 0;
            reason = WB_EXIT_ERROR;
            break;
        }
        if (probe_stopping(m)) {
            reason = WB_EXIT_BREAKPOINT;
            break;
        }
        if (m->icount_end >= until)
            break;
        if (probe_full(m)) {
            reason = WB_EXIT_RECORDS;
            break;
        }
        if (m->stop_request) {
            m->stop_request = 0;
            reason = WB_EXIT_STOP;
            break;
        }
        if (mach_vtime(m, m->icount_end) >= m->device_deadline) {
            reason = WB_EXIT_DEADLINE;
            break;
        }
        Hart *h = schedule(m);
        if (!h) {
            if (idle(m, &reason))
                continue;
            break;
        }
        const int irq = m->guest->pending_irq(h);
        if (irq >= 0)
            take_interrupt(h, irq);
        else
            slice(m, h, until);
    }
    m->running = 0;
    return reason;
}

/* ---- for Python ---- */

int wb_run(Machine *m, uint64_t until)
{
    return (int)mach_run(m, until);
}

const char *wb_exit_name(uint32_t reason)
{
    static const char *const names[] = {
#define X(name, text) #name,
        WB_EXITS(X)
#undef X
    };
    return reason < WB_N_EXITS ? names[reason] : NULL;
}

uint64_t wb_icount(Machine *m)
{
    return mach_icount(m);
}

void wb_set_icount(Machine *m, uint64_t icount)
{
    probe_block_left(m);
    m->icount_end = icount;
    m->stop_request = m->host_error = 0;
    m->probes->stopped = -1;
}

uint64_t wb_warp_ns(Machine *m)
{
    return m->warp_ns;
}

void wb_set_warp_ns(Machine *m, uint64_t warp_ns)
{
    m->warp_ns = warp_ns;
}

uint64_t wb_vtime_ns(Machine *m)
{
    return mach_vtime(m, mach_icount(m));
}

void wb_set_device_deadline(Machine *m, uint64_t vtime_ns)
{
    m->device_deadline = vtime_ns;
}

uint64_t wb_next_deadline(Machine *m)
{
    return next_deadline(m);
}

void wb_set_idle_asks(Machine *m, int asks)
{
    m->idle_asks = asks != 0;
}

void wb_request_stop(Machine *m)
{
    m->stop_request = 1;
}

uint32_t wb_cur_hart(Machine *m)
{
    return m->cur_hart;
}

void wb_set_time_offset(Machine *m, uint64_t ticks)
{
    m->time_offset = ticks;
}

void wb_set_quantum(Machine *m, uint64_t steps)
{
    m->quantum = steps ? steps : 1;
}

void wb_sched_get(Machine *m, uint64_t *out)
{
    *out++ = m->cur_hart;
    *out++ = m->quantum_end;
    *out++ = m->turn_start;
    *out++ = m->quantum;
    for (uint32_t i = 0; i < m->n_harts; i++) {
        *out++ = m->hart[i]->steps;
        *out++ = m->hart[i]->waiting;
        *out++ = m->hart[i]->stopped;
    }
}

void wb_sched_set(Machine *m, const uint64_t *in)
{
    m->cur_hart = (uint32_t)(in[0] % m->n_harts);
    m->quantum_end = in[1];
    m->turn_start = in[2];
    m->quantum = in[3] ? in[3] : 1;
    for (uint32_t i = 0; i < m->n_harts; i++) {
        m->hart[i]->steps = in[4 + 3 * i];
        m->hart[i]->waiting = in[5 + 3 * i] <= WAIT_SUSPENDED ? (uint32_t)in[5 + 3 * i] : WAIT_WFI;
        m->hart[i]->stopped = in[6 + 3 * i] != 0;
    }
}

int wb_hart_stopped(Machine *m, uint32_t hart)
{
    return (int)m->hart[hart]->stopped;
}

void wb_hart_stop(Machine *m, uint32_t hart)
{
    m->hart[hart]->stopped = 1;
}

void wb_hart_start(Machine *m, uint32_t hart)
{
    m->hart[hart]->stopped = 0;
    m->hart[hart]->waiting = WAIT_NONE;
}

void wb_hart_suspend(Machine *m, uint32_t hart)
{
    Hart *h = m->hart[hart];
    h->waiting = m->guest->wakes(h) ? WAIT_NONE : WAIT_SUSPENDED;
}

int wb_hart_suspended(Machine *m, uint32_t hart)
{
    return m->hart[hart]->waiting == WAIT_SUSPENDED;
}

void wb_hart_jump(Machine *m, uint32_t hart, uint64_t pc)
{
    m->hart[hart]->pc = pc;
    m->hart[hart]->leave = LEAVE_GONE;
}

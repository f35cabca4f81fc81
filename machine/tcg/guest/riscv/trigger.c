/* trigger.c: the debug triggers that guests set for themselves: address matches that raise a breakpoint
 * before the instruction. Types mcontrol and mcontrol6, action 0 alone. SPEC: debug 1.0, chapter 5
 *
 *                63 60 | 59    | 58    53 | 25 | 22  | 22 21  | 20  | 18 16 | 17 16  | 15  12 | 10 7  | 6 4 3
 * | 2 1 0 mcontrol     2     | dmode | maskmax  |    |     | sizehi | hit |       | sizelo | action | match |
 * M S U | X W R mcontrol6    6     | dmode |          |    | hit |        |     | size  |        | action |
 * match | M S U | X W R
 *
 * Every address of a load or store is compared, and the first of an instruction. What is left zero: dmode,
 * select (data), timing (after), chain, and the fields of the hypervisor. In M-mode tcontrol.mte must be set
 * (5.4).
 *
 * Translated code asks for triggers where it holds an instruction that one may match, and pages with data
 * that one may match are off the fast path; so a write that changes a trigger drops translations of both
 * kinds.
 */
#include <string.h>

#include "csr.h"
#include "riscv.h"

enum {
    TYPE_SHIFT = 60,
    TYPE_MCONTROL = 2,
    TYPE_MCONTROL6 = 6,
    TYPE_DISABLED = 15,
    TD_LOAD = 1,
    TD_STORE = 2,
    TD_EXECUTE = 4,
    TD_MODES_SHIFT = 3, /* U at 3, S at 4, M at 6: by privilege */
    TD_MATCH_SHIFT = 7,
    TD_SIZE_SHIFT = 16,
};
enum { MATCH_EQUAL, MATCH_NAPOT, MATCH_GE, MATCH_LT };
#define TD_KINDS      (TD_LOAD | TD_STORE | TD_EXECUTE)
#define TD_MODES      (1ull << 3 | 1ull << 4 | 1ull << 6)
#define MC_HIT        (1ull << 20)
#define MC_MASKMAX    (63ull << 53)
#define MC6_HIT0      (1ull << 22)
#define TCONTROL_MTE  (1ull << 3)
#define TCONTROL_MPTE (1ull << 7)

/* ---- what a trigger matches ---- */

static uint32_t size_field(uint64_t tdata1)
{
    if (tdata1 >> TYPE_SHIFT == TYPE_MCONTROL6)
        return (tdata1 >> TD_SIZE_SHIFT) & 7;
    return ((tdata1 >> TD_SIZE_SHIFT) & 3) | ((tdata1 >> 21) & 3) << 2;
}

/* Bytes of the accesses that a size field names; 0: any. */
static uint32_t size_bytes(uint32_t field)
{
    static const uint8_t bytes[] = {0, 1, 2, 4, 0, 8};
    return field < sizeof(bytes) ? bytes[field] : 0;
}

static void match_range(uint64_t match, uint64_t value, uint64_t *first, uint64_t *last)
{
    *first = *last = value;
    if (match == MATCH_NAPOT) {
        const uint64_t mask = value ^ (value + 1); /* up to and with the lowest zero */
        *first = value & ~mask;
        *last = value | mask;
    } else if (match == MATCH_GE) {
        *last = ~0ull;
    } else if (match == MATCH_LT) {
        *first = value ? 0 : 1; /* nothing is less than 0 */
        *last = value ? value - 1 : 0;
    }
}

bool riscv_triggers_update(GuestHart *g)
{
    bool changed = false;
    g->trigger_kinds = 0;
    for (uint32_t i = 0; i < TRIGGERS; i++) {
        const uint64_t tdata1 = g->tdata1[i];
        Trigger t = {.kinds = tdata1 & TD_KINDS,
                     .modes = (tdata1 & TD_MODES) >> TD_MODES_SHIFT,
                     .size = size_bytes(size_field(tdata1))};
        match_range((tdata1 >> TD_MATCH_SHIFT) & 15, g->tdata2[i], &t.first, &t.last);
        if (tdata1 >> TYPE_SHIFT == TYPE_DISABLED || !t.modes || t.first > t.last)
            t = (Trigger){.first = 1};
        const Trigger *old = &g->trigger[i];
        changed |= (t.kinds | old->kinds) && memcmp(&t, old, sizeof(t)) != 0;
        g->trigger[i] = t;
        g->trigger_kinds |= t.kinds;
    }
    return changed;
}

void riscv_triggers_loaded(Hart *h)
{
    if (riscv_triggers_update(h->g)) {
        softmmu_flush_all(h->m);
        h->m->flush_wanted = 1;
    }
    h->watched = (h->g->trigger_kinds & (TD_LOAD | TD_STORE)) != 0;
}

static uint64_t kinds_of(Access acc)
{
    return acc == ACC_EXEC ? TD_EXECUTE : acc == ACC_WRITE ? TD_STORE : TD_LOAD;
}

bool riscv_watches_page(const Hart *h, Access acc, uint64_t vpage)
{
    const GuestHart *g = h->g;
    for (uint32_t i = 0; i < TRIGGERS; i++)
        if ((g->trigger[i].kinds & kinds_of(acc)) && g->trigger[i].first <= vpage + WB_PAGE_SIZE - 1 &&
            g->trigger[i].last >= vpage)
            return true;
    return false;
}

bool riscv_trigger_covers(const Machine *m, uint64_t pc)
{
    for (uint32_t k = 0; k < m->n_harts; k++)
        for (uint32_t i = 0; i < TRIGGERS; i++) {
            const Trigger *t = &m->hart[k]->g->trigger[i];
            if ((t->kinds & TD_EXECUTE) && t->first <= pc && pc <= t->last)
                return true;
        }
    return false;
}

/* ---- firing ---- */

/* SPEC: 5.7.11, 5.7.12: hit tells which triggers fired. */
static void note_hit(GuestHart *g, uint32_t i)
{
    g->tdata1[i] |= g->tdata1[i] >> TYPE_SHIFT == TYPE_MCONTROL6 ? MC6_HIT0 : MC_HIT;
}

/* Takes the breakpoint if a trigger matches these bytes now; size 0: one that is not compared. */
static bool fire(Hart *h, uint64_t vaddr, uint32_t size, uint64_t kinds)
{
    GuestHart *g = h->g;
    const uint64_t end = vaddr + (size ? size - 1 : 0), last = end < vaddr ? ~0ull : end;
    bool fired = false;
    if (g->priv == PRV_M && !(g->tcontrol & TCONTROL_MTE))
        return false;
    for (uint32_t i = 0; i < TRIGGERS; i++) {
        const Trigger *t = &g->trigger[i];
        if (!(t->kinds & kinds) || !(t->modes >> g->priv & 1) || last < t->first || vaddr > t->last ||
            (t->size && t->size != size))
            continue;
        note_hit(g, i);
        fired = true;
    }
    if (fired)
        riscv_raise(h, EXC_BREAKPOINT, vaddr);
    return fired;
}

bool riscv_trigger_data(Hart *h, uint64_t vaddr, uint32_t size, Access acc)
{
    return h->watched && fire(h, vaddr, size, kinds_of(acc));
}

bool riscv_trigger_amo(Hart *h, uint64_t vaddr, uint32_t size)
{
    return h->watched && fire(h, vaddr, size, TD_LOAD | TD_STORE);
}

bool riscv_trigger_exec(Hart *h, uint64_t pc)
{
    return (h->g->trigger_kinds & TD_EXECUTE) && fire(h, pc, 0, TD_EXECUTE);
}

uint64_t helper_trigger(Hart *h, uint64_t pc, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    riscv_trigger_exec(h, pc);
    return 0;
}

/* SPEC: 5.7.7: traps to M-mode switch its own triggers off, MRET takes back what there was. */
void riscv_trigger_enter_m(GuestHart *g)
{
    g->tcontrol = (g->tcontrol & TCONTROL_MTE) ? TCONTROL_MPTE : 0;
}

void riscv_trigger_leave_m(GuestHart *g)
{
    g->tcontrol = (g->tcontrol & TCONTROL_MPTE) ? TCONTROL_MPTE | TCONTROL_MTE : 0;
}

/* ---- CSRs ---- */

uint64_t riscv_tdata1_legal(uint64_t value)
{
    const uint64_t type = value >> TYPE_SHIFT;
    if (type != TYPE_MCONTROL && type != TYPE_MCONTROL6)
        return (uint64_t)TYPE_DISABLED << TYPE_SHIFT;
    uint64_t out = type << TYPE_SHIFT | (value & (TD_KINDS | TD_MODES));
    if (((value >> TD_MATCH_SHIFT) & 15) <= MATCH_LT)
        out |= value & 15ull << TD_MATCH_SHIFT;
    const uint32_t size = size_field(value);
    /* An instruction's size is not compared. */
    if (size_bytes(size) && !(value & TD_EXECUTE))
        out |= type == TYPE_MCONTROL6 ? (uint64_t)size << TD_SIZE_SHIFT
                                      : (uint64_t)(size & 3) << TD_SIZE_SHIFT | (uint64_t)(size >> 2) << 21;
    return out | (type == TYPE_MCONTROL6 ? value & MC6_HIT0 : (value & MC_HIT) | MC_MASKMAX);
}

uint64_t riscv_tdata_read(Hart *h, uint32_t csr)
{
    const GuestHart *g = h->g;
    return csr == CSR_tdata1 ? g->tdata1[g->tselect] : g->tdata2[g->tselect];
}

void riscv_tdata_write(Hart *h, uint32_t csr, uint64_t value)
{
    GuestHart *g = h->g;
    if (csr == CSR_tdata1)
        g->tdata1[g->tselect] = riscv_tdata1_legal(value);
    else
        g->tdata2[g->tselect] = value;
    const uint64_t kinds = g->trigger_kinds;
    riscv_triggers_loaded(h);
    if (kinds || g->trigger_kinds)
        riscv_leave_after(h);
}

/* SPEC: 5.7.1: WARL; software finds the last one by what does not stay. */
void riscv_tselect_write(Hart *h, uint32_t csr, uint64_t value)
{
    (void)csr;
    if (value < TRIGGERS)
        h->g->tselect = value;
}

/* SPEC: 5.7.6: version 1 of the format, and the types that tdata1 can have. */
uint64_t riscv_tinfo_read(Hart *h, uint32_t csr)
{
    (void)h, (void)csr;
    return 1ull << 24 | 1ull << TYPE_MCONTROL | 1ull << TYPE_MCONTROL6 | 1ull << TYPE_DISABLED;
}

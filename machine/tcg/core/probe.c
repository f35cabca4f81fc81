/* probe.c: matching happenings with probes; conditions; records. See probe.h. */
#include "probe.h"
#include "mach_priv.h"
#include "../guest/guest.h"
#include "api.h"

#include <stdlib.h>
#include <string.h>

bool probe_init(Machine *m)
{
    m->probes = calloc(1, sizeof(*m->probes));
    if (!m->probes)
        return false;
    m->probes->stopped = -1;
    m->probes->skip = ~UINT64_C(0);
    m->probes->blocks.running = BLOCKCOUNTS_NO_BLOCK;
    return true;
}

void probe_deinit(Machine *m)
{
    if (!m->probes)
        return;
    free(m->probes->code);
    free(m->probes->record);
    histogram_clear(&m->probes->counts);
    blockcounts_deinit(&m->probes->blocks);
    free(m->probes);
    m->probes = NULL;
}

/* Does a probe of this kind cover an address, which is known by both of its names? */
static bool covers(const Machine *m, ProbeKind kind, uint64_t vaddr, uint64_t paddr)
{
    const ProbeSet *s = m->probes;
    if (!probe_wants(m, kind))
        return false;
    for (uint32_t i = 0; i < s->n; i++) {
        const Probe *p = &s->probe[i];
        const uint64_t at = (p->flags & PROBE_PHYSICAL) ? paddr : vaddr;
        if (p->kind == kind && p->lo <= at && at <= p->hi)
            return true;
    }
    return false;
}

bool probe_covers_slot(const Machine *m, uint32_t slot)
{
    return covers(m, PROBE_REG, slot, slot);
}

bool probe_covers_insn(const Machine *m, uint64_t pc, uint64_t paddr)
{
    return !m->probes->by_block && covers(m, PROBE_EXEC, pc, paddr);
}

bool probe_covers_page(const Machine *m, ProbeKind kind, uint64_t vpage, uint64_t ppage)
{
    const ProbeSet *s = m->probes;
    if (!probe_wants(m, kind))
        return false;
    for (uint32_t i = 0; i < s->n; i++) {
        const Probe *p = &s->probe[i];
        const uint64_t page = (p->flags & PROBE_PHYSICAL) ? ppage : vpage;
        if (p->kind == kind && page <= p->hi && p->lo <= page + WB_PAGE_SIZE - 1)
            return true;
    }
    return false;
}

/* ---- telling ---- */

static uint32_t open_bit(uint64_t ret, uint64_t sp)
{
    const uint64_t hash = (ret ^ sp * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xd6e8feb86659fd93);
    return (uint32_t)(hash >> 40) & (PROBE_OPEN_BITS - 1);
}

static void probe_record(Hart *h, uint32_t id, const Happening *what)
{
    ProbeSet *s = h->m->probes;
    if (s->n_records >= PROBE_RECORDS)
        abort(); /* the spare room is a promise of the hooks; a lost record would be a wrong answer */
    ProbeRecord *r = &s->record[s->n_records++];
    /* field by field: a compound literal is cleared first, which takes as long as the rest */
    r->icount = mach_icount(h->m);
    r->pc = hart_insn_pc(h);
    r->probe = (uint16_t)id;
    r->kind = (uint8_t)what->kind;
    r->hart = (uint8_t)h->index;
    r->size = what->size;
    r->op = what->op;
    r->pad = 0;
    r->a = what->a;
    r->b = what->b;
    r->value = what->value;
    r->old = what->old;
    h->m->guest->debug_context(h, &r->priv, &r->extra, r->args);
    if (s->paired && what->kind == PROBE_CALL) {
        const uint32_t bit = open_bit(what->b, what->value);
        s->open[bit / 64] |= UINT64_C(1) << bit % 64;
    }
}

void probe_tell(Hart *h, const Happening *what)
{
    ProbeSet *s = h->m->probes;
    const uint64_t here = mach_icount(h->m);
    if (what->kind == PROBE_EXEC && here == s->skip)
        return;
    for (uint32_t i = s->first[what->kind]; i < s->n; i = s->probe[i].next) {
        Probe *p = &s->probe[i];
        const uint64_t lo = (p->flags & PROBE_PHYSICAL) ? what->paddr : what->at;
        const uint64_t hi = what->kind == PROBE_READ || what->kind == PROBE_WRITE ? lo + what->size - 1 : lo;
        if (hi < p->lo || lo > p->hi)
            continue;
        if ((p->flags & PROBE_PAIRED) && what->kind == PROBE_RET) {
            const uint32_t bit = open_bit(what->a, what->value);
            if (!(s->open[bit / 64] >> bit % 64 & 1))
                continue;
        }
        if (p->code_len && !agent_eval(h, what, s->code + p->code, p->code_len))
            continue;
        const uint64_t last = what->kind == PROBE_EXEC || what->kind == PROBE_TURN ? here : here + 1;
        /* Once a position: an instruction that is run again alone passes its EXEC probe twice. */
        if (what->kind == PROBE_EXEC && p->last == last && p->action != PROBE_STOP)
            continue;
        p->hits++;
        p->last = last;
        if (p->action == PROBE_RECORD)
            probe_record(h, i, what);
        else if (p->action == PROBE_COUNT)
            histogram_add(&s->counts, what->at, 1);
        else if (p->action == PROBE_STOP && s->stopped < 0)
            s->stopped = (int32_t)i;
    }
}

/* ---- helpers that the front end calls where a probe may match ---- */

bool probe_ready(Hart *h, ProbeKind kind)
{
    if (!probe_wants(h->m, kind))
        return true;
    if (probe_full(h->m))
        h->leave = LEAVE_BEFORE;
    else if ((h->m->probes->stop_kinds & (1u << kind)) && h->cur_tb && !h->cur_tb->single)
        h->leave = LEAVE_SINGLE;
    else
        return true;
    return false;
}

uint64_t helper_probe_exec(Hart *h, uint64_t pc, uint64_t b, uint64_t c);
uint64_t helper_probe_exec(Hart *h, uint64_t pc, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    if (probe_full(h->m)) {
        h->leave = LEAVE_BEFORE;
        return 0;
    }
    /* a block's instructions begin in one virtual page, so in one physical page */
    const uint64_t paddr = (h->cur_tb->paddr & WB_PAGE_MASK) | (pc & ~WB_PAGE_MASK);
    const Happening what = {.kind = PROBE_EXEC, .at = pc, .paddr = paddr, .a = pc, .b = paddr};
    probe_tell(h, &what);
    if (probe_stopping(h->m))
        h->leave = LEAVE_BEFORE;
    return 0;
}

/* ---- every instruction, counted by blocks ---- */

static bool wants_blocks(const ProbeSpec *spec, uint32_t n)
{
    return n == 1 && spec->kind == PROBE_EXEC && spec->action == PROBE_COUNT && !spec->flags &&
           !spec->code_len && spec->lo == 0 && spec->hi == ~UINT64_C(0);
}

uint64_t helper_probe_block(Hart *h, uint64_t first, uint64_t b, uint64_t c);
uint64_t helper_probe_block(Hart *h, uint64_t first, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    BlockCounts *counts = &h->m->probes->blocks;
    const uint64_t here = mach_icount(h->m);
    blockcounts_settle(counts, here);
    counts->running = (uint32_t)first;
    counts->since = here;
    return 0;
}

void probe_block_made(Machine *m, const TB *tb)
{
    BlockCounts *b = &m->probes->blocks;
    for (uint32_t i = 0; i < tb->n_insns; i++)
        if (!blockcounts_add(b, tb_insn_pc(tb, i), i == 0))
            abort(); /* as without memory for the block itself */
    m->flush_wanted |= b->n >= BLOCKCOUNTS_MAX;
}

void probe_block_left(Machine *m)
{
    blockcounts_settle(&m->probes->blocks, mach_icount(m));
}

void probe_blocks_gone(Machine *m)
{
    ProbeSet *s = m->probes;
    if (!s->blocks.n)
        return;
    probe_block_left(m);
    blockcounts_fold(&s->blocks, &s->counts);
    s->blocks.n = 0;
}

uint64_t helper_probe_call(Hart *h, uint64_t target, uint64_t ret, uint64_t sp);
uint64_t helper_probe_call(Hart *h, uint64_t target, uint64_t ret, uint64_t sp)
{
    if (!probe_ready(h, PROBE_CALL))
        return 0;
    const Happening what = {.kind = PROBE_CALL, .at = target, .a = target, .b = ret, .value = sp};
    probe_tell(h, &what);
    return 0;
}

uint64_t helper_probe_ret(Hart *h, uint64_t target, uint64_t b, uint64_t sp);
uint64_t helper_probe_ret(Hart *h, uint64_t target, uint64_t b, uint64_t sp)
{
    (void)b;
    if (!probe_ready(h, PROBE_RET))
        return 0;
    const Happening what = {.kind = PROBE_RET, .at = target, .a = target, .value = sp};
    probe_tell(h, &what);
    return 0;
}

uint64_t helper_probe_reg(Hart *h, uint64_t slot, uint64_t b, uint64_t c);
uint64_t helper_probe_reg(Hart *h, uint64_t slot, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    if (!probe_ready(h, PROBE_REG))
        return 0;
    const Happening what = {
        .kind = PROBE_REG, .at = slot, .a = slot, .old = h->slot[slot], .value = h->slot[slot]};
    probe_tell(h, &what);
    return 0;
}

/* ---- setting ---- */

static bool same_set(const ProbeSet *s, const ProbeSpec *spec, uint32_t n, const uint8_t *code,
                     uint32_t code_len)
{
    if (n != s->n || code_len != s->code_len || (code_len && memcmp(code, s->code, code_len)))
        return false;
    for (uint32_t i = 0; i < n; i++) {
        const Probe *p = &s->probe[i];
        if (p->kind != spec[i].kind || p->flags != spec[i].flags || p->lo != spec[i].lo ||
            p->hi != spec[i].hi || p->code != spec[i].code || p->code_len != spec[i].code_len)
            return false;
    }
    return true;
}

/* Blocks with probes in them go, and those that should get some: single addresses one by one, else
 * everything. */
static void drop_translations(Machine *m)
{
    const ProbeSet *s = m->probes;
    const uint32_t everywhere = 1u << PROBE_CALL | 1u << PROBE_RET | 1u << PROBE_REG;
    bool all = s->kinds & everywhere;
    for (uint32_t i = 0; i < s->n && !all; i++)
        all = s->probe[i].kind == PROBE_EXEC && s->probe[i].lo != s->probe[i].hi;
    if (s->kinds & (1u << PROBE_READ | 1u << PROBE_WRITE))
        softmmu_flush_all(m);
    if (all) {
        m->flush_wanted = 1;
        return;
    }
    uint64_t pcs[PROBE_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        const Probe *p = &s->probe[i];
        if (p->kind == PROBE_EXEC && !(p->flags & PROBE_PHYSICAL))
            pcs[n++] = p->lo;
        else if (p->kind == PROBE_EXEC && phys_is_ram(m, p->lo, 1))
            tb_invalidate(m, (p->lo - m->ram_base) >> WB_PAGE_BITS, p->lo & ~WB_PAGE_MASK, 1);
    }
    if (n)
        tb_invalidate_pcs(m, pcs, n);
}

bool probe_set(Machine *m, const ProbeSpec *spec, uint32_t n, const uint8_t *code, uint32_t code_len)
{
    ProbeSet *s = m->probes;
    if (n > PROBE_MAX || code_len > PROBE_CODE_MAX)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (spec[i].kind >= N_PROBE_KINDS || spec[i].action > PROBE_COUNT ||
            (spec[i].action == PROBE_COUNT && spec[i].kind != PROBE_EXEC) ||
            (spec[i].action == PROBE_STOP && spec[i].kind == PROBE_TURN) || spec[i].lo > spec[i].hi ||
            spec[i].code > code_len || spec[i].code_len > code_len - spec[i].code)
            return false;
    if (n && !s->record && !(s->record = malloc(PROBE_RECORDS * sizeof(*s->record))))
        return false;
    uint8_t *copy = code_len ? malloc(code_len) : NULL;
    if (code_len && !copy)
        return false;
    const bool same = same_set(s, spec, n, code, code_len) && s->by_block == wants_blocks(spec, n);
    if (!same)
        drop_translations(m);
    if (code_len)
        memcpy(copy, code, code_len);
    free(s->code);
    s->code = copy;
    s->code_len = code_len;
    s->n = n;
    s->kinds = s->stop_kinds = s->n_records = 0;
    s->stopped = -1;
    s->paired = false;
    s->by_block = wants_blocks(spec, n);
    blockcounts_clear(&s->blocks);
    histogram_clear(&s->counts);
    memset(s->open, 0, sizeof(s->open));
    memset(s->first, 0xff, sizeof(s->first));
    for (uint32_t i = n; i-- > 0;) {
        s->probe[i] = (Probe){.kind = spec[i].kind,
                              .action = spec[i].action,
                              .flags = spec[i].flags,
                              .lo = spec[i].lo,
                              .hi = spec[i].hi,
                              .code = spec[i].code,
                              .code_len = spec[i].code_len,
                              .last = ~UINT64_C(0),
                              .next = s->first[spec[i].kind]};
        s->first[spec[i].kind] = i;
        s->kinds |= 1u << spec[i].kind;
        s->paired |= (spec[i].flags & PROBE_PAIRED) != 0;
        if (spec[i].action == PROBE_STOP)
            s->stop_kinds |= 1u << spec[i].kind;
    }
    if (!same)
        drop_translations(m);
    return true;
}

/* ---- for Python ---- */

_Static_assert(sizeof(WbProbe) == sizeof(ProbeSpec) &&
                   offsetof(WbProbe, code_len) == offsetof(ProbeSpec, code_len),
               "cdef.h and probe.h agree");

int wb_probes_set(Machine *m, const WbProbe *specs, uint32_t n, const uint8_t *code, uint32_t code_len)
{
    return probe_set(m, (const ProbeSpec *)specs, n, code, code_len) ? 0 : -1;
}

const char *wb_probe_kind(uint32_t kind)
{
    static const char *const names[] = {
#define X(name, range, text) #name,
        WB_PROBE_KINDS(X)
#undef X
    };
    return kind < N_PROBE_KINDS ? names[kind] : NULL;
}

void wb_probe_skip(Machine *m, uint64_t icount)
{
    m->probes->skip = icount;
}

int wb_probe_stopped(Machine *m)
{
    return m->probes->stopped;
}

uint64_t wb_probe_hits(Machine *m, uint32_t probe)
{
    return probe < m->probes->n ? m->probes->probe[probe].hits : 0;
}

uint64_t wb_probe_last(Machine *m, uint32_t probe)
{
    return probe < m->probes->n ? m->probes->probe[probe].last : ~UINT64_C(0);
}

const uint64_t *wb_probe_counts(Machine *m, uint32_t *n, uint64_t *lost)
{
    Histogram *t = &m->probes->counts;
    probe_block_left(m);
    blockcounts_fold(&m->probes->blocks, t);
    const HistogramEntry *entry = histogram_sorted(t, n);
    *lost = t->lost;
    return entry ? &entry->pc : NULL;
}

const void *wb_probe_records(Machine *m, uint32_t *n)
{
    *n = m->probes->n_records;
    m->probes->n_records = 0;
    return m->probes->record;
}

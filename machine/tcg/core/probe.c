/* probe.c: matching happenings with probes; conditions; records. See probe.h. */
#include "probe.h"
#include "mach_priv.h"
#include "../guest/guest.h"

#include <stdlib.h>
#include <string.h>

bool probe_init(Machine *m)
{
    m->probes = calloc(1, sizeof(*m->probes));
    if (!m->probes)
        return false;
    m->probes->stopped = -1;
    m->probes->skip = ~UINT64_C(0);
    return true;
}

void probe_deinit(Machine *m)
{
    if (!m->probes)
        return;
    free(m->probes->code);
    free(m->probes->record);
    histogram_clear(&m->probes->counts);
    free(m->probes);
    m->probes = NULL;
}

bool probe_covers(const Machine *m, ProbeKind kind, uint64_t lo, uint64_t hi)
{
    const ProbeSet *s = m->probes;
    if (!probe_wants(m, kind))
        return false;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->probe[i].kind == kind && lo <= s->probe[i].hi && s->probe[i].lo <= hi)
            return true;
    return false;
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

/* ---- conditions ---- */

enum { AX_STACK = 64, AX_STEPS = 10000 };

/* Registers beyond the guest's: what a condition can ask of the happening itself. */
enum { AX_REG_VALUE = 0x1000, AX_REG_OLD, AX_REG_ADDR, AX_REG_SIZE, AX_REG_ICOUNT, AX_REG_PADDR };

static bool ax_read(Hart *h, uint64_t vaddr, uint32_t size, uint64_t *value)
{
    *value = 0;
    for (uint32_t i = 0; i < size; i++) {
        uint64_t paddr;
        uint8_t byte;
        if (!softmmu_debug_translate(h, vaddr + i, ACC_READ, &paddr) || !phys_read(h->m, paddr, &byte, 1))
            return false;
        *value |= (uint64_t)byte << (8 * i);
    }
    return true;
}

static uint64_t ax_reg(Hart *h, const Happening *what, uint32_t reg)
{
    switch (reg) {
    case AX_REG_VALUE:
        return what->value;
    case AX_REG_OLD:
        return what->old;
    case AX_REG_ADDR:
        return what->at;
    case AX_REG_SIZE:
        return what->size;
    case AX_REG_ICOUNT:
        return mach_icount(h->m);
    case AX_REG_PADDR:
        return what->paddr;
    default:
        return h->m->guest->debug_reg(h, reg);
    }
}

static uint64_t ax_sext(uint64_t v, uint32_t bits)
{
    if (!bits || bits >= 64)
        return v;
    const uint64_t sign = UINT64_C(1) << (bits - 1);
    v &= (sign << 1) - 1;
    return (v ^ sign) - sign;
}

static uint64_t ax_zext(uint64_t v, uint32_t bits)
{
    return bits >= 64 ? v : v & ((UINT64_C(1) << bits) - 1);
}

/* gdb's numbers of the ops that compute. */
static bool ax_binary(uint8_t op, uint64_t a, uint64_t b, uint64_t *out)
{
    switch (op) {
    case 0x02:
        *out = a + b;
        return true;
    case 0x03:
        *out = a - b;
        return true;
    case 0x04:
        *out = a * b;
        return true;
    case 0x05:
        if (!b || ((int64_t)b == -1 && a == UINT64_C(1) << 63))
            return false;
        *out = (uint64_t)((int64_t)a / (int64_t)b);
        return true;
    case 0x06:
        *out = b ? a / b : 0;
        return b != 0;
    case 0x07:
        if (!b)
            return false;
        *out = (int64_t)b == -1 ? 0 : (uint64_t)((int64_t)a % (int64_t)b);
        return true;
    case 0x08:
        *out = b ? a % b : 0;
        return b != 0;
    case 0x09:
        *out = b < 64 ? a << b : 0;
        return true;
    case 0x0a:
        *out = (uint64_t)((int64_t)a >> (b < 64 ? b : 63));
        return true;
    case 0x0b:
        *out = b < 64 ? a >> b : 0;
        return true;
    case 0x0f:
        *out = a & b;
        return true;
    case 0x10:
        *out = a | b;
        return true;
    case 0x11:
        *out = a ^ b;
        return true;
    case 0x13:
        *out = a == b;
        return true;
    case 0x14:
        *out = (int64_t)a < (int64_t)b;
        return true;
    case 0x15:
        *out = a < b;
        return true;
    default:
        return false;
    }
}

static uint64_t ax_operand(const uint8_t *code, uint32_t n)
{
    uint64_t v = 0;
    for (uint32_t i = 0; i < n; i++)
        v = v << 8 | code[i];
    return v;
}

/* Bytes of operand behind an op; 255: no such op. */
static uint32_t ax_operand_size(uint8_t op)
{
    switch (op) {
    case 0x16: /* ext */
    case 0x22: /* const8 */
    case 0x2a: /* zero_ext */
    case 0x32: /* pick */
        return 1;
    case 0x20: /* if_goto */
    case 0x21: /* goto */
    case 0x23: /* const16 */
    case 0x26: /* reg */
        return 2;
    case 0x24:
        return 4;
    case 0x25:
        return 8;
    default:
        return (op >= 0x02 && op <= 0x15) || (op >= 0x17 && op <= 0x1a) || (op >= 0x27 && op <= 0x2b) || op == 0x33
                   ? 0
                   : 255;
    }
}

/* A program that fails (bad memory, stack, op) is false: a condition that can't be told does not hold. */
static bool ax_eval(Hart *h, const Happening *what, const uint8_t *code, uint32_t len)
{
    uint64_t st[AX_STACK];
    uint32_t sp = 0, pc = 0;
    for (uint32_t steps = 0; steps < AX_STEPS && pc < len; steps++) {
        const uint8_t op = code[pc++];
        const uint32_t n = ax_operand_size(op);
        if (n == 255 || n > len - pc)
            return false;
        const uint64_t arg = ax_operand(code + pc, n);
        uint64_t arg2;
        pc += n;
        if (op == 0x27) /* end */
            return sp && st[sp - 1];
        if (ax_binary(op, sp >= 2 ? st[sp - 2] : 0, sp >= 2 ? st[sp - 1] : 0, &st[sp >= 2 ? sp - 2 : 0])) {
            if (sp < 2)
                return false;
            sp--;
            continue;
        }
        const bool pushes = (op >= 0x22 && op <= 0x26) || op == 0x28 || op == 0x32;
        if (pushes ? sp >= AX_STACK : (op != 0x21 && !sp))
            return false;
        switch (op) {
        case 0x0e: /* log_not */
            st[sp - 1] = !st[sp - 1];
            break;
        case 0x12: /* bit_not */
            st[sp - 1] = ~st[sp - 1];
            break;
        case 0x16:
            st[sp - 1] = ax_sext(st[sp - 1], (uint32_t)arg);
            break;
        case 0x2a:
            st[sp - 1] = ax_zext(st[sp - 1], (uint32_t)arg);
            break;
        case 0x17: /* ref8, 16, 32, 64 */
        case 0x18:
        case 0x19:
        case 0x1a:
            if (!ax_read(h, st[sp - 1], 1u << (op - 0x17), &st[sp - 1]))
                return false;
            break;
        case 0x20:
            if (st[--sp])
                pc = (uint32_t)arg;
            break;
        case 0x21:
            pc = (uint32_t)arg;
            break;
        case 0x22:
        case 0x23:
        case 0x24:
        case 0x25:
            st[sp++] = arg;
            break;
        case 0x26:
            st[sp++] = ax_reg(h, what, (uint32_t)arg);
            break;
        case 0x28: /* dup */
            if (!sp)
                return false;
            st[sp] = st[sp - 1];
            sp++;
            break;
        case 0x29: /* pop */
            sp--;
            break;
        case 0x2b: /* swap */
            if (sp < 2)
                return false;
            arg2 = st[sp - 1];
            st[sp - 1] = st[sp - 2];
            st[sp - 2] = arg2;
            break;
        case 0x32: /* pick */
            if (arg >= sp)
                return false;
            st[sp] = st[sp - 1 - arg];
            sp++;
            break;
        default:
            return false;
        }
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
    *r = (ProbeRecord){.icount = mach_icount(h->m),
                       .pc = hart_insn_pc(h),
                       .probe = (uint16_t)id,
                       .kind = (uint8_t)what->kind,
                       .hart = (uint8_t)h->index,
                       .size = what->size,
                       .op = what->op,
                       .a = what->a,
                       .b = what->b,
                       .value = what->value,
                       .old = what->old};
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
    for (uint32_t i = 0; i < s->n; i++) {
        Probe *p = &s->probe[i];
        const uint64_t lo = (p->flags & PROBE_PHYSICAL) ? what->paddr : what->at;
        const uint64_t hi = what->kind == PROBE_READ || what->kind == PROBE_WRITE ? lo + what->size - 1 : lo;
        if (p->kind != what->kind || hi < p->lo || lo > p->hi)
            continue;
        if ((p->flags & PROBE_PAIRED) && what->kind == PROBE_RET) {
            const uint32_t bit = open_bit(what->a, what->value);
            if (!(s->open[bit / 64] >> bit % 64 & 1))
                continue;
        }
        if (p->code_len && !ax_eval(h, what, s->code + p->code, p->code_len))
            continue;
        const uint64_t last = what->kind == PROBE_EXEC ? here : here + 1;
        /* Once a position: an instruction that is run again alone passes its EXEC probe twice. */
        if (what->kind == PROBE_EXEC && p->last == last && p->action != PROBE_STOP)
            continue;
        p->hits++;
        p->last = last;
        if (p->action == PROBE_RECORD)
            probe_record(h, i, what);
        else if (p->action == PROBE_COUNT)
            histogram_add(&s->counts, what->at);
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
    ProbeSet *s = h->m->probes;
    if (s->n == 1 && s->probe[0].action == PROBE_COUNT && !s->probe[0].code_len) { /* a profile: nothing else to look at */
        const uint64_t here = mach_icount(h->m) + 1;
        if (here != s->counted && pc >= s->probe[0].lo && pc <= s->probe[0].hi) {
            s->counted = here;
            histogram_add(&s->counts, pc);
        }
        return 0;
    }
    const Happening what = {.kind = PROBE_EXEC, .at = pc, .a = pc};
    probe_tell(h, &what);
    if (probe_stopping(h->m))
        h->leave = LEAVE_BEFORE;
    return 0;
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
    const Happening what = {.kind = PROBE_REG, .at = slot, .a = slot, .old = h->slot[slot], .value = h->slot[slot]};
    probe_tell(h, &what);
    return 0;
}

/* ---- setting ---- */

static bool same_set(const ProbeSet *s, const ProbeSpec *spec, uint32_t n, const uint8_t *code, uint32_t code_len)
{
    if (n != s->n || code_len != s->code_len || (code_len && memcmp(code, s->code, code_len)))
        return false;
    for (uint32_t i = 0; i < n; i++) {
        const Probe *p = &s->probe[i];
        if (p->kind != spec[i].kind || p->flags != spec[i].flags || p->lo != spec[i].lo || p->hi != spec[i].hi ||
            p->code != spec[i].code || p->code_len != spec[i].code_len)
            return false;
    }
    return true;
}

/* Blocks with probes in them go, and those that should get some: single addresses one by one, else everything. */
static void drop_translations(Machine *m)
{
    const ProbeSet *s = m->probes;
    const uint32_t everywhere = 1u << PROBE_CALL | 1u << PROBE_RET | 1u << PROBE_REG;
    bool all = s->kinds & everywhere;
    for (uint32_t i = 0; i < s->n && !all; i++)
        all = s->probe[i].kind == PROBE_EXEC && s->probe[i].lo != s->probe[i].hi;
    if (all) {
        m->flush_wanted = 1;
        return;
    }
    uint64_t pcs[PROBE_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->probe[i].kind == PROBE_EXEC)
            pcs[n++] = s->probe[i].lo;
    if (n)
        tb_invalidate_pcs(m, pcs, n);
    if (s->kinds & (1u << PROBE_READ | 1u << PROBE_WRITE))
        softmmu_flush_all(m);
}

bool probe_set(Machine *m, const ProbeSpec *spec, uint32_t n, const uint8_t *code, uint32_t code_len)
{
    ProbeSet *s = m->probes;
    if (n > PROBE_MAX || code_len > PROBE_CODE_MAX)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (spec[i].kind >= N_PROBE_KINDS || spec[i].action > PROBE_COUNT ||
            (spec[i].action == PROBE_COUNT && spec[i].kind != PROBE_EXEC) || spec[i].lo > spec[i].hi ||
            spec[i].code > code_len || spec[i].code_len > code_len - spec[i].code)
            return false;
    if (n && !s->record && !(s->record = malloc(PROBE_RECORDS * sizeof(*s->record))))
        return false;
    uint8_t *copy = code_len ? malloc(code_len) : NULL;
    if (code_len && !copy)
        return false;
    const bool same = same_set(s, spec, n, code, code_len);
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
    s->counted = 0;
    histogram_clear(&s->counts);
    memset(s->open, 0, sizeof(s->open));
    for (uint32_t i = 0; i < n; i++) {
        s->probe[i] = (Probe){.kind = spec[i].kind,
                              .action = spec[i].action,
                              .flags = spec[i].flags,
                              .lo = spec[i].lo,
                              .hi = spec[i].hi,
                              .code = spec[i].code,
                              .code_len = spec[i].code_len,
                              .last = ~UINT64_C(0)};
        s->kinds |= 1u << spec[i].kind;
        s->paired |= (spec[i].flags & PROBE_PAIRED) != 0;
        if (spec[i].action == PROBE_STOP)
            s->stop_kinds |= 1u << spec[i].kind;
    }
    if (!same)
        drop_translations(m);
    return true;
}

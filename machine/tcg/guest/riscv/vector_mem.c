/* vector_mem.c: vector loads and stores: unit-stride, strided, indexed; segments, whole registers, masks,
 * fault-only-first. SPEC: vector 1.0, chapter 7
 *
 * Elements are accessed in their order, each by the softmmu's rules. Whatever ends an access (a trap; that
 * the instruction has to be run alone, or that probes have no room) leaves vstart at its element, so that
 * what is run again goes on there and nothing is done twice. SPEC: 3.7, 17
 */
#include "riscv.h"
#include "vector.h"

enum { MOP_UNIT, MOP_INDEXED_UNORDERED, MOP_STRIDED, MOP_INDEXED_ORDERED };
enum { UNIT_PLAIN = 0, UNIT_WHOLE = 8, UNIT_MASK = 11, UNIT_FAULT_FIRST = 16 };

typedef struct {
    VOp o;
    uint64_t base, stride;
    uint32_t fields,
        count;     /* of a segment; elements of each, which is vl but for whole registers and masks */
    int eew;       /* of data */
    int regs;      /* log2 of the registers of a field */
    int index_eew; /* of vs2; -1: not indexed */
    bool is_store, is_whole, is_fault_first;
} VMem;

static bool is_access_done(const Hart *h)
{
    return h->leave == LEAVE_NONE || h->leave == LEAVE_AFTER;
}

/* ---- taking the encoding apart ---- */

/* log2 of the bytes that the width field says: 0, 5, 6, 7 */
static int width_eew(uint32_t insn)
{
    const int width = insn >> 12 & 7;
    return width ? width - 4 : 0;
}

static bool begin_whole(VMem *m)
{
    const VOp *o = &m->o;
    m->is_whole = true;
    m->count = (uint32_t)(m->fields * o->g->vlenb) >> m->eew;
    m->regs = __builtin_ctz(m->fields);
    m->fields = 1;
    return !(o->vd & ((1u << m->regs) - 1));
}

/* The groups of data, and where they may not be. SPEC: 7.8 */
static bool check_data(VMem *m)
{
    const VOp *o = &m->o;
    int index_regs;
    if (!v_group(o, o->vd, m->eew, &m->regs) || m->fields << m->regs > 8 ||
        o->vd + (m->fields << m->regs) > 32)
        return false;
    if (!m->is_store && o->masked && !o->vd)
        return false;
    if (m->index_eew < 0)
        return true;
    if (!v_group(o, o->vs2, m->index_eew, &index_regs))
        return false;
    if (m->is_store)
        return true;
    if (m->fields == 1)
        return v_overlap_legal(o->vd, m->eew, m->regs, o->vs2, m->index_eew, index_regs);
    return !(o->vd < o->vs2 + (1u << index_regs) && o->vs2 < o->vd + (m->fields << m->regs));
}

/* False: the trap is taken. */
static bool begin(VMem *m, Hart *h, uint32_t insn, uint64_t base, uint64_t stride, bool is_store)
{
    const uint32_t mop = insn >> 26 & 3, unit = insn >> 20 & 31;
    const bool is_whole = mop == MOP_UNIT && unit == UNIT_WHOLE;
    *m = (VMem){.base = base,
                .stride = stride,
                .fields = (insn >> 29) + 1,
                .eew = width_eew(insn),
                .index_eew = -1,
                .is_store = is_store};
    if (!v_begin(&m->o, h, insn, is_whole ? V_ANY_TYPE : 0, 0))
        return false;
    m->count = m->o.vl;
    bool legal;
    if (mop == MOP_UNIT)
        m->stride = (is_whole ? 1ull : m->fields) << m->eew;
    if (is_whole) {
        legal = begin_whole(m);
    } else if (mop == MOP_UNIT && unit == UNIT_MASK) {
        m->count = (m->o.vl + 7) / 8;
        legal = true; /* one register, whatever LMUL */
    } else {
        m->is_fault_first = mop == MOP_UNIT && unit == UNIT_FAULT_FIRST;
        if (mop == MOP_INDEXED_UNORDERED || mop == MOP_INDEXED_ORDERED) {
            m->index_eew = m->eew;
            m->eew = m->o.sew;
        }
        legal = check_data(m);
    }
    if (!legal)
        v_illegal(&m->o);
    return legal;
}

/* ---- accesses ---- */

static uint64_t element_vaddr(const VMem *m, uint32_t i)
{
    const VOp *o = &m->o;
    return m->base + (m->index_eew < 0 ? i * m->stride : v_get(o, o->vs2, i, m->index_eew));
}

/* One field of element i; false: it is not done. */
static bool access_one(VMem *m, uint64_t vaddr, uint32_t i, uint32_t field)
{
    VOp *o = &m->o;
    const uint32_t reg = o->vd + (field << m->regs);
    if (m->is_store) {
        mem_store(o->h, vaddr, v_get(o, reg, i, m->eew), (uint32_t)m->eew);
        return is_access_done(o->h);
    }
    const uint64_t value = mem_load(o->h, vaddr, (uint32_t)m->eew);
    if (!is_access_done(o->h))
        return false;
    v_set(o, reg, i, m->eew, value);
    return true;
}

/* Can these bytes, which may be on two pages, be loaded from RAM? Nothing comes of asking. */
static bool is_readable(Hart *h, uint64_t vaddr, uint32_t size)
{
    const uint64_t last = vaddr + size - 1;
    for (uint64_t at = vaddr;; at = last & WB_PAGE_MASK) {
        const uint64_t end = (at ^ last) & WB_PAGE_MASK ? at | ~WB_PAGE_MASK : last;
        Walk w = {.size = (uint8_t)(end - at + 1), .dry = 1};
        riscv_walk(h, at, ACC_READ, false, &w);
        if (!w.ok || !phys_is_ram(h->m, w.paddr, w.size))
            return false;
        if (end == last)
            return true;
    }
}

/* Where an element behind the first would fault, or read a device, the vector ends before it. SPEC: 7.7 */
static bool is_end_of_vector(const VMem *m, uint64_t vaddr)
{
    Hart *h = m->o.h;
    const uint32_t size = 1u << m->eew, all = m->fields << m->eew;
    const TlbEntry *e = &h->dctx->rd[(vaddr >> WB_PAGE_BITS) & (TLB_SIZE - 1)];
    if (((vaddr + all - 1) & WB_PAGE_MASK) == e->tag)
        return false;
    for (uint32_t at = 0; at < all; at += size)
        if (!is_readable(h, vaddr + at, size))
            return true;
    return false;
}

/* As many elements from i on as lie in one page of RAM that nobody watches; 0 where it has to be asked. */
static uint32_t access_many(VMem *m, uint64_t vaddr, uint32_t i)
{
    VOp *o = &m->o;
    const TlbEntry *entries = m->is_store ? o->h->dctx->wr : o->h->dctx->rd;
    const TlbEntry *e = &entries[(vaddr >> WB_PAGE_BITS) & (TLB_SIZE - 1)];
    if ((vaddr & WB_PAGE_MASK) != e->tag)
        return 0;
    const uint64_t room = (WB_PAGE_SIZE - (vaddr & ~WB_PAGE_MASK)) >> m->eew;
    const uint32_t n = m->count - i < room ? m->count - i : (uint32_t)room;
    uint8_t *host = (uint8_t *)(uintptr_t)(vaddr + e->addend), *data = v_at(o, o->vd, i, m->eew);
    if (m->is_store)
        memcpy(host, data, (size_t)n << m->eew);
    else
        memcpy(data, host, (size_t)n << m->eew);
    return n;
}

/* Every field of element i; false: the instruction ends here. */
static bool access_element(VMem *m, uint32_t i)
{
    const uint64_t vaddr = element_vaddr(m, i);
    if (m->is_fault_first && i && is_end_of_vector(m, vaddr)) {
        m->o.g->vl = m->count = i;
        return true;
    }
    for (uint32_t field = 0; field < m->fields; field++)
        if (!access_one(m, vaddr + ((uint64_t)field << m->eew), i, field)) {
            m->o.g->vstart = i;
            return false;
        }
    return true;
}

static uint64_t run(VMem *m)
{
    VOp *o = &m->o;
    const bool masked = o->masked && !m->is_whole;
    const bool dense =
        !masked && m->fields == 1 && m->index_eew < 0 && m->stride == 1ull << m->eew && !m->is_fault_first;
    for (uint32_t i = o->vstart; i < m->count;) {
        const uint32_t n = dense ? access_many(m, element_vaddr(m, i), i) : 0;
        if (!n && v_active(o, i) && !access_element(m, i))
            return 0;
        i += n ? n : 1;
    }
    v_end(o);
    return 0;
}

/* insn: the encoding; stride: the value of rs2, where it is one */
uint64_t helper_v_load(Hart *h, uint64_t insn, uint64_t base, uint64_t stride)
{
    VMem m;
    return begin(&m, h, (uint32_t)insn, base, stride, false) ? run(&m) : 0;
}

uint64_t helper_v_store(Hart *h, uint64_t insn, uint64_t base, uint64_t stride)
{
    VMem m;
    return begin(&m, h, (uint32_t)insn, base, stride, true) ? run(&m) : 0;
}

/* mem.c: accesses to guest memory that are not on the fast path, and physical memory.
 *
 * Here are MMIO, accesses on two pages, stores to watched pages, and what probes see. A store tells softmmu.c
 * before bytes of a watched page change.
 */
#include "mach_priv.h"
#include "probe.h"
#include "../guest/guest.h"

#include <string.h>

static uint64_t extend(uint64_t value, uint32_t mo)
{
    const uint32_t bits = 8u << (mo & MO_SIZE);
    if (bits == 64)
        return value;
    const uint64_t mask = (UINT64_C(1) << bits) - 1;
    value &= mask;
    if (mo & MO_BOX)
        return value | ~mask;
    if ((mo & MO_SIGN) && (value >> (bits - 1)))
        return value | ~mask;
    return value;
}

/* ---- probes ---- */

/* Up to 8 bytes; most are 4 or 8, an instruction of the host where memcpy of any size is a call. */
static uint64_t host_value(const uint8_t *host, uint32_t size)
{
    uint64_t value = 0;
    switch (size) {
    case 8:
        memcpy(&value, host, 8);
        break;
    case 4:
        memcpy(&value, host, 4);
        break;
    default:
        memcpy(&value, host, size);
        break;
    }
    return value;
}

static bool probes_ready(Hart *h, Access acc, uint64_t vaddr, uint64_t paddr)
{
    const ProbeKind kind = acc == ACC_WRITE ? PROBE_WRITE : PROBE_READ;
    return !probe_covers_page(h->m, kind, vaddr & WB_PAGE_MASK, paddr & WB_PAGE_MASK) || probe_ready(h, kind);
}

static void tell_access(Hart *h, ProbeKind kind, uint32_t op, uint64_t vaddr, uint64_t paddr, uint32_t size,
                        uint64_t value, uint64_t old)
{
    if (!probe_wants(h->m, kind))
        return;
    const Happening what = {.kind = kind,
                            .size = (uint8_t)size,
                            .op = (uint8_t)op,
                            .at = vaddr,
                            .paddr = paddr,
                            .a = vaddr,
                            .b = paddr,
                            .value = value,
                            .old = old};
    probe_tell(h, &what);
    if (probe_stopping(h->m))
        h->m->recheck = 1;
}

static void tell_mmio(Hart *h, uint64_t paddr, uint32_t size, Access acc, uint64_t value)
{
    if (!probe_wants(h->m, PROBE_MMIO))
        return;
    const Happening what = {.kind = PROBE_MMIO,
                            .size = (uint8_t)size,
                            .op = acc == ACC_WRITE,
                            .at = paddr,
                            .paddr = paddr,
                            .a = paddr,
                            .value = value};
    probe_tell(h, &what);
}

/* An access that is not in RAM. Returns false when the instruction must not complete. */
static bool mmio_access(Hart *h, uint64_t vaddr, uint64_t paddr, uint32_t size, Access acc, uint64_t *value)
{
    Machine *m = h->m;
    if (!(paddr & (size - 1)) && !probe_wants(m, PROBE_MMIO) &&
        (acc == ACC_WRITE ? io_write(m, paddr, size, *value) : io_read(m, paddr, size, value)))
        return true;
    if (h->cur_tb && !h->cur_tb->single) {
        h->leave = LEAVE_SINGLE;
        return false;
    }
    if (!probe_ready(h, PROBE_MMIO))
        return false;
    int rc = 1;
    m->recheck = 1;
    /* Devices take naturally aligned accesses only, as the bus of the board does. */
    if (!(paddr & (size - 1)))
        rc = acc == ACC_WRITE ? m->host.mmio_write(m->host.opaque, paddr, size, h->index, *value)
                              : m->host.mmio_read(m->host.opaque, paddr, size, h->index, value);
    if (rc < 0) {
        m->host_error = 1;
        rc = 0;
        *value = 0;
    }
    if (rc) {
        m->guest->raise_mem(h, vaddr, acc, m->guest->access_fault(acc));
        return false;
    }
    tell_mmio(h, paddr, size, acc, *value);
    return true;
}

/* Bytes on two pages: both translations first, so that a fault on the second leaves nothing done. */
static bool translate_span(Hart *h, uint64_t vaddr, uint32_t size, Access acc, uint64_t paddr[2])
{
    const uint64_t second = (vaddr + size - 1) & WB_PAGE_MASK;
    const uint32_t n0 = (uint32_t)(second - vaddr);
    if (!softmmu_translate(h, vaddr, n0, acc, &paddr[0]) ||
        !softmmu_translate(h, second, size - n0, acc, &paddr[1]))
        return false;
    if (!phys_is_ram(h->m, paddr[0], n0) || !phys_is_ram(h->m, paddr[1], size - n0)) {
        h->m->guest->raise_mem(h, vaddr, acc, h->m->guest->access_fault(acc));
        return false;
    }
    return true;
}

static bool spans_pages(uint64_t vaddr, uint32_t size)
{
    return (vaddr & ~WB_PAGE_MASK) + size > WB_PAGE_SIZE;
}

/* Generated code sends misaligned accesses here, most of which hit. */
static uint8_t *tlb_host(const TlbEntry *entries, uint64_t vaddr, uint32_t size)
{
    const TlbEntry *e = &entries[(vaddr >> WB_PAGE_BITS) & (TLB_SIZE - 1)];
    return ((vaddr + size - 1) & WB_PAGE_MASK) == e->tag ? (uint8_t *)(uintptr_t)(vaddr + e->addend) : NULL;
}

uint64_t softmmu_load(Hart *h, uint64_t vaddr, uint32_t mo)
{
    Machine *m = h->m;
    const uint32_t size = 1u << (mo & MO_SIZE);
    uint64_t value = 0, paddr[2];
    const uint8_t *host = tlb_host(h->dctx->rd, vaddr, size);
    if (host)
        return extend(host_value(host, size), mo);
    if (h->watched && m->guest->data_trigger(h, vaddr, size, ACC_READ))
        return 0;
    if (spans_pages(vaddr, size)) {
        if (!translate_span(h, vaddr, size, ACC_READ, paddr) || !probes_ready(h, ACC_READ, vaddr, paddr[0]) ||
            !probes_ready(h, ACC_READ, vaddr + size - 1, paddr[1]))
            return 0;
        const uint32_t n0 = WB_PAGE_SIZE - (uint32_t)(vaddr & ~WB_PAGE_MASK);
        memcpy(&value, m->ram + (paddr[0] - m->ram_base), n0);
        memcpy((uint8_t *)&value + n0, m->ram + (paddr[1] - m->ram_base), size - n0);
        tell_access(h, PROBE_READ, 0, vaddr, paddr[0], size, value, value);
        return extend(value, mo);
    }
    if (!softmmu_translate(h, vaddr, size, ACC_READ, paddr))
        return 0;
    if (!phys_is_ram(m, paddr[0], size))
        return mmio_access(h, vaddr, paddr[0], size, ACC_READ, &value) ? extend(value, mo) : 0;
    if (!probes_ready(h, ACC_READ, vaddr, paddr[0]))
        return 0;
    value = host_value(m->ram + (paddr[0] - m->ram_base), size);
    tell_access(h, PROBE_READ, 0, vaddr, paddr[0], size, value, value);
    return extend(value, mo);
}

/* The rules for a store to RAM: false when the instruction must first be run alone. */
static bool ram_will_store(Hart *h, uint64_t paddr, uint32_t size)
{
    Machine *m = h->m;
    const uint64_t page = ram_page(m, paddr);
    PageInfo *p = &m->page[page];
    page_mark_dirty(m, page);
    if (!(p->flags & (PAGE_CODE | PAGE_PT)))
        return true;
    const uint32_t offset = (uint32_t)(paddr & ~WB_PAGE_MASK);
    if ((p->flags & PAGE_CODE) && h->cur_tb && !h->cur_tb->single && tb_overlaps(m, page, offset, size)) {
        h->leave = LEAVE_SINGLE;
        return false;
    }
    if (softmmu_page_will_change(m, h, page, offset, size))
        h->leave = LEAVE_AFTER;
    return true;
}

void softmmu_store(Hart *h, uint64_t vaddr, uint64_t value, uint32_t mo)
{
    Machine *m = h->m;
    const uint32_t size = 1u << (mo & MO_SIZE);
    uint64_t paddr[2], old = 0;
    uint8_t *host = tlb_host(h->dctx->wr, vaddr, size);
    value = extend(value, mo & MO_SIZE);
    if (host) {
        memcpy(host, &value, size);
        return;
    }
    /* A page that is read before its first store costs the host two faults. */
    const bool told = probe_wants(m, PROBE_WRITE);
    if (h->watched && m->guest->data_trigger(h, vaddr, size, ACC_WRITE))
        return;
    if (spans_pages(vaddr, size)) {
        if (!translate_span(h, vaddr, size, ACC_WRITE, paddr) ||
            !probes_ready(h, ACC_WRITE, vaddr, paddr[0]) ||
            !probes_ready(h, ACC_WRITE, vaddr + size - 1, paddr[1]))
            return;
        const uint32_t n0 = WB_PAGE_SIZE - (uint32_t)(vaddr & ~WB_PAGE_MASK);
        if (!ram_will_store(h, paddr[0], n0) || !ram_will_store(h, paddr[1], size - n0))
            return;
        uint8_t *first = m->ram + (paddr[0] - m->ram_base), *second = m->ram + (paddr[1] - m->ram_base);
        if (told)
            old = host_value(first, n0) | host_value(second, size - n0) << (8 * n0);
        memcpy(first, &value, n0);
        memcpy(second, (uint8_t *)&value + n0, size - n0);
        tell_access(h, PROBE_WRITE, 1, vaddr, paddr[0], size, value, old);
        return;
    }
    if (!softmmu_translate(h, vaddr, size, ACC_WRITE, paddr))
        return;
    if (!phys_is_ram(m, paddr[0], size)) {
        mmio_access(h, vaddr, paddr[0], size, ACC_WRITE, &value);
        return;
    }
    if (!probes_ready(h, ACC_WRITE, vaddr, paddr[0]) || !ram_will_store(h, paddr[0], size))
        return;
    host = m->ram + (paddr[0] - m->ram_base);
    if (told)
        old = host_value(host, size);
    memcpy(host, &value, size);
    tell_access(h, PROBE_WRITE, 1, vaddr, paddr[0], size, value, old);
}

uint64_t mem_load(Hart *h, uint64_t vaddr, uint32_t mo)
{
    return softmmu_load(h, vaddr, mo);
}

void mem_store(Hart *h, uint64_t vaddr, uint64_t value, uint32_t mo)
{
    softmmu_store(h, vaddr, value, mo);
}

uint8_t *mem_rmw(Hart *h, uint64_t vaddr, uint32_t size)
{
    Machine *m = h->m;
    uint8_t *host = tlb_host(h->dctx->wr, vaddr, size);
    if (host)
        return host;
    uint64_t paddr;
    if (!softmmu_translate(h, vaddr, size, ACC_WRITE, &paddr))
        return NULL;
    if (!phys_is_ram(m, paddr, size)) {
        m->guest->raise_mem(h, vaddr, ACC_WRITE, m->guest->access_fault(ACC_WRITE));
        return NULL;
    }
    if (!probes_ready(h, ACC_READ, vaddr, paddr) || !probes_ready(h, ACC_WRITE, vaddr, paddr))
        return NULL;
    return ram_will_store(h, paddr, size) ? m->ram + (paddr - m->ram_base) : NULL;
}

void mem_rmw_done(Hart *h, uint64_t vaddr, const uint8_t *host, uint32_t size, uint64_t old)
{
    if (!probe_wants(h->m, PROBE_READ) && !probe_wants(h->m, PROBE_WRITE))
        return;
    const uint64_t paddr = (uint64_t)(host - h->m->ram) + h->m->ram_base;
    tell_access(h, PROBE_READ, 2, vaddr, paddr, size, old, old);
    tell_access(h, PROBE_WRITE, 2, vaddr, paddr, size, host_value(host, size), old);
}

/* ---- physical memory ---- */

bool phys_is_ram(const Machine *m, uint64_t paddr, uint64_t size)
{
    return paddr >= m->ram_base && size <= m->ram_size && paddr - m->ram_base <= m->ram_size - size;
}

uint64_t phys_load64(Machine *m, uint64_t paddr)
{
    uint64_t value;
    memcpy(&value, m->ram + (paddr - m->ram_base), 8);
    return value;
}

void phys_store64(Machine *m, uint64_t paddr, uint64_t value)
{
    phys_write(m, paddr, &value, 8);
}

bool phys_read(Machine *m, uint64_t paddr, void *data, uint64_t size)
{
    if (!phys_is_ram(m, paddr, size))
        return false;
    memcpy(data, m->ram + (paddr - m->ram_base), size);
    return true;
}

bool phys_write(Machine *m, uint64_t paddr, const void *data, uint64_t size)
{
    if (!phys_is_ram(m, paddr, size))
        return false;
    const uint8_t *src = data;
    while (size) {
        const uint32_t offset = (uint32_t)(paddr & ~WB_PAGE_MASK);
        const uint32_t n = size < WB_PAGE_SIZE - offset ? (uint32_t)size : WB_PAGE_SIZE - offset;
        PageInfo *p = &m->page[ram_page(m, paddr)];
        if (p->flags & (PAGE_CODE | PAGE_PT))
            softmmu_page_will_change(m, NULL, ram_page(m, paddr), offset, n);
        page_mark_dirty(m, ram_page(m, paddr));
        memcpy(m->ram + (paddr - m->ram_base), src, n);
        paddr += n;
        src += n;
        size -= n;
    }
    return true;
}

/* amo.c: load-reserved, store-conditional and read-modify-write. Harts run in turn, and a reservation ends
 * with the turn, so what is one instruction is atomic. SPEC: unprivileged, chapter 8 (A)
 */
#include <string.h>

#include "csr.h"
#include "riscv.h"

/* Raises the exception of an address that is not aligned to the access. AMOs are never split. */
static bool is_misaligned(Hart *h, uint64_t vaddr, uint32_t size, uint32_t cause)
{
    if (!(vaddr & (size - 1)))
        return false;
    riscv_raise(h, cause, vaddr);
    return true;
}

/* The paddr of a vaddr that the present context can read without a walk; ~0: not cached. */
static uint64_t cached_paddr(const Hart *h, uint64_t vaddr)
{
    const TlbEntry *e = &h->dctx->rd[(vaddr >> WB_PAGE_BITS) & (TLB_SIZE - 1)];
    if (e->tag != (vaddr & WB_PAGE_MASK))
        return ~0ull;
    return vaddr + e->addend - (uint64_t)(uintptr_t)h->m->ram + h->m->ram_base;
}

static inline uint64_t load_reserved(Hart *h, uint64_t vaddr, uint32_t mo)
{
    const uint32_t size = 1u << (mo & MO_SIZE);
    if (riscv_trigger_data(h, vaddr, size, ACC_READ) || is_misaligned(h, vaddr, size, EXC_LOAD_MISALIGNED))
        return 0;
    uint64_t paddr = cached_paddr(h, vaddr);
    if (paddr == ~0ull) {
        /* Reservations are for RAM, and to read a device changes it: so the walk comes before the load. */
        Walk w = {.size = (uint8_t)size};
        riscv_walk(h, vaddr, ACC_READ, false, &w);
        if (!w.ok || !phys_is_ram(h->m, w.paddr, size)) {
            riscv_raise_mem(h, vaddr, ACC_READ, w.ok ? EXC_LOAD_ACCESS : w.fault);
            return 0;
        }
        paddr = w.paddr;
    }
    const uint64_t value = mem_load(h, vaddr, mo);
    if (h->leave == LEAVE_NONE || h->leave == LEAVE_AFTER)
        h->g->reservation = paddr;
    return value;
}

uint64_t helper_lr_w(Hart *h, uint64_t vaddr, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return load_reserved(h, vaddr, MO_32 | MO_SIGN);
}

uint64_t helper_lr_d(Hart *h, uint64_t vaddr, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return load_reserved(h, vaddr, MO_64);
}

/* Whether a store there would fault, and the trap if so; nothing of it happens. */
static bool is_store_faulting(Hart *h, uint64_t vaddr, uint32_t size)
{
    Walk w = {.size = (uint8_t)size, .dry = 1};
    riscv_walk(h, vaddr, ACC_WRITE, false, &w);
    if (w.ok && phys_is_ram(h->m, w.paddr, size))
        return false;
    riscv_raise_mem(h, vaddr, ACC_WRITE, w.ok ? EXC_STORE_ACCESS : w.fault);
    return true;
}

/* Does the reservation hold for vaddr, as far as a load's translation tells? */
static bool is_reserved(Hart *h, uint64_t vaddr)
{
    if (h->g->reservation == ~0ull)
        return false;
    uint64_t paddr = cached_paddr(h, vaddr);
    if (paddr == ~0ull) {
        Walk w = {0};
        riscv_walk(h, vaddr, ACC_READ, true, &w);
        paddr = w.ok ? w.paddr : ~0ull;
    }
    return h->g->reservation == paddr;
}

/* One that fails takes the faults of a store, whether or not there is a reservation, but is none: D stays
 * clear. SPEC: unprivileged, 8.2; privileged, 4.3.1 */
static inline uint64_t store_conditional(Hart *h, uint64_t vaddr, uint64_t value, uint32_t size)
{
    GuestHart *g = h->g;
    if (riscv_trigger_data(h, vaddr, size, ACC_WRITE) || is_misaligned(h, vaddr, size, EXC_STORE_MISALIGNED))
        return 0;
    if (!is_reserved(h, vaddr)) {
        if (is_store_faulting(h, vaddr, size))
            return 0;
        g->reservation = ~0ull;
        return 1;
    }
    uint8_t *host = mem_rmw(h, vaddr, size);
    if (!host)
        return 0; /* a trap has dropped the reservation; what is run again needs it */
    g->reservation = ~0ull;
    uint64_t old = 0;
    memcpy(&old, host, size);
    memcpy(host, &value, size);
    mem_rmw_done(h, vaddr, host, size, old);
    return 0;
}

uint64_t helper_sc_w(Hart *h, uint64_t vaddr, uint64_t value, uint64_t c)
{
    (void)c;
    return store_conditional(h, vaddr, value, 4);
}

uint64_t helper_sc_d(Hart *h, uint64_t vaddr, uint64_t value, uint64_t c)
{
    (void)c;
    return store_conditional(h, vaddr, value, 8);
}

/* Both operands extended to 64 bits by their sign: that keeps the order of unsigned words too. */
static uint64_t amo_result(uint32_t op, uint64_t old, uint64_t value)
{
    switch (op) {
    case AMO_ADD:
        return old + value;
    case AMO_XOR:
        return old ^ value;
    case AMO_OR:
        return old | value;
    case AMO_AND:
        return old & value;
    case AMO_MIN:
        return (int64_t)old < (int64_t)value ? old : value;
    case AMO_MAX:
        return (int64_t)old > (int64_t)value ? old : value;
    case AMO_MINU:
        return old < value ? old : value;
    case AMO_MAXU:
        return old > value ? old : value;
    default: /* AMO_SWAP; the decoder lets no other value through */
        return value;
    }
}

uint64_t helper_amo_w(Hart *h, uint64_t vaddr, uint64_t value, uint64_t op)
{
    int32_t old;
    if (riscv_trigger_amo(h, vaddr, 4) || is_misaligned(h, vaddr, 4, EXC_STORE_MISALIGNED))
        return 0;
    uint8_t *host = mem_rmw(h, vaddr, 4);
    if (!host)
        return 0;
    memcpy(&old, host, 4);
    const uint32_t result =
        (uint32_t)amo_result((uint32_t)op, (uint64_t)(int64_t)old, (uint64_t)(int64_t)(int32_t)value);
    memcpy(host, &result, 4);
    mem_rmw_done(h, vaddr, host, 4, (uint32_t)old);
    return (uint64_t)(int64_t)old;
}

uint64_t helper_amo_d(Hart *h, uint64_t vaddr, uint64_t value, uint64_t op)
{
    uint64_t old;
    if (riscv_trigger_amo(h, vaddr, 8) || is_misaligned(h, vaddr, 8, EXC_STORE_MISALIGNED))
        return 0;
    uint8_t *host = mem_rmw(h, vaddr, 8);
    if (!host)
        return 0;
    memcpy(&old, host, 8);
    const uint64_t result = amo_result((uint32_t)op, old, value);
    memcpy(host, &result, 8);
    mem_rmw_done(h, vaddr, host, 8, old);
    return old;
}

/* cmo.c: cache-block operations. There are no caches to be seen, so all that is left of the managing ones is
 * who may use them and what they fault on. SPEC: unprivileged, chapter "CMO"; privileged, menvcfg and senvcfg
 */
#include "csr.h"
#include "riscv.h"

enum { CBO_INVAL, CBO_CLEAN, CBO_FLUSH, CBO_ZERO = 4 };

/* Do the envcfg registers of the modes above the present one let it? */
static bool is_enabled(const GuestHart *g, uint64_t bits)
{
    return (g->priv == PRV_M || (g->menvcfg & bits)) && (g->priv != PRV_U || (g->senvcfg & bits));
}

static bool is_allowed(const GuestHart *g, uint32_t op)
{
    return is_enabled(g, op == CBO_ZERO ? ENVCFG_CBZE : op == CBO_INVAL ? ENVCFG_CBIE : ENVCFG_CBCFE);
}

/* A managing operation may be done where a load or a store may, and there is no page to store to that cannot
 * be loaded from. It faults like a store. */
static void manage(Hart *h, uint64_t vaddr)
{
    Walk w = {0};
    riscv_walk(h, vaddr, ACC_READ, false, &w);
    if (!w.ok)
        riscv_raise(h, w.fault == EXC_LOAD_PAGE ? EXC_STORE_PAGE : EXC_STORE_ACCESS, vaddr);
}

static void zero(Hart *h, uint64_t vaddr)
{
    const uint64_t block = vaddr & ~(uint64_t)(CBO_BLOCK_BYTES - 1);
    if (riscv_trigger_data(h, block, CBO_BLOCK_BYTES, ACC_WRITE))
        return;
    /* All the checks first: a block that is not zeroed is not changed. */
    for (uint64_t at = block; at < block + CBO_BLOCK_BYTES; at += 8) {
        Walk w = {.size = 8, .dry = 1};
        riscv_walk(h, at, ACC_WRITE, false, &w);
        if (w.ok && !phys_is_ram(h->m, w.paddr, 8)) {
            w.ok = 0;
            w.fault = EXC_STORE_ACCESS;
        }
        if (!w.ok) {
            riscv_raise(h, w.fault, vaddr);
            return;
        }
        if (w.whole_page)
            break;
    }
    for (uint64_t at = block; at < block + CBO_BLOCK_BYTES; at += 8) {
        mem_store(h, at, 0, MO_64);
        if (h->leave != LEAVE_NONE && h->leave != LEAVE_AFTER)
            return; /* to be run again, alone */
    }
}

uint64_t helper_cbo(Hart *h, uint64_t insn, uint64_t vaddr, uint64_t unused)
{
    (void)unused;
    const uint32_t op = (uint32_t)insn >> 20;
    if (!is_allowed(h->g, op))
        riscv_raise(h, EXC_ILLEGAL, (uint32_t)insn);
    else if (op == CBO_ZERO)
        zero(h, vaddr);
    else
        manage(h, vaddr);
    return 0;
}

/* softmmu.h: guest memory as if there were no TLB and no instruction cache.
 *
 * Translations are cached in contexts, one for each (root, privilege, flags) key, so a change
 * of address space or privilege switches a pointer and drops nothing. Every PTE a
 * walk read is remembered by its page; a store to it (by a hart, a device or a debugger) drops what came
 * from it before the next access. Pages with translated code are watched the same way. Watching
 * takes the stores to a page off the fast path; other pages pay nothing.
 *
 * Fast path (generated code and interpreter alike), for an access of 2^n bytes at vaddr:
 *     i = (vaddr >> 12) & (TLB_SIZE - 1)
 *     e = &hart->dctx->rd[i]  (or wr)
 *     if (((vaddr + size - 1) & PAGE_MASK) == e->tag) host = vaddr + e->addend; else slow
 * Where loads are of physical addresses and nothing forbids or watches one in RAM, a comparison with its
 * bounds says what the entries of rd would, for 2^n bytes: if (vaddr - ram_base < hart->dctx->open[n]) host =
 * vaddr + (m->ram - m->ram_base)
 */
#ifndef WB_SOFTMMU_H
#define WB_SOFTMMU_H

#include "machine.h"

enum {
    TLB_BITS = 9,
    TLB_SIZE = 1 << TLB_BITS,
    FETCH_TLB_SIZE = 1 << 10, /* an entry that makes room takes its page's jumps along: see fetch_forget() */
    N_DCTX = 24,
    N_FCTX = 12,
    OPEN_SPANS = 10, /* open[] is for accesses within 1, 2, 4 … 512 bytes */
    JC_SIZE = 1 << 14,
    JC_PART_BITS = WB_PAGE_BITS - 6, /* a page has 64 parts: see FetchCtx.it */
};

typedef struct {
    uint64_t tag;    /* vaddr of the page; ~0 = empty */
    uint64_t addend; /* host address - vaddr */
} TlbEntry;
_Static_assert(sizeof(TlbEntry) == 16, "generated code indexes by 16");

struct DataCtx {
    /* Loads of 2^n bytes that begin less than this behind RAM's begin are open to all of RAM; 0: look up. */
    _Alignas(WB_PAGE_SIZE) uint64_t open[OPEN_SPANS];
    TlbEntry rd[TLB_SIZE]; /* the fast path's */
    TlbEntry wr[TLB_SIZE];
    TlbEntry slow_rd[TLB_SIZE]; /* the slow paths': also pages that are watched or probed */
    TlbEntry slow_wr[TLB_SIZE];
    uint64_t key;
    uint64_t used;
};

/* Where a jump to pc goes: TB.entry as it was when the run loop last came by. All zero is empty: what is
 * looked for is at its own index, and entry 0, which 0 has, never is all zero. */
typedef struct {
    uint64_t pc; /* odd: empty */
    const uint8_t *entry;
} JumpEntry;
_Static_assert(sizeof(JumpEntry) == 16, "generated code indexes by 16");

struct FetchCtx {
    _Alignas(WB_PAGE_SIZE) JumpEntry jc[JC_SIZE]; /* jump cache, valid in this context only … */
    TB *jc_tb[JC_SIZE]; /* … and the block of each entry, apart: generated code has no use for it */
    struct {
        uint64_t tag, page; /* vaddr of the page, paddr of the page */
        uint64_t parts;     /* bit n: the jump cache may have an entry of a pc in the page's 64th number n */
    } it[FETCH_TLB_SIZE];
    uint64_t key;
    uint64_t used;
};

/* Offset of a pc's entry in the jump cache: an lea and an AND of the host. A page's 2,048 pcs never share an
 * entry, and pcs at a distance that is a power of two, such as the cases of a switch, do so late. */
static inline uint32_t jc_offset(uint64_t pc)
{
    return (uint32_t)(pc + 8 * pc) & (JC_SIZE - 1) * (uint32_t)sizeof(JumpEntry);
}
static inline uint32_t jc_index(uint64_t pc)
{
    return jc_offset(pc) / (uint32_t)sizeof(JumpEntry);
}

typedef enum { ACC_READ, ACC_WRITE, ACC_EXEC } Access;

/* What to walk for, and what a page-table walk found. `fault` is the guest's own cause number. */
typedef struct {
    uint8_t size; /* bytes of the access, none of them beyond the page of vaddr; 0 counts as 1 */
    uint8_t dry;  /* the access is judged but does not happen: A and D stay as they are */
    uint64_t paddr;
    uint8_t ok;
    uint8_t writable;   /* a write to this page needs no further walk (D is set) */
    uint8_t readable;   /* a read needs no further walk */
    uint8_t whole_page; /* permissions hold for all of the 4 KiB page (PMP) */
    uint8_t open_ram;   /* nor does any read of RAM, whose addresses are physical ones */
    uint8_t n_ptes;
    uint8_t va_width; /* bits of a virtual address, the others repeat the highest; 0: all 64 */
    uint32_t fault;
    struct {
        uint64_t paddr;   /* of the PTE */
        uint64_t va_base; /* first virtual address that depends on it … */
        uint8_t va_bits;  /* … and log2 of how many do */
    } pte[6];
} Walk;

/* For helpers: virtual memory access of the present hart at the data regime.
 * On a fault the trap is taken, hart->leave set, and false/0 returned; on MMIO in a TB of many
 * instructions leave = LEAVE_SINGLE. A caller checks hart->leave before it goes on. */
uint64_t mem_load(Hart *h, uint64_t vaddr, uint32_t mo);
void mem_store(Hart *h, uint64_t vaddr, uint64_t value, uint32_t mo);
/* Host address of `size` bytes at an aligned vaddr in RAM, after a translation for writing (dirty
 * and watch rules applied as for a store); NULL: trap taken or LEAVE_SINGLE set. For read-modify-write. With
 * a result, leave may be LEAVE_AFTER: the caller finishes its instruction as usual. */
uint8_t *mem_rmw(Hart *h, uint64_t vaddr, uint32_t size);
/* Behind the store: tells probes. `old` is what was there. */
void mem_rmw_done(Hart *h, uint64_t vaddr, const uint8_t *host, uint32_t size, uint64_t old);

/* Slow paths of generated code. */
uint64_t softmmu_load(Hart *h, uint64_t vaddr, uint32_t mo);
void softmmu_store(Hart *h, uint64_t vaddr, uint64_t value, uint32_t mo);

/* Physical memory, for walks, DMA and debuggers: RAM only, with the rules for stores. */
bool phys_is_ram(const Machine *m, uint64_t paddr, uint64_t size);
uint64_t phys_load64(Machine *m, uint64_t paddr); /* paddr in RAM, aligned */
void phys_store64(Machine *m, uint64_t paddr, uint64_t value);
bool phys_read(Machine *m, uint64_t paddr, void *data, uint64_t size);
bool phys_write(Machine *m, uint64_t paddr, const void *data, uint64_t size);

/* The guest changed what decides on translation (satp, privilege, SUM, MXR, MPRV): choose contexts. */
void softmmu_regime_changed(Hart *h);
/* Something changed that no key holds (PMP): drop every translation of every hart. */
void softmmu_flush_all(Machine *m);

/* Fetch: virtual pc to paddr in RAM; false: trap taken. *whole: the permission holds for the whole page. */
bool softmmu_fetch(Hart *h, uint64_t vaddr, uint64_t *paddr, bool *whole);
/* The same for debuggers: no trap, no A or D update, nothing cached. */
bool softmmu_debug_translate(Hart *h, uint64_t vaddr, Access acc, uint64_t *paddr);

#endif

/* mmu.c: page-table walks and physical memory protection. A walk reads what is in memory now; what may be
 * cached of it, and for how long, is core/softmmu.c's business. SPEC: privileged 1.12, 3.7 and 4.3 to 4.5;
 * Svadu, Svnapot, Svpbmt
 *
 *   63  | 62 61 | 60   54  | 53   10 | 9 8 | 7 6 5 4 3 2 1 0
 *   N   | PBMT  | reserved | PPN     | RSW | D A G U X W R V
 */
#include "csr.h"
#include "riscv.h"

enum {
    PTE_V = 1,
    PTE_R = 2,
    PTE_W = 4,
    PTE_X = 8,
    PTE_U = 16,
    PTE_A = 64,
    PTE_D = 128,
    PTE_PPN_SHIFT = 10,
    VPN_BITS = 9,
    NAPOT_BITS = 16,
};
#define PADDR_LAST   ((1ull << 56) - 1)
#define PTE_RESERVED (0x7full << 54)
#define PTE_PBMT     (3ull << 61)
#define PTE_N        (1ull << 63)
#define PTE_ATTRS    (~0ull << 54)

/* ---- PMP ---- */

static uint8_t pmp_cfg(const GuestHart *g, uint32_t i)
{
    return (uint8_t)(g->pmpcfg[i / 8] >> (i % 8 * 8));
}

static void pmp_range(const GuestHart *g, uint32_t i, uint64_t *first, uint64_t *last)
{
    const uint64_t addr = g->pmpaddr[i];
    *first = 1, *last = 0;
    switch (pmp_cfg(g, i) & PMP_A) {
    case PMP_TOR: {
        const uint64_t bottom = i ? g->pmpaddr[i - 1] : 0;
        if (bottom < addr) {
            *first = bottom << 2;
            *last = (addr << 2) - 1;
        }
        break;
    }
    case PMP_NA4:
        *first = addr << 2;
        *last = *first + 3;
        break;
    case PMP_NAPOT: {
        /* addr = base with k low ones below a zero: 2^(k+3) bytes */
        const uint64_t ones = addr & ~(addr + 1);
        *first = (addr & ~ones) << 2;
        *last = *first + (ones << 3 | 7);
        break;
    }
    default:
        break;
    }
}

bool riscv_pmp_update(GuestHart *g)
{
    bool changed = false;
    g->pmp_used = g->pmp_open = g->pmp_locked = g->pmp_fine = 0;
    for (uint32_t i = 0; i < PMP_ENTRIES; i++) {
        const uint64_t cfg = pmp_cfg(g, i);
        uint64_t first, last;
        pmp_range(g, i, &first, &last);
        changed |= first != g->pmp[i].first || last != g->pmp[i].last || cfg != g->pmp[i].cfg;
        g->pmp[i].first = first;
        g->pmp[i].last = last;
        g->pmp[i].cfg = cfg;
        if (first > last)
            continue;
        if (!g->pmp_used)
            g->pmp_open = !first && last >= PADDR_LAST && (cfg & PMP_RWX) == PMP_RWX;
        g->pmp_used = i + 1;
        g->pmp_locked |= (cfg & PMP_L) != 0;
        g->pmp_fine |= (first | (last + 1)) & ~WB_PAGE_MASK;
    }
    return changed;
}

uint64_t riscv_pmpcfg_read(const GuestHart *g, uint32_t word)
{
    return g->pmpcfg[word];
}

bool riscv_pmpcfg_write(GuestHart *g, uint32_t word, uint64_t value)
{
    uint64_t merged = 0;
    for (uint32_t i = 0; i < 8; i++) {
        const uint64_t old = (g->pmpcfg[word] >> (8 * i)) & 0xff;
        uint64_t cfg = (value >> (8 * i)) & (PMP_L | PMP_A | PMP_RWX);
        /* SPEC: 3.7.1: R = 0 with W = 1 is reserved; the entry then permits nothing. */
        if ((cfg & (PMP_R | PMP_W)) == PMP_W)
            cfg &= ~(uint64_t)PMP_RWX;
        merged |= ((old & PMP_L) ? old : cfg) << (8 * i);
    }
    g->pmpcfg[word] = merged;
    return riscv_pmp_update(g);
}

bool riscv_pmpaddr_write(GuestHart *g, uint32_t entry, uint64_t value)
{
    /* SPEC: 3.7.1: a lock holds the address too, and for TOR that of the entry before, which is its bottom.
     */
    const uint8_t next = entry + 1 < PMP_ENTRIES ? pmp_cfg(g, entry + 1) : 0;
    if ((pmp_cfg(g, entry) & PMP_L) || ((next & PMP_L) && (next & PMP_A) == PMP_TOR))
        return false;
    g->pmpaddr[entry] = value & PMP_ADDR_MASK;
    return riscv_pmp_update(g);
}

/* Does the PMP let this mode do anything anywhere? */
static bool pmp_lets_all(const GuestHart *g, uint64_t priv)
{
    return g->pmp_open || (priv == PRV_M && !g->pmp_locked && !g->pmp_fine);
}

/* What a mode may do with `size` bytes at paddr, as PMP_R|W|X. *whole is cleared when another access to the
 * page may be judged otherwise. */
static uint32_t pmp_perms(const GuestHart *g, uint64_t paddr, uint32_t size, uint64_t priv, uint8_t *whole)
{
    if (pmp_lets_all(g, priv))
        return PMP_RWX;
    const uint64_t page = paddr & WB_PAGE_MASK, page_last = page + WB_PAGE_SIZE - 1;
    const uint64_t paddr_last = paddr + (size ? size - 1 : 0);
    for (uint32_t i = 0; i < g->pmp_used; i++) {
        const uint64_t first = g->pmp[i].first, last = g->pmp[i].last;
        if (first > page_last || last < page)
            continue;
        if (first > page || last < page_last)
            *whole = 0;
        if (paddr_last < first || paddr > last)
            continue;
        /* SPEC: 3.7.1: the lowest entry that has any of the bytes decides, and must have them all. */
        if (paddr < first || paddr_last > last)
            return 0;
        /* One that is not locked lets M-mode through. */
        const bool binds = priv != PRV_M || (g->pmp[i].cfg & PMP_L);
        return binds ? g->pmp[i].cfg & PMP_RWX : PMP_RWX;
    }
    return priv == PRV_M ? PMP_RWX : 0;
}

/* ---- keys ---- */

/* Loads and stores of M-mode with MPRV count as those of MPP. SPEC: 3.1.6.3 */
static uint64_t data_priv(const GuestHart *g)
{
    return g->mstatus & MSTATUS_MPRV ? (g->mstatus & MSTATUS_MPP) >> MSTATUS_MPP_SHIFT : g->priv;
}

static bool is_translated(const GuestHart *g, uint64_t priv)
{
    return priv != PRV_M && g->satp >> SATP_MODE_SHIFT != SATP_BARE;
}

/* Everything but the PTEs and the PMP that a translation hangs on. The ASID is not part of it: it promises
 * nothing that the law of no TLB does not give anyway.
 *
 *   63 | 62 .. 54                                 | 48..51 | 47 44 | 43  0
 *   1  | open bare plain vs PBMTE fs ADUE MXR SUM | priv   | MODE  | PPN
 */
static uint64_t root_key(const GuestHart *g, uint64_t priv)
{
    uint64_t key = 1ull << 63 | priv << 48;
    if (is_translated(g, priv)) {
        key |= (g->satp & SATP_PPN) | (g->satp >> SATP_MODE_SHIFT) << 44;
        key |= g->menvcfg & ENVCFG_ADUE ? 1ull << 56 : 0;
        key |= g->menvcfg & ENVCFG_PBMTE ? 1ull << 58 : 0;
    }
    return key;
}

uint64_t riscv_data_key(Hart *h)
{
    const GuestHart *g = h->g;
    const uint64_t priv = data_priv(g);
    uint64_t key = root_key(g, priv);
    if (!is_translated(g, priv))
        return key;
    if (priv == PRV_S && (g->mstatus & MSTATUS_SUM))
        key |= 1ull << 54;
    if (g->mstatus & MSTATUS_MXR)
        key |= 1ull << 55;
    return key;
}

uint64_t riscv_fetch_key(Hart *h)
{
    const GuestHart *g = h->g;
    const bool plain = h->m->sw.fp_plain && !g->fs_off && !g->frm && (g->fflags & FFLAGS_NX);
    const bool bare = h->m->sw.bare_mem && !is_translated(g, data_priv(g));
    const bool open = bare && h->m->sw.ram_bounds && !h->watched && pmp_lets_all(g, data_priv(g));
    return root_key(g, g->priv) | (g->fs_off ? 1ull << 57 : 0) | (g->vs_off ? 1ull << 59 : 0) |
           (uint64_t)plain << FETCH_KEY_FP_PLAIN_BIT | (uint64_t)bare << FETCH_KEY_BARE_BIT |
           (uint64_t)open << FETCH_KEY_OPEN_BIT;
}

/* ---- walks ---- */

uint32_t riscv_access_fault(Access acc)
{
    return acc == ACC_EXEC ? EXC_INSN_ACCESS : acc == ACC_WRITE ? EXC_STORE_ACCESS : EXC_LOAD_ACCESS;
}

static uint32_t page_fault(Access acc)
{
    return acc == ACC_EXEC ? EXC_INSN_PAGE : acc == ACC_WRITE ? EXC_STORE_PAGE : EXC_LOAD_PAGE;
}

static void walk_fail(Walk *w, uint32_t fault)
{
    w->ok = 0;
    w->fault = fault;
}

/* What a leaf permits, as PMP_R|W|X. SPEC: 4.3.1, 3.1.6.3 */
static uint32_t leaf_perms(const GuestHart *g, uint64_t pte, uint64_t priv)
{
    uint32_t perms = (pte & PTE_R ? PMP_R : 0) | (pte & PTE_W ? PMP_W : 0) | (pte & PTE_X ? PMP_X : 0);
    if ((g->mstatus & MSTATUS_MXR) && (pte & PTE_X))
        perms |= PMP_R;
    if (priv == PRV_U)
        return pte & PTE_U ? perms : 0;
    if (pte & PTE_U)
        return g->mstatus & MSTATUS_SUM ? perms & ~(uint32_t)PMP_X : 0;
    return perms;
}

static uint32_t needed_perm(Access acc)
{
    return acc == ACC_EXEC ? PMP_X : acc == ACC_WRITE ? PMP_W : PMP_R;
}

/* The end of every walk: the PMP on the address found, and what may be cached. */
static bool finish(const GuestHart *g, uint64_t priv, Access acc, bool debug, uint32_t perms, Walk *w)
{
    w->whole_page = 1;
    perms &= pmp_perms(g, w->paddr, w->size, priv, &w->whole_page);
    if (!debug && !(perms & needed_perm(acc))) {
        walk_fail(w, riscv_access_fault(acc));
        return false;
    }
    w->ok = 1;
    w->readable = (perms & PMP_R) != 0;
    w->writable = (perms & PMP_W) != 0;
    return true;
}

/* Reads the PTE at `at`; false: the walk has failed. SPEC: 4.3.2 step 2 */
static bool load_pte(Hart *h, uint64_t at, Access acc, bool debug, uint64_t *pte, Walk *w)
{
    uint8_t whole = 1;
    if (!phys_is_ram(h->m, at, 8) || (!debug && !(pmp_perms(h->g, at, 8, PRV_S, &whole) & PMP_R))) {
        walk_fail(w, riscv_access_fault(acc));
        return false;
    }
    *pte = phys_load64(h->m, at);
    return true;
}

/* SPEC: Svpbmt: reserved until menvcfg.PBMTE asks for it; 3 is for ever. The types are all one here. */
static bool is_memory_type(const GuestHart *g, uint64_t pte)
{
    return !(pte & PTE_PBMT) || ((g->menvcfg & ENVCFG_PBMTE) && (pte & PTE_PBMT) != PTE_PBMT);
}

/* Steps 5 to 7 of SPEC 4.3.2 on a leaf that covers 2^bits bytes. A and D are set last, so a failed
 * access changes nothing. */
static void leaf(Hart *h, uint64_t vaddr, Access acc, bool debug, uint64_t at, uint64_t pte, uint8_t bits,
                 Walk *w)
{
    const GuestHart *g = h->g;
    const uint64_t priv = acc == ACC_EXEC ? g->priv : data_priv(g);
    uint64_t base = (pte & ~PTE_ATTRS) >> PTE_PPN_SHIFT << WB_PAGE_BITS;
    const bool napot = pte & PTE_N;
    const uint64_t mask = (1ull << (napot ? NAPOT_BITS : bits)) - 1;
    uint32_t perms = leaf_perms(g, pte, priv);
    bool fits = !(base & mask);
    if (napot) {
        /* SPEC: Svnapot: 64 KiB on the last level, told by bit 3 of the PPN, are all there is. */
        fits = bits == WB_PAGE_BITS && (base & mask) == 1ull << (NAPOT_BITS - 1);
        base &= ~mask;
    }
    if ((!debug && !(perms & needed_perm(acc))) || !fits || !is_memory_type(g, pte)) {
        walk_fail(w, page_fault(acc));
        return;
    }
    const uint64_t want = pte | PTE_A | (acc == ACC_WRITE ? PTE_D : 0);
    if (want != pte && !debug && !(g->menvcfg & ENVCFG_ADUE)) {
        walk_fail(w, page_fault(acc));
        return;
    }
    if (!(want & PTE_D))
        perms &= ~(uint32_t)PMP_W; /* the first store must come back here */
    w->paddr = base | (vaddr & mask);
    if (!finish(g, priv, acc, debug, perms, w) || debug || w->dry || want == pte)
        return;
    uint8_t whole = 1;
    if (pmp_perms(g, at, 8, PRV_S, &whole) & PMP_W)
        phys_store64(h->m, at, want);
    else
        walk_fail(w, riscv_access_fault(acc));
}

void riscv_walk(Hart *h, uint64_t vaddr, Access acc, bool debug, Walk *w)
{
    const GuestHart *g = h->g;
    const uint64_t priv = acc == ACC_EXEC ? g->priv : data_priv(g);
    w->n_ptes = w->va_width = 0;
    w->paddr = vaddr;
    if (!is_translated(g, priv)) {
        if (finish(g, priv, acc, debug, PMP_RWX, w))
            w->open_ram = pmp_lets_all(g, priv);
        return;
    }
    const int levels = (int)(g->satp >> SATP_MODE_SHIFT) - SATP_SV39 + 3;
    const int unused = 64 - (WB_PAGE_BITS + VPN_BITS * levels);
    w->va_width = (uint8_t)(64 - unused);
    /* SPEC: 4.4.1: the bits above the virtual address are copies of its highest. */
    if ((uint64_t)((int64_t)(vaddr << unused) >> unused) != vaddr) {
        walk_fail(w, page_fault(acc));
        return;
    }
    uint64_t table = (g->satp & SATP_PPN) << WB_PAGE_BITS;
    for (int level = levels - 1; level >= 0; level--) {
        const uint8_t bits = (uint8_t)(WB_PAGE_BITS + VPN_BITS * level);
        const uint64_t at = table + ((vaddr >> bits) & ((1u << VPN_BITS) - 1)) * 8;
        uint64_t pte;
        if (!load_pte(h, at, acc, debug, &pte, w))
            return;
        w->pte[w->n_ptes].paddr = at;
        w->pte[w->n_ptes].va_base = vaddr >> bits << bits;
        w->pte[w->n_ptes++].va_bits = bits;
        if (!(pte & PTE_V) || (pte & (PTE_R | PTE_W)) == PTE_W || (pte & PTE_RESERVED))
            break;
        if (pte & (PTE_R | PTE_X)) {
            leaf(h, vaddr, acc, debug, at, pte, bits, w);
            return;
        }
        /* SPEC: 4.3.1, Svnapot, Svpbmt: these are reserved in a pointer to the next level. */
        if (pte & (PTE_A | PTE_D | PTE_U | PTE_ATTRS))
            break;
        table = pte >> PTE_PPN_SHIFT << WB_PAGE_BITS;
    }
    walk_fail(w, page_fault(acc));
}

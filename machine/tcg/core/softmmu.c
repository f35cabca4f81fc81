/* softmmu.c: the translation caches: filled by walks, dropped by stores. See softmmu.h for the law.
 *
 * Why nothing stale is ever used: a cached translation depends on (1) the key of its context and (2) the PTEs
 * its walk read. (1) is compared when a context is chosen; (2) every PTE's page is PAGE_PT, its stores come
 * here, and its slot has a bit in PtPage.used as long as a translation may have come from it.
 */
#include "mach_priv.h"
#include "hostmem.h"
#include "probe.h"
#include "../guest/guest.h"

#include <stdlib.h>
#include <string.h>

enum { PTES = WB_PAGE_SIZE / 8 };

/* A page that page-table walks read. */
typedef struct PtPage {
    uint64_t used[PTES / 64]; /* a cached translation may have come from this slot */
    uint64_t va;              /* first virtual address below this page, when mixed = 0; not sign-extended */
    uint32_t n_used;
    uint8_t va_bits;  /* log2 of the bytes that one slot covers */
    uint8_t va_width; /* of the walks that led here */
    uint8_t mixed;    /* reached in more than one way: any change drops everything */
} PtPage;

#define EMPTY (~UINT64_C(0))

bool softmmu_init(Machine *m)
{
    const uint64_t words = pageset_words(m->ram_pages);
    m->page = hostmem_map(m->ram_pages * sizeof(PageInfo));
    m->walked = calloc(words, sizeof(*m->walked));
    m->dirty = calloc(words, sizeof(*m->dirty));
    m->made = calloc(words, sizeof(*m->made));
    return m->page && m->walked && m->dirty && m->made;
}

/* What is known of page tables. */
static void forget_walks(Machine *m)
{
    const uint64_t words = pageset_words(m->ram_pages);
    for (uint64_t i = pageset_next(m->walked, words, 0); i < m->ram_pages;
         i = pageset_next(m->walked, words, i)) {
        free(m->page[i].pt);
        m->page[i].pt = NULL;
        m->page[i].flags &= (uint8_t)~PAGE_PT;
        pageset_drop(m->walked, i);
    }
}

void softmmu_deinit(Machine *m)
{
    if (m->page && m->walked)
        forget_walks(m);
    hostmem_unmap(m->page, m->ram_pages * sizeof(PageInfo));
    free(m->walked);
    free(m->dirty);
    free(m->made);
}

bool softmmu_init_hart(Hart *h)
{
    h->dctxs = hostmem_map(N_DCTX * sizeof(DataCtx));
    h->fctxs = hostmem_map(N_FCTX * sizeof(FetchCtx));
    return h->dctxs && h->fctxs;
}

void softmmu_deinit_hart(Hart *h)
{
    hostmem_unmap(h->dctxs, N_DCTX * sizeof(DataCtx));
    hostmem_unmap(h->fctxs, N_FCTX * sizeof(FetchCtx));
}

/* ---- contexts ---- */

static void dctx_clear(DataCtx *c)
{
    memset(c->open, 0, sizeof(c->open));
    memset(c->rd, 0xff, sizeof(c->rd));
    memset(c->wr, 0xff, sizeof(c->wr));
    memset(c->slow_rd, 0xff, sizeof(c->slow_rd));
    memset(c->slow_wr, 0xff, sizeof(c->slow_wr));
}

static void jc_forget(FetchCtx *c, uint64_t pc)
{
    JumpEntry *e = &c->jc[jc_index(pc)];
    if (e->pc == pc)
        e->pc = EMPTY;
}

/* The jumps to the page of fetch translation i. */
static void jc_forget_page(FetchCtx *c, uint32_t i)
{
    for (uint64_t parts = c->it[i].parts; parts; parts &= parts - 1) {
        const uint64_t first = c->it[i].tag + ((uint64_t)__builtin_ctzll(parts) << JC_PART_BITS);
        for (uint64_t pc = first; pc < first + (1u << JC_PART_BITS); pc += 2)
            jc_forget(c, pc);
    }
    c->it[i].parts = 0;
}

static void jc_clear(FetchCtx *c)
{
    for (uint32_t i = 0; i < FETCH_TLB_SIZE; i++)
        jc_forget_page(c, i);
}

static void fctx_clear(FetchCtx *c)
{
    jc_clear(c);
    for (uint32_t i = 0; i < FETCH_TLB_SIZE; i++)
        c->it[i].tag = EMPTY;
}

static DataCtx *dctx_get(Hart *h, uint64_t key)
{
    DataCtx *found = &h->dctxs[0];
    for (uint32_t i = 0; i < h->n_dctxs; i++) {
        DataCtx *c = &h->dctxs[i];
        if (c->key == key) {
            c->used = ++h->ctx_clock;
            return c;
        }
        if (c->used < found->used)
            found = c;
    }
    if (h->n_dctxs < N_DCTX) {
        found = &h->dctxs[h->n_dctxs++];
        hostmem_populate(found, sizeof(*found));
    }
    dctx_clear(found);
    found->key = key;
    found->used = ++h->ctx_clock;
    return found;
}

static FetchCtx *fctx_get(Hart *h, uint64_t key)
{
    FetchCtx *found = &h->fctxs[0];
    for (uint32_t i = 0; i < h->n_fctxs; i++) {
        FetchCtx *c = &h->fctxs[i];
        if (c->key == key) {
            c->used = ++h->ctx_clock;
            return c;
        }
        if (c->used < found->used)
            found = c;
    }
    if (h->n_fctxs < N_FCTX) {
        found = &h->fctxs[h->n_fctxs++];
        hostmem_populate(found, sizeof(*found));
        found->jc[0].pc = EMPTY;
    }
    fctx_clear(found);
    found->key = key;
    found->used = ++h->ctx_clock;
    return found;
}

void softmmu_regime_changed(Hart *h)
{
    const uint64_t dkey = h->m->guest->data_key(h), fkey = h->m->guest->fetch_key(h);
    if (!h->dctx || h->dctx->key != dkey)
        h->dctx = dctx_get(h, dkey);
    if (!h->fctx || h->fctx->key != fkey)
        h->fctx = fctx_get(h, fkey);
}

/* What is known of write entries; pages without a dirty bit have none. */
static void forget_fast(Machine *m)
{
    const uint64_t words = pageset_words(m->ram_pages);
    for (uint64_t i = pageset_next(m->dirty, words, 0); i < m->ram_pages;
         i = pageset_next(m->dirty, words, i + 1))
        m->page[i].any_fast = m->page[i].many_fast = 0;
}

void softmmu_flush_all(Machine *m)
{
    for (uint32_t i = 0; i < m->n_harts; i++) {
        Hart *h = m->hart[i];
        for (uint32_t k = 0; k < h->n_dctxs; k++)
            dctx_clear(&h->dctxs[k]);
        for (uint32_t k = 0; k < h->n_fctxs; k++)
            fctx_clear(&h->fctxs[k]);
    }
    forget_fast(m);
    forget_walks(m);
}

void softmmu_clear_jump_caches(Machine *m)
{
    for (uint32_t i = 0; i < m->n_harts; i++)
        for (uint32_t k = 0; k < m->hart[i]->n_fctxs; k++)
            jc_clear(&m->hart[i]->fctxs[k]);
}

void softmmu_remember_tb(Hart *h, TB *tb)
{
    FetchCtx *c = h->fctx;
    const uint32_t i = jc_index(tb->pc);
    c->jc[i] = (JumpEntry){.pc = tb->pc, .entry = tb->entry};
    c->jc_tb[i] = tb;
    c->it[(tb->pc >> WB_PAGE_BITS) & (FETCH_TLB_SIZE - 1)].parts |=
        UINT64_C(1) << ((tb->pc & ~WB_PAGE_MASK) >> JC_PART_BITS);
}

void softmmu_forget_tb(Machine *m, const TB *tb)
{
    for (uint32_t i = 0; i < m->n_harts; i++)
        for (uint32_t k = 0; k < m->hart[i]->n_fctxs; k++) {
            FetchCtx *c = &m->hart[i]->fctxs[k];
            if (c->jc_tb[jc_index(tb->pc)] == tb)
                jc_forget(c, tb->pc);
        }
}

/* ---- what makes a store slow ---- */

/* Fast write entries that lead to this page go, wherever they are. */
static void page_drop_fast(Machine *m, uint64_t page)
{
    PageInfo *p = &m->page[page];
    if (!p->any_fast)
        return;
    const uint64_t host = (uint64_t)(uintptr_t)(m->ram + (page << WB_PAGE_BITS));
    const uint32_t first = p->many_fast ? 0 : (p->fast_vpage >> WB_PAGE_BITS) & (TLB_SIZE - 1);
    const uint32_t last = p->many_fast ? TLB_SIZE - 1 : first;
    for (uint32_t i = 0; i < m->n_harts; i++)
        for (uint32_t k = 0; k < m->hart[i]->n_dctxs; k++)
            for (uint32_t j = first; j <= last; j++) {
                TlbEntry *e = &m->hart[i]->dctxs[k].wr[j];
                if (e->tag != EMPTY && e->tag + e->addend == host)
                    e->tag = EMPTY;
            }
    p->any_fast = p->many_fast = 0;
}

void softmmu_page_watched(Machine *m, uint64_t page)
{
    page_drop_fast(m, page);
}

static void entry_set(TlbEntry *entries, const Machine *m, uint64_t vpage, uint64_t page)
{
    TlbEntry *e = &entries[(vpage >> WB_PAGE_BITS) & (TLB_SIZE - 1)];
    e->tag = vpage;
    e->addend = (uint64_t)(uintptr_t)(m->ram + (page << WB_PAGE_BITS)) - vpage;
}

static uint64_t page_paddr(const Machine *m, uint64_t page)
{
    return m->ram_base + (page << WB_PAGE_BITS);
}

static void fill_write(Hart *h, uint64_t vpage, uint64_t page)
{
    PageInfo *p = &h->m->page[page];
    if (p->flags & (PAGE_CODE | PAGE_PT) || !page_is_dirty(h->m, page) ||
        probe_covers_page(h->m, PROBE_WRITE, vpage, page_paddr(h->m, page)) ||
        (h->watched && h->m->guest->watches_page(h, ACC_WRITE, vpage)))
        return;
    entry_set(h->dctx->wr, h->m, vpage, page);
    if (p->any_fast && p->fast_vpage != vpage)
        p->many_fast = 1;
    p->any_fast = 1;
    p->fast_vpage = vpage;
}

/* What open[] says goes with the entries of rd, when either is dropped for a reason that is not a PTE. */
static void fill_open(Hart *h)
{
    const Machine *m = h->m;
    if (probe_wants(m, PROBE_READ) || h->watched)
        return;
    for (uint32_t n = 0; n < OPEN_SPANS; n++)
        h->dctx->open[n] = m->ram_size - (UINT64_C(1) << n) + 1;
}

static void fill_read(Hart *h, uint64_t vpage, uint64_t page)
{
    if (!probe_covers_page(h->m, PROBE_READ, vpage, page_paddr(h->m, page)) &&
        !(h->watched && h->m->guest->watches_page(h, ACC_READ, vpage)))
        entry_set(h->dctx->rd, h->m, vpage, page);
}

/* Memory of the host is made ready some pages at a time: a guest that begins to fill some soon fills the
 * next. */
static void span_make(Machine *m, uint64_t page)
{
    enum { SPAN = 16 };
    const uint64_t first = page / SPAN * SPAN, left = m->ram_pages - first;
    if (pageset_has(m->made, page / SPAN))
        return;
    pageset_put(m->made, page / SPAN);
    hostmem_populate(m->ram + (first << WB_PAGE_BITS), (left < SPAN ? left : SPAN) << WB_PAGE_BITS);
}

void softmmu_first_store(Machine *m, uint64_t page)
{
    m->ram_used = 1;
    if (pageset_has(m->lent, page))
        snapshot_keep(m, page);
    span_make(m, page);
    pageset_put(m->dirty, page);
}

void softmmu_ram_prepare(Machine *m, uint64_t first, uint64_t n)
{
    for (uint64_t i = first; i < first + n; i++)
        span_make(m, i);
}

void softmmu_ram_cleared(Machine *m)
{
    memset(m->made, 0, pageset_words(m->ram_pages) * sizeof(*m->made));
    m->ram_used = 0;
}

void softmmu_dirty(Machine *m, uint64_t *set, bool clear)
{
    const uint64_t words = pageset_words(m->ram_pages);
    if (set)
        wb_set_add(set, m->dirty, words);
    if (!clear)
        return;
    forget_fast(m);
    memset(m->dirty, 0, words * sizeof(*m->dirty));
    for (uint32_t i = 0; i < m->n_harts; i++)
        for (uint32_t k = 0; k < m->hart[i]->n_dctxs; k++)
            memset(m->hart[i]->dctxs[k].wr, 0xff, sizeof(m->hart[i]->dctxs[k].wr));
}

/* ---- page tables ---- */

/* Drops one fetch translation. Blocks are in the jump cache only as long as their pages' translations
 * are here; one that begins with the last two bytes of the page before may end on this one. */
static void fetch_forget(FetchCtx *c, uint32_t i)
{
    jc_forget_page(c, i);
    jc_forget(c, c->it[i].tag - 2);
    c->it[i].tag = EMPTY;
}

static void entry_drop(TlbEntry *e, uint64_t mask, uint64_t va)
{
    if ((e->tag & mask) == va)
        e->tag = EMPTY;
}

/* Drops what is cached for a virtual range in every context; returns whether a fetch translation of `h`'s
 * present context was among it. Contexts of other roots lose entries too: that is only work, never wrong. */
static bool drop_range(Machine *m, const Hart *cur, uint64_t va, uint8_t va_bits)
{
    const bool one = va_bits <= WB_PAGE_BITS;
    const uint64_t mask = va_bits >= 64 ? 0 : ~((UINT64_C(1) << va_bits) - 1);
    const uint32_t page = (uint32_t)(va >> WB_PAGE_BITS);
    const uint32_t first = one ? page & (TLB_SIZE - 1) : 0, last = one ? first : TLB_SIZE - 1;
    const uint32_t fetch_first = one ? page & (FETCH_TLB_SIZE - 1) : 0;
    const uint32_t fetch_last = one ? fetch_first : FETCH_TLB_SIZE - 1;
    bool fetch = false;
    m->stat_pt_drops++;
    for (uint32_t i = 0; i < m->n_harts; i++) {
        Hart *h = m->hart[i];
        for (uint32_t k = 0; k < h->n_dctxs; k++)
            for (uint32_t j = first; j <= last; j++) {
                DataCtx *c = &h->dctxs[k];
                entry_drop(&c->slow_rd[j], mask, va);
                entry_drop(&c->slow_wr[j], mask, va);
                entry_drop(&c->rd[j], mask, va);
                entry_drop(&c->wr[j], mask, va);
            }
        for (uint32_t k = 0; k < h->n_fctxs; k++)
            for (uint32_t j = fetch_first; j <= fetch_last; j++)
                if (h->fctxs[k].it[j].tag != EMPTY && (h->fctxs[k].it[j].tag & mask) == va) {
                    fetch_forget(&h->fctxs[k], j);
                    fetch |= h == cur && &h->fctxs[k] == h->fctx;
                }
    }
    return fetch;
}

static uint64_t va_cut(uint64_t va, uint8_t width)
{
    return width && width < 64 ? va & ((UINT64_C(1) << width) - 1) : va;
}

static uint64_t va_extend(uint64_t va, uint8_t width)
{
    return width && width < 64 ? (uint64_t)((int64_t)(va << (64 - width)) >> (64 - width)) : va;
}

static void pt_note(Machine *m, const Walk *w)
{
    for (uint32_t i = 0; i < w->n_ptes; i++) {
        PageInfo *p = &m->page[ram_page(m, w->pte[i].paddr)];
        const uint32_t slot = (w->pte[i].paddr & ~WB_PAGE_MASK) / 8;
        const uint8_t bits = w->pte[i].va_bits;
        /* A root's halves are one range without the sign extension. */
        const uint64_t va = va_cut(w->pte[i].va_base - ((uint64_t)slot << bits), w->va_width);
        if (!p->pt) {
            p->pt = calloc(1, sizeof(*p->pt));
            if (!p->pt)
                abort(); /* without it a stale translation would be used in silence */
            pageset_put(m->walked, ram_page(m, w->pte[i].paddr));
        }
        if (!p->pt->n_used) {
            p->pt->va = va;
            p->pt->va_bits = bits;
            p->pt->va_width = w->va_width;
            p->pt->mixed = 0;
        } else if (p->pt->va != va || p->pt->va_bits != bits || p->pt->va_width != w->va_width) {
            p->pt->mixed = 1;
        }
        uint64_t *word = &p->pt->used[slot / 64];
        const uint64_t bit = UINT64_C(1) << (slot % 64);
        if (!(*word & bit)) {
            *word |= bit;
            p->pt->n_used++;
        }
        if (!(p->flags & PAGE_PT)) {
            p->flags |= PAGE_PT;
            page_drop_fast(m, ram_page(m, w->pte[i].paddr));
        }
    }
}

static bool pt_slot_changed(Machine *m, const Hart *cur, PtPage *pt, uint32_t slot)
{
    uint64_t *word = &pt->used[slot / 64];
    const uint64_t bit = UINT64_C(1) << (slot % 64);
    if (!(*word & bit))
        return false;
    *word &= ~bit;
    pt->n_used--;
    if (pt->mixed)
        return drop_range(m, cur, 0, 64);
    return drop_range(m, cur, va_extend(pt->va + ((uint64_t)slot << pt->va_bits), pt->va_width), pt->va_bits);
}

bool softmmu_page_will_change(Machine *m, const Hart *cur, uint64_t page, uint32_t offset, uint32_t size)
{
    PageInfo *p = &m->page[page];
    bool fetch = false;
    if (p->flags & PAGE_CODE) {
        m->stat_code_writes++;
        tb_invalidate(m, page, offset, size);
    }
    if (p->flags & PAGE_PT) {
        for (uint32_t slot = offset / 8; slot <= (offset + size - 1) / 8; slot++)
            fetch |= pt_slot_changed(m, cur, p->pt, slot);
        if (!p->pt->n_used)
            p->flags &= (uint8_t)~PAGE_PT;
    }
    return fetch;
}

/* ---- translation ---- */

bool softmmu_translate(Hart *h, uint64_t vaddr, uint32_t size, Access acc, uint64_t *paddr)
{
    Machine *m = h->m;
    const uint64_t vpage = vaddr & WB_PAGE_MASK;
    const TlbEntry *e = acc == ACC_READ ? h->dctx->slow_rd : h->dctx->slow_wr;
    e += (vaddr >> WB_PAGE_BITS) & (TLB_SIZE - 1);
    if (e->tag == vpage) {
        *paddr = vaddr + e->addend - (uint64_t)(uintptr_t)m->ram + m->ram_base;
        if (acc == ACC_WRITE) {
            page_mark_dirty(m, ram_page(m, *paddr));
            fill_write(h, vpage, ram_page(m, *paddr));
        }
        return true;
    }
    Walk w = {.size = (uint8_t)size};
    m->stat_walks++;
    m->guest->walk(h, vaddr, acc, false, &w);
    if (!w.ok) {
        m->guest->raise_mem(h, vaddr, acc, w.fault);
        return false;
    }
    *paddr = w.paddr;
    if (!phys_is_ram(m, w.paddr, 1) || !w.whole_page)
        return true;
    pt_note(m, &w);
    const uint64_t page = ram_page(m, w.paddr);
    if (acc == ACC_WRITE)
        page_mark_dirty(m, page);
    if (w.readable) {
        entry_set(h->dctx->slow_rd, m, vpage, page);
        fill_read(h, vpage, page);
        if (w.open_ram)
            fill_open(h);
    }
    if (w.writable) {
        entry_set(h->dctx->slow_wr, m, vpage, page);
        fill_write(h, vpage, page);
    }
    return true;
}

bool softmmu_fetch(Hart *h, uint64_t vaddr, uint64_t *paddr, bool *whole)
{
    Machine *m = h->m;
    const uint64_t vpage = vaddr & WB_PAGE_MASK;
    FetchCtx *c = h->fctx;
    const uint32_t i = (vaddr >> WB_PAGE_BITS) & (FETCH_TLB_SIZE - 1);
    *whole = true;
    if (c->it[i].tag == vpage) {
        *paddr = c->it[i].page | (vaddr & ~WB_PAGE_MASK);
        return true;
    }
    Walk w = {0};
    m->stat_walks++;
    m->guest->walk(h, vaddr, ACC_EXEC, false, &w);
    if (w.ok && !phys_is_ram(m, w.paddr, 2)) {
        w.ok = 0;
        w.fault = m->guest->access_fault(ACC_EXEC);
    }
    if (!w.ok) {
        m->guest->raise_mem(h, vaddr, ACC_EXEC, w.fault);
        return false;
    }
    *paddr = w.paddr;
    *whole = w.whole_page;
    if (w.whole_page) {
        pt_note(m, &w);
        if (c->it[i].tag != EMPTY)
            fetch_forget(c, i);
        c->it[i].tag = vpage;
        c->it[i].page = w.paddr & WB_PAGE_MASK;
    }
    return true;
}

bool softmmu_debug_translate(Hart *h, uint64_t vaddr, Access acc, uint64_t *paddr)
{
    Walk w = {0};
    h->m->guest->walk(h, vaddr, acc, true, &w);
    *paddr = w.paddr;
    return w.ok;
}

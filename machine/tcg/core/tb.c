/* tb.c: translated blocks: finding, making, linking and dropping them.
 *
 * A block is identified by (paddr, pc, flags, single): by the bytes it was made from and by what the
 * translation took for constant. A store to its bytes drops it before the next instruction is
 * fetched. Memory of dropped blocks is given back when everything is flushed, so a
 * block may drop itself while it runs.
 */
#include "softmmu.h"
#include "hostmem.h"
#include "mach_priv.h"
#include "probe.h"
#include "../guest/guest.h"
#include "../host/host.h"

#include <stdlib.h>
#include <string.h>

enum {
    HASH_BITS = 17,
    CHUNK_BYTES = 1 << 20,
    LINE_BYTES = 64,                     /* of the host's cache */
    CODE_LINE_BYTES = WB_PAGE_SIZE / 64, /* see PageInfo.code_lines */
};

typedef struct Chunk {
    _Alignas(LINE_BYTES) struct Chunk *next;
    size_t used, ready; /* bytes from the chunk's begin on; see hostmem_fill() */
} Chunk;

struct TbCache {
    TB *hash[1 << HASH_BITS];
    Chunk *chunks;
    uint64_t bytes; /* in use */
    IrBlock ir;
};

bool tb_init(Machine *m)
{
    m->tbs = hostmem_map(sizeof(*m->tbs));
    if (!m->tbs)
        return false;
    hostmem_populate(m->tbs, sizeof(m->tbs->hash));
    return true;
}

static void chunks_free(TbCache *c)
{
    while (c->chunks) {
        Chunk *next = c->chunks->next;
        hostmem_unmap(c->chunks, CHUNK_BYTES);
        c->chunks = next;
    }
    c->bytes = 0;
}

void tb_deinit(Machine *m)
{
    if (!m->tbs)
        return;
    chunks_free(m->tbs);
    hostmem_unmap(m->tbs, sizeof(*m->tbs));
    m->tbs = NULL;
}

/* Whole cache lines. */
static void *arena_alloc(TbCache *c, size_t size)
{
    size = (size + LINE_BYTES - 1) & ~(size_t)(LINE_BYTES - 1);
    if (!c->chunks || c->chunks->used + size > CHUNK_BYTES) {
        Chunk *chunk = hostmem_map(CHUNK_BYTES);
        if (!chunk)
            abort(); /* nothing the guest could be told; a silent stop would be a wrong run */
        chunk->next = c->chunks;
        chunk->used = sizeof(*chunk);
        c->chunks = chunk;
    }
    Chunk *chunk = c->chunks;
    void *p = (uint8_t *)chunk + chunk->used;
    chunk->used += size;
    chunk->ready = hostmem_fill(chunk, CHUNK_BYTES, chunk->ready, chunk->used);
    c->bytes += size;
    return p;
}

static uint32_t tb_hash(uint64_t paddr, uint64_t pc, uint32_t flags, bool single)
{
    uint64_t x = paddr ^ (pc << 20) ^ flags * UINT64_C(0x51ed27) ^ (uint64_t)single << 57;
    x *= UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(x >> (64 - HASH_BITS));
}

void tb_flush_all(Machine *m)
{
    TbCache *c = m->tbs;
    probe_blocks_gone(m);
    if (c->bytes) { /* there are blocks; a switch may be set before there are any */
        memset(c->hash, 0, sizeof(c->hash));
        chunks_free(c);
        for (uint64_t i = 0; i < m->ram_pages; i++) {
            m->page[i].tbs = NULL;
            m->page[i].code_lines = 0;
            m->page[i].flags &= (uint8_t)~PAGE_CODE;
        }
        softmmu_clear_jump_caches(m);
        for (uint32_t i = 0; i < m->n_harts; i++)
            m->hart[i]->exit_tb = NULL;
    }
    if (m->code)
        host_reset(m->code);
    m->flush_wanted = 0;
    m->stat_tb_flushes++;
}

/* ---- linking ---- */

static void chain_unlink(Machine *m, TB *from, uint32_t slot)
{
    Chain *ch = &from->chain[slot];
    TB *to = ch->dest;
    if (!to)
        return;
    TB **holder = &to->in_tb;
    uint16_t *holder_slot = &to->in_slot;
    while (*holder != from || *holder_slot != slot) {
        Chain *at = &(*holder)->chain[*holder_slot];
        holder = &at->next_in_tb;
        holder_slot = &at->next_in_slot;
    }
    *holder = ch->next_in_tb;
    *holder_slot = ch->next_in_slot;
    ch->dest = NULL;
    if (from->code)
        host_patch(m->code, from, slot, NULL);
}

void tb_link(Machine *m, TB *from, uint32_t slot, TB *to)
{
    /* Both on one virtual page: as long as this page's fetch translation stands, so does the link. */
    if (!m->sw.chain || !from->valid || !to->valid || from->single || to->single ||
        to->paddr2 != ~UINT64_C(0) || ((from->pc ^ to->pc) & WB_PAGE_MASK) ||
        ((from->paddr ^ to->paddr) & WB_PAGE_MASK) || from->flags != to->flags || slot >= from->n_exits ||
        from->chain[slot].target != to->pc)
        return;
    Chain *ch = &from->chain[slot];
    if (ch->dest != to) {
        chain_unlink(m, from, slot);
        ch->dest = to;
        ch->next_in_tb = to->in_tb;
        ch->next_in_slot = to->in_slot;
        to->in_tb = from;
        to->in_slot = (uint16_t)slot;
    }
    if (from->code && to->code)
        host_patch(m->code, from, slot, to);
}

/* ---- dropping ---- */

static void page_list_remove(Machine *m, uint64_t page, TB *tb)
{
    TB **p = &m->page[page].tbs;
    while (*p != tb)
        p = &(*p)->page_next[ram_page(m, (*p)->paddr) != page];
    *p = tb->page_next[ram_page(m, tb->paddr) != page];
    if (!m->page[page].tbs)
        m->page[page].flags &= (uint8_t)~PAGE_CODE;
}

static void tb_drop(Machine *m, TB *tb)
{
    TB **p = &m->tbs->hash[tb_hash(tb->paddr, tb->pc, tb->flags, tb->single)];
    while (*p != tb)
        p = &(*p)->hash_next;
    *p = tb->hash_next;
    page_list_remove(m, ram_page(m, tb->paddr), tb);
    if (tb->paddr2 != ~UINT64_C(0) && ram_page(m, tb->paddr2) != ram_page(m, tb->paddr))
        page_list_remove(m, ram_page(m, tb->paddr2), tb);
    for (uint32_t i = 0; i < tb->n_exits; i++)
        chain_unlink(m, tb, i);
    while (tb->in_tb)
        chain_unlink(m, tb->in_tb, tb->in_slot);
    softmmu_forget_tb(m, tb);
    for (uint32_t i = 0; i < m->n_harts; i++)
        if (m->hart[i]->exit_tb == tb)
            m->hart[i]->exit_tb = NULL;
    tb->valid = 0;
}

/* The lines of a page that have bytes from lo up to hi. */
static uint64_t lines(uint32_t lo, uint32_t hi)
{
    return lo < hi ? ~UINT64_C(0) << lo / CODE_LINE_BYTES & ~UINT64_C(0) >> (63 - (hi - 1) / CODE_LINE_BYTES)
                   : 0;
}

static uint64_t tb_lines(const Machine *m, const TB *tb, uint64_t page)
{
    const bool second = tb->paddr2 != ~UINT64_C(0) && ram_page(m, tb->paddr2) == page;
    return (ram_page(m, tb->paddr) == page ? lines(tb->lo, tb->hi) : 0) | (second ? lines(0, 2) : 0);
}

static bool tb_touches(const Machine *m, const TB *tb, uint64_t page, uint32_t offset, uint32_t size)
{
    if (ram_page(m, tb->paddr) == page && offset < tb->hi && offset + size > tb->lo)
        return true;
    return tb->paddr2 != ~UINT64_C(0) && ram_page(m, tb->paddr2) == page && offset < 2;
}

static TB *page_next(const Machine *m, const TB *tb, uint64_t page)
{
    return tb->page_next[ram_page(m, tb->paddr) != page];
}

/* Data beside code is written often, and a page may have hundreds of blocks. */
static bool on_code_lines(const Machine *m, uint64_t page, uint32_t offset, uint32_t size)
{
    return m->page[page].code_lines & lines(offset, offset + size);
}

bool tb_overlaps(const Machine *m, uint64_t page, uint32_t offset, uint32_t size)
{
    if (!on_code_lines(m, page, offset, size))
        return false;
    for (const TB *tb = m->page[page].tbs; tb; tb = page_next(m, tb, page))
        if (tb_touches(m, tb, page, offset, size))
            return true;
    return false;
}

void tb_invalidate(Machine *m, uint64_t page, uint32_t offset, uint32_t size)
{
    if (!on_code_lines(m, page, offset, size))
        return;
    uint64_t left = 0;
    for (TB *tb = m->page[page].tbs, *next; tb; tb = next) {
        next = page_next(m, tb, page);
        if (tb_touches(m, tb, page, offset, size))
            tb_drop(m, tb);
        else
            left |= tb_lines(m, tb, page);
    }
    m->page[page].code_lines = left;
}

static bool has_insn_at(const TB *tb, uint64_t pc)
{
    if ((tb->pc ^ pc) & WB_PAGE_MASK) /* most blocks are of another page: these cost one cache line */
        return false;
    for (uint32_t i = 0; i < tb->n_insns; i++)
        if (tb_insn_pc(tb, i) == pc)
            return true;
    return false;
}

void tb_invalidate_pcs(Machine *m, const uint64_t *pcs, uint32_t n)
{
    for (uint32_t i = 0; i < 1u << HASH_BITS; i++) {
        for (TB *tb = m->tbs->hash[i], *next; tb; tb = next) {
            next = tb->hash_next;
            bool hit = false;
            for (uint32_t k = 0; k < n && !hit; k++)
                hit = has_insn_at(tb, pcs[k]);
            if (hit)
                tb_drop(m, tb);
        }
    }
}

/* ---- making ---- */

static void tb_set_extent(TB *tb, const IrBlock *ir)
{
    uint32_t lo = WB_PAGE_SIZE, hi = 0;
    for (uint32_t i = 0; i < ir->n_insns; i++) {
        const uint32_t off = ir->insn_pc[i] & 0xffe;
        const uint32_t end = off + ((ir->insn_pc[i] & 1) ? 4 : 2);
        lo = off < lo ? off : lo;
        hi = end > hi ? end : hi;
    }
    tb->lo = (uint16_t)lo;
    tb->hi = (uint16_t)(hi > WB_PAGE_SIZE ? WB_PAGE_SIZE : hi);
}

static void page_watch_code(Machine *m, uint64_t page, TB *tb, int which)
{
    tb->page_next[which] = m->page[page].tbs;
    m->page[page].tbs = tb;
    m->page[page].code_lines |= tb_lines(m, tb, page);
    if (!(m->page[page].flags & PAGE_CODE)) {
        m->page[page].flags |= PAGE_CODE;
        softmmu_page_watched(m, page);
    }
}

static TB *tb_translate(Hart *h, uint64_t paddr, uint64_t paddr2, uint32_t flags, bool single)
{
    Machine *m = h->m;
    TbCache *c = m->tbs;
    if (c->bytes >= m->tb_cache_bytes)
        tb_flush_all(m);
    IrBlock *ir = &c->ir;
    ir->n_ops = ir->n_insns = ir->n_temps = ir->n_exits = 0;
    const uint8_t *page = m->ram + ((paddr - m->ram_base) & WB_PAGE_MASK);
    const uint8_t *next = paddr2 == ~UINT64_C(0) ? NULL : m->ram + (paddr2 - m->ram_base);
    m->guest->translate(h, ir, h->pc, flags, page, next, single || next ? 1 : m->tb_max_insns);
    ir_mark_ends(ir);
    if (m->sw.optimise && !single)
        ir_optimise(ir, m->guest->helpers, m->sw.words);

    const uint32_t n_ops = ir_pack(ir, NULL);
    const size_t ops_size = n_ops * sizeof(IrOp), chain_size = ir->n_exits * sizeof(Chain),
                 pcs_size = ir->n_insns * sizeof(uint16_t);
    TB *tb = arena_alloc(c, sizeof(*tb) + ops_size + chain_size + pcs_size);
    memset(tb, 0, sizeof(*tb));
    tb->pc = h->pc;
    tb->paddr = paddr;
    tb->paddr2 = paddr2;
    tb->flags = flags;
    tb->single = single;
    tb->entry = m->code ? host_cold_entry(m->code) : NULL;
    tb->n_insns = (uint16_t)ir->n_insns;
    tb->n_ops = (uint16_t)n_ops;
    tb->n_exits = (uint16_t)ir->n_exits;
    tb->ops = (IrOp *)(void *)(tb + 1);
    ir_pack(ir, tb->ops);
    tb->chain = (Chain *)(void *)(tb->ops + n_ops);
    memset(tb->chain, 0, chain_size);
    tb->insn_pc = (uint16_t *)(void *)(tb->chain + ir->n_exits);
    memcpy(tb->insn_pc, ir->insn_pc, pcs_size);
    for (uint32_t i = 0; i < tb->n_ops; i++)
        if (tb->ops[i].op == IR_BRCOND || tb->ops[i].op == IR_GOTO)
            tb->chain[tb->ops[i].exit].target = tb->ops[i].imm2;
    tb_set_extent(tb, ir);

    TB **bucket = &c->hash[tb_hash(paddr, h->pc, flags, single)];
    tb->hash_next = *bucket;
    *bucket = tb;
    page_watch_code(m, ram_page(m, paddr), tb, 0);
    if (paddr2 != ~UINT64_C(0) && ram_page(m, paddr2) != ram_page(m, paddr))
        page_watch_code(m, ram_page(m, paddr2), tb, 1);
    tb->valid = 1;
    m->stat_tb_translated++;
    if (probe_counts_blocks(m))
        probe_block_made(m, tb);
    return tb;
}

bool tb_compile(Machine *m, TB *tb)
{
    if (tb->code)
        return true;
    if (!m->sw.jit || !m->code || tb->single || !tb->valid)
        return false;
    if (!host_compile(m->code, m, tb)) {
        m->flush_wanted = 1; /* no room: everything goes before the next block */
        return false;
    }
    m->stat_tb_compiled++;
    /* Links made while either end was cold become jumps now. */
    for (uint32_t i = 0; i < tb->n_exits; i++)
        if (tb->chain[i].dest && tb->chain[i].dest->code)
            host_patch(m->code, tb, i, tb->chain[i].dest);
    TB *in = tb->in_tb;
    for (uint32_t slot = tb->in_slot; in;) {
        Chain *ch = &in->chain[slot];
        if (in->code)
            host_patch(m->code, in, slot, tb);
        in = ch->next_in_tb;
        slot = ch->next_in_slot;
    }
    return true;
}

/* Reads the guest's code, which is a cache miss as often as not. */
static bool is_long_insn(const Machine *m, uint64_t paddr)
{
    uint16_t low;
    memcpy(&low, m->ram + (paddr - m->ram_base), 2);
    return m->guest->insn_bytes(low) == 4;
}

TB *tb_find(Hart *h, bool single)
{
    Machine *m = h->m;
    const uint64_t pc = h->pc;
    if (m->flush_wanted)
        tb_flush_all(m);
    JumpEntry *e = &h->fctx->jc[jc_index(pc)];
    if (!single && e->pc == pc) {
        TB *tb = h->fctx->jc_tb[jc_index(pc)];
        e->entry = tb->entry; /* it may have been cold */
        return tb;
    }
    uint64_t paddr, paddr2 = ~UINT64_C(0);
    bool whole;
    if (!softmmu_fetch(h, pc, &paddr, &whole))
        return NULL;
    if ((pc & ~WB_PAGE_MASK) == WB_PAGE_SIZE - 2) {
        bool second = true;
        if (is_long_insn(m, paddr) && !softmmu_fetch(h, pc + 2, &paddr2, &second))
            return NULL;
        whole &= second;
    } else if (!whole && is_long_insn(m, paddr)) {
        uint64_t rest; /* its second half may be closed */
        if (!softmmu_fetch(h, pc + 2, &rest, &whole))
            return NULL;
        whole = false;
    }
    /* A page whose permissions do not hold for all of it is looked up again for each instruction. */
    const bool alone = single || !whole;
    const uint32_t flags = m->guest->tb_flags(h);
    TB *tb = m->tbs->hash[tb_hash(paddr, pc, flags, alone)];
    while (tb && !(tb->pc == pc && tb->paddr == paddr && tb->paddr2 == paddr2 && tb->flags == flags &&
                   tb->single == alone))
        tb = tb->hash_next;
    if (!tb)
        tb = tb_translate(h, paddr, paddr2, flags, alone);
    if (!alone)
        softmmu_remember_tb(h, tb);
    return tb;
}

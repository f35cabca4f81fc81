/* mach_priv.h: what the core's own files share, and nobody else sees. */
#ifndef WB_MACH_PRIV_H
#define WB_MACH_PRIV_H

#include "pageset.h"
#include "snapshot.h"
#include "softmmu.h"

typedef struct TbCache TbCache;

/* What is known of one RAM page. */
enum {
    PAGE_CODE = 1, /* holds translated code */
    PAGE_PT = 2,   /* a cached translation came from PTEs in it */
};
typedef struct PageInfo {
    TB *tbs;             /* blocks with bytes in this page */
    uint64_t code_lines; /* a bit for each 64 bytes of it: no other line has bytes of a block */
    struct PtPage *pt;   /* with PAGE_PT */
    uint64_t fast_vpage; /* the one virtual page through which stores to it are fast; see many_fast */
    uint8_t flags;
    uint8_t any_fast;  /* some write entry of some context leads here */
    uint8_t many_fast; /* from more than one virtual page */
} PageInfo;

static inline uint64_t ram_page(const Machine *m, uint64_t paddr)
{
    return (paddr - m->ram_base) >> WB_PAGE_BITS;
}

/* Pages written since these bits were last taken; a page without its bit has no fast stores. */
static inline bool page_is_dirty(const Machine *m, uint64_t page)
{
    return pageset_has(m->dirty, page);
}

void softmmu_first_store(Machine *m, uint64_t page);

/* Before a page changes. */
static inline void page_mark_dirty(Machine *m, uint64_t page)
{
    if (!page_is_dirty(m, page))
        softmmu_first_store(m, page);
}

bool softmmu_init(Machine *m);
void softmmu_deinit(Machine *m);
bool softmmu_init_hart(Hart *h);
void softmmu_deinit_hart(Hart *h);
/* Stores to this page must take the slow path from now on. */
void softmmu_page_watched(Machine *m, uint64_t page);
/* Translates an access of `size` bytes within one page; false: the trap is taken. */
bool softmmu_translate(Hart *h, uint64_t vaddr, uint32_t size, Access acc, uint64_t *paddr);
/* Before bytes of a watched page change. Returns whether the present fetch translation went. */
bool softmmu_page_will_change(Machine *m, const Hart *cur, uint64_t page, uint32_t offset, uint32_t size);
/* Puts a block into the jump cache of the hart's present context, where its pages' translations are. */
void softmmu_remember_tb(Hart *h, TB *tb);
void softmmu_forget_tb(Machine *m, const TB *tb);
void softmmu_clear_jump_caches(Machine *m);
/* Before pages of RAM are filled. */
void softmmu_ram_prepare(Machine *m, uint64_t first, uint64_t n);
/* After all of RAM has become memory that is not touched yet. */
void softmmu_ram_cleared(Machine *m);
/* Adds the pages with dirty bits to a set, if there is one; `clear` takes the bits. */
void softmmu_dirty(Machine *m, uint64_t *set, bool clear);

#endif

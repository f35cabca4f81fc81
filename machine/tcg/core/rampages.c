/* rampages.c: RAM and its pages, for Python (cdef.h): read, written, cleared, restored, hashed, copied. */
#include "mach_priv.h"
#include "../guest/guest.h"
#include "api.h"
#include "hostmem.h"

#include <string.h>

uint8_t *wb_ram(Machine *m)
{
    return m->ram;
}

int wb_phys_read(Machine *m, uint64_t paddr, void *data, uint64_t size)
{
    return phys_read(m, paddr, data, size) ? 0 : -1;
}

int wb_phys_write(Machine *m, uint64_t paddr, const void *data, uint64_t size)
{
    for (uint32_t i = 0; i < m->n_harts; i++)
        m->guest->turn_ended(m->hart[i]);
    return phys_write(m, paddr, data, size) ? 0 : -1;
}

void wb_ram_prepare(Machine *m, uint64_t first, uint64_t n)
{
    softmmu_ram_prepare(m, first, n);
}

void wb_ram_clear(Machine *m)
{
    tb_flush_all(m);
    softmmu_flush_all(m);
    softmmu_dirty(m, NULL, true);
    snapshot_keep_all(m);
    if (!m->ram_used)
        return; /* what wb_ram_prepare() has made ready stays so */
    hostmem_clear(m->ram, m->ram_size);
    softmmu_ram_cleared(m);
}

/* Lines that stay keep the blocks and the translations that came from them. */
static void restore_page(Machine *m, uint64_t at, const uint8_t *data)
{
    enum { LINE = 64 };
    for (uint32_t i = 0; i < WB_PAGE_SIZE; i += LINE)
        if (memcmp(m->ram + at + i, data + i, LINE))
            phys_write(m, m->ram_base + at + i, data + i, LINE);
}

uint64_t wb_ram_restore(Machine *m, const uint32_t *pages, uint64_t n, const uint8_t *data, uint32_t *changed)
{
    uint64_t found = 0;
    for (uint64_t i = 0; i < n; i++, data += WB_PAGE_SIZE) {
        const uint64_t at = (uint64_t)pages[i] << WB_PAGE_BITS;
        if (pages[i] < m->ram_pages && memcmp(m->ram + at, data, WB_PAGE_SIZE)) {
            restore_page(m, at, data);
            changed[found++] = pages[i];
        }
    }
    return found;
}

int wb_translate(Machine *m, uint32_t hart, uint64_t vaddr, int access, uint64_t *paddr)
{
    return softmmu_debug_translate(m->hart[hart], vaddr, (Access)access, paddr) ? 0 : -1;
}

void wb_dirty_pages(Machine *m, uint64_t *set, int clear)
{
    softmmu_dirty(m, set, clear != 0);
}

static const uint64_t LANE[4] = {UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xc2b2ae3d27d4eb4f),
                                 UINT64_C(0x165667b19e3779f9), UINT64_C(0xd6e8feb86659fd93)};

static inline uint64_t hash_word(uint64_t lane, const uint8_t *data, uint64_t k)
{
    uint64_t w;
    memcpy(&w, data, 8);
    const unsigned __int128 p = (unsigned __int128)(lane ^ w) * k;
    return (uint64_t)p + (lane << 1 | lane >> 63) + (uint64_t)(p >> 64);
}

/* Four lanes of multiply and fold, so that the host's multiplier is kept busy; not an array, which the
 * compiler would keep in memory. `next` is what is read after it: the host's own prefetching ends with a
 * page. */
static void hash_page(const uint8_t *data, const uint8_t *next, uint64_t seed, uint64_t out[2])
{
    uint64_t a = (seed + 1) * LANE[0], b = (seed + 1) * LANE[1];
    uint64_t c = (seed + 1) * LANE[2], d = (seed + 1) * LANE[3];
    for (uint32_t at = 0; at < WB_PAGE_SIZE; at += 32) {
        if (at % 64 == 0)
            __builtin_prefetch(next + at);
        a = hash_word(a, data + at, LANE[0]);
        b = hash_word(b, data + at + 8, LANE[1]);
        c = hash_word(c, data + at + 16, LANE[2]);
        d = hash_word(d, data + at + 24, LANE[3]);
    }
    out[0] = (a ^ (b << 23 | b >> 41)) * LANE[2] + d;
    out[1] = (c ^ (d << 31 | d >> 33)) * LANE[0] + b;
}

static void add_page(uint64_t out[2], const uint64_t h[2])
{
    out[0] = (out[0] << 5 | out[0] >> 59) * 3 + h[0];
    out[1] = (out[1] << 7 | out[1] >> 57) * 5 + h[1];
}

void wb_checksum(const uint8_t *data, uint64_t n, uint64_t out[2])
{
    out[0] = out[1] = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t h[2];
        const uint8_t *page = data + i * WB_PAGE_SIZE;
        hash_page(page, i + 1 < n ? page + WB_PAGE_SIZE : page, i, h);
        add_page(out, h);
    }
}

void wb_hash_pages(Machine *m, const uint32_t *pages, uint64_t n, uint64_t out[2])
{
    out[0] = out[1] = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t h[2];
        if (pages[i] >= m->ram_pages)
            continue;
        const uint32_t next = i + 1 < n && pages[i + 1] < m->ram_pages ? pages[i + 1] : pages[i];
        hash_page(m->ram + ((uint64_t)pages[i] << WB_PAGE_BITS), m->ram + ((uint64_t)next << WB_PAGE_BITS),
                  pages[i], h);
        add_page(out, h);
    }
}

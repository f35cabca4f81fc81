/* rampages.c: RAM and its pages, for Python (cdef.h): read, written, cleared, restored. */
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

/* io.c: see io.h. */
#include "io.h"
#include "api.h"
#include "mach_priv.h"

#include <string.h>

enum { NS_PER_TICK = 100 };

static uint64_t low_bytes(uint64_t value, uint32_t size)
{
    return size == 8 ? value : value & ((UINT64_C(1) << (8 * size)) - 1);
}

bool io_read(Machine *m, uint64_t paddr, uint32_t size, uint64_t *value)
{
    for (uint32_t i = 0; paddr && i < IO_STEADY_MAX; i++)
        if (m->io.steady[i].paddr == paddr) {
            *value = low_bytes(m->io.steady[i].value, size);
            return true;
        }
    const bool high = size == 4 && paddr == m->io.time_paddr + 4;
    if (!m->io.time_paddr || !(high || (size >= 4 && paddr == m->io.time_paddr)))
        return false;
    const uint64_t ticks = mach_vtime(m, mach_icount(m)) / NS_PER_TICK + m->time_offset;
    *value = low_bytes(high ? ticks >> 32 : ticks, size);
    return true;
}

bool io_write(Machine *m, uint64_t paddr, uint32_t size, uint64_t value)
{
    Io *io = &m->io;
    const uint8_t byte = (uint8_t)value;
    if (!io->print_paddr || paddr != io->print_paddr || byte == '\n' || io->printed + 1 >= io->room)
        return false;
    io->text[io->printed++] = byte;
    io->icount = mach_icount(m);
    io->vtime_ns = mach_vtime(m, io->icount);
    return true;
}

/* ---- for Python ---- */

int wb_io_steady(Machine *m, uint64_t paddr, uint64_t value, int on)
{
    for (uint32_t pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < IO_STEADY_MAX; i++) {
            if (m->io.steady[i].paddr != (pass ? 0 : paddr))
                continue;
            if (on || !pass)
                m->io.steady[i].paddr = on ? paddr : 0;
            m->io.steady[i].value = value;
            return 0;
        }
    return on ? -1 : 0;
}

void wb_io_time(Machine *m, uint64_t paddr)
{
    m->io.time_paddr = paddr;
}

void wb_io_print(Machine *m, uint64_t paddr)
{
    m->io.print_paddr = paddr;
}

void wb_io_print_room(Machine *m, uint32_t room)
{
    m->io.room = room < IO_TEXT_MAX ? room : IO_TEXT_MAX;
}

uint32_t wb_io_printed(Machine *m, uint8_t *text, uint64_t *icount, uint64_t *vtime_ns)
{
    const uint32_t n = m->io.printed;
    memcpy(text, m->io.text, n);
    *icount = m->io.icount;
    *vtime_ns = m->io.vtime_ns;
    m->io.printed = 0;
    return n;
}

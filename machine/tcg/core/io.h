/* io.h: device registers that are answered without asking the host.
 *
 * What is here is a cache of what devices would say, so no part of the state: a device tells anew whenever it
 * has changed, was reset or loaded. Such an access has no effect but the text, so it needs no end of its
 * block.
 */
#ifndef WB_IO_H
#define WB_IO_H

#include <stdbool.h>
#include <stdint.h>

enum { IO_STEADY_MAX = 4, IO_TEXT_MAX = 4096 };

typedef struct {
    struct {
        uint64_t paddr, value; /* reads of any width have no effect, and give this; paddr 0: unused */
    } steady[IO_STEADY_MAX];
    uint64_t time_paddr;  /* of a 64-bit count of ticks; 0: none */
    uint64_t print_paddr; /* writes of any width print their low byte, and do nothing else; 0: none */
    uint32_t room;        /* a byte that leaves no room after it goes to the host, as a newline does */
    uint32_t printed;
    uint64_t icount, vtime_ns; /* of the last byte */
    uint8_t text[IO_TEXT_MAX];
} Io;

struct Machine;
/* A naturally aligned access outside RAM; false: it is the host's. */
bool io_read(struct Machine *m, uint64_t paddr, uint32_t size, uint64_t *value);
bool io_write(struct Machine *m, uint64_t paddr, uint32_t size, uint64_t value);

#endif

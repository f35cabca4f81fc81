/* pagehash.h: a fast hash of pages, which finds what differs by accident; BLAKE2b (blake2b.h) is for names.
 */
#ifndef WB_PAGEHASH_H
#define WB_PAGEHASH_H

#include <stdint.h>

/* Takes one page more into a sum that began as zeros: its number and contents. `next` is what is read after
 * it, and only makes that faster. */
void pagehash_add(uint64_t sum[2], uint64_t number, const uint8_t *data, const uint8_t *next);

#endif

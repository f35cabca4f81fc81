/* hostmem.h: the host's memory for what is large: mapped, made ready, given back. */
#ifndef WB_HOSTMEM_H
#define WB_HOSTMEM_H

#include <stddef.h>
#include <stdint.h>

/* Zeros that cost nothing until they are touched, where calloc clears what has been used before; NULL: none.
 */
void *hostmem_map(size_t size);
/* The same in the first 2 GiB, where there is room. */
void *hostmem_map_low(size_t size);
void hostmem_unmap(void *at, size_t size); /* at may be NULL */
/* Zeros again, untouched. */
void hostmem_clear(void *at, size_t size);
/* Before stores to these bytes: a fault for each page of the host takes half as long again. */
void hostmem_populate(void *at, size_t size);

/* The same for memory that fills up from its begin, as `needed` bytes of it are to be used: `ready` of them
 * have been made ready before; returns how many are then. */
size_t hostmem_fill(void *begin, size_t size, size_t ready, size_t needed);

#endif

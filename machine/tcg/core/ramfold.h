/* ramfold.h: a digest of RAM that is kept up to date page by page.
 *
 * The sum modulo 2^256, over all pages that are not all zeros, of BLAKE2b-256 of (page number as 8 bytes,
 * little endian; BLAKE2b-256 of the contents), read as a big-endian number. A sum does not depend on the
 * order, so it costs what changed. No machine is needed: contents may be RAM's or copies of it. */
#ifndef WB_RAMFOLD_H
#define WB_RAMFOLD_H

#include "api.h"

#endif

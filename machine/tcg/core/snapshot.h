/* snapshot.h: pages of RAM as they were at a position, for a thread that reads them while the guest runs on.
 *
 * Copy on write, by the dirty bits: a page without its bit has no fast stores, and the first slow one comes
 * to page_mark_dirty(). What a snapshot has not been asked for by then is kept before it changes. So one
 * costs the guest the pages that it writes again too early, and nothing else. */
#ifndef WB_SNAPSHOT_H
#define WB_SNAPSHOT_H

#include "machine.h"

bool snapshot_init(Machine *m);
void snapshot_deinit(Machine *m); /* before RAM goes; what is to be read still can be */
/* Before the first change of a page that is in the lent set. */
void snapshot_keep(Machine *m, uint64_t page);
void snapshot_keep_all(Machine *m);

#endif

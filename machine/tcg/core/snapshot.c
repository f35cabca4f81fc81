/* snapshot.c: see snapshot.h. Two threads meet here: the machine's, which makes snapshots and keeps pages,
 * and the reader's. Each page has a state of its own that says which of them has it, so neither holds up the
 * other for longer than a page takes. */
#include "snapshot.h"
#include "api.h"
#include "mach_priv.h"
#include "pagehash.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MOST_KEPT = 8192, /* pages; the machine waits for its readers beyond that */
    WAIT_NS = 200000, /* how long it sleeps meanwhile */
};

/* Of a page in a snapshot. The machine goes LENT, KEEPING, KEPT; the reader LENT, READING, READ, or KEPT,
 * READ. */
enum { LENT, READING, READ, KEEPING, KEPT };

struct WbSnapshot {
    struct WbSnapshot *older; /* the machine's */
    atomic_uint owners;       /* the machine and the reader */
    const uint8_t *ram;
    uint64_t n_pages;
    uint64_t n_read;     /* the reader's */
    atomic_ulong n_kept; /* contents in memory */
    uint8_t **kept;
    _Atomic uint8_t *state;
    uint32_t page[]; /* ascending */
};

bool snapshot_init(Machine *m)
{
    m->lent = calloc(pageset_words(m->ram_pages), sizeof(*m->lent));
    return m->lent != NULL;
}

static void give_up(WbSnapshot *s)
{
    if (atomic_fetch_sub(&s->owners, 1) > 1)
        return;
    for (uint64_t i = 0; i < s->n_pages; i++)
        free(s->kept[i]);
    free(s->kept);
    free(s->state);
    free(s);
}

/* Lets go of those that nobody reads any more. */
static void forget_read(Machine *m)
{
    for (WbSnapshot **at = &m->snapshots; *at;) {
        WbSnapshot *s = *at;
        if (atomic_load(&s->owners) > 1) {
            at = &s->older;
            continue;
        }
        *at = s->older;
        give_up(s);
    }
}

static void keep(WbSnapshot *s, uint64_t i)
{
    uint8_t state = LENT;
    if (!atomic_compare_exchange_strong(&s->state[i], &state, KEEPING)) {
        while (state == READING)
            state = atomic_load(&s->state[i]);
        return;
    }
    s->kept[i] = malloc(WB_PAGE_SIZE);
    if (!s->kept[i])
        abort(); /* a trace of what was not would be worse */
    memcpy(s->kept[i], s->ram + ((uint64_t)s->page[i] << WB_PAGE_BITS), WB_PAGE_SIZE);
    atomic_fetch_add(&s->n_kept, 1);
    atomic_store(&s->state[i], KEPT);
}

static bool find(const WbSnapshot *s, uint64_t page, uint64_t *at)
{
    uint64_t lo = 0, hi = s->n_pages;
    while (lo < hi) {
        const uint64_t mid = (lo + hi) / 2;
        if (s->page[mid] < page)
            lo = mid + 1;
        else
            hi = mid;
    }
    *at = lo;
    return lo < s->n_pages && s->page[lo] == page;
}

static uint64_t count_kept(const Machine *m)
{
    uint64_t n = 0;
    for (WbSnapshot *s = m->snapshots; s; s = s->older)
        n += atomic_load(&s->n_kept);
    return n;
}

void snapshot_keep(Machine *m, uint64_t page)
{
    const struct timespec wait = {.tv_nsec = WAIT_NS};
    pageset_drop(m->lent, page);
    for (; count_kept(m) >= MOST_KEPT; forget_read(m))
        nanosleep(&wait, NULL);
    uint64_t at;
    for (WbSnapshot *s = m->snapshots; s; s = s->older)
        if (find(s, page, &at))
            keep(s, at);
}

void snapshot_keep_all(Machine *m)
{
    const uint64_t words = pageset_words(m->ram_pages);
    for (uint64_t i = pageset_next(m->lent, words, 0); i < m->ram_pages;
         i = pageset_next(m->lent, words, i + 1))
        snapshot_keep(m, i);
}

void snapshot_deinit(Machine *m)
{
    while (m->snapshots) {
        WbSnapshot *s = m->snapshots;
        for (uint64_t i = 0; i < s->n_pages; i++)
            keep(s, i);
        m->snapshots = s->older;
        give_up(s);
    }
    free(m->lent);
    m->lent = NULL;
}

WbSnapshot *wb_snapshot_create(Machine *m, const uint32_t *pages, uint64_t n)
{
    forget_read(m);
    WbSnapshot *s = calloc(1, sizeof(*s) + n * sizeof(*s->page));
    if (!s)
        return NULL;
    s->kept = calloc(n + 1, sizeof(*s->kept));
    s->state = calloc(n + 1, sizeof(*s->state)); /* LENT */
    if (!s->kept || !s->state) {
        free(s->kept);
        free(s->state);
        free(s);
        return NULL;
    }
    s->owners = 2;
    s->ram = m->ram;
    s->n_pages = n;
    memcpy(s->page, pages, n * sizeof(*pages));
    for (uint64_t i = 0; i < n; i++) {
        if (page_is_dirty(m, pages[i]))
            keep(s, i); /* its stores are fast already */
        else
            pageset_put(m->lent, pages[i]);
    }
    s->older = m->snapshots;
    m->snapshots = s;
    return s;
}

/* Where a page's contents lie until end_page(). */
static const uint8_t *begin_page(WbSnapshot *s, uint64_t i)
{
    uint8_t state = LENT;
    if (atomic_compare_exchange_strong(&s->state[i], &state, READING))
        return s->ram + ((uint64_t)s->page[i] << WB_PAGE_BITS);
    while (state == KEEPING)
        state = atomic_load(&s->state[i]);
    return s->kept[i];
}

static void end_page(WbSnapshot *s, uint64_t i)
{
    if (s->kept[i]) {
        free(s->kept[i]);
        s->kept[i] = NULL;
        atomic_fetch_sub(&s->n_kept, 1);
    }
    atomic_store(&s->state[i], READ);
}

uint64_t wb_snapshot_read(WbSnapshot *s, uint64_t n, uint8_t *out)
{
    uint64_t done = 0;
    for (; done < n && s->n_read < s->n_pages; done++, s->n_read++) {
        memcpy(out + done * WB_PAGE_SIZE, begin_page(s, s->n_read), WB_PAGE_SIZE);
        end_page(s, s->n_read);
    }
    return done;
}

void wb_snapshot_hash(WbSnapshot *s, uint64_t out[2])
{
    out[0] = out[1] = 0;
    for (uint64_t i = s->n_read; i < s->n_pages; s->n_read = ++i) {
        const uint8_t *data = begin_page(s, i);
        const uint64_t next = i + 1 < s->n_pages ? s->page[i + 1] : s->page[i];
        pagehash_add(out, s->page[i], data, s->ram + (next << WB_PAGE_BITS));
        end_page(s, i);
    }
}

void wb_snapshot_destroy(WbSnapshot *s)
{
    if (s)
        give_up(s);
}

/* ramfold.c: see ramfold.h. Uses no Machine, so a thread may keep a fold while another runs the guest. */
#include "ramfold.h"
#include "blake2b.h"
#include "hostmem.h"
#include "pageset.h"
#include "softmmu.h"

#include <stdlib.h>
#include <string.h>

enum { BATCH = 64, LIMBS = BLAKE2B_BYTES / 8, TERM_BYTES = 8 + BLAKE2B_BYTES };

typedef uint8_t Name[BLAKE2B_BYTES];
typedef uint64_t Sum[LIMBS]; /* the least significant first */

struct RamFold {
    uint64_t n_pages;
    Name zero;        /* of a page of zeros */
    uint64_t *filled; /* the pages that held more than zeros when they were last taken; of these alone: */
    Name *name;       /* the contents' name */
    Sum *term;        /* what the page adds */
    Sum value;
};

RamFold *wb_fold_create(uint64_t n_pages)
{
    RamFold *f = calloc(1, sizeof(*f));
    uint8_t *zeros = calloc(1, WB_PAGE_SIZE);
    if (f && zeros) {
        f->n_pages = n_pages;
        f->filled = calloc(pageset_words(n_pages), sizeof(*f->filled));
        f->name = hostmem_map(n_pages * sizeof(*f->name));
        f->term = hostmem_map(n_pages * sizeof(*f->term));
        const uint8_t *msg = zeros;
        blake2b_256(&msg, WB_PAGE_SIZE, 1, &f->zero);
    }
    free(zeros);
    if (f && f->filled && f->name && f->term)
        return f;
    wb_fold_destroy(f);
    return NULL;
}

void wb_fold_destroy(RamFold *f)
{
    if (!f)
        return;
    free(f->filled);
    hostmem_unmap(f->name, f->n_pages * sizeof(*f->name));
    hostmem_unmap(f->term, f->n_pages * sizeof(*f->term));
    free(f);
}

static void sum_add(Sum a, const Sum b)
{
    unsigned __int128 carry = 0;
    for (int i = 0; i < LIMBS; i++) {
        carry += (unsigned __int128)a[i] + b[i];
        a[i] = (uint64_t)carry;
        carry >>= 64;
    }
}

static void sum_subtract(Sum a, const Sum b)
{
    uint64_t borrow = 0;
    for (int i = 0; i < LIMBS; i++) {
        const unsigned __int128 d = (unsigned __int128)a[i] - b[i] - borrow;
        a[i] = (uint64_t)d;
        borrow = (d >> 64) != 0;
    }
}

/* A digest read as a big-endian number. */
static void sum_read(Sum out, const Name digest)
{
    for (int i = 0; i < LIMBS; i++) {
        uint64_t limb = 0;
        for (int k = 0; k < 8; k++)
            limb = limb << 8 | digest[8 * (LIMBS - 1 - i) + k];
        out[i] = limb;
    }
}

/* Takes the new names of pages that differ. */
static void take_names(RamFold *f, const uint32_t *pages, const Name *names, uint64_t n)
{
    uint8_t text[BATCH][TERM_BYTES];
    const uint8_t *msg[BATCH] = {0};
    Name digest[BATCH];
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t page = pages[i];
        for (int k = 0; k < 8; k++)
            text[i][k] = (uint8_t)(page >> (8 * k));
        memcpy(text[i] + 8, names[i], BLAKE2B_BYTES);
        msg[i] = text[i];
    }
    blake2b_256(msg, TERM_BYTES, n, digest);
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t page = pages[i];
        if (pageset_has(f->filled, page))
            sum_subtract(f->value, f->term[page]);
        if (!memcmp(names[i], f->zero, BLAKE2B_BYTES)) {
            pageset_drop(f->filled, page);
            continue;
        }
        pageset_put(f->filled, page);
        memcpy(f->name[page], names[i], BLAKE2B_BYTES);
        sum_read(f->term[page], digest[i]);
        sum_add(f->value, f->term[page]);
    }
}

void wb_fold_name(const RamFold *f, uint32_t page, uint8_t *out)
{
    const bool filled = page < f->n_pages && pageset_has(f->filled, page);
    memcpy(out, filled ? f->name[page] : f->zero, BLAKE2B_BYTES);
}

uint64_t wb_fold_take(RamFold *f, const uint32_t *pages, uint64_t n, const uint8_t *data, int in_place,
                      uint32_t *changed, uint8_t *names)
{
    uint64_t n_changed = 0;
    for (uint64_t at = 0; at < n; at += BATCH) {
        const uint64_t count = n - at < BATCH ? n - at : BATCH;
        const uint8_t *msg[BATCH] = {0};
        Name name[BATCH], hashed[BATCH], old;
        uint64_t where[BATCH], n_hashed = 0;
        for (uint64_t i = 0; i < count; i++) {
            const uint8_t *page = data + (in_place ? pages[at + i] : at + i) * (uint64_t)WB_PAGE_SIZE;
            if (wb_is_zero_page(page)) { /* a guest clears much, and its name is known */
                memcpy(name[i], f->zero, BLAKE2B_BYTES);
                continue;
            }
            where[n_hashed] = i;
            msg[n_hashed++] = page;
        }
        blake2b_256(msg, WB_PAGE_SIZE, n_hashed, hashed);
        for (uint64_t i = 0; i < n_hashed; i++)
            memcpy(name[where[i]], hashed[i], BLAKE2B_BYTES);
        const uint64_t first = n_changed;
        uint32_t page[BATCH];
        Name fresh[BATCH];
        for (uint64_t i = 0; i < count; i++) {
            wb_fold_name(f, pages[at + i], old);
            if (!memcmp(old, name[i], BLAKE2B_BYTES))
                continue;
            page[n_changed - first] = pages[at + i];
            memcpy(fresh[n_changed - first], name[i], BLAKE2B_BYTES);
            memcpy(names + n_changed * BLAKE2B_BYTES, name[i], BLAKE2B_BYTES);
            changed[n_changed++] = (uint32_t)(at + i);
        }
        take_names(f, page, fresh, n_changed - first);
    }
    return n_changed;
}

void wb_fold_take_names(RamFold *f, uint32_t first, uint64_t n, const uint8_t *names)
{
    for (uint64_t at = 0; at < n; at += BATCH) {
        const uint64_t count = n - at < BATCH ? n - at : BATCH;
        uint32_t page[BATCH];
        for (uint64_t i = 0; i < count; i++)
            page[i] = first + (uint32_t)(at + i);
        take_names(f, page, (const Name *)(names + at * BLAKE2B_BYTES), count);
    }
}

void wb_fold_value(const RamFold *f, uint8_t *out)
{
    for (int i = 0; i < LIMBS; i++)
        for (int k = 0; k < 8; k++)
            out[8 * i + k] = (uint8_t)(f->value[i] >> (8 * k));
}

uint64_t wb_fold_pages(const RamFold *f, uint32_t *out)
{
    const uint64_t words = pageset_words(f->n_pages);
    uint64_t n = 0;
    for (uint64_t i = pageset_next(f->filled, words, 0); i < f->n_pages;
         i = pageset_next(f->filled, words, i + 1))
        out[n++] = (uint32_t)i;
    return n;
}

void wb_name_pages(const uint8_t *data, uint64_t n, uint8_t *names)
{
    for (uint64_t at = 0; at < n; at += BATCH) {
        const uint64_t count = n - at < BATCH ? n - at : BATCH;
        const uint8_t *msg[BATCH];
        for (uint64_t i = 0; i < count; i++)
            msg[i] = data + (at + i) * (uint64_t)WB_PAGE_SIZE;
        blake2b_256(msg, WB_PAGE_SIZE, count, (Name *)(names + at * BLAKE2B_BYTES));
    }
}

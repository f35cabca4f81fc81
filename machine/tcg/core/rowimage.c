/* rowimage.c: see rowimage.h. Cells grow down from a page's end, their offsets up from its head. */
#include "rowimage.h"
#include "api.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEAF = 0x0d,
    INTERIOR = 0x05,
    LEAF_HEAD = 8,
    INTERIOR_HEAD = 12,
    PAGE_COUNT_AT = 28, /* in the database's header */
    ROOT = 2,
    FIRST_LEAF = 3,
    INTERIOR_CELL_MAX = 2 + 4 + 9, /* offset, child, key */
    RECORD_MAX = 2 * 9 + 1 + ROWIMAGE_COLUMNS * (2 + ROWIMAGE_NAME_MAX),
    FIRST_PAGES = 64,
    FIRST_NAMES = 1 << 12,
    FIRST_TEXT = 1 << 16,
};
_Static_assert(1 + 2 * ROWIMAGE_COLUMNS < 128, "a record's head has its length in one byte");

typedef struct {
    uint64_t word;
    uint32_t at, len; /* in `text` */
    bool used;
} Name;

struct WbRowImage {
    RowColumn column[ROWIMAGE_COLUMNS];
    uint32_t columns, row_words, gate, page;
    bool numbered; /* rows have no key of their own */
    Name *name;    /* hash table */
    uint32_t names, size;
    uint8_t *text;
    uint32_t text_len, text_cap;
    uint8_t *image; /* n_pages pages; page 1 is image[0] */
    uint32_t n_pages, cap_pages;
    uint32_t number;   /* of the page after the root's in `image`, where it will be */
    RowSubtree *child; /* in order of keys */
    uint32_t n_children, cap_children;
    uint8_t *leaf; /* the page that is being filled, in `image`; NULL: none */
    uint32_t cells, low;
    int64_t last;
    bool any;
};

/* ---- numbers as the format has them ---- */

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    const uint32_t big = __builtin_bswap32(v);
    memcpy(p, &big, sizeof(big));
}

/* SPEC: 1.6, "variable-length integer": seven bits a byte, the highest first; the ninth byte has eight. */
static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
    if (v < 0x80) {
        *p = (uint8_t)v;
        return p + 1;
    }
    if (v >> 56) {
        p[8] = (uint8_t)v;
        v >>= 8;
        for (int i = 7; i >= 0; i--, v >>= 7)
            p[i] = (uint8_t)(v & 0x7f) | 0x80;
        return p + 9;
    }
    const uint32_t n = (70 - (uint32_t)__builtin_clzll(v)) / 7;
    for (uint32_t i = n; i-- > 0; v >>= 7)
        p[i] = (uint8_t)(v & 0x7f) | (i + 1 < n ? 0x80 : 0);
    return p + n;
}

/* SPEC: 2.1, serial types of integers, by the bits that a number has beside its sign */
static const uint8_t type_of_bits[65] = {
    [0 ... 7] = 1, [8 ... 15] = 2, [16 ... 23] = 3, [24 ... 31] = 4, [32 ... 47] = 5, [48 ... 64] = 6,
};
static const uint8_t bytes_of_type[10] = {0, 1, 2, 3, 4, 6, 8, 8, 0, 0};

static uint32_t type_of(uint64_t v)
{
    if (v < 2)
        return 8 + (uint32_t)v; /* 0 and 1 take no bytes */
    const uint64_t size = v ^ (uint64_t)((int64_t)v >> 63);
    return type_of_bits[size ? 64 - __builtin_clzll(size) : 0];
}

/* ---- names ---- */

static Name *name_of(const WbRowImage *p, uint64_t word)
{
    uint32_t at = (uint32_t)(word * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (p->size - 1);
    while (p->name[at].used && p->name[at].word != word)
        at = (at + 1) & (p->size - 1);
    return &p->name[at];
}

static bool grow_names(WbRowImage *p)
{
    if (p->size > UINT32_MAX / 4)
        return false;
    Name *old = p->name;
    const uint32_t n = p->size;
    Name *more = calloc((size_t)n * 2, sizeof(*more));
    if (!more)
        return false;
    p->name = more;
    p->size = n * 2;
    for (uint32_t i = 0; i < n; i++)
        if (old[i].used)
            *name_of(p, old[i].word) = old[i];
    free(old);
    return true;
}

int wb_rowimage_name(WbRowImage *p, uint64_t word, const uint8_t *text, uint32_t len)
{
    if (len > ROWIMAGE_NAME_MAX || p->text_len > UINT32_MAX / 4 ||
        (p->names >= p->size / 2 && !grow_names(p)))
        return -1;
    while (p->text_len + len > p->text_cap) {
        const uint32_t cap = p->text_cap ? p->text_cap * 2 : FIRST_TEXT;
        uint8_t *more = realloc(p->text, cap);
        if (!more)
            return -1;
        p->text = more;
        p->text_cap = cap;
    }
    Name *name = name_of(p, word);
    p->names += !name->used;
    *name = (Name){.word = word, .at = p->text_len, .len = len, .used = true};
    if (len)
        memcpy(p->text + p->text_len, text, len);
    p->text_len += len;
    return 0;
}

/* ---- pages ---- */

/* A new page, its content undefined; NULL: no memory. */
static uint8_t *add_page(WbRowImage *p)
{
    if (p->n_pages == p->cap_pages) {
        const uint32_t cap = p->cap_pages ? p->cap_pages * 2 : FIRST_PAGES;
        uint8_t *more = cap < UINT32_MAX / 2 ? realloc(p->image, (size_t)cap * p->page) : NULL;
        if (!more)
            return NULL;
        p->image = more;
        p->cap_pages = cap;
    }
    return p->image + (size_t)p->n_pages++ * p->page;
}

static bool add_child(WbRowImage *p, uint32_t page, int64_t last)
{
    if (p->n_children == p->cap_children) {
        const uint32_t cap = p->cap_children ? p->cap_children * 2 : FIRST_PAGES;
        RowSubtree *more = realloc(p->child, cap * sizeof(*more));
        if (!more)
            return false;
        p->child = more;
        p->cap_children = cap;
    }
    p->child[p->n_children++] = (RowSubtree){page, (uint64_t)last};
    return true;
}

/* SPEC: 1.6, b-tree page header */
static void put_head(uint8_t *page, uint8_t type, uint32_t cells, uint32_t low)
{
    const uint32_t head = type == LEAF ? LEAF_HEAD : INTERIOR_HEAD;
    page[0] = type;
    put16(page + 1, 0); /* no free blocks */
    put16(page + 3, cells);
    put16(page + 5, low & 0xffff); /* 0 means 65536 */
    page[7] = 0;
    memset(page + head + 2 * cells, 0, low - head - 2 * cells);
}

static bool end_leaf(WbRowImage *p)
{
    if (!p->leaf)
        return true;
    put_head(p->leaf, LEAF, p->cells, p->low);
    p->leaf = NULL;
    return add_child(p, p->n_pages - FIRST_LEAF, p->last); /* numbered at the end */
}

static bool begin_leaf(WbRowImage *p)
{
    if (!end_leaf(p) || !(p->leaf = add_page(p)))
        return false;
    p->cells = 0;
    p->low = p->page;
    return true;
}

/* The number of the page that was added last, where it will be. */
static uint32_t last_number(const WbRowImage *p)
{
    return p->number + p->n_pages - FIRST_LEAF;
}

static uint32_t most_children(const WbRowImage *p)
{
    return (p->page - INTERIOR_HEAD) / INTERIOR_CELL_MAX;
}

/* Fills a page with children from `first` on; returns how many. None is left alone behind it. */
static uint32_t put_interior(const WbRowImage *p, uint8_t *page, uint32_t first)
{
    const uint32_t most = most_children(p);
    uint32_t n = p->n_children - first, low = p->page;
    if (n > most)
        n = n == most + 1 ? most - 1 : most;
    for (uint32_t i = 0; i + 1 < n; i++) {
        uint8_t cell[INTERIOR_CELL_MAX];
        put32(cell, (uint32_t)p->child[first + i].page);
        const uint32_t len = (uint32_t)(put_varint(cell + 4, p->child[first + i].last) - cell);
        low -= len;
        memcpy(page + low, cell, len);
        put16(page + INTERIOR_HEAD + 2 * i, low);
    }
    put_head(page, INTERIOR, n - 1, low);
    put32(page + 8, (uint32_t)p->child[first + n - 1].page);
    return n;
}

/* Puts pages above those that have none. */
static bool add_level(WbRowImage *p)
{
    uint32_t out = 0;
    for (uint32_t i = 0; i < p->n_children;) {
        uint8_t *page = add_page(p);
        if (!page)
            return false;
        i += put_interior(p, page, i);
        p->child[out++] = (RowSubtree){last_number(p), p->child[i - 1].last};
    }
    p->n_children = out;
    return true;
}

/* ---- rows ---- */

static uint64_t number_in(const RowColumn *c, const uint64_t *row)
{
    return row[c->word] << (64 - 8 * (c->first + c->bytes)) >> (64 - 8 * c->bytes);
}

/* Writes a row as a record, with its length and key before it; returns the end, NULL: `unnamed` has no name.
 */
static uint8_t *put_row(const WbRowImage *p, const uint64_t *row, uint64_t key, uint8_t *out,
                        uint64_t *unnamed)
{
    uint8_t head[2 * ROWIMAGE_COLUMNS + 1], *h = head + 1;
    uint8_t body[RECORD_MAX + 8], *b = body;
    const bool late = row[p->gate] == ~UINT64_C(0);
    for (uint32_t i = 0; i < p->columns; i++) {
        const uint8_t kind = p->column[i].kind;
        const uint64_t word = number_in(&p->column[i], row);
        if (kind == ROWIMAGE_NAME) {
            const Name *name = name_of(p, word);
            if (!name->used) {
                *unnamed = word;
                return NULL;
            }
            h = put_varint(h, 2 * name->len + 13);
            if (name->len)
                memcpy(b, p->text + name->at, name->len);
            b += name->len;
        } else if (kind == ROWIMAGE_KEY || (late && kind == ROWIMAGE_LATE)) {
            *h++ = 0; /* NULL: the key stands before the record */
        } else {
            const uint32_t type = type_of(word), bytes = bytes_of_type[type];
            *h++ = (uint8_t)type;
            if (bytes) {
                const uint64_t big = __builtin_bswap64(word << (64 - 8 * bytes));
                memcpy(b, &big, sizeof(big)); /* what is beyond `bytes` is overwritten */
                b += bytes;
            }
        }
    }
    head[0] = (uint8_t)(h - head);
    out = put_varint(out, (uint64_t)((h - head) + (b - body)));
    out = put_varint(out, key);
    memcpy(out, head, (size_t)(h - head));
    out += h - head;
    memcpy(out, body, (size_t)(b - body));
    return out + (b - body);
}

int wb_rowimage_add(WbRowImage *p, const uint64_t *rows, uint32_t n, uint32_t *taken, uint64_t *unnamed)
{
    uint8_t cell[RECORD_MAX + 8];
    for (*taken = 0; *taken < n; ++*taken, rows += p->row_words) {
        const int64_t key = p->numbered ? p->last + 1 : (int64_t)number_in(&p->column[0], rows);
        if (p->any && key <= p->last)
            return ROWIMAGE_DISORDER;
        const uint8_t *end = put_row(p, rows, (uint64_t)key, cell, unnamed);
        if (!end)
            return ROWIMAGE_UNNAMED;
        const uint32_t len = (uint32_t)(end - cell);
        if ((!p->leaf || p->low < len + LEAF_HEAD + 2 * (p->cells + 1)) && !begin_leaf(p))
            return ROWIMAGE_NO_MEMORY;
        p->low -= len;
        memcpy(p->leaf + p->low, cell, len);
        put16(p->leaf + LEAF_HEAD + 2 * p->cells++, p->low);
        p->last = key;
        p->any = true;
    }
    return ROWIMAGE_DONE;
}

static bool end_rows(WbRowImage *p, uint32_t number)
{
    if (!end_leaf(p))
        return false;
    p->number = number;
    for (uint32_t i = 0; i < p->n_children; i++)
        p->child[i].page += number;
    return true;
}

const uint8_t *wb_rowimage_database(WbRowImage *p, uint64_t *size)
{
    if (!end_rows(p, FIRST_LEAF))
        return NULL;
    while (p->n_children > most_children(p))
        if (!add_level(p))
            return NULL;
    uint8_t *root = p->image + p->page;
    if (p->n_children > 1) {
        put_interior(p, root, 0);
    } else if (p->n_children == 1) {
        memcpy(root, root + p->page, p->page);
        p->n_pages = ROOT;
    } else {
        put_head(root, LEAF, 0, p->page);
    }
    put32(p->image + PAGE_COUNT_AT, p->n_pages);
    *size = (uint64_t)p->n_pages * p->page;
    return p->image;
}

uint32_t wb_rowimage_leaves(const WbRowImage *p)
{
    return p->n_children + (p->leaf != NULL);
}

const uint8_t *wb_rowimage_subtrees(WbRowImage *p, uint32_t number, uint64_t before, uint64_t last,
                                    uint64_t *size, const uint64_t **tops, uint32_t *n)
{
    if (!end_rows(p, number))
        return NULL;
    if (before) {
        if (!add_child(p, 0, 0))
            return NULL;
        memmove(p->child + 1, p->child, (p->n_children - 1) * sizeof(*p->child));
        p->child[0] = (RowSubtree){before, last};
    }
    if (p->n_children < 2 || !add_level(p))
        return NULL;
    *size = (uint64_t)(p->n_pages - ROOT) * p->page;
    *tops = &p->child->page;
    *n = p->n_children;
    return p->image + (size_t)ROOT * p->page;
}

/* ---- life ---- */

void wb_rowimage_clear(WbRowImage *p)
{
    p->n_pages = FIRST_LEAF - 1;
    p->n_children = 0;
    p->leaf = NULL;
    p->any = false;
    p->last = 0;
}

_Static_assert(sizeof(WbRowColumn) == sizeof(RowColumn) &&
                   offsetof(WbRowColumn, bytes) == offsetof(RowColumn, bytes),
               "cdef.h and rowimage.h agree");

WbRowImage *wb_rowimage_create(const WbRowColumn *column, uint32_t columns, uint32_t row_words, uint32_t gate,
                               const uint8_t *first_page, uint32_t bytes)
{
    if (!columns || columns > ROWIMAGE_COLUMNS || gate >= row_words || bytes < ROWIMAGE_PAGE_MIN ||
        bytes > ROWIMAGE_PAGE_MAX || (bytes & (bytes - 1)))
        return NULL;
    uint32_t row = 2 * 9 + 1; /* the longest: a row needs no overflow pages */
    for (uint32_t i = 0; i < columns; i++) {
        const WbRowColumn *c = &column[i];
        if (c->kind >= N_ROWIMAGE_KINDS || (c->kind == ROWIMAGE_KEY && i > 0) || c->word >= row_words ||
            !c->bytes || c->first + c->bytes > 8)
            return NULL;
        row += 2 + (c->kind == ROWIMAGE_NAME ? ROWIMAGE_NAME_MAX : 8);
    }
    if (row > bytes - 35)
        return NULL;
    WbRowImage *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    memcpy(p->column, column, columns * sizeof(*column));
    p->numbered = column->kind != ROWIMAGE_KEY;
    p->columns = columns;
    p->row_words = row_words;
    p->gate = gate;
    p->page = bytes;
    p->size = FIRST_NAMES;
    p->name = calloc(p->size, sizeof(*p->name));
    uint8_t *page = add_page(p);
    if (!p->name || !page) {
        wb_rowimage_destroy(p);
        return NULL;
    }
    memcpy(page, first_page, bytes);
    wb_rowimage_clear(p);
    return p;
}

void wb_rowimage_destroy(WbRowImage *p)
{
    if (!p)
        return;
    free(p->name);
    free(p->text);
    free(p->image);
    free(p->child);
    free(p);
}

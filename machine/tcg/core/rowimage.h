/* rowimage.h: rows of words as pages of an SQLite table whose key is an integer, or that has none: then rows
 * are numbered from 1. SQLite copies rows from such
 * pages much faster than it can be told them; or the pages become part of a database as they are. Knows no
 * machine.
 *
 * Leaves are in the order of the keys, which must ascend. They make up either a database with one table,
 * whose first page, with the table's declaration, was made by SQLite and given: page 2 is the root, leaves
 * follow, then the pages between. Or subtrees: leaves, then the pages above them, numbered from any page on.
 * SPEC: SQLite file format, 1.3 (header), 1.6 (b-tree pages), 2.1 (records)
 */
#ifndef WB_ROWIMAGE_H
#define WB_ROWIMAGE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    ROWIMAGE_PAGE_MIN = 512, /* bytes */
    ROWIMAGE_PAGE_MAX = 65536,
    ROWIMAGE_COLUMNS = 32,
    ROWIMAGE_NAME_MAX = 1024, /* bytes of a name */
};

/* X(kind, what a column of it holds) */
#define WB_ROWIMAGE_KINDS(X)                                                                                 \
    X(KEY, "the number; it is the row's key: the first column alone")                                        \
    X(INT, "the number")                                                                                     \
    X(NAME, "what the number is called, as text")                                                            \
    X(LATE, "the number, NULL where the gate's word is all ones")
typedef enum {
#define X(kind, text) ROWIMAGE_##kind,
    WB_ROWIMAGE_KINDS(X)
#undef X
        N_ROWIMAGE_KINDS
} RowImageKind;

/* A column: a word of the row, or the unsigned number that some bytes of it are. */
typedef struct {
    uint8_t kind, word, first, bytes; /* bytes: 1 to 8, of which the lowest is `first` */
} RowColumn;

/* How wb_rowimage_add ended. */
typedef enum {
    ROWIMAGE_DONE = 0,
    ROWIMAGE_UNNAMED = 1,  /* the next row has a word whose name is not known */
    ROWIMAGE_DISORDER = 2, /* the next row's key is not above the last one's */
    ROWIMAGE_NO_MEMORY = 3,
} RowImageEnd;

/* A page that has none above it, and its largest key. */
typedef struct {
    uint64_t page, last;
} RowSubtree;

/* The functions are in cdef.h: wb_rowimage_… */

#endif

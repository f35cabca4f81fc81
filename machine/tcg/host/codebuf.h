/* codebuf.h: memory for generated code, mapped twice: once writable, once executable, never both. */
#ifndef WB_CODEBUF_H
#define WB_CODEBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t *rw;       /* where code is written … */
    const uint8_t *rx; /* … and where the same bytes run */
    size_t size;       /* bytes, a multiple of the page size */
} CodeMem;

/* false: the host gives no such memory; nothing is left mapped. */
bool codemem_init(CodeMem *cm, size_t size);
void codemem_deinit(CodeMem *cm);

#endif

/* host.h: what the core asks of a host back end. A host without one runs the interpreter. */
#ifndef WB_HOST_H
#define WB_HOST_H

#include "../core/softmmu.h"

typedef struct CodeBuf CodeBuf;

/* Allocates `size` bytes of code memory (mapped twice: writable, and executable elsewhere; W^X) and
 * generates the prologue, epilogue and thunks. NULL: this host has no back end, or memory ran out. */
CodeBuf *host_init(Machine *m, size_t size);
void host_deinit(CodeBuf *cb);
/* Forgets all code but the entry points. */
void host_reset(CodeBuf *cb);
/* TB.entry of a block without code: back to the run loop, rax = pc. */
const uint8_t *host_cold_entry(const CodeBuf *cb);
/* Compiles tb->ops to tb->code, and fills patch_off and stub_off of its chain. false: no room (the core
 * then flushes and tries again). */
bool host_compile(CodeBuf *cb, Machine *m, TB *tb);
/* Points the jump of a chain slot at a compiled TB, or (dest NULL) back at its stub. */
void host_patch(CodeBuf *cb, TB *tb, uint32_t slot, const TB *dest);
/* Runs from tb until something leaves to the run loop. Before: h->budget set, h->leave = 0.
 * After: globals in their slots; h->pc set unless h->leave says otherwise (see run.c);
 * h->exit_tb / exit_slot name the unpatched chain slot, or exit_tb = NULL;
 * h->cur_tb, h->site name the leaving instruction where h->leave is set. */
void host_enter(CodeBuf *cb, Hart *h, const TB *tb);
/* See wb_code_map() in cdef.h. */
uint64_t host_code_map(const CodeBuf *cb, uint64_t *out, uint64_t max);

#endif

/* none.c: hosts without a back end. The interpreter runs everything. */
#include "host.h"

#if !defined(__x86_64__)

CodeBuf *host_init(Machine *m, size_t size)
{
    (void)m;
    (void)size;
    return NULL;
}

void host_deinit(CodeBuf *cb)
{
    (void)cb;
}

void host_reset(CodeBuf *cb)
{
    (void)cb;
}

const uint8_t *host_cold_entry(const CodeBuf *cb)
{
    (void)cb;
    return NULL;
}

bool host_compile(CodeBuf *cb, Machine *m, TB *tb)
{
    (void)cb;
    (void)m;
    (void)tb;
    return false;
}

void host_patch(CodeBuf *cb, TB *tb, uint32_t slot, const TB *dest)
{
    (void)cb;
    (void)tb;
    (void)slot;
    (void)dest;
}

void host_enter(CodeBuf *cb, Hart *h, const TB *tb)
{
    (void)cb;
    (void)h;
    (void)tb;
}

uint64_t host_code_map(const CodeBuf *cb, uint64_t *out, uint64_t max)
{
    (void)cb;
    (void)out;
    (void)max;
    return 0;
}

#endif

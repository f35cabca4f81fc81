/* codebuf.c: the same anonymous memory, mapped as a writable and as an executable range. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "codebuf.h"

#include "../core/hostmem.h"

#include <sys/mman.h>
#include <unistd.h>

/* Both views, or neither. */
static bool take_views(CodeMem *cm, void *rw, void *rx)
{
    if (rw != MAP_FAILED && rx != MAP_FAILED) {
        cm->rw = rw;
        cm->rx = rx;
        return true;
    }
    if (rw != MAP_FAILED)
        munmap(rw, cm->size);
    if (rx != MAP_FAILED)
        munmap(rx, cm->size);
    return false;
}

/* Shared memory without a name is what `perf` takes for generated code. A host may refuse the second view of
 * it (valgrind does): then it is a file's. */
static bool map_nameless(CodeMem *cm)
{
    const int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE;
    void *rw = mmap(NULL, cm->size, PROT_READ | PROT_WRITE, flags, -1, 0);
    void *rx = rw == MAP_FAILED ? rw : mremap(rw, 0, cm->size, MREMAP_MAYMOVE); /* 0 bytes: rw stays */
    if (rx != MAP_FAILED && mprotect(rx, cm->size, PROT_READ | PROT_EXEC) < 0) {
        munmap(rx, cm->size);
        rx = MAP_FAILED;
    }
    return take_views(cm, rw, rx);
}

static bool map_file(CodeMem *cm)
{
    int fd = memfd_create("workbench-code", MFD_CLOEXEC);
    if (fd < 0)
        return false;
    void *rw = MAP_FAILED, *rx = MAP_FAILED;
    if (ftruncate(fd, (off_t)cm->size) == 0) {
        rw = mmap(NULL, cm->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        rx = mmap(NULL, cm->size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    close(fd);
    return take_views(cm, rw, rx);
}

bool codemem_init(CodeMem *cm, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *cm = (CodeMem){0};
    if (size == 0 || size > SIZE_MAX - page)
        return false;
    cm->size = (size + page - 1) & ~(page - 1);
    if (map_nameless(cm) || map_file(cm))
        return true;
    *cm = (CodeMem){0};
    return false;
}

void codemem_deinit(CodeMem *cm)
{
    if (cm->rw) {
        hostmem_unmap(cm->rw, cm->size);
        hostmem_unmap((void *)(uintptr_t)cm->rx, cm->size);
    }
    *cm = (CodeMem){0};
}

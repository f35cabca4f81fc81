/* codebuf.c: one anonymous file, mapped as a writable and as an executable range. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "codebuf.h"

#include <sys/mman.h>
#include <unistd.h>

bool codemem_init(CodeMem *cm, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *cm = (CodeMem){0};
    if (size == 0 || size > SIZE_MAX - page)
        return false;
    size = (size + page - 1) & ~(page - 1);
    int fd = memfd_create("workbench-code", MFD_CLOEXEC);
    if (fd < 0)
        return false;
    if (ftruncate(fd, (off_t)size) < 0) {
        close(fd);
        return false;
    }
    void *rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    close(fd);
    if (rw == MAP_FAILED || rx == MAP_FAILED) {
        if (rw != MAP_FAILED)
            munmap(rw, size);
        if (rx != MAP_FAILED)
            munmap(rx, size);
        return false;
    }
    *cm = (CodeMem){.rw = rw, .rx = rx, .size = size};
    return true;
}

void codemem_deinit(CodeMem *cm)
{
    if (cm->rw) {
        munmap(cm->rw, cm->size);
        munmap((void *)(uintptr_t)cm->rx, cm->size);
    }
    *cm = (CodeMem){0};
}

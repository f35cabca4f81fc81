/* Reads what the kernel needs out of the flattened device tree: memory, clock, seed, boot arguments.
 *
 *   header: magic, totalsize, off_struct, off_strings, ...   all big endian
 *   struct: BEGIN_NODE name\0 pad | PROP length nameoff data pad | NOP | END_NODE ... END */
#include "kernel.h"

enum { FDT_BEGIN_NODE = 1, FDT_END_NODE = 2, FDT_PROP = 3, FDT_NOP = 4 };
#define FDT_MAGIC 0xd00dfeedU

struct bootinfo bootinfo = {.timebase_hz = 10000000};

static u32 be32(const u8 *at)
{
    return (u32)at[0] << 24 | (u32)at[1] << 16 | (u32)at[2] << 8 | at[3];
}

static u64 be64(const u8 *at)
{
    return (u64)be32(at) << 32 | be32(at + 4);
}

static bool starts_with(const char *text, const char *prefix)
{
    while (*prefix != 0)
        if (*text++ != *prefix++)
            return false;
    return true;
}

static bool contains(const u8 *data, u64 length, const char *word)
{
    u64 size = string_length(word);
    for (u64 i = 0; i + size <= length; i++) {
        u64 same = 0;
        while (same < size && data[i + same] == (u8)word[same])
            same++;
        if (same == size)
            return true;
    }
    return false;
}

static void read_property(const char *node, const char *name, const u8 *data, u64 length)
{
    if (starts_with(node, "memory") && string_equal(name, "reg") && length >= 16) {
        bootinfo.memory_base = be64(data);
        bootinfo.memory_size = be64(data + 8);
    } else if (string_equal(name, "timebase-frequency") && length == 4) {
        bootinfo.timebase_hz = be32(data);
    } else if (string_equal(name, "riscv,isa") || string_equal(name, "riscv,isa-extensions")) {
        bootinfo.has_sstc |= contains(data, length, "sstc");
    } else if (string_equal(node, "chosen") && string_equal(name, "rng-seed")) {
        for (u64 i = 0; i < length; i++)
            bootinfo.seed = (bootinfo.seed ^ data[i]) * 0x100000001b3UL; /* FNV-1a */
        bootinfo.has_seed = true;
    } else if (string_equal(node, "chosen") && string_equal(name, "bootargs")) {
        u64 size = length < sizeof(bootinfo.bootargs) ? length : sizeof(bootinfo.bootargs) - 1;
        memcpy(bootinfo.bootargs, data, size);
    }
}

void fdt_read(const void *blob)
{
    const u8 *base = blob;
    if (base == NULL || be32(base) != FDT_MAGIC)
        panic("no device tree at 0x%lx", (u64)blob);
    const u8 *at = base + be32(base + 8);
    const char *strings = (const char *)base + be32(base + 12);
    const char *node = "";
    for (;;) {
        u32 token = be32(at);
        at += 4;
        if (token == FDT_BEGIN_NODE) {
            node = (const char *)at;
            at += (string_length(node) + 4) & ~3UL;
        } else if (token == FDT_PROP) {
            u64 length = be32(at);
            read_property(node, strings + be32(at + 4), at + 8, length);
            at += 8 + ((length + 3) & ~3UL);
        } else if (token != FDT_END_NODE && token != FDT_NOP) {
            break;
        }
    }
}

/* Return what follows `word` in the boot arguments, or NULL if it is not a word or the start of one there. */
static const char *find_bootarg(const char *word)
{
    const char *at = bootinfo.bootargs;
    while (*at != 0) {
        if (starts_with(at, word))
            return at + string_length(word);
        while (*at != 0 && *at != ' ')
            at++;
        while (*at == ' ')
            at++;
    }
    return NULL;
}

bool bootarg(const char *word)
{
    const char *rest = find_bootarg(word);
    return rest != NULL && (*rest == 0 || *rest == ' ');
}

/* Return N of `word=N`. */
u64 bootarg_number(const char *word, u64 otherwise)
{
    const char *rest = find_bootarg(word);
    if (rest == NULL || *rest != '=')
        return otherwise;
    u64 value = 0;
    for (rest++; *rest >= '0' && *rest <= '9'; rest++)
        value = value * 10 + (u64)(*rest - '0');
    return value;
}

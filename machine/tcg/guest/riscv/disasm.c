/* disasm.c: assembly text of RISC-V instructions, from the templates in the .decode tables.
 *
 * Mnemonics are the encodings' own (no aliases). Reads nothing but its arguments.
 */
#include "riscv.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "decode_fields.inc"
#include "disasm_tables.inc"

static const char *const x_names[32] = {
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0",  "a1",  "a2", "a3", "a4", "a5",
    "a6",   "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
};
static const char *const f_names[32] = {
    "ft0", "ft1", "ft2", "ft3", "ft4",  "ft5",  "ft6", "ft7", "fs0",  "fs1",  "fa0",
    "fa1", "fa2", "fa3", "fa4", "fa5",  "fa6",  "fa7", "fs2", "fs3",  "fs4",  "fs5",
    "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
};
static const char *const lmul_texts[8] = {"m1", "m2", "m4", "m8", NULL, "mf8", "mf4", "mf2"};
static const char *const rm_texts[8] = {", rne", ", rtz", ", rdn", ", rup", ", rmm", ", 5", ", 6", ""};
static const char *const aqrl_texts[4] = {"", ".rl", ".aq", ".aqrl"};

typedef struct {
    char *buf;
    size_t size, len;
} Text;

__attribute__((format(printf, 2, 3))) static void text_put(Text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(t->buf + t->len, t->size - t->len, format, args);
    va_end(args);
    t->len += n > 0 ? (size_t)n : 0;
    if (t->len >= t->size)
        t->len = t->size - 1;
}

static void text_put_csr(Text *t, uint32_t csr)
{
    switch (csr) {
#define X(number, name)                                                                                      \
    case number:                                                                                             \
        text_put(t, "%s", #name);                                                                            \
        return;
        RISCV_CSR_NAMES(X)
#undef X
    default:
        break;
    }
    if (csr >= 0x3a0 && csr < 0x3b0)
        text_put(t, "pmpcfg%u", csr - 0x3a0);
    else if (csr >= 0x3b0 && csr < 0x3f0)
        text_put(t, "pmpaddr%u", csr - 0x3b0);
    else if (csr >= 0x323 && csr < 0x340)
        text_put(t, "mhpmevent%u", csr - 0x320);
    else if (csr >= 0xb03 && csr < 0xb20)
        text_put(t, "mhpmcounter%u", csr - 0xb00);
    else if (csr >= 0xc03 && csr < 0xc20)
        text_put(t, "hpmcounter%u", csr - 0xc00);
    else
        text_put(t, "0x%x", csr);
}

static void text_put_iorw(Text *t, int32_t set)
{
    if (!set)
        text_put(t, "0");
    for (int i = 0; i < 4; i++)
        if (set & (8 >> i))
            text_put(t, "%c", "iorw"[i]);
}

/* SPEC: vector, 6.1 */
static void text_put_vtype(Text *t, uint32_t vtype)
{
    const char *lmul = lmul_texts[vtype & 7];
    if (vtype >> 8 || (vtype >> 3 & 7) > 3 || !lmul)
        text_put(t, "%" PRIu32, vtype);
    else
        text_put(t, "e%d, %s, %s, %s", 8 << (vtype >> 3 & 7), lmul, vtype & 1 << 6 ? "ta" : "tu",
                 vtype & 1 << 7 ? "ma" : "mu");
}

static void text_put_operand(Text *t, DisKind kind, int32_t value, uint64_t pc)
{
    switch (kind) {
    case DK_INT:
        text_put(t, "%" PRId32, value);
        break;
    case DK_HEX:
        text_put(t, "0x%" PRIx32, (uint32_t)value);
        break;
    case DK_X:
        text_put(t, "%s", x_names[value & 31]);
        break;
    case DK_F:
        text_put(t, "%s", f_names[value & 31]);
        break;
    case DK_V:
        text_put(t, "v%" PRId32, value);
        break;
    case DK_VM:
        text_put(t, "%s", value ? "" : ", v0.t");
        break;
    case DK_VTYPE:
        text_put_vtype(t, (uint32_t)value);
        break;
    case DK_PC:
        text_put(t, "0x%" PRIx64, pc + (uint64_t)(int64_t)value);
        break;
    case DK_HI20:
        text_put(t, "0x%" PRIx32, ((uint32_t)value >> 12) & 0xfffff);
        break;
    case DK_CSR:
        text_put_csr(t, (uint32_t)value);
        break;
    case DK_RM:
        text_put(t, "%s", rm_texts[value & 7]);
        break;
    case DK_AQRL:
        text_put(t, "%s", aqrl_texts[value & 3]);
        break;
    case DK_IORW:
        text_put_iorw(t, value);
        break;
    }
}

uint32_t riscv_insn_bytes(uint16_t low)
{
    return (low & 3) == 3 ? 4 : 2;
}

static bool is_insn(const DisInsn *d, uint32_t insn)
{
    if ((insn & d->mask) != d->match)
        return false;
    for (uint32_t i = 0; i < d->conditions; i++)
        if (disasm_field(d->field_not[i], insn) == d->value_not[i])
            return false;
    return true;
}

/* The instruction's row, or NULL. Every pattern fixes the bits that tell 16 from 32. */
static const DisInsn *find(uint32_t insn)
{
    for (size_t i = 0; i < sizeof disasm_insns / sizeof *disasm_insns; i++)
        if (is_insn(&disasm_insns[i], insn))
            return &disasm_insns[i];
    return NULL;
}

uint32_t riscv_disasm(const uint8_t *code, uint32_t avail, uint64_t pc, char *out, size_t size)
{
    if (avail < 2 || !size)
        return 0;
    uint32_t insn = (uint32_t)code[0] | (uint32_t)code[1] << 8;
    const uint32_t len = riscv_insn_bytes((uint16_t)insn);
    if (avail < len)
        return 0;
    if (len == 4)
        insn |= (uint32_t)code[2] << 16 | (uint32_t)code[3] << 24;
    Text t = {out, size, 0};
    out[0] = 0;
    const DisInsn *d = find(insn);
    if (!d) {
        text_put(&t, len == 4 ? ".4byte 0x%08" PRIx32 : ".2byte 0x%04" PRIx32, insn);
        return len;
    }
    uint32_t operand = 0;
    for (const char *p = d->text; *p; p++) {
        if (*p != '%') {
            text_put(&t, "%c", *p);
            continue;
        }
        text_put_operand(&t, (DisKind)d->kind[operand], disasm_field(d->field[operand], insn), pc);
        operand++;
    }
    return len;
}

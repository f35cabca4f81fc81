/* x86_emit.h: encodes x86-64 instructions. Knows nothing of the IR.
 *
 * SPEC: Intel SDM volume 2, chapter 2 (instruction format). The writer has made sure of room.
 */
#ifndef WB_X86_EMIT_H
#define WB_X86_EMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, REG_NONE };

/* ALU operations, by their number in opcodes 00..3f and in 81 /n. */
enum { X_ADD = 0, X_OR = 1, X_AND = 4, X_SUB = 5, X_XOR = 6, X_CMP = 7 };
/* Shifts: C1 /n, D3 /n. */
enum { X_ROR = 1, X_SHL = 4, X_SHR = 5, X_SAR = 7 };
/* Condition codes of jcc, setcc, cmovcc. */
enum {
    CC_O = 0,
    CC_B = 2,
    CC_AE = 3,
    CC_E = 4,
    CC_NE = 5,
    CC_BE = 6,
    CC_A = 7,
    CC_P = 10,
    CC_NP = 11,
    CC_L = 12,
    CC_GE = 13,
    CC_LE = 14,
    CC_G = 15
};
/* How an instruction is encoded. */
enum {
    EM_W = 1,   /* 64-bit operands */
    EM_66 = 2,  /* operand-size prefix */
    EM_B = 4,   /* the register operand is a byte */
    EM_BM = 8,  /* the r/m operand, if a register, is a byte */
    EM_F2 = 16, /* SSE scalar double */
    EM_F3 = 32, /* SSE scalar single */
};

typedef enum { O_REG, O_MEM, O_IMM } OpndKind;

/* An operand: a register, memory [base + index << scale + disp], or a constant. */
typedef struct {
    uint8_t kind, reg, index, scale; /* reg is the base of memory */
    int32_t disp;
    int64_t imm;
} Opnd;

typedef struct {
    uint8_t *p;
} Asm;

static inline Opnd opnd_reg(unsigned r)
{
    return (Opnd){.kind = O_REG, .reg = (uint8_t)r, .index = REG_NONE};
}

static inline Opnd opnd_mem(unsigned base, int32_t disp)
{
    return (Opnd){.kind = O_MEM, .reg = (uint8_t)base, .index = REG_NONE, .disp = disp};
}

static inline Opnd opnd_idx(unsigned base, unsigned index, int32_t disp)
{
    return (Opnd){.kind = O_MEM, .reg = (uint8_t)base, .index = (uint8_t)index, .disp = disp};
}

static inline Opnd opnd_imm(int64_t imm)
{
    return (Opnd){.kind = O_IMM, .index = REG_NONE, .imm = imm};
}

static inline bool opnd_same(Opnd a, Opnd b)
{
    return a.kind == b.kind && a.kind != O_IMM && a.reg == b.reg && a.index == b.index && a.disp == b.disp;
}

static inline bool opnd_is_reg(Opnd o, unsigned r)
{
    return o.kind == O_REG && o.reg == r;
}

static inline void opnd_swap(Opnd *a, Opnd *b)
{
    Opnd t = *a;
    *a = *b;
    *b = t;
}

static inline bool fits_s8(int64_t v)
{
    return v == (int8_t)v;
}

static inline bool fits_s32(int64_t v)
{
    return v == (int32_t)v;
}

static inline void em_8(Asm *a, unsigned v)
{
    *a->p++ = (uint8_t)v;
}

static inline void em_32(Asm *a, uint32_t v)
{
    memcpy(a->p, &v, 4);
    a->p += 4;
}

static inline void em_64(Asm *a, uint64_t v)
{
    memcpy(a->p, &v, 8);
    a->p += 8;
}

static inline void em_modrm(Asm *a, unsigned reg, Opnd rm)
{
    reg = (reg & 7) << 3;
    if (rm.kind == O_REG) {
        em_8(a, 0xc0 | reg | (rm.reg & 7));
        return;
    }
    unsigned base = rm.reg & 7;
    unsigned mod = rm.disp == 0 && base != RBP ? 0x00 : fits_s8(rm.disp) ? 0x40 : 0x80;
    if (rm.index != REG_NONE || base == RSP) {
        unsigned index = rm.index == REG_NONE ? RSP : rm.index & 7;
        em_8(a, mod | reg | RSP);
        em_8(a, (unsigned)rm.scale << 6 | index << 3 | base);
    } else {
        em_8(a, mod | reg | base);
    }
    if (mod == 0x40)
        em_8(a, (unsigned)rm.disp);
    else if (mod == 0x80)
        em_32(a, (uint32_t)rm.disp);
}

/* op reg, r/m (or the reverse, as the opcode says). Opcodes: one byte, 0x0fXX, or 0x0f38XX. Not inline:
 * copies of it were a tenth of the time that the core takes to compile. */
static __attribute__((noinline, unused)) void em_rm(Asm *a, unsigned flags, uint32_t op, unsigned reg,
                                                    Opnd rm)
{
    unsigned rex = 0;
    if (flags & EM_66)
        em_8(a, 0x66);
    if (flags & EM_F2)
        em_8(a, 0xf2);
    if (flags & EM_F3)
        em_8(a, 0xf3);
    if (flags & EM_W)
        rex |= 0x48;
    if (reg & 8)
        rex |= 0x44;
    if (rm.kind == O_MEM && rm.index != REG_NONE && (rm.index & 8))
        rex |= 0x42;
    if (rm.reg & 8)
        rex |= 0x41;
    if ((flags & EM_B) && reg >= RSP && reg <= RDI)
        rex |= 0x40;
    if ((flags & EM_BM) && rm.kind == O_REG && rm.reg >= RSP && rm.reg <= RDI)
        rex |= 0x40;
    if (rex)
        em_8(a, rex);
    if (op > 0xffff)
        em_8(a, op >> 16);
    if (op > 0xff)
        em_8(a, op >> 8);
    em_8(a, op);
    em_modrm(a, reg, rm);
}

/* Three-operand VEX form, 128-bit or scalar: pp 0 none, 1 66, 2 f3, 3 f2; map 1 0f, 2 0f38, 3 0f3a. */
static inline void em_vex(Asm *a, unsigned pp, unsigned map, unsigned w, unsigned op, unsigned reg,
                          unsigned vvvv, Opnd rm)
{
    unsigned x = rm.kind == O_MEM && rm.index != REG_NONE && (rm.index & 8) ? 0 : 0x40;
    em_8(a, 0xc4);
    em_8(a, (reg & 8 ? 0 : 0x80u) | x | (rm.reg & 8 ? 0 : 0x20u) | map);
    em_8(a, w << 7 | (~vvvv & 15) << 3 | pp);
    em_8(a, op);
    em_modrm(a, reg, rm);
}

/* mov reg, imm without touching the flags. */
static inline void em_mov_ri_keep(Asm *a, unsigned r, int64_t imm)
{
    if ((uint64_t)imm <= UINT32_MAX) {
        if (r & 8)
            em_8(a, 0x41);
        em_8(a, 0xb8 | (r & 7));
        em_32(a, (uint32_t)imm);
    } else if (fits_s32(imm)) {
        em_rm(a, EM_W, 0xc7, 0, opnd_reg(r));
        em_32(a, (uint32_t)imm);
    } else {
        em_8(a, 0x48 | (r & 8 ? 1u : 0));
        em_8(a, 0xb8 | (r & 7));
        em_64(a, (uint64_t)imm);
    }
}

static inline void em_mov_ri(Asm *a, unsigned r, int64_t imm)
{
    if (imm == 0)
        em_rm(a, 0, 0x31, r, opnd_reg(r));
    else
        em_mov_ri_keep(a, r, imm);
}

/* mov reg, operand. A constant 0 may touch the flags. */
static inline void em_mov_ro(Asm *a, unsigned r, Opnd o)
{
    if (o.kind == O_IMM)
        em_mov_ri(a, r, o.imm);
    else if (!opnd_is_reg(o, r))
        em_rm(a, EM_W, 0x8b, r, o);
}

/* mov operand, reg. */
static inline void em_mov_or(Asm *a, Opnd o, unsigned r)
{
    if (!opnd_is_reg(o, r))
        em_rm(a, EM_W, 0x89, r, o);
}

/* mov r32, operand: the low half, zero-extended. */
static inline void em_mov32_ro(Asm *a, unsigned r, Opnd o)
{
    if (o.kind == O_IMM)
        em_mov_ri(a, r, (int64_t)(uint32_t)o.imm);
    else
        em_rm(a, 0, 0x8b, r, o);
}

/* op operand, imm32; w is 0 or EM_W. */
static inline void em_alu_oi(Asm *a, unsigned w, unsigned n, Opnd o, int32_t imm)
{
    em_rm(a, w, fits_s8(imm) ? 0x83 : 0x81, n, o);
    if (fits_s8(imm))
        em_8(a, (unsigned)imm);
    else
        em_32(a, (uint32_t)imm);
}

/* op reg, operand (a constant must fit in 32 bits). */
static inline void em_alu_ro(Asm *a, unsigned w, unsigned n, unsigned r, Opnd o)
{
    if (o.kind == O_IMM)
        em_alu_oi(a, w, n, opnd_reg(r), (int32_t)o.imm);
    else
        em_rm(a, w, n << 3 | 3, r, o);
}

/* op operand, reg. */
static inline void em_alu_or(Asm *a, unsigned w, unsigned n, Opnd o, unsigned r)
{
    em_rm(a, w, n << 3 | 1, r, o);
}

/* memory = a register, or a constant that fits; size is a log2 of bytes. */
static inline void em_store_sized(Asm *a, unsigned size, Opnd mem, Opnd value)
{
    unsigned flags = size == 0 ? EM_B : size == 1 ? EM_66 : size == 3 ? EM_W : 0;
    if (value.kind == O_REG) {
        em_rm(a, flags, size == 0 ? 0x88 : 0x89, value.reg, mem);
        return;
    }
    em_rm(a, flags & ~(unsigned)EM_B, size == 0 ? 0xc6 : 0xc7, 0, mem);
    em_8(a, (unsigned)value.imm);
    if (size == 1)
        em_8(a, (unsigned)(value.imm >> 8));
    if (size >= 2)
        for (unsigned i = 8; i < 32; i += 8)
            em_8(a, (unsigned)(value.imm >> i));
}

static inline void em_shift_i(Asm *a, unsigned w, unsigned n, unsigned r, unsigned count)
{
    if (count == 0)
        return;
    em_rm(a, w, 0xc1, n, opnd_reg(r));
    em_8(a, count);
}

static inline void em_lea(Asm *a, unsigned w, unsigned r, Opnd mem)
{
    em_rm(a, w, 0x8d, r, mem);
}

static inline void em_rel32(Asm *a, const uint8_t *target)
{
    em_32(a, (uint32_t)(target - (a->p + 4)));
}

/* lea reg, [rip + …]: the address of `target` where the code runs. */
static inline void em_lea_rip(Asm *a, unsigned r, const uint8_t *target)
{
    em_8(a, 0x48 | (r & 8 ? 4u : 0));
    em_8(a, 0x8d);
    em_8(a, 0x05 | (r & 7) << 3);
    em_rel32(a, target);
}

/* mov reg, [rip + …]: the qword at `where`. */
static inline void em_mov_rip(Asm *a, unsigned r, const uint8_t *where)
{
    em_8(a, 0x48 | (r & 8 ? 4u : 0));
    em_8(a, 0x8b);
    em_8(a, 0x05 | (r & 7) << 3);
    em_rel32(a, where);
}

static inline void em_jmp(Asm *a, const uint8_t *target)
{
    em_8(a, 0xe9);
    em_rel32(a, target);
}

static inline void em_call(Asm *a, const uint8_t *target)
{
    em_8(a, 0xe8);
    em_rel32(a, target);
}

static inline void em_jcc(Asm *a, unsigned cc, const uint8_t *target)
{
    int64_t rel = target - (a->p + 2);
    if (fits_s8(rel)) {
        em_8(a, 0x70 | cc);
        em_8(a, (unsigned)rel);
        return;
    }
    em_8(a, 0x0f);
    em_8(a, 0x80 | cc);
    em_rel32(a, target);
}

/* Forward jumps: the address of the displacement to fill in, by em_bind8 or em_bind32. */
static inline uint8_t *em_jcc8(Asm *a, unsigned cc)
{
    em_8(a, 0x70 | cc);
    em_8(a, 0);
    return a->p - 1;
}

static inline uint8_t *em_jmp8(Asm *a)
{
    em_8(a, 0xeb);
    em_8(a, 0);
    return a->p - 1;
}

static inline uint8_t *em_jmp32(Asm *a)
{
    em_8(a, 0xe9);
    em_32(a, 0);
    return a->p - 4;
}

static inline uint8_t *em_jcc32(Asm *a, unsigned cc)
{
    em_8(a, 0x0f);
    em_8(a, 0x80 | cc);
    em_32(a, 0);
    return a->p - 4;
}

static inline void em_bind8(Asm *a, uint8_t *at)
{
    *at = (uint8_t)(a->p - (at + 1));
}

static inline void em_bind32(Asm *a, uint8_t *at)
{
    uint32_t rel = (uint32_t)(a->p - (at + 4));
    memcpy(at, &rel, 4);
}

/* n bytes (0..3) that do nothing. */
static inline void em_nop(Asm *a, unsigned n)
{
    if (n == 3) {
        em_8(a, 0x0f);
        em_8(a, 0x1f);
        em_8(a, 0x00);
        return;
    }
    if (n == 2)
        em_8(a, 0x66);
    if (n)
        em_8(a, 0x90);
}

#endif

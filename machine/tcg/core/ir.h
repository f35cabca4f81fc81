/* ir.h: the intermediate representation between a guest front end and a back end.
 *
 * A translation block (TB) is a straight list of IrOp with side exits. Values
 * live in *slots*: 64-bit cells at the head of struct Hart. The first
 * IR_GLOBALS slots are guest registers (what each one means is the front end's
 * business); the others are temporaries, dead at the end of an instruction.
 *
 * Invariants: at every op that may leave the TB (IRF_EXIT) all globals hold their
 * architectural values, so an exit needs a table of program counters and nothing
 * else; the front end keeps them at every IR_INSN mark too, the optimiser removes
 * writes that no exit can see. A CALL changes no slot but d, unless it leaves.
 */
#ifndef WB_IR_H
#define WB_IR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    IR_GLOBALS = 64,    /* slots that are guest registers */
    IR_SLOTS = 256,     /* globals and temporaries of one TB */
    IR_MAX_INSNS = 96,  /* guest instructions in one TB */
    IR_MAX_OPS = 1024,  /* ops in one TB */
    IR_MAX_EXITS = 100, /* chain slots (side exits and the final one) of one TB */
    IR_CONST = 0xffff,  /* operand reference: the op's `imm` */
    IR_NONE = 0xfffe,   /* operand reference: absent */
};

/* Conditions of SETCC, BRCOND and SELECT. */
#define IR_CONDS(X) X(EQ) X(NE) X(LT) X(GE) X(LTU) X(GEU)
typedef enum {
#define X(name) IR_##name,
    IR_CONDS(X)
#undef X
} IrCond;

/* Memory operand description, in IrOp.flags of LD, ST, LDENV, STENV. */
enum {
    MO_8 = 0,
    MO_16 = 1,
    MO_32 = 2,
    MO_64 = 3,
    MO_SIZE = 3, /* log2 of the size in bytes */
    MO_SIGN = 4, /* a load sign-extends to 64 bits, else zero-extends */
    MO_BOX = 8,  /* a load sets all bits above the value (NaN boxing) */
};

/* In IrOp.flags of ROTR32S: bits 32 and up of d may be anything. */
enum { IR_LOW_ONLY = 1 };

/* Flags of one IR op, for the optimiser and the checker. */
enum {
    IRF_DEF = 1,   /* writes slot d */
    IRF_USE_A = 2, /* reads a */
    IRF_USE_B = 4, /* reads b */
    IRF_USE_C = 8, /* reads c */
    IRF_PURE = 16, /* no effect but d: removable when d is dead, foldable */
    IRF_EXIT = 32, /* may leave the TB: every global is live here */
    IRF_END = 64,  /* never falls through */
    IRF_COMMUTES = 128,
};

/* X(name, flags). One list for the enum, names, checker, optimiser, interpreter
 * and back ends. Any operand but a destination may be IR_CONST; one at the most
 * of an op's operands is. Arithmetic is on 64 bits; the *32S forms compute on the
 * low 32 bits and sign-extend the result. Shift amounts are taken modulo 64 (32).
 *
 *   INSN    imm = guest pc, off = length in bytes: a guest instruction begins
 *   LD/ST   address is slot a (or imm) + off; flags = MO_*; ST stores b
 *   LDENV   d = field of Hart at byte offset off, flags = MO_*;  STENV stores b
 *   CLZ, CTZ  of 0 are 64 (32); BSWAP reverses the bytes; ROTR turns right, by an amount like a shift's
 *   SELECT  d = (a cond b) ? c : d           cond in cond
 *   BRCOND  if (a cond b) leave by chain slot `exit` to guest pc in imm2
 *   GOTO    leave by chain slot `exit` to guest pc in imm2
 *   GOTO_IND  leave to the pc in slot a; flags = JH_* hint
 *   CALL    d = helper[off](hart, a, b, c); see helpers' flags (HF_*)
 *   EXIT    leave to the run loop with pc = imm2
 *   DIV and REM follow RISC-V: x/0 = all ones, x%0 = x, INT_MIN/-1 = INT_MIN, %=0
 */
#define IRP (IRF_PURE | IRF_DEF)
#define IRB (IRP | IRF_USE_A | IRF_USE_B)
#define IRU (IRP | IRF_USE_A)
#define IRC IRF_COMMUTES
/* clang-format off */
#define IR_OPS(X)                                                                                  \
    X(NOP, 0)                                                                                      \
    X(INSN, 0)                                                                                     \
    X(MOV, IRU)                                                                                    \
    X(ADD, IRB | IRC) X(SUB, IRB) X(AND, IRB | IRC) X(OR, IRB | IRC) X(XOR, IRB | IRC)             \
    X(SHL, IRB) X(SHR, IRB) X(SAR, IRB)                                                            \
    X(ADD32S, IRB | IRC) X(SUB32S, IRB) X(SHL32S, IRB) X(SHR32S, IRB) X(SAR32S, IRB)               \
    X(SEXT8, IRU) X(SEXT16, IRU) X(SEXT32, IRU)                                                    \
    X(ZEXT8, IRU) X(ZEXT16, IRU) X(ZEXT32, IRU)                                                    \
    X(MUL, IRB | IRC) X(MULHS, IRB | IRC) X(MULHU, IRB | IRC) X(MULHSU, IRB) X(MUL32S, IRB | IRC)  \
    X(DIVS, IRB) X(DIVU, IRB) X(REMS, IRB) X(REMU, IRB)                                            \
    X(DIVS32S, IRB) X(DIVU32S, IRB) X(REMS32S, IRB) X(REMU32S, IRB)                                \
    X(ROTR, IRB) X(ROTR32S, IRB)                                                                   \
    X(CLZ, IRU) X(CTZ, IRU) X(POPCNT, IRU) X(CLZ32, IRU) X(CTZ32, IRU) X(POPCNT32, IRU)            \
    X(BSWAP, IRU)                                                                                  \
    X(SETCC, IRB)                                                                                  \
    X(SELECT, IRF_DEF | IRF_PURE | IRF_USE_A | IRF_USE_B | IRF_USE_C)                              \
    X(LD, IRF_DEF | IRF_USE_A | IRF_EXIT)                                                          \
    X(ST, IRF_USE_A | IRF_USE_B | IRF_EXIT)                                                        \
    X(LDENV, IRF_DEF)                                                                              \
    X(STENV, IRF_USE_B)                                                                            \
    X(CALL, IRF_DEF | IRF_USE_A | IRF_USE_B | IRF_USE_C | IRF_EXIT)                                \
    X(BRCOND, IRF_USE_A | IRF_USE_B | IRF_EXIT)                                                    \
    X(GOTO, IRF_EXIT | IRF_END)                                                                    \
    X(GOTO_IND, IRF_USE_A | IRF_EXIT | IRF_END)                                                    \
    X(EXIT, IRF_EXIT | IRF_END)
/* clang-format on */

typedef enum {
#define X(name, flags) IR_##name,
    IR_OPS(X)
#undef X
        IR_N_OPS
} IrOpcode;

/* Hints of GOTO_IND. */
enum { JH_NONE, JH_CALL, JH_RET };

typedef struct {
    uint8_t op;    /* IrOpcode */
    uint8_t cond;  /* IrCond; of LD and ST: no op of their instruction is behind them, see ir_mark_ends() */
    uint8_t flags; /* MO_* or JH_* */
    uint8_t exit;  /* chain slot of BRCOND and GOTO, counted up from 0 in order of emission;
                      of LD, ST and CALL: the site, that is the index of their instruction */
    uint16_t d, a, b, c;
    int32_t off;   /* see the op; of BRCOND, GOTO, GOTO_IND and EXIT: the site */
    int64_t imm;   /* the value of an operand that is IR_CONST; pc of INSN */
    uint64_t imm2; /* target pc of BRCOND, GOTO, EXIT */
} IrOp;

/* What is being translated. The front end appends, the optimiser rewrites in place. */
typedef struct {
    IrOp ops[IR_MAX_OPS];
    uint32_t n_ops;
    uint32_t n_insns;
    uint32_t n_temps; /* temporaries in use, from slot IR_GLOBALS up */
    uint32_t n_exits;
    uint16_t insn_pc[IR_MAX_INSNS]; /* offset in the page of each instruction | 1 if 4 bytes long */
} IrBlock;

/* Builder: the front end's only way to write ops. ir_* emitters fold nothing. */
IrOp *ir_emit(IrBlock *ir, IrOpcode op);
uint16_t ir_temp(IrBlock *ir);
void ir_insn(IrBlock *ir, uint64_t pc, int len);
void ir_op2(IrBlock *ir, IrOpcode op, uint16_t d, uint16_t a, uint16_t b);
void ir_op2i(IrBlock *ir, IrOpcode op, uint16_t d, uint16_t a, int64_t imm);  /* b = imm */
void ir_op2ri(IrBlock *ir, IrOpcode op, uint16_t d, int64_t imm, uint16_t b); /* a = imm */
void ir_op1(IrBlock *ir, IrOpcode op, uint16_t d, uint16_t a);
void ir_movi(IrBlock *ir, uint16_t d, int64_t imm);
void ir_setcc(IrBlock *ir, IrCond cond, uint16_t d, uint16_t a, uint16_t b);
void ir_setcci(IrBlock *ir, IrCond cond, uint16_t d, uint16_t a, int64_t imm);
void ir_select(IrBlock *ir, IrCond cond, uint16_t d, uint16_t a, int64_t b_imm, uint16_t c);
void ir_ld(IrBlock *ir, uint8_t mo, uint16_t d, uint16_t a, int32_t off); /* a may be IR_CONST: address off */
void ir_st(IrBlock *ir, uint8_t mo, uint16_t a, int32_t off, uint16_t b); /* b = IR_CONST stores 0 */
void ir_ldenv(IrBlock *ir, uint8_t mo, uint16_t d, int32_t byte_off);
void ir_stenv(IrBlock *ir, uint8_t mo, int32_t byte_off, uint16_t b);
void ir_stenvi(IrBlock *ir, uint8_t mo, int32_t byte_off, int64_t imm);
/* d, a, b, c: slots, IR_NONE, or one of a, b, c IR_CONST with its value in imm. */
void ir_call(IrBlock *ir, int helper, uint16_t d, uint16_t a, uint16_t b, uint16_t c, int64_t imm);
void ir_brcond(IrBlock *ir, IrCond cond, uint16_t a, uint16_t b,
               uint64_t target); /* a, b may be IR_CONST: value 0 */
void ir_goto(IrBlock *ir, uint64_t target);
void ir_goto_ind(IrBlock *ir, uint16_t a, int hint);
void ir_exit(IrBlock *ir, uint64_t pc);

const char *ir_op_name(IrOpcode op);
uint8_t ir_op_flags(IrOpcode op);
/* Notes at every LD and ST whether an instruction ends behind it. As the front end has made the block: what
 * is optimised away behind one would be seen where the block is left there. */
void ir_mark_ends(IrBlock *ir);
/* Copies the ops that do something, all but marks of instructions; returns how many. `out` may be NULL. */
uint32_t ir_pack(const IrBlock *ir, IrOp *out);
/* Returns NULL when the block keeps the invariants above, else what is wrong. */
const char *ir_check(const IrBlock *ir);
/* Constants, copies, dead code, and (words) 32-bit values. Changes nothing a guest can see. */
struct Helper;
void ir_optimise(IrBlock *ir, const struct Helper *helpers, bool words);
size_t ir_dump(const IrBlock *ir, char *buf, size_t size);

#endif

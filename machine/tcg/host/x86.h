/* x86.h: what the files of the x86-64 back end share.
 *
 * Registers in generated code:
 *   rbp       hart + 128 (so that the first 32 slots are one displacement byte away)
 *   r15       step budget: h->budget less the whole of the TB under way
 *   r14       h->dctx
 *   rax rcx rdx   scratch within one op
 *   rsi (and rdx, rcx where no op needs them)   temporaries of the TB
 *   the others   pinned guest registers, in the guest's hot_slots order
 * The stack pointer is 16-byte aligned in blocks, so it is not at the entry of a thunk.
 */
#ifndef WB_X86_H
#define WB_X86_H

#include "codebuf.h"
#include "host.h"
#include "../guest/guest.h"
#include "x86_emit.h"

enum {
    R_ENV = RBP,
    R_BUDGET = R15,
    R_DCTX = R14,
    ENV_BIAS = 128,
    N_PIN_REGS = 8,
    MAX_OP_BYTES = 768, /* of one op with its part out of line */
    MAX_HELPERS = 256,
    MAX_SPANS = 256,        /* of a block */
    MXCSR_DEFAULT = 0x1f80, /* nearest even, no traps, no flushing, no flags */
};

struct CodeBuf {
    CodeMem mem;
    size_t ready; /* of it, in bytes; see hostmem_fill() */
    Machine *m;
    Asm a;           /* where the next block goes (writable alias) */
    uint8_t *blocks; /* where blocks begin, behind the thunks */
    uint8_t pinned;  /* switch `pin` as the thunks were made */
    uint8_t has_bmi2;
    uint8_t has_fma;
    uint8_t has_lzcnt;       /* and tzcnt */
    int8_t pin_of[IR_SLOTS]; /* host register of a slot, or -1 */
    /* Entry points, in the writable alias like all addresses while emitting. */
    uint8_t *enter;      /* (hart, code): from C into a block */
    uint8_t *leave;      /* registers are in env already: back to C */
    uint8_t *leave_d;    /* the same, behind a CALL: rax is its result, ecx its slot */
    uint8_t *exit_pc;    /* rax = pc: out, by no chain slot */
    uint8_t *exit_chain; /* rax = slot, rcx = pc, rdx = address of the TB pointer */
    uint8_t *load[16];   /* by MO_*: rax = vaddr, rcx = address of the TB pointer; value in rax */
    uint8_t *store[4];   /* by size: rdx = value too */
    uint8_t *helper[MAX_HELPERS];
    uint8_t fp[MAX_HELPERS];  /* which expansion of x86_fp.c a helper has, 0 = none */
    uint8_t amo[MAX_HELPERS]; /* of x86_amo.c */
    uint8_t *mxcsr;           /* the value of MXCSR in blocks */
    uint8_t *ram_addend;      /* host address - paddr of RAM */
};

/* The part of an op that is out of line. */
typedef enum {
    STUB_BUDGET,
    STUB_SIDE,
    STUB_TAIL,
    STUB_LOAD,
    STUB_STORE,
    STUB_LEAVE_D,
    STUB_HELPER,
    STUB_FP_SLOW,
    STUB_FP_INEXACT
} StubKind;
typedef struct {
    uint8_t *at;   /* rel32 that leads here */
    uint8_t *back; /* where the main line goes on */
    const IrOp *op;
    uint8_t kind;
    uint16_t span; /* spans that have begun */
    uint64_t xmm;  /* slots whose copies are valid behind the op */
} Stub;

/* From op `at` on, `reg` holds another slot: see x86_span.c. */
typedef struct {
    uint16_t at;
    uint8_t reg, home, out, in; /* home: the slot pinned to it */
    bool store, load;           /* the old value must go to env, the new one come from there */
} Span;

/* Accesses that share a look-up: see x86_group.c. */
typedef struct {
    int32_t lo, hi;             /* their bytes, from the base: lo <= offset < hi */
    uint16_t base;              /* slot */
    uint16_t first, last, home; /* ops; slot of env that keeps the pointer, 0: none */
    uint8_t kind, reg;          /* IR_LD or IR_ST; register that has the pointer */
} Group;

static inline bool tb_jumps_to_self(const Machine *m, const TB *tb, const IrOp *op)
{
    return m->sw.chain && (op->op == IR_BRCOND || op->op == IR_GOTO) && op->imm2 == tb->pc;
}

/* One compilation. */
typedef struct {
    Asm *a;
    CodeBuf *cb;
    Machine *m;
    TB *tb;
    int64_t distance; /* host address - paddr of RAM */
    bool near;      /* loads and stores are of RAM at that distance, which fits in an instruction, or slow */
    uint8_t *entry; /* of the block; the TB pointer is in the 8 bytes before it */
    uint8_t *loop;  /* where jumps of the block to itself go */
    bool loops;     /* there are such jumps */
    bool called;    /* the op under way has called C in the main line … */
    bool copied;    /* … or has renewed the copy of what it wrote */
    uint32_t n_stubs;
    int8_t reg_of[IR_SLOTS];
    struct {
        uint8_t reg, home, guest; /* register, the slot pinned to it, and the slot it holds in this block */
    } swap[N_PIN_REGS];
    unsigned n_swaps; /* see x86_swap.c */
    Span span[MAX_SPANS];
    unsigned n_spans, at_span;  /* at_span of them have begun */
    uint8_t xmm_of[IR_GLOBALS]; /* register that may hold a copy of a slot, 0 = none */
    uint64_t xmm_used, xmm;     /* slots that have one, and those whose copy is valid here */
    Group group[IR_MAX_INSNS];
    uint32_t n_groups;
    uint8_t group_of[IR_MAX_OPS]; /* number of an access's group + 1, 0: none */
    uint8_t in_rcx;               /* the group whose pointer rcx has, + 1 */
    uint8_t rsi_busy[IR_MAX_OPS]; /* rsi has a value at this op */
    bool used[IR_SLOTS];          /* temporaries of the block, and spare slots taken */
    Opnd flags_of;                /* what ZF tells of … */
    uint8_t *flags_at;            /* … if no code follows this point */
    uint8_t *slow;                /* last jump to the helper of the op under way */
    Stub stubs[3 * IR_MAX_OPS + 1];
} Gen;

static inline Opnd opnd_env(size_t hart_offset)
{
    return opnd_mem(R_ENV, (int32_t)hart_offset - ENV_BIAS);
}

static inline Opnd opnd_slot_mem(unsigned slot)
{
    return opnd_env(8 * (size_t)slot);
}

static inline Opnd gen_slot(const Gen *g, unsigned slot)
{
    return g->reg_of[slot] >= 0 ? opnd_reg((unsigned)g->reg_of[slot]) : opnd_slot_mem(slot);
}

static inline Opnd gen_opnd(const Gen *g, const IrOp *op, unsigned ref)
{
    return ref == IR_CONST ? opnd_imm(op->imm) : gen_slot(g, ref);
}

static inline const uint8_t *gen_tb_ptr(const Gen *g)
{
    return g->entry - 8;
}

static inline Stub *gen_stub(Gen *g, StubKind kind, const IrOp *op, uint8_t *at)
{
    Stub *s = &g->stubs[g->n_stubs++];
    *s = (Stub){.kind = (uint8_t)kind, .op = op, .at = at, .back = g->a->p};
    return s;
}

/* d = constant or register, whatever d is. */
static inline void gen_store_imm(Gen *g, Opnd d, int64_t imm)
{
    if (d.kind == O_REG) {
        em_mov_ri(g->a, d.reg, imm);
    } else if (fits_s32(imm)) {
        em_rm(g->a, EM_W, 0xc7, 0, d);
        em_32(g->a, (uint32_t)imm);
    } else {
        em_mov_ri(g->a, RAX, imm);
        em_mov_or(g->a, d, RAX);
    }
}

/* The register to compute d in: d's own, unless an operand still to be read lives there. */
static inline unsigned gen_target_reg(Opnd d, Opnd later)
{
    return d.kind == O_REG && !opnd_same(d, later) ? d.reg : RAX;
}

/* A constant too long for an instruction, or any, goes into a register first. */
static inline Opnd gen_in_reg_or_mem(Gen *g, Opnd o, unsigned scratch)
{
    if (o.kind != O_IMM)
        return o;
    em_mov_ri(g->a, scratch, o.imm);
    return opnd_reg(scratch);
}

/* movsxd d, r32 */
static inline void gen_store_sext32(Gen *g, Opnd d, Opnd from)
{
    unsigned r = d.kind == O_REG ? d.reg : RAX;
    em_rm(g->a, EM_W, 0x63, r, from);
    em_mov_or(g->a, d, r);
}

/* x86_thunk.c */
void thunks_emit(CodeBuf *cb);
/* x86_regs.c: before swap_assign(). */
void regs_assign(Gen *g);
/* Which of rcx, rdx, rsi an op overwrites. */
unsigned regs_op_clobbers(const IrOp *op);
/* A slot of env that the block does not use; 0: there is none. */
uint16_t regs_spare_slot(Gen *g);
/* x86_group.c: behind regs_assign(). */
void group_assign(Gen *g);
void group_before_op(Gen *g, const IrOp *op);
/* Where the access of a group finds its bytes; *miss is set where that is looked up and may fail. */
bool group_address(Gen *g, const IrOp *op, Opnd *host, uint8_t **miss);
/* In the slow path of an access: looks up again what the block still needs. */
void group_again(Gen *g, const IrOp *op);
/* x86_swap.c: a loop's own choice of slots in registers. */
void swap_assign(Gen *g);
void swap_in(Gen *g);
void swap_out(Gen *g);
void swap_in_again(Gen *g);
/* x86_span.c: behind swap_assign(). */
void span_assign(Gen *g);
void span_before_op(Gen *g, const IrOp *op);
/* To where so many spans have begun. */
void span_go_to(Gen *g, unsigned at);
/* x86_alu.c: the ops without effect but d. */
void gen_alu(Gen *g, const IrOp *op);
/* Emits a compare of a and b; returns the condition code under which `a cond b` holds. Uses rax. */
unsigned gen_compare(Gen *g, const IrOp *op);
/* x86_muldiv.c */
void gen_mul(Gen *g, const IrOp *op, bool is32);
void gen_mul_high(Gen *g, const IrOp *op);
void gen_div(Gen *g, const IrOp *op, bool is_signed, bool rem, bool is32);
/* x86_bits.c */
void gen_rotate(Gen *g, const IrOp *op, bool is32);
void gen_count_zeros(Gen *g, const IrOp *op, bool leading, unsigned bits);
void gen_count_ones(Gen *g, const IrOp *op, unsigned bits);
void gen_bswap(Gen *g, const IrOp *op);
/* x86_mem.c */
void gen_load(Gen *g, const IrOp *op);
void gen_store(Gen *g, const IrOp *op);
/* Behind a look-up at rcx: reg = distance of the host's bytes from the guest's. Known, it need not wait. */
void gen_addend(Gen *g, unsigned reg, size_t table);
/* ecx = offset of the TLB entry for the page of reg + disp. */
void gen_tlb_index(Gen *g, unsigned reg, int32_t disp);
/* Are loads of this block checked by gen_bounds(), and not by the TLB? Uses rdx. */
bool gen_has_bounds(const Gen *g, const IrOp *op);
/* Leads to the slow path unless the `bytes` from reg + disp on are open to loads; the jump is returned. */
uint8_t *gen_bounds(Gen *g, unsigned reg, int32_t disp, unsigned bytes);
void gen_load_env(Gen *g, const IrOp *op);
void gen_store_env(Gen *g, const IrOp *op);
void gen_store_env_now(Gen *g, const IrOp *op);
void stub_load(Gen *g, const Stub *s);
void stub_store(Gen *g, const Stub *s);
/* x86_exit.c */
void gen_entry(Gen *g);
void gen_brcond(Gen *g, const IrOp *op);
void gen_goto(Gen *g, const IrOp *op);
void gen_goto_ind(Gen *g, const IrOp *op);
void gen_exit(Gen *g, const IrOp *op);
void gen_call(Gen *g, const IrOp *op);
void gen_call_helper(Gen *g, const IrOp *op);
/* A condition under which an expansion leaves its op to the helper; Gen.slow is NULL before the first. */
void gen_slow_if(Gen *g, unsigned cc);
/* All of these jumps, of which `last` is the last one, lead here. */
void gen_slow_here(Gen *g, uint8_t *last);
void stub_helper(Gen *g, const Stub *s);
void stub_exit(Gen *g, const Stub *s);
/* Out, behind the instruction of an access that is done. */
void gen_leave_behind(Gen *g, const IrOp *access);
void stub_leave_d(Gen *g, const Stub *s);
/* x86_amo.c: false: this call has no expansion. */
bool gen_amo(Gen *g, const IrOp *op);
void amo_init(CodeBuf *cb);
/* x86_fp.c: false: this call has no expansion. */
bool gen_fp(Gen *g, const IrOp *op);
void fp_init(CodeBuf *cb);
/* Does the expansion of this op read its operands in xmm registers? */
bool fp_reads_xmm(const Gen *g, const IrOp *op);
/* Is this store done by the slow path of the call behind it? */
bool fp_defers(const Gen *g, const IrOp *op);
void stub_fp_slow(Gen *g, const Stub *s);
void stub_fp_inexact(Gen *g, const Stub *s);
/* x86_xmm.c */
void fp_assign(Gen *g);
void fp_reload(Gen *g, uint64_t slots);
/* Where an operation finds slot's value: in its copy, which is loaded if need be, or where the slot is. */
Opnd fp_opnd(Gen *g, unsigned slot);
/* The register of slot's copy if that is valid, or 0. */
unsigned fp_copy_of(const Gen *g, unsigned slot);
/* Behind op: what has become of the copies. */
void fp_after_op(Gen *g, const IrOp *op);

#endif

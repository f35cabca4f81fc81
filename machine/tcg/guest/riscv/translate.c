/* translate.c: RISC-V instructions to IR.
 *
 * The decoder is generated from the .decode tables and calls one trans_ function an instruction,
 * in trans_*.c.inc by extension. Each keeps the IR's invariant: an op that may leave comes before
 * the instruction's first change of a global. A trans_ function that returns false says
 * that the encoding is illegal; it has then emitted nothing.
 */
#include "../../core/brief.h" /* an instruction comes here once; what follows, the optimiser and the host, costs more */

#include "../../core/probe.h"
#include "riscv.h"
#include "vector.h"

enum {
    MAX_FOLLOWED = 8, /* direct jumps that one block follows */
    MAX_OPS_PER_INSN =
        11, /* fused multiply-add: 6, with probes and triggers before and the block's end behind */
};

typedef struct {
    const Machine *m;
    IrBlock *ir;
    uint64_t first_pc; /* of the block */
    uint64_t ppage;    /* paddr of its page */
    uint64_t pc;       /* of this instruction */
    uint64_t next_pc;  /* behind it */
    uint64_t go_on;    /* where translation goes on */
    uint32_t insn;     /* its encoding: 16 or 32 bits */
    uint32_t followed; /* jumps followed so far */
    bool fs_off;       /* FP instructions are illegal */
    bool vs_off;       /* vector instructions are illegal */
    bool fp_plain;     /* frm is 0 */
    bool fs_dirty;     /* an instruction of this block has already set fs_dirty */
    bool ended;        /* an op that ends the block has been emitted */
} Ctx;

#include "decode_fields.inc"
#include "decode_args.inc"

/* Operands. x0 is the constant 0 where an op has one constant at most, else slot 0, which holds 0. */

static uint16_t ref_x(int reg)
{
    return reg ? (uint16_t)(SLOT_X + reg) : IR_CONST;
}

static uint16_t slot_x(int reg)
{
    return (uint16_t)(SLOT_X + reg);
}

static uint16_t slot_f(int reg)
{
    return (uint16_t)(SLOT_F + reg);
}

/* Destination of an op that has to happen also when its result is dropped. */
static uint16_t dest_x(Ctx *ctx, int rd)
{
    return rd ? slot_x(rd) : ir_temp(ctx->ir);
}

/* Destination of a CALL. */
static uint16_t call_dest_x(int rd)
{
    return rd ? slot_x(rd) : IR_NONE;
}

static void gen_mov(Ctx *ctx, int rd, int rs)
{
    if (!rd || rd == rs)
        return;
    if (rs)
        ir_op1(ctx->ir, IR_MOV, slot_x(rd), slot_x(rs));
    else
        ir_movi(ctx->ir, slot_x(rd), 0);
}

/* rd = rs1 op rs2 */
static void gen_op2(Ctx *ctx, IrOpcode op, const arg_r *a)
{
    if (!a->rd)
        return;
    if (!a->rs2) /* both may be x0: one of them is then read from its slot */
        ir_op2i(ctx->ir, op, slot_x(a->rd), slot_x(a->rs1), 0);
    else if (!a->rs1)
        ir_op2ri(ctx->ir, op, slot_x(a->rd), 0, slot_x(a->rs2));
    else
        ir_op2(ctx->ir, op, slot_x(a->rd), slot_x(a->rs1), slot_x(a->rs2));
}

/* rd = rs1 op imm */
static void gen_op2i(Ctx *ctx, IrOpcode op, const arg_i *a)
{
    if (a->rd)
        ir_op2i(ctx->ir, op, slot_x(a->rd), slot_x(a->rs1), a->imm);
}

/* Leaving */

static bool is_in_block(const Ctx *ctx, uint64_t pc)
{
    if ((pc ^ ctx->first_pc) & WB_PAGE_MASK)
        return false;
    for (uint32_t i = 0; i < ctx->ir->n_insns; i++)
        if ((ctx->ir->insn_pc[i] & 0xffeu) == (pc & ~WB_PAGE_MASK))
            return true;
    return false;
}

/* Tells probes of a call or return, before the instruction changes anything. Target: a slot, or IR_CONST. */
static void gen_call_probe(Ctx *ctx, int hint, uint16_t target, uint64_t target_pc)
{
    if (hint == JH_CALL && probe_wants(ctx->m, PROBE_CALL)) {
        /* one constant an op: the return address goes by a temporary */
        const uint16_t ret = ir_temp(ctx->ir);
        ir_movi(ctx->ir, ret, (int64_t)ctx->next_pc);
        ir_call(ctx->ir, HELP_probe_call, IR_NONE, target, ret, slot_x(2), (int64_t)target_pc);
    } else if (hint == JH_RET && probe_wants(ctx->m, PROBE_RET)) {
        ir_call(ctx->ir, HELP_probe_ret, IR_NONE, target, IR_NONE, slot_x(2), (int64_t)target_pc);
    }
}

/* An unconditional jump: inside the page the block may go on at its target. A jump that crosses
 * the page's end is the last instruction of its block. */
static void gen_jump(Ctx *ctx, uint64_t target)
{
    const bool in_page =
        !((target ^ ctx->first_pc) & WB_PAGE_MASK) && !(((ctx->next_pc - 1) ^ ctx->first_pc) & WB_PAGE_MASK);
    if (ctx->m->sw.superblock && in_page && ctx->followed < MAX_FOLLOWED && !is_in_block(ctx, target)) {
        ctx->followed++;
        ctx->go_on = target;
        return;
    }
    ir_goto(ctx->ir, target);
    ctx->ended = true;
}

/* For an instruction behind which the helper decides where to go. */
static void gen_exit(Ctx *ctx)
{
    ir_exit(ctx->ir, ctx->next_pc);
    ctx->ended = true;
}

static void gen_illegal(Ctx *ctx)
{
    ir_call(ctx->ir, HELP_illegal, IR_NONE, IR_CONST, IR_NONE, IR_NONE, (int64_t)ctx->insn);
    ir_exit(ctx->ir, ctx->pc);
    ctx->ended = true;
}

#include "trans_rvi.c.inc"
#include "trans_rvm.c.inc"
#include "trans_rva.c.inc"
#include "trans_rvb.c.inc"
#include "trans_rvfd.c.inc"
#include "trans_rvv.c.inc"
#include "trans_priv.c.inc"

#include "decode_insn32.inc"
#include "decode_insn16.inc"
#include "decode_rvv.inc"
#include "decode_rvv_mem.inc"

static uint32_t get_u16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

/* Registers that a REG probe asks about, and that this instruction's op has just been seen to write: the CALL
 * belongs before the instruction, so the ops are moved up by one. */
static void gen_reg_probes(Ctx *ctx, uint32_t first)
{
    IrBlock *ir = ctx->ir;
    for (uint32_t i = first; i < ir->n_ops; i++) {
        const uint16_t d = ir->ops[i].d;
        if (!(ir_op_flags((IrOpcode)ir->ops[i].op) & IRF_DEF) || d >= IR_GLOBALS ||
            !probe_covers_slot(ctx->m, d))
            continue;
        const IrOp last = ir->ops[ir->n_ops - 1];
        ir_call(ir, HELP_probe_reg, IR_NONE, IR_CONST, IR_NONE, IR_NONE, d);
        const IrOp call = ir->ops[ir->n_ops - 1];
        ir->ops[ir->n_ops - 1] = last;
        for (uint32_t k = ir->n_ops - 2; k > first; k--)
            ir->ops[k] = ir->ops[k - 1];
        ir->ops[first] = call;
        return;
    }
}

static bool decode(Ctx *ctx, uint32_t len)
{
    if (len == 2)
        return decode_insn16(ctx, ctx->insn);
    return decode_insn32(ctx, ctx->insn) || decode_rvv(ctx, ctx->insn) || decode_rvv_mem(ctx, ctx->insn);
}

static void translate_insn(Ctx *ctx, uint32_t len)
{
    ctx->ir->n_temps = 0; /* no temporary outlives its instruction */
    ir_insn(ctx->ir, ctx->pc, (int)len);
    if (ctx->ir->n_insns == 1 && probe_counts_blocks(ctx->m))
        ir_call(ctx->ir, HELP_probe_block, IR_NONE, IR_CONST, IR_NONE, IR_NONE, ctx->m->probes->blocks.n);
    if (probe_covers_insn(ctx->m, ctx->pc, ctx->ppage | (ctx->pc & ~WB_PAGE_MASK)))
        ir_call(ctx->ir, HELP_probe_exec, IR_NONE, IR_CONST, IR_NONE, IR_NONE, (int64_t)ctx->pc);
    if (riscv_trigger_covers(ctx->m, ctx->pc))
        ir_call(ctx->ir, HELP_trigger, IR_NONE, IR_CONST, IR_NONE, IR_NONE, (int64_t)ctx->pc);
    const uint32_t first = ctx->ir->n_ops;
    if (!decode(ctx, len))
        gen_illegal(ctx);
    if (probe_wants(ctx->m, PROBE_REG))
        gen_reg_probes(ctx, first);
}

void riscv_translate(Hart *h, IrBlock *ir, uint64_t pc, uint32_t flags, const uint8_t *page,
                     const uint8_t *next_page, uint32_t max_insns)
{
    Ctx ctx = {.m = h->m,
               .ir = ir,
               .first_pc = pc,
               .ppage = h->m->ram_base + (uint64_t)(page - h->m->ram),
               .pc = pc,
               .fs_off = flags & TBF_FS_OFF,
               .vs_off = (flags & TBF_VS_OFF) != 0,
               .fp_plain = (flags & TBF_FP_PLAIN) != 0};
    while (!ctx.ended) {
        const uint32_t off = (uint32_t)(ctx.pc & ~WB_PAGE_MASK);
        const bool left_page = (ctx.pc ^ pc) & WB_PAGE_MASK;
        /* After a jump back, falling through may lead to where the block has been. */
        const bool closed = ctx.followed && is_in_block(&ctx, ctx.pc);
        if (left_page || closed || ir->n_insns >= max_insns || ir->n_ops + MAX_OPS_PER_INSN >= IR_MAX_OPS)
            break;
        ctx.insn = get_u16(page + off);
        const uint32_t len = riscv_insn_bytes((uint16_t)ctx.insn);
        if (off + len > WB_PAGE_SIZE && !next_page)
            break;
        if (len == 4)
            ctx.insn |= get_u16(off + len > WB_PAGE_SIZE ? next_page : page + off + 2) << 16;
        ctx.next_pc = ctx.go_on = ctx.pc + len;
        translate_insn(&ctx, len);
        ctx.pc = ctx.go_on;
    }
    if (!ctx.ended)
        ir_goto(ir, ctx.pc);
}

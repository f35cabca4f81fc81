/* ir.c: the IR's builder, checker and printer. Called by front ends and tests. */
#include "ir.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const op_names[] = {
#define X(name, flags) #name,
    IR_OPS(X)
#undef X
};
static const uint8_t op_flags[] = {
#define X(name, flags) (flags),
    IR_OPS(X)
#undef X
};
static const char *const cond_names[] = {
#define X(name) #name,
    IR_CONDS(X)
#undef X
};

void ir_mark_ends(IrBlock *ir)
{
    for (uint32_t i = 0; i + 1 < ir->n_ops; i++)
        if (ir->ops[i].op == IR_LD || ir->ops[i].op == IR_ST)
            ir->ops[i].cond = ir->ops[i + 1].op == IR_INSN;
}

uint32_t ir_pack(const IrBlock *ir, IrOp *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < ir->n_ops; i++) {
        if (ir->ops[i].op == IR_INSN || ir->ops[i].op == IR_NOP)
            continue;
        if (out)
            out[n] = ir->ops[i];
        n++;
    }
    return n;
}

const char *ir_op_name(IrOpcode op)
{
    return op < IR_N_OPS ? op_names[op] : "?";
}

uint8_t ir_op_flags(IrOpcode op)
{
    return op_flags[op];
}

IrOp *ir_emit(IrBlock *ir, IrOpcode op)
{
    /* Front ends keep a margin; running over the end of the block would be a silent wrong translation. */
    if (ir->n_ops >= IR_MAX_OPS)
        abort();
    IrOp *o = &ir->ops[ir->n_ops++];
    *o = (IrOp){.op = (uint8_t)op, .d = IR_NONE, .a = IR_NONE, .b = IR_NONE, .c = IR_NONE};
    return o;
}

uint16_t ir_temp(IrBlock *ir)
{
    if (ir->n_temps >= IR_SLOTS - IR_GLOBALS)
        abort();
    return (uint16_t)(IR_GLOBALS + ir->n_temps++);
}

static uint8_t ir_site(const IrBlock *ir)
{
    return (uint8_t)(ir->n_insns ? ir->n_insns - 1 : 0);
}

void ir_insn(IrBlock *ir, uint64_t pc, int len)
{
    if (ir->n_insns >= IR_MAX_INSNS)
        abort();
    ir->insn_pc[ir->n_insns++] = (uint16_t)((pc & 0xfff) | (len == 4));
    IrOp *o = ir_emit(ir, IR_INSN);
    o->imm = (int64_t)pc;
    o->off = len;
}

void ir_op2(IrBlock *ir, IrOpcode op, uint16_t d, uint16_t a, uint16_t b)
{
    IrOp *o = ir_emit(ir, op);
    o->d = d, o->a = a, o->b = b;
}

void ir_op2i(IrBlock *ir, IrOpcode op, uint16_t d, uint16_t a, int64_t imm)
{
    IrOp *o = ir_emit(ir, op);
    o->d = d, o->a = a, o->b = IR_CONST, o->imm = imm;
}

void ir_op2ri(IrBlock *ir, IrOpcode op, uint16_t d, int64_t imm, uint16_t b)
{
    IrOp *o = ir_emit(ir, op);
    o->d = d, o->a = IR_CONST, o->b = b, o->imm = imm;
}

void ir_op1(IrBlock *ir, IrOpcode op, uint16_t d, uint16_t a)
{
    IrOp *o = ir_emit(ir, op);
    o->d = d, o->a = a;
}

void ir_movi(IrBlock *ir, uint16_t d, int64_t imm)
{
    IrOp *o = ir_emit(ir, IR_MOV);
    o->d = d, o->a = IR_CONST, o->imm = imm;
}

void ir_setcc(IrBlock *ir, IrCond cond, uint16_t d, uint16_t a, uint16_t b)
{
    IrOp *o = ir_emit(ir, IR_SETCC);
    o->cond = (uint8_t)cond, o->d = d, o->a = a, o->b = b;
}

void ir_setcci(IrBlock *ir, IrCond cond, uint16_t d, uint16_t a, int64_t imm)
{
    IrOp *o = ir_emit(ir, IR_SETCC);
    o->cond = (uint8_t)cond, o->d = d, o->a = a, o->b = IR_CONST, o->imm = imm;
}

void ir_select(IrBlock *ir, IrCond cond, uint16_t d, uint16_t a, int64_t b_imm, uint16_t c)
{
    IrOp *o = ir_emit(ir, IR_SELECT);
    o->cond = (uint8_t)cond, o->d = d, o->a = a, o->b = IR_CONST, o->c = c, o->imm = b_imm;
}

void ir_ld(IrBlock *ir, uint8_t mo, uint16_t d, uint16_t a, int32_t off)
{
    IrOp *o = ir_emit(ir, IR_LD);
    o->exit = ir_site(ir);
    o->flags = mo, o->d = d, o->a = a, o->off = off;
}

void ir_st(IrBlock *ir, uint8_t mo, uint16_t a, int32_t off, uint16_t b)
{
    IrOp *o = ir_emit(ir, IR_ST);
    o->exit = ir_site(ir);
    o->flags = mo, o->a = a, o->off = off, o->b = b;
}

void ir_ldenv(IrBlock *ir, uint8_t mo, uint16_t d, int32_t byte_off)
{
    IrOp *o = ir_emit(ir, IR_LDENV);
    o->flags = mo, o->d = d, o->off = byte_off;
}

void ir_stenv(IrBlock *ir, uint8_t mo, int32_t byte_off, uint16_t b)
{
    IrOp *o = ir_emit(ir, IR_STENV);
    o->flags = mo, o->off = byte_off, o->b = b;
}

void ir_stenvi(IrBlock *ir, uint8_t mo, int32_t byte_off, int64_t imm)
{
    IrOp *o = ir_emit(ir, IR_STENV);
    o->flags = mo, o->off = byte_off, o->b = IR_CONST, o->imm = imm;
}

void ir_call(IrBlock *ir, int helper, uint16_t d, uint16_t a, uint16_t b, uint16_t c, int64_t imm)
{
    IrOp *o = ir_emit(ir, IR_CALL);
    o->exit = ir_site(ir);
    o->off = helper, o->d = d, o->a = a, o->b = b, o->c = c, o->imm = imm;
}

static uint8_t ir_new_exit(IrBlock *ir)
{
    if (ir->n_exits >= IR_MAX_EXITS)
        abort();
    return (uint8_t)ir->n_exits++;
}

void ir_brcond(IrBlock *ir, IrCond cond, uint16_t a, uint16_t b, uint64_t target)
{
    IrOp *o = ir_emit(ir, IR_BRCOND);
    o->off = ir_site(ir);
    o->cond = (uint8_t)cond, o->a = a, o->b = b, o->imm2 = target, o->exit = ir_new_exit(ir);
}

void ir_goto(IrBlock *ir, uint64_t target)
{
    IrOp *o = ir_emit(ir, IR_GOTO);
    o->off = ir_site(ir);
    o->imm2 = target, o->exit = ir_new_exit(ir);
}

void ir_goto_ind(IrBlock *ir, uint16_t a, int hint)
{
    IrOp *o = ir_emit(ir, IR_GOTO_IND);
    o->off = ir_site(ir);
    o->a = a, o->flags = (uint8_t)hint;
}

void ir_exit(IrBlock *ir, uint64_t pc)
{
    IrOp *o = ir_emit(ir, IR_EXIT);
    o->off = ir_site(ir);
    o->imm2 = pc;
}

static bool ir_ref_ok(uint16_t ref, bool used, bool may_be_none)
{
    if (!used)
        return true;
    return ref < IR_SLOTS || ref == IR_CONST || (may_be_none && ref == IR_NONE);
}

const char *ir_check(const IrBlock *ir)
{
    uint32_t exits = 0, insns = 0;
    if (!ir->n_ops || ir->ops[0].op != IR_INSN)
        return "a block begins with INSN";
    for (uint32_t i = 0; i < ir->n_ops; i++) {
        const IrOp *o = &ir->ops[i];
        if (o->op >= IR_N_OPS)
            return "no such op";
        const uint8_t f = op_flags[o->op];
        const bool call = o->op == IR_CALL;
        if (o->op == IR_INSN)
            insns++;
        if ((f & IRF_DEF) && !(o->d < IR_SLOTS || (call && o->d == IR_NONE)))
            return "bad destination";
        if (!ir_ref_ok(o->a, f & IRF_USE_A, call) || !ir_ref_ok(o->b, f & IRF_USE_B, call) ||
            !ir_ref_ok(o->c, f & IRF_USE_C, call))
            return "bad operand";
        if ((o->op == IR_BRCOND || o->op == IR_GOTO) && o->exit != exits++)
            return "exits out of order";
        if ((bool)(f & IRF_END) != (i == ir->n_ops - 1))
            return "a block ends once";
    }
    return insns == ir->n_insns && exits == ir->n_exits ? NULL : "wrong counts";
}

static int ir_print_ref(char *buf, size_t size, uint16_t ref, int64_t imm)
{
    if (ref == IR_NONE)
        return snprintf(buf, size, " _");
    if (ref == IR_CONST)
        return snprintf(buf, size, " #%" PRId64, imm);
    return ref < IR_GLOBALS ? snprintf(buf, size, " g%u", ref)
                            : snprintf(buf, size, " t%u", ref - IR_GLOBALS);
}

size_t ir_dump(const IrBlock *ir, char *buf, size_t size)
{
    size_t n = 0;
#define PUT(call)                                                                                            \
    do {                                                                                                     \
        const int put_ = (call);                                                                             \
        n += put_ > 0 ? (size_t)put_ : 0;                                                                    \
        if (n >= size)                                                                                       \
            return size;                                                                                     \
    } while (0)
    for (uint32_t i = 0; i < ir->n_ops; i++) {
        const IrOp *o = &ir->ops[i];
        const uint8_t f = op_flags[o->op];
        if (o->op == IR_INSN) {
            PUT(snprintf(buf + n, size - n, "%016" PRIx64 ":\n", (uint64_t)o->imm));
            continue;
        }
        PUT(snprintf(buf + n, size - n, "    %s", op_names[o->op]));
        if (o->op == IR_SETCC || o->op == IR_SELECT || o->op == IR_BRCOND)
            PUT(snprintf(buf + n, size - n, ".%s", cond_names[o->cond]));
        if (f & IRF_DEF)
            PUT(ir_print_ref(buf + n, size - n, o->d, 0));
        if (f & IRF_USE_A)
            PUT(ir_print_ref(buf + n, size - n, o->a, o->imm));
        if (f & IRF_USE_B)
            PUT(ir_print_ref(buf + n, size - n, o->b, o->imm));
        if (f & IRF_USE_C)
            PUT(ir_print_ref(buf + n, size - n, o->c, o->imm));
        if (o->op == IR_LD || o->op == IR_ST || o->op == IR_LDENV || o->op == IR_STENV)
            PUT(snprintf(buf + n, size - n, " off %d mo %u", o->off, o->flags));
        if (o->op == IR_CALL)
            PUT(snprintf(buf + n, size - n, " helper %d", o->off));
        if (o->op == IR_BRCOND || o->op == IR_GOTO || o->op == IR_EXIT)
            PUT(snprintf(buf + n, size - n, " -> %" PRIx64, o->imm2));
        PUT(snprintf(buf + n, size - n, "\n"));
    }
#undef PUT
    return n;
}

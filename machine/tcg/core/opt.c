/* opt.c: one pass forwards (constants and copies), one backwards (dead code).
 *
 * A block is straight-line code with side exits, so what is known stays known until its slot is
 * written. Every global is live where the block may be left; temporaries die with it.
 */
#include "eval.h"
#include "machine.h"
#include "words.h"

#include <string.h>

enum { SET_WORDS = IR_SLOTS / 64 };
_Static_assert(IR_GLOBALS == 64, "globals are the first word of a slot set");

static void set_add(uint64_t *set, uint16_t ref)
{
    if (ref < IR_SLOTS)
        set[ref / 64] |= UINT64_C(1) << (ref % 64);
}

typedef struct {
    uint64_t value[IR_SLOTS];
    uint16_t copy_of[IR_SLOTS];  /* IR_CONST: value known; IR_NONE: nothing known; else that slot */
    uint64_t sources[SET_WORDS]; /* slots that some copy_of may name */
} Facts;

static void facts_kill(Facts *f, uint16_t d)
{
    uint64_t *word = &f->sources[d / 64];
    const uint64_t bit = UINT64_C(1) << (d % 64);
    for (uint32_t i = 0; (*word & bit) && i < IR_SLOTS; i++)
        if (f->copy_of[i] == d)
            f->copy_of[i] = IR_NONE;
    *word &= ~bit;
    f->copy_of[d] = IR_NONE;
}

/* Replaces an operand by what it is known to equal. One constant an op is all there is room for. */
static void facts_apply(const Facts *f, IrOp *o, uint16_t *ref, bool may_be_const)
{
    if (*ref >= IR_SLOTS)
        return;
    const uint16_t known = f->copy_of[*ref];
    if (known == IR_NONE)
        return;
    if (known != IR_CONST) {
        *ref = known;
        return;
    }
    if (may_be_const && o->a != IR_CONST && o->b != IR_CONST && o->c != IR_CONST) {
        o->imm = (int64_t)f->value[*ref];
        *ref = IR_CONST;
    }
}

static bool facts_const(const Facts *f, const IrOp *o, uint16_t ref, uint64_t *value)
{
    if (ref == IR_CONST) {
        *value = (uint64_t)o->imm;
        return true;
    }
    if (ref < IR_SLOTS && f->copy_of[ref] == IR_CONST) {
        *value = f->value[ref];
        return true;
    }
    return false;
}

static void op_to_movi(IrOp *o, uint64_t value)
{
    o->op = IR_MOV;
    o->a = IR_CONST;
    o->b = o->c = IR_NONE;
    o->imm = (int64_t)value;
}

static void op_to_mov(IrOp *o, uint16_t a)
{
    o->op = IR_MOV;
    o->a = a;
    o->b = o->c = IR_NONE;
}

/* x op 0 = x */
static bool op_zero_is_identity(IrOpcode op)
{
    return op == IR_ADD || op == IR_SUB || op == IR_OR || op == IR_XOR || op == IR_SHL || op == IR_SHR ||
           op == IR_SAR;
}

static void fold_pure(const Facts *f, IrOp *o)
{
    const uint8_t flags = ir_op_flags(o->op);
    uint64_t a = 0, b = 0;
    const bool ka = facts_const(f, o, o->a, &a);
    const bool kb = (flags & IRF_USE_B) ? facts_const(f, o, o->b, &b) : true;
    if (o->op == IR_SELECT) {
        if (ka && kb) {
            if (ir_eval_cond(o->cond, a, b)) {
                /* The constant of c, if it is one, is the op's only immediate. */
                if (o->c != IR_CONST || (o->a != IR_CONST && o->b != IR_CONST))
                    op_to_mov(o, o->c);
            } else {
                o->op = IR_NOP;
            }
        }
        return;
    }
    if (ka && kb) {
        op_to_movi(o, o->op == IR_SETCC ? ir_eval_cond(o->cond, a, b) : ir_eval(o->op, a, b));
        return;
    }
    if ((flags & IRF_COMMUTES) && o->a == IR_CONST) {
        o->a = o->b;
        o->b = IR_CONST;
    }
    if (o->b == IR_CONST && o->imm == 0) {
        if (op_zero_is_identity(o->op))
            op_to_mov(o, o->a);
        else if (o->op == IR_AND)
            op_to_movi(o, 0);
    }
}

/* Returns true when the rest of the block cannot be reached. */
static bool fold_branch(const Facts *f, IrOp *o)
{
    uint64_t a = 0, b = 0;
    if (!facts_const(f, o, o->a, &a) || !facts_const(f, o, o->b, &b))
        return false;
    if (!ir_eval_cond(o->cond, a, b)) {
        /* Its chain slot stays, unused: slots keep their numbers. */
        o->op = IR_NOP;
        return false;
    }
    o->op = IR_GOTO;
    o->a = o->b = IR_NONE;
    return true;
}

/* ld/st through a known base become absolute where the sum fits the offset field. */
static void fold_address(const Facts *f, IrOp *o)
{
    uint64_t base = 0;
    if (o->a == IR_CONST || o->a >= IR_SLOTS || !facts_const(f, o, o->a, &base) || o->b == IR_CONST)
        return;
    o->a = IR_CONST;
    o->imm = (int64_t)(base + (uint64_t)(int64_t)o->off);
    o->off = 0;
}

static void pass_forwards(IrBlock *ir, bool words)
{
    Facts f;
    Words w;
    if (words)
        words_init(&w);
    memset(f.sources, 0, sizeof(f.sources));
    for (uint32_t i = 0; i < IR_SLOTS; i++)
        f.copy_of[i] = IR_NONE;
    uint32_t insns = 0;
    for (uint32_t i = 0; i < ir->n_ops; i++) {
        IrOp *o = &ir->ops[i];
        uint8_t flags = ir_op_flags(o->op);
        insns += o->op == IR_INSN;
        const bool mem = o->op == IR_LD || o->op == IR_ST;
        /* What back ends put in a call's place takes its operands from slots. */
        const bool may_be_const = o->op != IR_CALL;
        if (mem)
            fold_address(&f, o);
        if (flags & IRF_USE_A)
            facts_apply(&f, o, &o->a, may_be_const && !mem);
        if (flags & IRF_USE_B)
            facts_apply(&f, o, &o->b, may_be_const);
        if (flags & IRF_USE_C)
            facts_apply(&f, o, &o->c, may_be_const);
        if (flags & IRF_PURE)
            fold_pure(&f, o);
        if (words)
            words_fold(&w, ir->ops, i);
        if (o->op == IR_BRCOND && fold_branch(&f, o)) {
            ir->n_ops = i + 1;
            ir->n_insns = insns;
            return;
        }
        flags = ir_op_flags(o->op);
        if (!(flags & IRF_DEF) || o->d >= IR_SLOTS)
            continue;
        if (o->op == IR_MOV && o->a == o->d) {
            o->op = IR_NOP;
            continue;
        }
        if (words)
            words_note(&w, ir->ops, i);
        facts_kill(&f, o->d);
        if (o->op == IR_MOV) {
            f.copy_of[o->d] = o->a;
            set_add(f.sources, o->a);
            f.value[o->d] = (uint64_t)o->imm;
        }
    }
}

static void pass_backwards(IrBlock *ir, const Helper *helpers, bool words)
{
    uint64_t live[SET_WORDS] = {0}, high[SET_WORDS] = {0}; /* high: bits 32 and up are */
    for (uint32_t i = ir->n_ops; i-- > 0;) {
        IrOp *o = &ir->ops[i];
        const uint8_t flags = ir_op_flags(o->op);
        const uint32_t helper = o->op == IR_CALL ? helpers[o->off].flags : 0;
        bool need = true;
        const bool removable = (flags & IRF_PURE) || o->op == IR_LDENV || (helper & HF_PURE);
        if ((flags & IRF_DEF) && o->d < IR_SLOTS) {
            const uint64_t bit = UINT64_C(1) << (o->d % 64);
            if (removable && !(live[o->d / 64] & bit)) {
                o->op = IR_NOP;
                continue;
            }
            need = high[o->d / 64] & bit;
            if (words && !need)
                words_relax(o);
            if (o->op != IR_SELECT) {
                live[o->d / 64] &= ~bit;
                high[o->d / 64] &= ~bit;
            }
        }
        if ((flags & IRF_EXIT) && !(helper & (HF_NOLEAVE | HF_PURE)))
            live[0] = high[0] = ~UINT64_C(0);
        if (flags & IRF_USE_A)
            set_add(live, o->a);
        if (flags & IRF_USE_B)
            set_add(live, o->b);
        if (flags & IRF_USE_C)
            set_add(live, o->c);
        if ((flags & IRF_USE_A) && words_reads_high_a(o, need))
            set_add(high, o->a);
        if ((flags & IRF_USE_B) && words_reads_high_b(o, need))
            set_add(high, o->b);
        if (flags & IRF_USE_C)
            set_add(high, o->c);
    }
}

void ir_optimise(IrBlock *ir, const Helper *helpers, bool words)
{
    pass_forwards(ir, words);
    pass_backwards(ir, helpers, words);
    uint32_t n = 0;
    for (uint32_t i = 0; i < ir->n_ops; i++)
        if (ir->ops[i].op != IR_NOP)
            ir->ops[n++] = ir->ops[i];
    ir->n_ops = n;
}

/* x86_amo.c: AMOs, LR and SC put into the block, on RAM that the TLB has for stores and for loads.
 *
 * What the tables of stores have is watched by nobody who asks for stores, those of loads by nobody who asks
 * for loads: an AMO is both. All else is the helper's, out of line. Helpers and fields of the guest are known
 * here, as in x86_fp.c. SPEC: unprivileged, chapter 8
 */
#include "x86.h"

#if defined(__x86_64__)

#include "../guest/riscv/cpu.h"
#include "../guest/riscv/riscv.h"

typedef enum { AMO_NONE, AMO_LR, AMO_SC, AMO_RMW } AmoKind;
typedef struct {
    const char *name;
    uint8_t kind, size; /* MO_32 or MO_64 */
} AmoInline;

static const AmoInline inlines[] = {
    {"", AMO_NONE, 0},       {"lr_w", AMO_LR, MO_32},   {"lr_d", AMO_LR, MO_64},   {"sc_w", AMO_SC, MO_32},
    {"sc_d", AMO_SC, MO_64}, {"amo_w", AMO_RMW, MO_32}, {"amo_d", AMO_RMW, MO_64},
};

void amo_init(CodeBuf *cb)
{
    const GuestOps *guest = cb->m->guest;
    for (uint32_t i = 0; i < guest->n_helpers; i++) {
        cb->amo[i] = 0;
        for (uint8_t j = 1; j < sizeof inlines / sizeof *inlines; j++)
            if (!strcmp(guest->helpers[i].name, inlines[j].name))
                cb->amo[i] = j;
    }
}

static void want_entry(Gen *g, size_t table)
{
    em_alu_ro(g->a, EM_W, X_CMP, RDX, opnd_idx(R_DCTX, RCX, (int32_t)(table + offsetof(TlbEntry, tag))));
    gen_slow_if(g, CC_NE);
}

/* Where the host has the bytes. *vaddr: the register of the address, where its block is untranslated; *spare:
 * one that is free. Alignment is part of the comparison, as in a store's. */
static Opnd look_up(Gen *g, const IrOp *op, const AmoInline *f, unsigned *vaddr, unsigned *spare)
{
    const Opnd base = gen_slot(g, op->a);
    em_mov_ro(g->a, RDX, base);
    gen_tlb_index(g, RDX, 0);
    em_alu_oi(g->a, EM_W, X_AND, opnd_reg(RDX), (int32_t)WB_PAGE_MASK | ((1 << f->size) - 1));
    if (f->kind != AMO_LR)
        want_entry(g, offsetof(DataCtx, wr));
    want_entry(g, offsetof(DataCtx, rd));
    if (g->tb->flags & TB_BARE_DATA) {
        *vaddr = base.kind == O_REG ? base.reg : RDX;
        em_mov_ro(g->a, *vaddr, base);
    }
    if (g->near) {
        *spare = RCX;
        return opnd_mem(*vaddr, (int32_t)g->distance);
    }
    gen_addend(g, RCX, offsetof(DataCtx, rd));
    em_alu_ro(g->a, EM_W, X_ADD, RCX, base);
    *spare = RDX;
    return opnd_mem(RCX, 0);
}

static void load_old(Gen *g, const AmoInline *f, Opnd host)
{
    em_rm(g->a, EM_W, f->size == MO_32 ? 0x63 : 0x8b, RAX, host);
}

/* The register that has op's value to store: its own, or `spare`. */
static unsigned value_reg(Gen *g, const IrOp *op, unsigned spare)
{
    const Opnd value = gen_slot(g, op->b);
    em_mov_ro(g->a, value.kind == O_REG ? value.reg : spare, value);
    return value.kind == O_REG ? value.reg : spare;
}

static Opnd reservation(void)
{
    return opnd_env((size_t)HART_GUEST_OFF(reservation));
}

static void gen_lr(Gen *g, const IrOp *op, const AmoInline *f)
{
    unsigned vaddr, spare;
    const Opnd host = look_up(g, op, f, &vaddr, &spare);
    load_old(g, f, host);
    if (g->tb->flags & TB_BARE_DATA) {
        em_mov_or(g->a, reservation(), vaddr);
    } else {
        em_mov_ri(g->a, RDX, -g->distance);
        em_alu_ro(g->a, EM_W, X_ADD, RDX, opnd_reg(RCX));
        em_mov_or(g->a, reservation(), RDX);
    }
    if (op->d != IR_NONE)
        em_mov_or(g->a, gen_slot(g, op->d), RAX);
}

/* One that fails is the helper's: it may fault all the same. */
static void gen_sc(Gen *g, const IrOp *op, const AmoInline *f)
{
    unsigned vaddr, spare;
    const Opnd host = look_up(g, op, f, &vaddr, &spare);
    if (g->tb->flags & TB_BARE_DATA) {
        em_alu_ro(g->a, EM_W, X_CMP, vaddr, reservation());
    } else {
        em_mov_ri(g->a, RDX, g->distance);
        em_alu_ro(g->a, EM_W, X_ADD, RDX, reservation());
        em_alu_ro(g->a, EM_W, X_CMP, RDX, opnd_reg(RCX));
    }
    gen_slow_if(g, CC_NE);
    em_store_sized(g->a, f->size, host, opnd_reg(value_reg(g, op, spare)));
    gen_store_imm(g, reservation(), -1);
    if (op->d != IR_NONE)
        gen_store_imm(g, gen_slot(g, op->d), 0);
}

/* The old value, in rax, stays where it is the least (or greatest). */
static void gen_select(Gen *g, const IrOp *op, const AmoInline *f, Opnd host, unsigned cc, unsigned spare)
{
    const unsigned width = f->size == MO_64 ? EM_W : 0;
    em_mov_ro(g->a, spare, gen_slot(g, op->b));
    em_alu_ro(g->a, width, X_CMP, RAX, opnd_reg(spare));
    em_rm(g->a, width, 0x0f40 | cc, spare, opnd_reg(RAX));
    em_store_sized(g->a, f->size, host, opnd_reg(spare));
}

static void gen_rmw(Gen *g, const IrOp *op, const AmoInline *f)
{
    static const uint8_t alu[] = {[AMO_ADD] = X_ADD, [AMO_XOR] = X_XOR, [AMO_OR] = X_OR, [AMO_AND] = X_AND},
                         keeps[] = {[AMO_MIN] = CC_L, [AMO_MAX] = CC_G, [AMO_MINU] = CC_B, [AMO_MAXU] = CC_A};
    unsigned vaddr, spare;
    const Opnd host = look_up(g, op, f, &vaddr, &spare);
    load_old(g, f, host);
    switch (op->imm) {
    case AMO_SWAP:
        em_store_sized(g->a, f->size, host, opnd_reg(value_reg(g, op, spare)));
        break;
    case AMO_ADD:
    case AMO_XOR:
    case AMO_OR:
    case AMO_AND:
        em_alu_or(g->a, f->size == MO_64 ? EM_W : 0, alu[op->imm], host, value_reg(g, op, spare));
        break;
    default:
        gen_select(g, op, f, host, keeps[op->imm], spare);
        break;
    }
    if (op->d != IR_NONE)
        em_mov_or(g->a, gen_slot(g, op->d), RAX);
}

bool gen_amo(Gen *g, const IrOp *op)
{
    const AmoInline *f = &inlines[g->cb->amo[op->off]];
    if (f->kind == AMO_NONE || !g->m->sw.inline_amo || !g->m->sw.inline_mem || op->a >= IR_SLOTS ||
        (f->kind != AMO_LR && op->b >= IR_SLOTS) || (f->kind == AMO_RMW && op->c != IR_CONST))
        return false;
    g->slow = NULL;
    if (f->kind == AMO_LR)
        gen_lr(g, op, f);
    else if (f->kind == AMO_SC)
        gen_sc(g, op, f);
    else
        gen_rmw(g, op, f);
    gen_stub(g, STUB_HELPER, op, g->slow);
    return true;
}

#endif

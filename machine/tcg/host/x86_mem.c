/* x86_mem.c: guest loads and stores (the fast path of softmmu.h), and fields of Hart. Uses rax, rcx, rdx. */
#include "../core/brief.h" /* writes each block once */

#include "x86.h"

#if defined(__x86_64__)

/* Where the address is: a register and a displacement. `load` says to fetch it into rax if it is in neither.
 */
static Opnd gen_address(Gen *g, const IrOp *op, bool load)
{
    Opnd a = gen_opnd(g, op, op->a);
    if (a.kind == O_REG)
        return opnd_mem(a.reg, op->off);
    if (a.kind == O_IMM) {
        if (load)
            em_mov_ri(g->a, RAX, (int64_t)((uint64_t)a.imm + (uint64_t)(int64_t)op->off));
        return opnd_mem(RAX, 0);
    }
    if (load)
        em_mov_ro(g->a, RAX, a);
    return opnd_mem(RAX, op->off);
}

static void gen_lea(Gen *g, unsigned r, Opnd addr)
{
    if (addr.disp)
        em_lea(g->a, EM_W, r, addr);
    else
        em_mov_ro(g->a, r, opnd_reg(addr.reg));
}

/* r = value of `mo` kept in memory or in a register's low part. Boxing uses rdx. */
static void gen_extract(Gen *g, unsigned mo, unsigned r, Opnd from)
{
    static const struct {
        uint16_t op;
        uint8_t flags;
    } plain[] = {{0x0fb6, EM_BM}, {0x0fb7, 0}, {0x8b, 0}, {0x8b, EM_W}},
      sign[] = {{0x0fbe, EM_W | EM_BM}, {0x0fbf, EM_W}, {0x63, EM_W}, {0x8b, EM_W}};
    unsigned size = mo & MO_SIZE;
    if (mo & MO_SIGN)
        em_rm(g->a, sign[size].flags, sign[size].op, r, from);
    else
        em_rm(g->a, plain[size].flags, plain[size].op, r, from);
    if ((mo & MO_BOX) && size < MO_64) {
        em_mov_ri(g->a, RDX, (int64_t)(~0ull << (8 << size)));
        em_alu_ro(g->a, EM_W, X_OR, r, opnd_reg(RDX));
    }
}

static void gen_slow_call(Gen *g, const IrOp *op, const uint8_t *thunk)
{
    em_rm(g->a, 0, 0xc6, 0, opnd_env(offsetof(Hart, site)));
    em_8(g->a, op->exit);
    em_lea_rip(g->a, RCX, gen_tb_ptr(g));
    swap_out(g);
    em_call(g->a, thunk);
    swap_in_again(g);
    g->called = true;
}

void gen_tlb_index(Gen *g, unsigned reg, int32_t disp)
{
    if (g->cb->has_bmi2 && !disp) {
        em_vex(g->a, 3, 3, 0, 0xf0, RCX, 0, opnd_reg(reg)); /* rorx: what comes in above is masked */
        em_8(g->a, WB_PAGE_BITS - 4);
    } else {
        if (disp)
            em_lea(g->a, 0, RCX, opnd_mem(reg, disp));
        else
            em_rm(g->a, 0, 0x8b, RCX, opnd_reg(reg));
        em_shift_i(g->a, 0, X_SHR, RCX, WB_PAGE_BITS - 4);
    }
    em_alu_oi(g->a, 0, X_AND, opnd_reg(RCX), (TLB_SIZE - 1) << 4);
}

void gen_addend(Gen *g, unsigned reg, size_t table)
{
    if (g->tb->flags & TB_BARE_DATA)
        em_mov_rip(g->a, reg, g->cb->ram_addend);
    else
        em_mov_ro(g->a, reg, opnd_idx(R_DCTX, RCX, (int32_t)(table + offsetof(TlbEntry, addend))));
}

bool gen_has_bounds(const Gen *g, const IrOp *op)
{
    return op->op == IR_LD && g->near && (g->tb->flags & TB_OPEN_RAM) && g->m->sw.ram_bounds;
}

uint8_t *gen_bounds(Gen *g, unsigned reg, int32_t disp, unsigned bytes)
{
    const unsigned span = bytes > 1 ? 32 - (unsigned)__builtin_clz(bytes - 1) : 0;
    const int64_t base = (int64_t)g->m->ram_base;
    if (fits_s32(disp - base)) {
        em_lea(g->a, EM_W, RDX, opnd_mem(reg, (int32_t)(disp - base)));
    } else {
        em_lea(g->a, EM_W, RDX, opnd_mem(reg, disp));
        em_alu_oi(g->a, EM_W, X_ADD, opnd_reg(RDX), (int32_t)-base);
    }
    em_alu_ro(g->a, EM_W, X_CMP, RDX, opnd_mem(R_DCTX, (int32_t)(offsetof(DataCtx, open) + 8 * span)));
    return em_jcc32(g->a, CC_AE);
}

/* Leaves the jump to the slow path behind. Alignment is part of the comparison: a
 * misaligned access, which alone could cross a page, is slow. */
static uint8_t *gen_lookup(Gen *g, Opnd addr, unsigned size, size_t table)
{
    gen_lea(g, RDX, addr);
    gen_tlb_index(g, RDX, 0);
    em_alu_oi(g->a, EM_W, X_AND, opnd_reg(RDX), (int32_t)WB_PAGE_MASK | ((1 << size) - 1));
    em_alu_ro(g->a, EM_W, X_CMP, RDX, opnd_idx(R_DCTX, RCX, (int32_t)(table + offsetof(TlbEntry, tag))));
    return em_jcc32(g->a, CC_NE);
}

/* Where the host has the guest's bytes; the jump to the slow path is left in *miss, or NULL if there is none.
 */
static Opnd gen_host_address(Gen *g, const IrOp *op, uint8_t **miss)
{
    Opnd host;
    *miss = NULL;
    if (group_address(g, op, &host, miss))
        return host;
    const Opnd addr = gen_address(g, op, true);
    const unsigned size = op->flags & MO_SIZE;
    const size_t table = op->op == IR_ST ? offsetof(DataCtx, wr) : offsetof(DataCtx, rd);
    const bool near = g->near && fits_s32(addr.disp + g->distance);
    if (near && gen_has_bounds(g, op))
        *miss = gen_bounds(g, addr.reg, addr.disp, 1u << size);
    else
        *miss = gen_lookup(g, addr, size, table);
    if (near)
        return opnd_mem(addr.reg, (int32_t)(addr.disp + g->distance));
    gen_addend(g, RCX, table);
    return opnd_idx(RCX, addr.reg, addr.disp);
}

/* A double that goes where a copy is kept goes there straight. */
static bool loads_to_xmm(const Gen *g, const IrOp *op)
{
    return g->m->sw.inline_mem && (op->flags & MO_SIZE) == MO_64 && op->d < IR_GLOBALS && g->xmm_of[op->d];
}

static void gen_load_xmm(Gen *g, const IrOp *op)
{
    const unsigned x = g->xmm_of[op->d];
    uint8_t *miss;
    const Opnd host = gen_host_address(g, op, &miss);
    em_rm(g->a, EM_F2, 0x0f10, x, host);
    em_rm(g->a, EM_F2, 0x0f11, x, opnd_slot_mem(op->d));
    g->xmm |= UINT64_C(1) << op->d;
    g->copied = true;
    if (miss)
        gen_stub(g, STUB_LOAD, op, miss);
}

void gen_load(Gen *g, const IrOp *op)
{
    if (loads_to_xmm(g, op)) {
        gen_load_xmm(g, op);
        return;
    }
    Opnd d = gen_slot(g, op->d);
    const unsigned r = d.kind == O_REG ? d.reg : RAX;
    if (g->m->sw.inline_mem) {
        uint8_t *miss;
        const Opnd host = gen_host_address(g, op, &miss);
        gen_extract(g, op->flags, r, host);
        em_mov_or(g->a, d, r);
        if (miss)
            gen_stub(g, STUB_LOAD, op, miss);
    } else {
        gen_lea(g, RAX, gen_address(g, op, true));
        gen_slow_call(g, op, g->cb->load[op->flags & 15]);
        gen_extract(g, op->flags, r, opnd_reg(RAX));
        em_mov_or(g->a, d, r);
    }
}

void stub_load(Gen *g, const Stub *s)
{
    Opnd d = gen_slot(g, s->op->d);
    const unsigned r = d.kind == O_REG ? d.reg : RAX;
    em_bind32(g->a, s->at);
    gen_lea(g, RAX, gen_address(g, s->op, false));
    gen_slow_call(g, s->op, g->cb->load[s->op->flags & 15]);
    gen_extract(g, s->op->flags, r, opnd_reg(RAX));
    em_mov_or(g->a, d, r);
    group_again(g, s->op);
    fp_reload(g, g->xmm);
    em_jmp(g->a, s->back);
}

void gen_store(Gen *g, const IrOp *op)
{
    Opnd value = gen_opnd(g, op, op->b);
    const unsigned size = op->flags & MO_SIZE;
    uint8_t *miss;
    if (!g->m->sw.inline_mem) {
        gen_lea(g, RAX, gen_address(g, op, true));
        em_mov_ro(g->a, RDX, value);
        gen_slow_call(g, op, g->cb->store[size]);
        return;
    }
    const Opnd host = gen_host_address(g, op, &miss);
    const unsigned copy = size >= MO_32 && op->b != IR_CONST ? fp_copy_of(g, op->b) : 0;
    if (copy) {
        em_rm(g->a, size == MO_64 ? EM_F2 : EM_F3, 0x0f11, copy, host);
        if (miss)
            gen_stub(g, STUB_STORE, op, miss);
        return;
    }
    if (value.kind == O_MEM || (value.kind == O_IMM && size == MO_64 && !fits_s32(value.imm))) {
        em_mov_ro(g->a, RDX, value);
        value = opnd_reg(RDX);
    }
    em_store_sized(g->a, size, host, value);
    if (miss)
        gen_stub(g, STUB_STORE, op, miss);
}

void stub_store(Gen *g, const Stub *s)
{
    em_bind32(g->a, s->at);
    gen_lea(g, RAX, gen_address(g, s->op, false));
    em_mov_ro(g->a, RDX, gen_opnd(g, s->op, s->op->b));
    gen_slow_call(g, s->op, g->cb->store[s->op->flags & MO_SIZE]);
    group_again(g, s->op);
    fp_reload(g, g->xmm);
    em_jmp(g->a, s->back);
}

void gen_load_env(Gen *g, const IrOp *op)
{
    Opnd d = gen_slot(g, op->d);
    unsigned r = d.kind == O_REG ? d.reg : RAX;
    gen_extract(g, op->flags, r, opnd_env((size_t)op->off));
    em_mov_or(g->a, d, r);
}

void gen_store_env(Gen *g, const IrOp *op)
{
    if (!fp_defers(g, op))
        gen_store_env_now(g, op);
}

void gen_store_env_now(Gen *g, const IrOp *op)
{
    Opnd value = gen_opnd(g, op, op->b);
    unsigned size = op->flags & MO_SIZE;
    if (value.kind == O_MEM || (value.kind == O_IMM && size == MO_64 && !fits_s32(value.imm))) {
        em_mov_ro(g->a, RAX, value);
        value = opnd_reg(RAX);
    }
    em_store_sized(g->a, size, opnd_env((size_t)op->off), value);
}

#endif

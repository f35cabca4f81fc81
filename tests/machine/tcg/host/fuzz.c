/* fuzz.c: random IR through the host's code generator and through the interpreter; the guest's view must
 * agree.
 *
 * Two harts, each with its own RAM: one runs host code, the other the interpreter, from the same state,
 * through small sets of blocks that chain to each other. After every run all globals, pc, budget, leave
 * state, exits, RAM and the log of what helpers and slow paths saw are compared. fuzz SEED COUNT; exit status
 * 1: differ. */
#include "../../../../machine/tcg/guest/guest.h"
#include "../../../../machine/tcg/host/host.h"
#if defined(__x86_64__)
#include "../../../../machine/tcg/host/x86.h"
#endif

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGES = 6, RAM_BYTES = PAGES * WB_PAGE_SIZE, N_TBS = 4 };
static const uint64_t PC_BASE = UINT64_C(0xffffffff80001000);
static const uint64_t HIGH_RAM = UINT64_C(0xffffffff80003000), LOW_RAM = UINT64_C(0x7fff3000);
static const uintptr_t NEAR_RAM = UINT64_C(0x40000000); /* of the host: its distance from LOW_RAM fits */

typedef struct {
    uint8_t *ram;
    uint64_t log; /* digest of everything a helper or a slow path could see */
    DataCtx ctx[2];
    FetchCtx fctx;
} Side;

static uint64_t rng_state;
static uint64_t ram_vaddr; /* HIGH_RAM or LOW_RAM */

static uint64_t rng(void)
{
    uint64_t x = rng_state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(rng() % n);
}

static uint64_t value(void)
{
    static const uint64_t odd[] = {0,
                                   1,
                                   ~0ull,
                                   1ull << 63,
                                   ~(1ull << 63),
                                   1ull << 31,
                                   0x7fffffff,
                                   0xffffffff,
                                   0xffffffff80000000,
                                   0x80,
                                   0xff,
                                   0x7f,
                                   0x8000,
                                   0xffff,
                                   4096,
                                   0xffffffff00000000};
    switch (below(5)) {
    case 0:
        return odd[below(sizeof odd / sizeof *odd)];
    case 1:
        return (uint64_t)(int64_t)(int8_t)rng();
    case 2:
        return (uint32_t)rng();
    case 3:
        return (uint64_t)(int64_t)(int32_t)rng();
    default:
        return rng();
    }
}

static Side *side_of(const Hart *h)
{
    Side *s;
    memcpy(&s, h->guest, sizeof s);
    return s;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    a = (a ^ b) * UINT64_C(0x9e3779b97f4a7c15);
    return a ^ a >> 29;
}

/* Registers a C function may change hold rubbish afterwards. */
static void trash(void)
{
#if defined(__x86_64__)
    __asm__ volatile("mov $0x5a5a5a5a5a5a5a5a, %%r8; mov %%r8, %%r9; mov %%r8, %%r10; mov %%r8, %%r11;"
                     "mov %%r8, %%rsi; mov %%r8, %%rdi; mov %%r8, %%rcx; mov %%r8, %%rdx" ::
                         : "r8", "r9", "r10", "r11", "rsi", "rdi", "rcx", "rdx", "memory");
#endif
}

/* Of the budget, at the instruction under way: that is where the block is, whatever block it is. */
static uint64_t steps_left(const Hart *h)
{
    return (uint64_t)h->budget + (h->cur_tb ? h->cur_tb->n_insns - h->site : 0u);
}

/* Notes all that is architecturally visible in the middle of a block. */
static uint64_t note(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    Side *s = side_of(h);
    for (unsigned i = 0; i < IR_GLOBALS; i++)
        s->log = mix(s->log, h->slot[i]);
    s->log = mix(s->log, steps_left(h));
    s->log = mix(s->log, hart_insn_pc(h));
    s->log = mix(mix(mix(s->log, a), b), c);
    return s->log;
}

static void maybe_leave(Hart *h, uint64_t r)
{
    Side *s = side_of(h);
    if ((r >> 20) % 4 == 0)
        h->dctx = &s->ctx[(r >> 30) & 1];
    h->leave = (r >> 40) % 6 ? LEAVE_NONE : 1 + (r >> 50) % 4;
    if (h->leave == LEAVE_JUMP) {
        h->pc = r;
        h->slot[7] = r * 3;
    }
}

static uint64_t help_pure(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    (void)h;
    trash();
    return (a * 3 + b) ^ (c << 7);
}

static uint64_t help_quiet(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    Side *s = side_of(h);
    s->log = mix(mix(mix(s->log, a), b), c);
    trash();
    return s->log;
}

static uint64_t help_full(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t r = note(h, a, b, c);
    maybe_leave(h, r);
    trash();
    return r;
}

static const Helper helpers[] = {
    {"pure", help_pure, HF_PURE}, {"quiet", help_quiet, HF_NOLEAVE}, {"full", help_full, 0}};
static const uint8_t hot[] = {2, 10, 11, 12, 13, 14, 15, 8, 1, 9};
static const GuestOps guest = {
    .name = "fuzz", .helpers = helpers, .n_helpers = 3, .hot_slots = hot, .n_hot_slots = sizeof hot};

static bool in_ram(uint64_t vaddr, uint32_t size)
{
    return vaddr - ram_vaddr < RAM_BYTES && vaddr - ram_vaddr + size <= RAM_BYTES;
}

uint64_t softmmu_load(Hart *h, uint64_t vaddr, uint32_t mo)
{
    uint32_t bits = 8u << (mo & MO_SIZE);
    uint64_t v = 0, r = 0;
    if (!h->dctx->open[0] || !in_ram(vaddr, bits / 8)) { /* else the interpreter alone looks up two pages */
        r = note(h, vaddr, mo, 0);
        maybe_leave(h, r);
        if (h->leave == LEAVE_AFTER)
            h->leave = LEAVE_NONE;
    }
    trash();
    if (in_ram(vaddr, bits / 8))
        memcpy(&v, side_of(h)->ram + (vaddr - ram_vaddr), bits / 8);
    else
        v = r;
    if (bits == 64)
        return v;
    v &= (1ull << bits) - 1;
    if ((mo & MO_BOX) || ((mo & MO_SIGN) && v >> (bits - 1)))
        v |= ~0ull << bits;
    return v;
}

void softmmu_store(Hart *h, uint64_t vaddr, uint64_t v, uint32_t mo)
{
    uint32_t size = 1u << (mo & MO_SIZE);
    maybe_leave(h, note(h, vaddr, mo, size == 8 ? v : v & ((1ull << 8 * size) - 1)));
    if (in_ram(vaddr, size) && (h->leave == LEAVE_NONE || h->leave == LEAVE_AFTER))
        memcpy(side_of(h)->ram + (vaddr - ram_vaddr), &v, size);
    trash();
}

/* ---- random blocks ---- */

static uint64_t tb_pc(uint32_t i)
{
    return PC_BASE + i * 2 * IR_MAX_INSNS +
           (i == N_TBS - 1 ? 4 * WB_PAGE_SIZE : 0); /* the last is on another page */
}

static uint16_t any_slot(const IrBlock *ir)
{
    if (ir->n_temps && below(3) == 0)
        return (uint16_t)(IR_GLOBALS + below(ir->n_temps < 6 ? ir->n_temps : 6) +
                          (ir->n_temps > 6 ? ir->n_temps - 6 : 0));
    return (uint16_t)(below(4) ? 1 + below(16) : below(IR_GLOBALS));
}

static uint16_t dest_slot(IrBlock *ir)
{
    if (below(4) == 0 && ir->n_temps < 100)
        return below(2) || !ir->n_temps ? IR_NONE : (uint16_t)(IR_GLOBALS + below(ir->n_temps));
    uint16_t s = (uint16_t)(below(4) ? 1 + below(16) : 1 + below(IR_GLOBALS - 1));
    return s == 2 || s == 5 ? 6 : s; /* 2 and 5 hold addresses */
}

static uint16_t dest_slot_global(void)
{
    return (uint16_t)(6 + below(20));
}

/* The temporary must have no reader before its first write: made after the operands are chosen. */
static uint16_t settle_dest(IrBlock *ir, uint16_t d)
{
    return d == IR_NONE ? ir_temp(ir) : d;
}

static void set_const(IrOp *o, uint16_t *ref)
{
    *ref = IR_CONST;
    o->imm = (int64_t)value();
}

static void gen_pure_op(IrBlock *ir)
{
    uint16_t a = any_slot(ir), b = any_slot(ir), c = any_slot(ir), d = dest_slot(ir);
    IrOpcode op = (IrOpcode)(IR_MOV + below(IR_SELECT - IR_MOV + 1));
    if (op == IR_SELECT && d == IR_NONE)
        d = 9;
    d = settle_dest(ir, d);
    if (below(4) == 0)
        a = d < IR_GLOBALS ? d : a;
    if (below(4) == 0)
        b = d < IR_GLOBALS ? d : b;
    IrOp *o = ir_emit(ir, op);
    uint8_t flags = ir_op_flags(op);
    o->cond = (uint8_t)below(6);
    o->d = d;
    o->a = a;
    if (flags & IRF_USE_B)
        o->b = b;
    if (flags & IRF_USE_C)
        o->c = c;
    switch (below(6)) {
    case 0:
        set_const(o, &o->a);
        break;
    case 1:
    case 2:
        if (flags & IRF_USE_B)
            set_const(o, &o->b);
        break;
    case 3:
        if (flags & IRF_USE_C)
            set_const(o, &o->c);
        break;
    default:
        break;
    }
}

/* Two shifts that the optimiser may take for a rotation or an extension. */
static void gen_shifts(IrBlock *ir)
{
    static const uint8_t join[] = {IR_OR, IR_XOR, IR_ADD, IR_AND};
    const bool is32 = below(2);
    const uint16_t from = (uint16_t)(1 + below(16)), d = (uint16_t)(6 + below(8)),
                   e = (uint16_t)(6 + below(8));
    const unsigned bits = is32 ? 32 : 64, n = below(bits),
                   m = below(8) ? (bits - n) & (bits - 1) : below(bits);
    if (below(3)) {
        ir_op2i(ir, is32 ? IR_SHR32S : IR_SHR, d, from, n);
        if (below(4) == 0)
            ir_op2i(ir, IR_ADD, (uint16_t)(6 + below(8)), from, 1);
        ir_op2i(ir, is32 ? IR_SHL32S : IR_SHL, e, from, m);
        ir_op2(ir, (IrOpcode)join[below(4)], (uint16_t)(6 + below(8)), below(2) ? d : e, below(2) ? e : d);
    } else {
        const unsigned k = 64 - (8u << below(3));
        ir_op2i(ir, IR_SHL, d, below(2) ? d : from, k);
        if (below(4) == 0)
            ir_op2(ir, IR_ADD32S, (uint16_t)(6 + below(8)), from, d);
        ir_op2i(ir, below(2) ? IR_SHR : IR_SAR, below(2) ? d : e, d, below(6) ? k : below(64));
    }
}

static void gen_mem_op(IrBlock *ir)
{
    uint16_t base = below(6) ? (below(2) ? 2 : 5) : any_slot(ir);
    int32_t off = below(3) ? (int32_t)below(512) * 8 - 2048 : (int32_t)below(4 * 4096) - 4096;
    if (below(4) == 0)
        off = (int32_t)below(48) - 16;
    uint8_t size = (uint8_t)below(4);
    if (below(2)) {
        uint8_t mo = size | (below(2) ? MO_SIGN : 0);
        if (below(6) == 0)
            mo = MO_32 | MO_BOX;
        ir_ld(ir, mo, settle_dest(ir, dest_slot(ir)), base, off);
        if (below(12) == 0)
            set_const(&ir->ops[ir->n_ops - 1], &ir->ops[ir->n_ops - 1].a);
    } else {
        ir_st(ir, size, base, off, any_slot(ir));
        if (below(5) == 0)
            set_const(&ir->ops[ir->n_ops - 1], &ir->ops[ir->n_ops - 1].b);
    }
    IrOp *o = &ir->ops[ir->n_ops - 1];
    if (o->a == IR_CONST)
        o->imm = below(3) ? (int64_t)(ram_vaddr + 4096) : (int64_t)value();
}

static void gen_env_op(IrBlock *ir)
{
    int32_t off = (int32_t)offsetof(Hart, guest) + 64 + 8 * (int32_t)below(32) + (int32_t)below(2);
    uint8_t size = (uint8_t)below(4);
    switch (below(3)) {
    case 0:
        ir_ldenv(ir, size | (below(2) ? MO_SIGN : 0), settle_dest(ir, dest_slot(ir)), off);
        break;
    case 1:
        ir_stenv(ir, size, off, any_slot(ir));
        break;
    default:
        ir_stenvi(ir, size, off, (int64_t)value());
        break;
    }
}

static void gen_call_op(IrBlock *ir)
{
    uint16_t arg[3];
    for (unsigned i = 0; i < 3; i++)
        arg[i] = any_slot(ir);
    int which = below(8) == 0 ? 2 : (int)below(2);
    uint16_t d = dest_slot(ir);
    d = d == IR_NONE && below(2) ? IR_NONE : settle_dest(ir, d);
    if (below(3) == 0)
        arg[below(3)] = IR_CONST;
    ir_call(ir, which, d, arg[0], arg[1], arg[2], (int64_t)value());
}

static uint64_t target(void)
{
    return below(4) ? tb_pc(below(N_TBS)) : PC_BASE + 2 * below(4000);
}

/* Instructions that are one access each, near each other: they may share a look-up. */
static uint32_t gen_neighbours(IrBlock *ir, uint32_t index, uint32_t from, uint32_t n)
{
    const uint16_t base = below(8) ? (below(2) ? 2 : 5) : (uint16_t)(1 + below(16));
    const int32_t off = (int32_t)below(4 * 4096) - 4096;
    uint32_t i = from;
    for (uint32_t k = 2 + below(6); k-- > 0 && i < n; i++) {
        const uint8_t size = (uint8_t)below(4);
        const int32_t at = off + (int32_t)below(below(6) ? 64 : 1024);
        if (i > from)
            ir_insn(ir, tb_pc(index) + 2 * i, 2);
        ir->n_temps = 0;
        if (below(3) == 0)
            gen_pure_op(ir);
        if (below(2))
            ir_ld(ir, size | (below(2) ? MO_SIGN : 0), below(4) ? dest_slot_global() : base, base, at);
        else
            ir_st(ir, size, base, at, any_slot(ir));
    }
    return i - 1;
}

static void gen_block(IrBlock *ir, uint32_t index)
{
    ir->n_ops = ir->n_insns = ir->n_temps = ir->n_exits = 0;
    uint32_t n = below(8) ? 1 + below(8) : 1 + below(IR_MAX_INSNS);
    for (uint32_t i = 0; i < n; i++) {
        ir_insn(ir, tb_pc(index) + 2 * i, 2);
        ir->n_temps = 0;
        if (below(4) == 0) {
            i = gen_neighbours(ir, index, i, n);
            continue;
        }
        for (uint32_t k = below(5); k-- > 0;) {
            uint32_t what = below(18);
            if (what > 15)
                gen_shifts(ir);
            else if (what < 9)
                gen_pure_op(ir);
            else if (what < 13)
                gen_mem_op(ir);
            else if (what < 14)
                gen_env_op(ir);
            else
                gen_call_op(ir);
        }
        if (below(4) == 0 && ir->n_exits < IR_MAX_EXITS - 1) {
            ir_brcond(ir, (IrCond)below(6), any_slot(ir), any_slot(ir), target());
            IrOp *o = &ir->ops[ir->n_ops - 1];
            if (below(3) == 0)
                set_const(o, below(2) ? &o->a : &o->b);
            if (below(3) == 0 && o->a == IR_CONST)
                o->imm = 0;
        }
    }
    switch (below(4)) {
    case 0:
        ir_exit(ir, target());
        break;
    case 1: {
        uint16_t from = any_slot(ir), t = ir_temp(ir);
        if (below(2))
            ir_movi(ir, t, (int64_t)target());
        else
            ir_op2i(ir, IR_AND, t, from, -2);
        ir_goto_ind(ir, t, (int)below(3));
        break;
    }
    default:
        ir_goto(ir, target());
        break;
    }
}

static void tb_free(TB *tb)
{
    free(tb->ops);
    free(tb->chain);
    free(tb->insn_pc);
    memset(tb, 0, sizeof *tb);
}

static void *dup(const void *p, size_t size)
{
    void *q = malloc(size ? size : 1);
    if (!q)
        abort();
    if (size)
        memcpy(q, p, size);
    return q;
}

static uint32_t tb_flags; /* of all blocks of a round */

static void tb_fill(TB *tb, const IrBlock *ir, uint32_t index)
{
    memset(tb, 0, sizeof *tb);
    tb->flags = tb_flags;
    tb->pc = tb_pc(index);
    tb->valid = 1;
    tb->n_insns = (uint16_t)ir->n_insns;
    tb->n_ops = (uint16_t)ir->n_ops;
    tb->n_exits = (uint16_t)ir->n_exits;
    tb->ops = dup(ir->ops, ir->n_ops * sizeof *ir->ops);
    tb->insn_pc = dup(ir->insn_pc, ir->n_insns * sizeof *ir->insn_pc);
    tb->chain = calloc(ir->n_exits + 1u, sizeof *tb->chain);
    for (uint32_t i = 0; i < ir->n_ops; i++)
        if (ir->ops[i].op == IR_BRCOND || ir->ops[i].op == IR_GOTO)
            tb->chain[ir->ops[i].exit].target = ir->ops[i].imm2;
}

/* ---- one round ---- */

typedef struct {
    Machine m;
    Hart hart[2]; /* 0: host code, 1: interpreter */
    Side side[2];
    TB tb[2][N_TBS];
    IrBlock ir[N_TBS];
} World;

static void side_init(Side *s, unsigned which, const uint64_t fill[2])
{
    s->log = 0;
    memset(s->ctx, 0xff, sizeof s->ctx);
    for (unsigned c = 0; c < 2; c++)
        for (unsigned n = 0; n < OPEN_SPANS; n++)
            s->ctx[c].open[n] = fill[c] >> 16 & 1 ? RAM_BYTES - (UINT64_C(1) << n) + 1 : 0;
    memset(&s->fctx, 0xff, sizeof s->fctx);
    for (unsigned c = 0; c < 2; c++)
        for (unsigned p = 0; p < PAGES; p++) {
            uint64_t page = ram_vaddr + p * WB_PAGE_SIZE;
            TlbEntry e = {page, (uint64_t)(uintptr_t)s->ram - ram_vaddr};
            unsigned i = (page >> WB_PAGE_BITS) & (TLB_SIZE - 1);
            if ((fill[c] >> p | fill[c] >> 16) & 1)
                s->ctx[c].rd[i] = e;
            if (fill[c] >> (p + 8) & 1)
                s->ctx[c].wr[i] = e;
        }
    (void)which;
}

static void link_all(World *w)
{
    for (uint32_t i = 0; i < N_TBS; i++)
        for (uint32_t x = 0; x < w->tb[0][i].n_exits; x++)
            for (uint32_t j = 0; j < N_TBS; j++) {
                bool self = i == j;
                if (w->tb[0][i].chain[x].target != tb_pc(j) || !w->m.sw.chain || (!self && below(3) == 0) ||
                    ((tb_pc(i) ^ tb_pc(j)) & WB_PAGE_MASK))
                    continue;
                w->tb[1][i].chain[x].dest = &w->tb[1][j];
                host_patch(w->m.code, &w->tb[0][i], x, &w->tb[0][j]);
                if (!self && below(4) == 0) { /* and back */
                    host_patch(w->m.code, &w->tb[0][i], x, NULL);
                    w->tb[1][i].chain[x].dest = NULL;
                }
            }
    for (uint32_t j = 0; j < N_TBS; j++)
        if (below(3))
            for (unsigned s = 0; s < 2; s++) {
                w->side[s].fctx.jc[jc_index(tb_pc(j))] = (JumpEntry){tb_pc(j), w->tb[s][j].entry};
                w->side[s].fctx.jc_tb[jc_index(tb_pc(j))] = &w->tb[s][j];
            }
}

/* The interpreter returns at every jump to another page; host code looks it up in the jump cache. */
static void run_reference(const World *w, Hart *h, TB *tb)
{
    for (;;) {
        interp_run(h, tb);
        if (h->leave || !h->exit_tb || !w->m.sw.jump_cache || !((h->pc ^ h->exit_tb->pc) & WB_PAGE_MASK))
            return;
        const uint32_t i = jc_index(h->pc);
        h->exit_tb = NULL;
        h->exit_slot = 0;
        if (h->fctx->jc[i].pc != h->pc)
            return;
        tb = h->fctx->jc_tb[i];
    }
}

static uint32_t tb_number(const World *w, const TB *tb)
{
    for (uint32_t i = 0; i < N_TBS; i++)
        if (tb->chain == w->tb[0][i].chain || tb->chain == w->tb[1][i].chain)
            return i;
    abort();
}

static bool same(const World *w)
{
    const Hart *a = &w->hart[0], *b = &w->hart[1];
    if (memcmp(a->slot, b->slot, IR_GLOBALS * 8) || a->leave != b->leave ||
        memcmp(a->guest + 64, b->guest + 64, 512) || w->side[0].log != w->side[1].log ||
        a->dctx - w->side[0].ctx != b->dctx - w->side[1].ctx ||
        memcmp(w->side[0].ram, w->side[1].ram, RAM_BYTES))
        return false;
    if (a->leave) {
        if (!a->cur_tb || !b->cur_tb || steps_left(a) != steps_left(b) || hart_insn_pc(a) != hart_insn_pc(b))
            return false;
        return a->leave != LEAVE_JUMP || a->pc == b->pc;
    }
    if (a->cur_tb || b->cur_tb || a->budget != b->budget || a->pc != b->pc || !a->exit_tb != !b->exit_tb)
        return false;
    return !a->exit_tb ||
           (tb_number(w, a->exit_tb) == tb_number(w, b->exit_tb) && a->exit_slot == b->exit_slot);
}

/* Host code may leave a block behind an access that shares its look-up with others; the interpreter takes it
 * from there. False: it has not stopped inside a block. */
static bool go_on(World *w)
{
    static TB rest;
    Hart *h = &w->hart[0];
    if (h->leave || h->exit_tb)
        return false;
    for (uint32_t k = 0; k < N_TBS; k++) {
        const TB *tb = &w->tb[1][k];
        const uint64_t i = (h->pc - tb->pc) / 2;
        if (h->pc <= tb->pc || i >= tb->n_insns || h->budget < (int64_t)(tb->n_insns - i))
            continue;
        uint32_t at = 0;
        for (uint64_t left = i + 1; left; at++)
            left -= tb->ops[at].op == IR_INSN;
        rest = *tb;
        rest.pc = h->pc;
        rest.n_insns = (uint16_t)(tb->n_insns - i);
        rest.insn_pc = tb->insn_pc + i;
        rest.n_ops = (uint16_t)(tb->n_ops - at);
        rest.ops = dup(tb->ops + at, rest.n_ops * sizeof *rest.ops);
        for (uint32_t o = 0; o < rest.n_ops; o++) { /* sites are counted from the block's beginning */
            IrOp *op = &rest.ops[o];
            if (op->op == IR_LD || op->op == IR_ST || op->op == IR_CALL)
                op->exit = (uint8_t)(op->exit - i);
            else if (ir_op_flags((IrOpcode)op->op) & IRF_EXIT)
                op->off -= (int32_t)i;
        }
        h->fctx = &w->side[1].fctx;
        run_reference(w, h, &rest);
        free(rest.ops);
        return true;
    }
    return false;
}

static void report(const World *w, uint64_t seed, uint32_t entry)
{
    static char text[1 << 16];
    const Hart *a = &w->hart[0], *b = &w->hart[1];
    printf("seed %llu: host code and interpreter differ, entry %u (pin %d inline_mem %d)\n",
           (unsigned long long)seed, entry, w->m.sw.pin, w->m.sw.inline_mem);
    for (unsigned i = 0; i < IR_GLOBALS; i++)
        if (a->slot[i] != b->slot[i])
            printf("  slot %u: %llx, expected %llx\n", i, (unsigned long long)a->slot[i],
                   (unsigned long long)b->slot[i]);
    printf("  budget %lld/%lld leave %u/%u pc %llx/%llx site %u/%u exit %p/%p %llu/%llu log %d\n",
           (long long)a->budget, (long long)b->budget, a->leave, b->leave, (unsigned long long)a->pc,
           (unsigned long long)b->pc, a->site, b->site, (void *)a->exit_tb, (void *)b->exit_tb,
           (unsigned long long)a->exit_slot, (unsigned long long)b->exit_slot,
           w->side[0].log == w->side[1].log);
    for (uint32_t i = 0; i < N_TBS; i++) {
        ir_dump(&w->ir[i], text, sizeof text);
        printf("TB %u at %llx\n%s", i, (unsigned long long)tb_pc(i), text);
    }
}

/* The interpreter's block is the one before the optimiser. Where that found that a branch is always taken,
 * the block has fewer steps, and what is behind the branch in the other is not reached. */
static void blocks_make(World *w)
{
    static IrBlock made;
    for (uint32_t i = 0; i < N_TBS; i++) {
        gen_block(&w->ir[i], i);
        const char *wrong = ir_check(&w->ir[i]);
        if (wrong) {
            printf("bad block made: %s\n", wrong);
            exit(2);
        }
        made = w->ir[i];
        if (below(4))
            ir_optimise(&w->ir[i], helpers, below(4) != 0);
        ir_mark_ends(&w->ir[i]);
        tb_fill(&w->tb[0][i], &w->ir[i], i);
        tb_fill(&w->tb[1][i], &made, i);
        w->tb[1][i].n_insns = w->tb[0][i].n_insns;
    }
    for (uint32_t i = 0; i < N_TBS; i++)
        if (!host_compile(w->m.code, &w->m, &w->tb[0][i])) {
            host_reset(w->m.code);
            for (uint32_t j = 0; j <= i; j++)
                if (!host_compile(w->m.code, &w->m, &w->tb[0][j])) {
                    printf("no room for one block\n");
                    exit(2);
                }
        }
}

static bool round_run(World *w, uint64_t seed)
{
    rng_state = seed * UINT64_C(0x2545f4914f6cdd1d);
    w->m.sw = (Switches){.jit = 1,
                         .optimise = 1,
                         .chain = (uint8_t)(below(4) != 0),
                         .jump_cache = (uint8_t)(below(4) != 0),
                         .locals = (uint8_t)(below(4) != 0),
                         .loop_pins = (uint8_t)(below(4) != 0),
                         .pin = (uint8_t)(below(3) != 0),
                         .group_mem = (uint8_t)(below(4) != 0),
                         .near_ram = (uint8_t)(below(4) != 0),
                         .ram_bounds = (uint8_t)(below(4) != 0),
                         .inline_mem = (uint8_t)(below(4) != 0)};
#if defined(__x86_64__)
    w->m.code->has_bmi2 = __builtin_cpu_supports("bmi2") && below(4);
    w->m.code->has_lzcnt = __builtin_cpu_supports("bmi") && __builtin_cpu_supports("lzcnt") && below(4);
#endif
    const uint64_t at = below(2) ? LOW_RAM : HIGH_RAM;
    if (at != ram_vaddr) { /* which the entry points know */
        w->m.ram_base = ram_vaddr = at;
        host_reset(w->m.code);
    }
    tb_flags = below(3) ? TB_BARE_DATA | (below(4) ? TB_OPEN_RAM : 0) : 0;
    blocks_make(w);
    const uint64_t fill[2] = {rng(), rng() | 0x3f3f};
    for (unsigned s = 0; s < 2; s++)
        side_init(&w->side[s], s, fill);
    link_all(w);
    for (unsigned i = 0; i < RAM_BYTES; i += 8) {
        uint64_t v = rng();
        memcpy(w->side[0].ram + i, &v, 8);
    }
    memcpy(w->side[1].ram, w->side[0].ram, RAM_BYTES);
    for (unsigned i = 0; i < IR_GLOBALS; i++)
        w->hart[0].slot[i] = w->hart[1].slot[i] = i ? value() : 0;
    bool ok = true;
    for (unsigned run = 0; ok && run < 4; run++) {
        uint32_t entry = below(N_TBS);
        uint64_t at2 = ram_vaddr + 8192 + 8 * below(512), at5 = ram_vaddr + 8192 + below(4096);
        if (below(4) == 0) /* at RAM's ends */
            at5 = ram_vaddr + (below(2) ? RAM_BYTES : 0) + below(64) - 32;
        int64_t budget = (int64_t)below(below(2) ? 200 : 20);
        for (unsigned s = 0; s < 2; s++) {
            Hart *h = &w->hart[s];
            h->slot[2] = at2, h->slot[5] = at5;
            h->budget = budget;
            h->leave = h->site = 0;
            h->pc = 0xbad;
            h->cur_tb = h->exit_tb = NULL;
            h->exit_slot = 0;
            h->m = &w->m;
            h->dctx = &w->side[s].ctx[run & 1];
            h->fctx = &w->side[s].fctx;
            const Side *sp = &w->side[s];
            memcpy(h->guest, &sp, sizeof sp);
        }
        host_enter(w->m.code, &w->hart[0], &w->tb[0][entry]);
        run_reference(w, &w->hart[1], &w->tb[1][entry]);
        ok = same(w) || (go_on(w) && same(w));
        if (!ok)
            report(w, seed, entry);
    }
    for (unsigned s = 0; s < 2; s++)
        for (uint32_t i = 0; i < N_TBS; i++)
            tb_free(&w->tb[s][i]);
    return ok;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 0) : 1000;
    World *w = calloc(1, sizeof *w);
    if (!w)
        return 2;
    w->m.guest = &guest;
    w->m.hot_runs = ~0u;
    w->m.sw.pin = 1;
    w->m.code = host_init(&w->m, 1 << 20);
    if (!w->m.code) {
        printf("no back end for this host\n");
        return 77;
    }
    for (unsigned s = 0; s < 2; s++)
        if ((w->side[s].ram = mmap((void *)(NEAR_RAM + s * RAM_BYTES), RAM_BYTES, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) == MAP_FAILED)
            return 2;
    w->m.ram = w->side[0].ram;
    w->m.ram_size = RAM_BYTES;
    for (uint64_t i = 0; i < count; i++)
        if (!round_run(w, seed + i))
            return 1;
    printf("%llu rounds of %u blocks agree\n", (unsigned long long)count, N_TBS);
    for (unsigned s = 0; s < 2; s++)
        munmap(w->side[s].ram, RAM_BYTES);
    host_deinit(w->m.code);
    free(w);
    return 0;
}

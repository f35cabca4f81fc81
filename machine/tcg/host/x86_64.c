/* x86_64.c: the x86-64 back end: life of the code memory, and the compile loop.
 *
 * One pass over the ops, in order; what is rarely run follows behind the block. Slots of globals are in their
 * pinned register or in env at every point, so an exit needs no knowledge of the block. See x86.h for
 * registers.
 */
#include "../core/hostmem.h"
#include "x86.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <stdlib.h>

_Static_assert(offsetof(Hart, slot) == 0, "slots are addressed from the hart");
_Static_assert(IR_MAX_INSNS < 128,
               "step counts are one-byte displacements, and h->site is written as a byte");

enum { THUNK_ROOM = 32 * 1024 };

/* By cpuid: the __builtin_cpu_supports() of clang 14 knows no "lzcnt". */
static bool host_has_lzcnt(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & bit_LZCNT);
}

CodeBuf *host_init(Machine *m, size_t size)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("popcnt")) /* x86-64-v2 is what the code needs; else the IR is interpreted */
        return NULL;
    CodeBuf *cb = calloc(1, sizeof *cb);
    if (!cb)
        return NULL;
    if (size < 2 * THUNK_ROOM || m->guest->n_helpers > MAX_HELPERS || !codemem_init(&cb->mem, size)) {
        free(cb);
        return NULL;
    }
    cb->m = m;
    cb->has_bmi2 = __builtin_cpu_supports("bmi2") != 0;
    cb->has_lzcnt = host_has_lzcnt() && __builtin_cpu_supports("bmi");
    cb->has_fma = __builtin_cpu_supports("fma") != 0;
    fp_init(cb);
    amo_init(cb);
    thunks_emit(cb);
    return cb;
}

void host_deinit(CodeBuf *cb)
{
    if (!cb)
        return;
    codemem_deinit(&cb->mem);
    free(cb);
}

void host_reset(CodeBuf *cb)
{
    thunks_emit(cb);
}

const uint8_t *host_cold_entry(const CodeBuf *cb)
{
    return (const uint8_t *)(uintptr_t)(cb->mem.rx + (cb->exit_pc - cb->mem.rw));
}

static void emit_op(Gen *g, const IrOp *op)
{
    switch (op->op) {
    case IR_NOP:
    case IR_INSN:
        break;
    case IR_LD:
        gen_load(g, op);
        break;
    case IR_ST:
        gen_store(g, op);
        break;
    case IR_LDENV:
        gen_load_env(g, op);
        break;
    case IR_STENV:
        gen_store_env(g, op);
        break;
    case IR_CALL:
        gen_call(g, op);
        break;
    case IR_BRCOND:
        gen_brcond(g, op);
        break;
    case IR_GOTO:
        gen_goto(g, op);
        break;
    case IR_GOTO_IND:
        gen_goto_ind(g, op);
        break;
    case IR_EXIT:
        gen_exit(g, op);
        break;
    default:
        gen_alu(g, op);
        break;
    }
}

static void compile_op(Gen *g, const IrOp *op)
{
    const uint32_t first = g->n_stubs;
    g->called = g->copied = false;
    span_before_op(g, op);
    group_before_op(g, op);
    emit_op(g, op);
    fp_after_op(g, op);
    for (uint32_t i = first; i < g->n_stubs; i++) {
        g->stubs[i].xmm = g->xmm;
        g->stubs[i].span = (uint16_t)g->at_span;
    }
}

static void compile_stub(Gen *g, const Stub *s)
{
    g->xmm = s->xmm;
    span_go_to(g, s->span);
    switch ((StubKind)s->kind) {
    case STUB_LOAD:
        stub_load(g, s);
        break;
    case STUB_STORE:
        stub_store(g, s);
        break;
    case STUB_HELPER:
        stub_helper(g, s);
        break;
    case STUB_FP_SLOW:
        stub_fp_slow(g, s);
        break;
    case STUB_FP_INEXACT:
        stub_fp_inexact(g, s);
        break;
    case STUB_LEAVE_D:
        stub_leave_d(g, s);
        break;
    case STUB_BUDGET:
    case STUB_SIDE:
    case STUB_TAIL:
        stub_exit(g, s);
        break;
    }
}

/* Where the next block's pointer to itself goes, so that its code begins on a multiple of 16. */
static uint8_t *block_place(uint8_t *p)
{
    return p + (-(uintptr_t)(p + 8) & 15);
}

bool host_compile(CodeBuf *cb, Machine *m, TB *tb)
{
    Gen g;
    const size_t used = (size_t)(cb->a.p - cb->mem.rw), most = 256 + (size_t)tb->n_ops * MAX_OP_BYTES;
    if (cb->mem.size - used < most || cb->pinned != m->sw.pin)
        return false; /* a reset makes room, and the entry points anew */
    cb->ready = hostmem_fill(cb->mem.rw, cb->mem.size, cb->ready, used + most);
    cb->a.p = block_place(cb->a.p);
    em_64(&cb->a, (uintptr_t)tb);
    g.a = &cb->a;
    g.cb = cb;
    g.m = m;
    g.tb = tb;
    g.distance = (int64_t)((uintptr_t)m->ram - m->ram_base);
    g.near = (tb->flags & TB_BARE_DATA) && m->sw.near_ram && fits_s32(g.distance) &&
             fits_s32(-(int64_t)m->ram_base);
    g.entry = cb->a.p;
    g.n_stubs = 0;
    g.flags_at = NULL;
    memcpy(g.reg_of, cb->pin_of, sizeof g.reg_of);
    g.loops = false;
    for (uint32_t i = 0; i < tb->n_ops; i++)
        g.loops |= tb_jumps_to_self(m, tb, &tb->ops[i]);
    regs_assign(&g);
    swap_assign(&g);
    span_assign(&g);
    group_assign(&g);
    fp_assign(&g);
    for (uint32_t i = 0; i < tb->n_exits; i++)
        tb->chain[i].patch_off = tb->chain[i].stub_off = 0;
    gen_entry(&g);
    for (uint32_t i = 0; i < tb->n_ops; i++)
        compile_op(&g, &tb->ops[i]);
    for (uint32_t i = 0; i < g.n_stubs; i++)
        compile_stub(&g, &g.stubs[i]);
    tb->code = (uint8_t *)(uintptr_t)(cb->mem.rx + (g.entry - cb->mem.rw));
    tb->entry = tb->code;
    tb->code_size = (uint32_t)(cb->a.p - g.entry);
    return true;
}

void host_patch(CodeBuf *cb, TB *tb, uint32_t slot, const TB *dest)
{
    const Chain *chain = &tb->chain[slot];
    if (!tb->code || !chain->patch_off)
        return;
    const uint8_t *target = dest && dest->code ? dest->code : tb->code + chain->stub_off;
    const uint8_t *next = tb->code + chain->patch_off + 4;
    uint8_t *at = cb->mem.rw + (tb->code - cb->mem.rx) + chain->patch_off;
    __atomic_store_n((uint32_t *)(void *)at, (uint32_t)(target - next), __ATOMIC_RELEASE);
}

void host_enter(CodeBuf *cb, Hart *h, const TB *tb)
{
    void (*enter)(Hart *, const uint8_t *);
    uintptr_t addr = (uintptr_t)cb->mem.rx + (uintptr_t)(cb->enter - cb->mem.rw);
    memcpy(&enter, &addr, sizeof enter);
    /* The host program's rounding and flush modes are not the guest's. */
    const unsigned modes = ~0x3fu, mxcsr = __builtin_ia32_stmxcsr();
    if ((mxcsr & modes) != (MXCSR_DEFAULT & modes)) {
        __builtin_ia32_ldmxcsr(MXCSR_DEFAULT);
        enter(h, tb->code);
        __builtin_ia32_ldmxcsr(mxcsr);
    } else {
        enter(h, tb->code);
    }
}

static void map_row(const CodeBuf *cb, uint64_t *row, const uint8_t *from, size_t size, uint64_t pc)
{
    row[0] = (uint64_t)(uintptr_t)(cb->mem.rx + (from - cb->mem.rw));
    row[1] = size;
    row[2] = pc;
}

/* A block's pointer stands before its code; a block that was dropped keeps its memory until all is reset. */
uint64_t host_code_map(const CodeBuf *cb, uint64_t *out, uint64_t max)
{
    uint64_t n = 1;
    if (max)
        map_row(cb, out, cb->mem.rw, (size_t)(cb->blocks - cb->mem.rw), ~UINT64_C(0));
    for (uint8_t *p = block_place(cb->blocks); p < cb->a.p; n++) {
        const TB *tb;
        memcpy(&tb, p, sizeof(tb));
        p += sizeof(tb);
        if (n < max)
            map_row(cb, out + 3 * n, p, tb->code_size, tb->pc);
        p = block_place(p + tb->code_size);
    }
    return n;
}

#endif

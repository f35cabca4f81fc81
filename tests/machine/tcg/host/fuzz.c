/* fuzz.c: random IR through the host's code generator and through the interpreter; the guest's view must
 * agree.
 *
 * Two harts, each with its own RAM: one runs host code, the other the interpreter, from the same state,
 * through small sets of blocks that chain to each other. After every run all globals, pc, budget, leave
 * state, exits, RAM and the log of what helpers and slow paths saw are compared. fuzz SEED COUNT; exit status
 * 1: differ. */
#include "fuzz.h"
#include "../../../../machine/tcg/host/host.h"
#if defined(__x86_64__)
#include "../../../../machine/tcg/host/x86.h"
#endif

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const uint64_t HIGH_RAM = UINT64_C(0xffffffff80003000), LOW_RAM = UINT64_C(0x7fff3000);
static const uintptr_t NEAR_RAM = UINT64_C(0x40000000); /* of the host: its distance from LOW_RAM fits */

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
    bool has_bmi2, has_lzcnt; /* this host, as the code generator found */
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
        ir_mark_ends(&w->ir[i]);
        if (below(4))
            ir_optimise(&w->ir[i], fuzz_guest.helpers, below(4) != 0);
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
#define X(name, def, text) w->m.sw.name = (uint8_t)(below(4) != 0);
    WB_SWITCHES(X)
#undef X
    w->m.sw.jit = w->m.sw.optimise = 1;
#if defined(__x86_64__)
    w->m.code->has_bmi2 = w->has_bmi2 && below(4);
    w->m.code->has_lzcnt = w->has_lzcnt && below(4);
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
    w->m.guest = &fuzz_guest;
    w->m.hot_runs = ~0u;
    w->m.sw.pin = 1;
    w->m.code = host_init(&w->m, 1 << 20);
    if (!w->m.code) {
        printf("no back end for this host\n");
        return 77;
    }
#if defined(__x86_64__)
    w->has_bmi2 = w->m.code->has_bmi2;
    w->has_lzcnt = w->m.code->has_lzcnt;
#endif
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

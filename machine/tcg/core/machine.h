/* machine.h: the machine's context, harts, and translation blocks.
 *
 * Everything hangs from a Machine; there are no mutable globals, so one process
 * may hold several machines. One host thread runs a machine at a time.
 *
 * Position: icount counts steps (retired instructions and trap entries) over all
 * harts. While a hart runs, icount = icount_end - budget, corrected within a TB by
 * the TB's table: use hart_icount().
 */
#ifndef WB_MACHINE_H
#define WB_MACHINE_H

#include "io.h"
#include "ir.h"

enum {
    WB_PAGE_BITS = 12,
    WB_PAGE_SIZE = 1 << WB_PAGE_BITS,
    WB_MAX_HARTS = 16,
    WB_MAX_FEATURES = 16,
};
#define WB_PAGE_MASK (~(uint64_t)(WB_PAGE_SIZE - 1))

typedef struct Machine Machine;
typedef struct Hart Hart;
typedef struct TB TB;
typedef struct DataCtx DataCtx;
typedef struct FetchCtx FetchCtx;
typedef struct GuestHart GuestHart; /* the guest's part of a hart; see guest/<arch>/cpu.h */

/* Why a helper wants the TB to end (Hart.leave). 0 = go on. */
typedef enum {
    LEAVE_NONE = 0,
    LEAVE_JUMP,   /* this instruction is a complete step and pc is already set (trap, xret) */
    LEAVE_AFTER,  /* this instruction is complete: pc = the next one's */
    LEAVE_GONE,   /* as AFTER, but pc is already set: firmware sent the hart elsewhere */
    LEAVE_SINGLE, /* nothing has happened yet: run this instruction alone (MMIO, code store) */
    LEAVE_BEFORE, /* nothing has happened yet: return to the caller of the run loop */
} Leave;

/* What a hart waits for an interrupt in (Hart.waiting). */
typedef enum {
    WAIT_NONE = 0,
    WAIT_WFI,
    WAIT_SUSPENDED, /* by firmware, which tells others so */
} Wait;

/* Why mach_run() returned. X(name, meaning). */
#define WB_EXITS(X)                                                                                          \
    X(UNTIL, "the position asked for is reached")                                                            \
    X(DEADLINE, "a device deadline is due")                                                                  \
    X(IDLE, "every hart waits and idle time is asked of the gate")                                           \
    X(HALTED, "every hart waits and nothing can wake one")                                                   \
    X(BREAKPOINT, "a probe asked to stop")                                                                   \
    X(STOP, "a device or the host asked to stop")                                                            \
    X(ERROR, "a host callback failed")                                                                       \
    X(RECORDS, "the probes' records must be taken first")
typedef enum {
#define X(name, text) WB_EXIT_##name,
    WB_EXITS(X)
#undef X
        WB_N_EXITS
} ExitReason;

struct Hart {
    uint64_t slot[IR_SLOTS]; /* must be first: back ends address slots from the hart */
    uint64_t pc;
    int64_t budget;     /* steps left until icount_end */
    uint64_t exit_slot; /* chain slot by which exit_tb was left */
    TB *exit_tb;        /* TB left by an unpatched chain slot, or NULL */
    TB *cur_tb;         /* TB in a helper or memory access, or NULL outside */
    uint32_t site;      /* index in cur_tb of the instruction being executed */
    uint32_t leave;     /* Leave */
    DataCtx *dctx;      /* data translations of the present regime */
    FetchCtx *fctx;     /* code translations and the jump cache of the present regime */
    Machine *m;
    uint32_t index;
    uint32_t waiting; /* Wait */
    uint32_t watched; /* loads or stores may meet the guest's own hardware breakpoints */
    uint32_t stopped; /* not started, or stopped by the HSM: takes no steps */
    uint64_t steps;   /* steps taken before the present turn: see hart_steps() */
    GuestHart *g;
    DataCtx *dctxs; /* softmmu.c: all contexts, those in use first */
    FetchCtx *fctxs;
    uint32_t n_dctxs, n_fctxs; /* in use */
    uint64_t ctx_clock;
    uint8_t guest[4096]; /* storage of GuestHart, at a fixed offset for LDENV/STENV */
};
#define HART_GUEST_OFF(field) ((int32_t)(offsetof(Hart, guest) + offsetof(GuestHart, field)))

/* A chain slot: how a TB is left to a known pc. */
typedef struct {
    uint64_t target;       /* guest pc */
    TB *dest;              /* where it leads, or NULL */
    TB *next_in_tb;        /* list of the slots that lead to dest: next holder … */
    uint16_t next_in_slot; /* … and its slot */
    uint32_t patch_off;    /* back end: offset in the code of the rel32 to patch, 0 = none */
    uint32_t stub_off;     /* back end: offset of the exit stub */
} Chain;

struct TB {
    /* what a look-up compares, and what a block is entered by: one cache line */
    TB *hash_next;
    uint64_t pc, paddr;   /* of the first instruction */
    uint64_t paddr2;      /* of the second page if the last instruction crosses, else ~0 */
    uint8_t *code;        /* host code (executable address), or NULL while cold */
    const uint8_t *entry; /* where a jump to this block goes: its code, or out while cold */
    uint32_t flags;       /* GuestOps.tb_flags */
    uint32_t runs;        /* times interpreted, until it is hot */
    uint16_t n_insns;
    uint8_t valid, single; /* single: exactly one instruction, run by the run loop with MMIO allowed */

    uint16_t n_ops, n_exits;
    uint16_t lo, hi; /* range of its bytes in the first page: lo <= offset < hi */
    IrOp *ops;
    Chain *chain;
    uint16_t *insn_pc; /* see IrBlock.insn_pc */
    uint32_t code_size;
    TB *page_next[2]; /* TBs of the same physical page */
    TB *in_tb;        /* incoming chains: first holder … */
    uint16_t in_slot;
};
_Static_assert(offsetof(TB, n_ops) <= 64, "a look-up touches one line");

/* pc of instruction i of a TB, and of the one after it. Blocks stay in one virtual page
 * (the last instruction may cross its end). */
static inline uint64_t tb_insn_pc(const TB *tb, uint32_t i)
{
    return (tb->pc & WB_PAGE_MASK) + (tb->insn_pc[i] & 0xffeu);
}
static inline uint64_t tb_insn_next_pc(const TB *tb, uint32_t i)
{
    return tb_insn_pc(tb, i) + ((tb->insn_pc[i] & 1u) ? 4 : 2);
}

/* The one helper signature. A helper that traps or must end the TB sets hart->leave. */
typedef uint64_t (*HelperFn)(Hart *h, uint64_t a, uint64_t b, uint64_t c);
enum {
    HF_PURE = 1,    /* reads no state but its arguments, and never leaves: removable if d is dead */
    HF_NOLEAVE = 2, /* never sets leave, and neither reads nor writes slots or the position */
};
/* The result of a CALL is written to d when leave is LEAVE_NONE or LEAVE_AFTER afterwards, and only then. */
typedef struct Helper {
    const char *name;
    HelperFn fn;
    uint32_t flags;
} Helper;

/* Host callbacks. Return 0; 1: nothing at this address (an access fault for the guest); -1: the host failed,
 * the machine stops with WB_EXIT_ERROR. */
typedef struct {
    void *opaque;
    int (*mmio_read)(void *opaque, uint64_t paddr, uint32_t size, uint32_t hart, uint64_t *value);
    int (*mmio_write)(void *opaque, uint64_t paddr, uint32_t size, uint32_t hart, uint64_t value);
    int (*entropy)(void *opaque, uint32_t hart, uint64_t *value); /* 16 bits; NULL: there is none */
    int (*sbi_call)(void *opaque, uint32_t hart); /* registers are read and written through the API */
} HostOps;

/* Translator switches; each can be turned off and the guest sees nothing of it. X(name, default, what it
 * does) */
#define WB_SWITCHES(X)                                                                                       \
    X(jit, 1, "host code for hot blocks; off: the IR interpreter alone")                                     \
    X(optimise, 1, "constants, copies and dead code in the IR")                                              \
    X(words, 1, "rotations, and no extension of 32-bit values that needs none")                              \
    X(chain, 1, "direct jumps between blocks")                                                               \
    X(jump_cache, 1, "look-up of indirect jumps in generated code")                                          \
    X(pin, 1, "hot guest registers in host registers")                                                       \
    X(loop_pins, 1, "a loop's own registers in host registers")                                              \
    X(block_pins, 1, "a long block's own registers in host registers")                                       \
    X(locals, 1, "values that no exit sees in scratch registers")                                            \
    X(fp_copies, 1, "floating-point registers in host registers")                                            \
    X(inline_mem, 1, "softmmu fast path in generated code")                                                  \
    X(group_mem, 1, "one look-up for the accesses near each other")                                          \
    X(bare_mem, 1, "untranslated memory at a constant distance from the host's")                             \
    X(near_ram, 1, "that distance in the instruction, where the host has room for it")                       \
    X(ram_bounds, 1, "untranslated loads compared with the bounds of RAM, no look-up")                       \
    X(inline_amo, 1, "atomic operations in generated code")                                                  \
    X(inline_fp, 1, "floating point on the host's unit")                                                     \
    X(fp_plain, 1, "blocks that know rounding to nearest, and inexact to be accrued")                        \
    X(vector_loops, 1, "common vector instructions by loops of one width")                                   \
    X(superblock, 1, "blocks follow direct jumps")
typedef struct {
#define X(name, def, text) uint8_t name;
    WB_SWITCHES(X)
#undef X
} Switches;

struct Machine {
    /* position and time */
    uint64_t icount_end;  /* where the running slice ends */
    uint64_t warp_ns;     /* idle time jumped over so far */
    uint64_t time_offset; /* ticks that the guest's time is ahead of virtual time; the ACLINT's */
    uint64_t ns_per_step;
    uint64_t device_deadline; /* vtime_ns of the next device deadline, ~0 = none */
    uint32_t idle_asks;       /* 1: idle returns WB_EXIT_IDLE, 0: jumps to the next deadline */
    uint32_t stop_request;    /* a device asked the run loop to return after this instruction */
    uint32_t host_error;
    uint32_t recheck;      /* a device was accessed: deadlines and interrupts may have changed */
    uint32_t running;      /* inside mach_run() */
    uint32_t flush_wanted; /* drop all translated code before the next block */

    /* harts, in turn */
    Hart *hart[WB_MAX_HARTS];
    uint32_t n_harts, cur_hart;
    uint64_t quantum;     /* steps of one turn */
    uint64_t quantum_end; /* icount at which the present turn ends */
    uint64_t turn_start;  /* icount at which it began */

    /* RAM: one range of guest-physical memory */
    uint8_t *ram;
    uint64_t ram_base, ram_size, ram_pages;
    uint32_t ram_used;                     /* a byte of it may have been written */
    struct PageInfo *page; /* softmmu.c */ /* by RAM page index */
    uint64_t *walked;             /* a bit for each page of RAM, up to whole words: PageInfo.pt is there */
    uint64_t *dirty;              /* a bit for each page of RAM, up to whole words */
    uint64_t *made;               /* a bit for each span of pages that the host has made ready */
    uint64_t *lent;               /* the same: in some snapshot, and not written since */
    struct WbSnapshot *snapshots; /* snapshot.c */

    const struct GuestOps *guest;
    uint32_t feature[WB_MAX_FEATURES]; /* of the processor, by the guest's own numbers */
    HostOps host;
    Io io;
    Switches sw;
    uint32_t tb_max_insns;   /* 1 … IR_MAX_INSNS */
    uint64_t tb_cache_bytes; /* blocks are flushed when they take this much, IR and all */
    uint32_t hot_runs;       /* interpreted runs before a TB is compiled */

    struct TbCache *tbs;  /* tb.c */
    struct CodeBuf *code; /* host/: executable memory and its entry points */

    struct ProbeSet *probes; /* probe.c */

    uint64_t stat_tb_translated, stat_tb_compiled, stat_tb_flushes, stat_code_writes, stat_pt_drops,
        stat_walks;
};

/* The exact position, also in the middle of a TB. Outside a slice every budget is 0. */
static inline uint64_t mach_icount(const Machine *m)
{
    const Hart *h = m->hart[m->cur_hart];
    uint64_t left = (uint64_t)h->budget;
    if (h->cur_tb)
        left += h->cur_tb->n_insns - h->site;
    return m->icount_end - left;
}
static inline uint64_t hart_icount(const Hart *h)
{
    return mach_icount(h->m);
}
/* Steps that this hart has taken, exact in the middle of a TB. */
static inline uint64_t hart_steps(const Hart *h)
{
    const Machine *m = h->m;
    return h->steps + (m->hart[m->cur_hart] == h ? mach_icount(m) - m->turn_start : 0);
}
static inline uint64_t mach_vtime(const Machine *m, uint64_t icount)
{
    return icount * m->ns_per_step + m->warp_ns;
}
/* pc of the instruction that a helper works for. */
static inline uint64_t hart_insn_pc(const Hart *h)
{
    return h->cur_tb ? tb_insn_pc(h->cur_tb, h->site) : h->pc;
}

/* run.c */
ExitReason mach_run(Machine *m, uint64_t until);

/* tb.c: every translated block of the machine */
bool tb_init(Machine *m);
void tb_deinit(Machine *m);
/* The block at the present hart's pc, translated when there is none yet. NULL: a fetch trap was taken. */
TB *tb_find(Hart *h, bool single);
/* Drops the blocks that overlap [offset, offset + size) of a RAM page. */
void tb_invalidate(Machine *m, uint64_t page, uint32_t offset, uint32_t size);
/* Do any? */
bool tb_overlaps(const Machine *m, uint64_t page, uint32_t offset, uint32_t size);
/* Drops the blocks that hold an instruction at one of these virtual addresses. */
void tb_invalidate_pcs(Machine *m, const uint64_t *pcs, uint32_t n);
/* Drops everything; never while a block runs. */
void tb_flush_all(Machine *m);
/* Makes slot of `from` lead straight to `to`, where the law of no instruction cache allows it. */
void tb_link(Machine *m, TB *from, uint32_t slot, TB *to);
/* Gives a block host code; false where it stays interpreted. */
bool tb_compile(Machine *m, TB *tb);

/* interp.c: runs blocks from tb on; the state on return is as after host_enter() */
void interp_run(Hart *h, TB *tb);

#endif

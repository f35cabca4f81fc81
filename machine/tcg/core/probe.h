/* probe.h: what a debugger or a query wants to know while the machine runs.
 *
 * A probe names a kind of happening, a range it must fall in, and an optional condition; and what to do
 * then: stop, note the position of the last hit, or write a record. None of it changes what a guest can see.
 * Conditions are programs for the small stack machine of gdb's agent expressions, evaluated here, beside the
 * translated code. SPEC: gdb manual, appendix "Agent Expressions"
 *
 * Position of a hit: a stop is before the instruction for EXEC, and after the step for all the others; a
 * turn's is that of its first step. Records and conditions see the position of the step itself, before it.
 */
#ifndef WB_PROBE_H
#define WB_PROBE_H

#include "blockcounts.h"
#include "histogram.h"
#include "machine.h"

/* X(name, range is of, what it sees) */
#define WB_PROBE_KINDS(X)                                                                                    \
    X(EXEC, "address", "an instruction is about to run")                                                     \
    X(READ, "address", "a load, or the load of an atomic")                                                   \
    X(WRITE, "address", "a store, or the store of an atomic")                                                \
    X(CALL, "target", "a call by the calling convention's link registers")                                   \
    X(RET, "target", "a return")                                                                             \
    X(TRAP, "cause", "a trap entry; interrupts have bit 63 of the cause")                                    \
    X(XRET, "target", "a return from a trap")                                                                \
    X(CSR, "CSR number", "a write to a CSR by an instruction")                                               \
    X(MMIO, "paddr", "an access to a device")                                                                \
    X(REG, "slot", "an instruction that writes a guest register")                                            \
    X(TURN, "hart", "another hart's turn begins; it can't stop there")
typedef enum {
#define X(name, range, text) PROBE_##name,
    WB_PROBE_KINDS(X)
#undef X
        N_PROBE_KINDS
} ProbeKind;

typedef enum { PROBE_STOP, PROBE_LAST, PROBE_RECORD, PROBE_COUNT /* EXEC: how often each pc */ } ProbeAction;

enum {
    PROBE_PHYSICAL = 1, /* EXEC, READ and WRITE: the range is of paddrs */
    PROBE_PAIRED =
        2, /* RET: only where a call that was recorded may end: none of those is missed, few others are hit */
};

enum {
    PROBE_MAX = 256,
    PROBE_CODE_MAX = 4096, /* bytes of a condition */
    PROBE_RECORDS = 1 << 15,
    PROBE_RECORDS_SPARE = 512, /* for what happens between the full mark and the next chance to leave */
    PROBE_OPEN_BITS = 1 << 16, /* a power of two: of the filter of open calls */
};

/* A record, as Python reads it: 16 words. What a, b, value, old and extra hold, by kind:
 *   READ, WRITE, MMIO  a = vaddr (MMIO: paddr), b = paddr, value, old = value before (WRITE to RAM), op: 0
 * read, 1 write, 2 atomic CALL, RET          a = target, b = return address (CALL), value = stack pointer
 *   TRAP               a = cause, b = epc, value = tval, old = priv before, op = priv after
 *   XRET               a = target, b = stack pointer, value = priv after, old = priv before, op = priv after
 *   CSR                a = number, value, old
 *   REG                a = slot, value = before
 * extra = the guest's context (task or address space); args = the argument registers. */
typedef struct {
    uint64_t icount, pc;
    uint16_t probe;
    uint8_t kind, hart, size, op, priv, pad;
    uint64_t a, b, value, old, extra;
    uint64_t args[8];
} ProbeRecord;
_Static_assert(sizeof(ProbeRecord) == 128, "Python unpacks 16 words");

/* One happening, as the hooks below describe it. */
typedef struct {
    ProbeKind kind;
    uint8_t size, op;
    uint64_t at; /* what ranges are compared with */
    uint64_t paddr;
    uint64_t a, b, value, old;
} Happening;

typedef struct {
    uint8_t kind, action, flags;
    uint64_t lo, hi; /* lo <= at <= hi */
    uint32_t code, code_len;
    uint64_t hits;
    uint64_t last; /* position of the last hit, by the rule above */
    uint32_t next; /* of its kind, not below ProbeSet.n: it is the last one */
} Probe;

typedef struct ProbeSet {
    Probe probe[PROBE_MAX];
    uint32_t n;
    uint32_t first[N_PROBE_KINDS]; /* of each kind, as Probe.next */
    uint32_t kinds;                /* bit set of ProbeKind */
    uint32_t stop_kinds;           /* of those that can stop */
    uint8_t *code;
    uint32_t code_len;
    uint64_t skip;   /* EXEC hits at this position are ignored: the one stood on */
    int32_t stopped; /* the probe that asked to stop, or -1 */
    ProbeRecord *record;
    uint32_t n_records;
    Histogram counts;
    bool by_block;                       /* every instruction is counted, and nothing else asked */
    BlockCounts blocks;                  /* what of it is not in `counts` yet */
    bool paired;                         /* keep `open` */
    uint64_t open[PROBE_OPEN_BITS / 64]; /* by return address and stack pointer of recorded calls */
} ProbeSet;

/* A probe as it is asked for. `code` is an offset in the conditions given with it. */
typedef struct {
    uint8_t kind, action, flags;
    uint64_t lo, hi;
    uint32_t code, code_len;
} ProbeSpec;

bool probe_init(Machine *m);
void probe_deinit(Machine *m);

/* Replaces all probes; counters start anew. The same set again (but for actions) keeps translated code.
 * false: out of bounds or no memory, and nothing has changed. */
bool probe_set(Machine *m, const ProbeSpec *spec, uint32_t n, const uint8_t *code, uint32_t code_len);

static inline bool probe_wants(const Machine *m, ProbeKind kind)
{
    return m->probes->kinds & (1u << kind);
}
/* In a block of many instructions, before a happening that may stop: it must be run alone. Otherwise, may the
 * helper go on? Sets leave where it may not. */
bool probe_ready(Hart *h, ProbeKind kind);
/* Does a REG probe ask about this slot? */
bool probe_covers_slot(const Machine *m, uint32_t slot);
/* Is an instruction within the range of an EXEC probe, which must be told of it? */
bool probe_covers_insn(const Machine *m, uint64_t pc, uint64_t paddr);
/* Must loads (stores) of this page take the slow path? */
bool probe_covers_page(const Machine *m, ProbeKind kind, uint64_t vpage, uint64_t ppage);

/* Where every instruction is counted: tells that a block has been translated, of which the translation began
 * with a CALL of probe_block; that what comes next is a step of no block, or another position; that no block
 * is left. */
static inline bool probe_counts_blocks(const Machine *m)
{
    return m->probes->by_block;
}
void probe_block_made(Machine *m, const TB *tb);
void probe_block_left(Machine *m);
void probe_blocks_gone(Machine *m);

/* agent.c: does a condition hold? A program that fails (bad memory, stack, op) does not. */
bool agent_eval(Hart *h, const Happening *what, const uint8_t *code, uint32_t len);

/* Tells the probes. Sets stopped, counts, records; the caller ends the TB where probe_stopping(). */
void probe_tell(Hart *h, const Happening *what);
static inline bool probe_stopping(const Machine *m)
{
    return m->probes->stopped >= 0;
}
/* No room for another record: the step must wait until they are taken. */
static inline bool probe_full(const Machine *m)
{
    return m->probes->n_records >= PROBE_RECORDS - PROBE_RECORDS_SPARE;
}

#endif

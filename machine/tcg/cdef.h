/* cdef.h: the only C API that Python sees. Read by the C compiler (through api.h) and by cffi: no
 * preprocessor. */
typedef struct Machine Machine;

/* life */
Machine *wb_create(uint64_t ram_base, uint64_t ram_size, uint32_t n_harts, uint64_t ns_per_step,
                   uint64_t quantum, const char *guest); /* NULL: no memory, or no such guest */
void wb_destroy(Machine *m);
/* A feature of the processor, before anything runs; -1: no such feature or value. */
int wb_feature_set(Machine *m, const char *name, uint32_t value);
void wb_reset_hart(Machine *m, uint32_t hart, uint64_t pc, uint64_t arg0, uint64_t arg1);

/* switches (WB_SWITCHES), for benchmarks and the laws' tests; -1: no such switch */
int wb_switch_set(Machine *m, const char *name, int on);
int wb_switch_get(Machine *m, const char *name);
const char *wb_switch_name(uint32_t i); /* NULL behind the last */
const char *wb_switch_text(uint32_t i);
int wb_has_jit(Machine *m);
void wb_set_tb_max(Machine *m, uint32_t max_insns);
void wb_set_hot_runs(Machine *m, uint32_t runs);
void wb_set_cache_bytes(Machine *m, uint64_t bytes); /* of translated blocks, before all are flushed */
void wb_drop_tlb(Machine *m);
void wb_drop_code(Machine *m);

/* running */
int wb_run(Machine *m, uint64_t until); /* an ExitReason */
const char *wb_exit_name(uint32_t reason);
uint64_t wb_icount(Machine *m);
void wb_set_icount(Machine *m, uint64_t icount);
uint64_t wb_warp_ns(Machine *m);
void wb_set_warp_ns(Machine *m, uint64_t warp_ns);
uint64_t wb_vtime_ns(Machine *m);
void wb_set_device_deadline(Machine *m, uint64_t vtime_ns);
uint64_t wb_next_deadline(Machine *m); /* the earliest of all timers and the device deadline, ~0 = none */
void wb_set_idle_asks(Machine *m, int asks);
void wb_request_stop(Machine *m);
uint32_t wb_cur_hart(Machine *m);

void wb_set_time_offset(Machine *m, uint64_t ticks); /* time and mtime = vtime_ns / 100 + ticks */
/* device registers that are answered without a callback, until told otherwise */
/* Reads at paddr have no effect and give value; on = 0: no more. -1: too many. */
int wb_io_steady(Machine *m, uint64_t paddr, uint64_t value, int on);
void wb_io_time(Machine *m, uint64_t paddr); /* reads of 4 and 8 bytes give mtime */
/* Writes at paddr print a byte and do nothing else (0: no more), but for newlines, and a byte after which
 * there are `room`, at most 4,096: these come as callbacks. */
void wb_io_print(Machine *m, uint64_t paddr);
void wb_io_print_room(Machine *m, uint32_t room);
/* Takes what was printed so: 4,096 bytes at most, and the position of the last one; returns how many. */
uint32_t wb_io_printed(Machine *m, uint8_t *text, uint64_t *icount, uint64_t *vtime_ns);

void wb_set_quantum(Machine *m, uint64_t steps); /* of the turns that begin from now on */
/* scheduler state, part of a checkpoint: cur_hart, quantum_end, turn_start, quantum, and per hart steps,
 * waiting, stopped */
void wb_sched_get(Machine *m, uint64_t *out); /* 4 + 3 * harts */
void wb_sched_set(Machine *m, const uint64_t *in);
int wb_hart_stopped(Machine *m, uint32_t hart);
void wb_hart_stop(Machine *m, uint32_t hart);
void wb_hart_start(Machine *m, uint32_t hart);
void wb_hart_suspend(Machine *m, uint32_t hart);           /* waits as in WFI, unless an interrupt is there */
int wb_hart_suspended(Machine *m, uint32_t hart);          /* still waits so */
void wb_hart_jump(Machine *m, uint32_t hart, uint64_t pc); /* from sbi_call alone: where the caller goes on */

/* memory */
uint8_t *wb_ram(Machine *m); /* to read only: stores go through wb_phys_write */
int wb_phys_read(Machine *m, uint64_t paddr, void *data, uint64_t size); /* 0, or -1: not all RAM */
int wb_phys_write(Machine *m, uint64_t paddr, const void *data, uint64_t size);
void wb_ram_prepare(Machine *m, uint64_t first, uint64_t n); /* n pages, which are to be filled */
void wb_ram_clear(Machine *m);                               /* all zeros and clean; not while running */
/* Sets pages when a checkpoint is loaded, whose contents lie one behind the other; returns how many of them
 * changed, and which. */
uint64_t wb_ram_restore(Machine *m, const uint32_t *pages, uint64_t n, const uint8_t *data,
                        uint32_t *changed);
int wb_translate(Machine *m, uint32_t hart, uint64_t vaddr, int access, uint64_t *paddr); /* 0 r, 1 w, 2 x */
/* adds the pages (indexes in RAM) written since the last call with clear to a set of RAM's pages */
void wb_dirty_pages(Machine *m, uint64_t *set, int clear);
/* 128-bit digest of n pages, numbered from 0; not cryptographic: finds divergence, not malice */
void wb_checksum(const uint8_t *data, uint64_t n, uint64_t out[2]);
/* pages of RAM, ascending, as they are now, for another thread (core/snapshot.h); NULL: no memory */
typedef struct WbSnapshot WbSnapshot;
WbSnapshot *wb_snapshot_create(Machine *m, const uint32_t *pages, uint64_t n);
/* gives the contents of the next pages, n at most, one behind the other; returns how many. Any thread */
uint64_t wb_snapshot_read(WbSnapshot *s, uint64_t n, uint8_t *out);
/* wb_checksum() of all that is left to read, with the pages' own numbers */
void wb_snapshot_hash(WbSnapshot *s, uint64_t out[2]);
void wb_snapshot_destroy(WbSnapshot *s); /* any thread; also after the machine's end */

/* sets of pages (core/pageset.h): bit n is page n; both of a call have as many words */
void wb_set_add(uint64_t *set, const uint64_t *other, uint64_t words);
void wb_set_insert(uint64_t *set, const uint32_t *pages, uint64_t n); /* the set has a bit for each of them */
void wb_set_remove(uint64_t *set, const uint64_t *other, uint64_t words);
uint64_t wb_set_count(const uint64_t *set, uint64_t words);
void wb_set_pages(const uint64_t *set, uint64_t words, uint32_t *out); /* ascending, wb_set_count of them */

/* the digest of RAM (core/ramfold.h); a page number is below n_pages, and given once in a call */
typedef struct RamFold RamFold;
RamFold *wb_fold_create(uint64_t n_pages); /* NULL: no memory */
void wb_fold_destroy(RamFold *f);
/* takes pages' present contents: copies in the order of `pages`, or RAM itself (in_place). Returns how many
 * are not what was taken last; of those, where they are in `pages`, and 32 bytes of BLAKE2b-256 each */
uint64_t wb_fold_take(RamFold *f, const uint32_t *pages, uint64_t n, const uint8_t *data, int in_place,
                      uint32_t *changed, uint8_t *names);
/* takes n pages from `first` on by the names of their contents, where these are known */
void wb_fold_take_names(RamFold *f, uint32_t first, uint64_t n, const uint8_t *names);
void wb_fold_name(const RamFold *f, uint32_t page, uint8_t *out);    /* BLAKE2b-256 as last taken */
void wb_fold_value(const RamFold *f, uint8_t *out);                  /* 32 bytes, little endian */
uint64_t wb_fold_pages(const RamFold *f, uint32_t *out);             /* those that are not zeros, ascending */
void wb_name_pages(const uint8_t *data, uint64_t n, uint8_t *names); /* n pages' BLAKE2b-256, in order */

int wb_is_zero_page(const uint8_t *page);
int wb_same_bytes(const uint8_t *a, const uint8_t *b, uint64_t n);
/* XORs those copies of pages that `at` names, whose numbers are in `pages`, with base, which lies in RAM from
 * page `first` on, where that leaves most of one zeros; places[i] is where in base then, otherwise UINT64_MAX
 */
void wb_diff_pages(uint8_t *copies, const uint32_t *pages, const uint32_t *at, uint64_t n,
                   const uint8_t *base, uint64_t first, uint64_t base_pages, uint64_t *places);

/* harts: registers by number; those of more than 64 bits by words, the lowest first */
uint32_t wb_n_regs(Machine *m);
uint32_t wb_n_state(Machine *m); /* the first n of them are a hart's whole state */
const char *wb_reg_name(Machine *m, uint32_t reg);
uint32_t wb_reg_bits(Machine *m, uint32_t reg); /* 0: this machine has no such register */
uint64_t wb_reg_get(Machine *m, uint32_t hart, uint32_t reg);
int wb_reg_set(Machine *m, uint32_t hart, uint32_t reg, uint64_t value);
int wb_wide_get(Machine *m, uint32_t hart, uint32_t reg, uint64_t *words); /* -1: it is not wide */
int wb_wide_set(Machine *m, uint32_t hart, uint32_t reg, const uint64_t *words);
/* the words of the registers that this machine has */
void wb_state_get(Machine *m, uint32_t hart, uint64_t *out);
void wb_state_set(Machine *m, uint32_t hart, const uint64_t *in);
void wb_irq_line(Machine *m, uint32_t hart, uint32_t line, int level);

/* probes (core/probe.h): kinds by wb_probe_kind(), actions 0 stop, 1 note the last hit, 2 record, 3 count by
 * pc; flags 1: the range is of paddrs. Conditions are gdb agent expressions at code[spec.code], of
 * spec.code_len bytes (0: none). */
typedef struct {
    uint8_t kind, action, flags;
    uint64_t lo, hi;
    uint32_t code, code_len;
} WbProbe;
int wb_probes_set(Machine *m, const WbProbe *specs, uint32_t n, const uint8_t *code, uint32_t code_len);
const char *wb_probe_kind(uint32_t kind);
void wb_probe_skip(Machine *m, uint64_t icount);
int wb_probe_stopped(Machine *m); /* which probe stopped the last run; -1: none */
uint64_t wb_probe_hits(Machine *m, uint32_t probe);
uint64_t wb_probe_last(Machine *m, uint32_t probe);
/* What probes that count have counted: pairs of pc and count, by pc; valid until the next call. lost: not
 * counted. */
const uint64_t *wb_probe_counts(Machine *m, uint32_t *n, uint64_t *lost);
const void *wb_probe_records(Machine *m,
                             uint32_t *n); /* takes them: valid until the next run; 128 bytes each */

/* pairing calls with returns (core/callpairs.h): needs no machine. feed takes probes' records in the run's
 * order, and adds rows of 16 words and returns of 3, valid until it is called again or they are cleared; -1:
 * no memory. What is open is saved as 5 words a frame. */
typedef struct WbCallPairs WbCallPairs;
WbCallPairs *wb_callpairs_create(void); /* NULL: no memory */
void wb_callpairs_destroy(WbCallPairs *p);
int wb_callpairs_feed(WbCallPairs *p, const void *records, uint32_t n);
const uint64_t *wb_callpairs_rows(const WbCallPairs *p, uint32_t *n);
const uint64_t *wb_callpairs_returns(const WbCallPairs *p, uint32_t *n); /* of calls of earlier feeds */
uint32_t wb_callpairs_open(const WbCallPairs *p);                        /* how many frames are open */
void wb_callpairs_save(const WbCallPairs *p, uint64_t *out);
int wb_callpairs_load(WbCallPairs *p, const uint64_t *in, uint32_t n); /* -1: too many, or no memory */
void wb_callpairs_clear(WbCallPairs *p); /* forgets rows and returns, not what is open */

/* steps by stack of calls (core/stacktree.h): needs no machine. It begins at a position, in a hart's turn, in
 * user mode or not; feed takes probes' records in the run's order, -1: no memory. nodes: counts up to a
 * position, and gives 3 words for each node (target; steps; below and depth, of 32 bits), and how many frames
 * were forgotten. */
typedef struct WbStackTree WbStackTree;
WbStackTree *wb_stacktree_create(uint64_t icount, uint32_t hart,
                                 int user); /* NULL: no memory, or no such hart */
void wb_stacktree_destroy(WbStackTree *t);
int wb_stacktree_feed(WbStackTree *t, const void *records, uint32_t n);
const uint64_t *wb_stacktree_nodes(WbStackTree *t, uint64_t end, uint32_t *n, uint64_t *forgotten);

/* rows as pages of an SQLite table (core/rowimage.h): gate is the word that says whether LATE columns are
 * there. What is returned is valid until cleared. */
typedef struct WbRowImage WbRowImage;
typedef struct {
    uint8_t kind, word, first, bytes; /* the number in `bytes` bytes of a word, the lowest is `first` */
} WbRowColumn;
WbRowImage *wb_rowimage_create(const WbRowColumn *column, uint32_t columns, uint32_t row_words, uint32_t gate,
                               const uint8_t *first_page,
                               uint32_t bytes); /* NULL: no such columns or page, or no memory */
void wb_rowimage_destroy(WbRowImage *p);
void wb_rowimage_clear(WbRowImage *p);
int wb_rowimage_name(WbRowImage *p, uint64_t word, const uint8_t *text, uint32_t len); /* -1: too long */
int wb_rowimage_add(WbRowImage *p, const uint64_t *rows, uint32_t n, uint32_t *taken, uint64_t *unnamed);
uint32_t wb_rowimage_leaves(const WbRowImage *p);
/* Ends the rows: a whole database. NULL: no memory. */
const uint8_t *wb_rowimage_database(WbRowImage *p, uint64_t *size);
/* Ends the rows: pages numbered from `number` on. before: a leaf that is elsewhere and comes first, and its
 * last key; 0: none. tops: pairs of page and last key. NULL: not two leaves, or no memory. */
const uint8_t *wb_rowimage_subtrees(WbRowImage *p, uint32_t number, uint64_t before, uint64_t last,
                                    uint64_t *size, const uint64_t **tops, uint32_t *n);

/* text */
uint32_t wb_disasm(Machine *m, const uint8_t *code, uint32_t avail, uint64_t pc, char *out, uint64_t size);
uint64_t wb_dump_ir(Machine *m, uint32_t hart, char *out, uint64_t size); /* of the TB at the hart's pc */
/* of the one instruction there, as the front end makes it: all that it does, and nothing else */
uint64_t wb_dump_insn_ir(Machine *m, uint32_t hart, char *out, uint64_t size);
uint64_t wb_stat(Machine *m, const char *name); /* ~0: no such counter */
/* Generated code since it was last flushed, blocks that were dropped too: host address, bytes, guest pc; the
 * first is what all blocks share, with pc ~0. Returns how many there are; up to max are stored. */
uint64_t wb_code_map(Machine *m, uint64_t *out, uint64_t max);

/* host callbacks: 0; 1: nothing at this address; -1: failed. entropy NULL: reads of seed fail for good;
 * sbi_call NULL: no built-in SBI, ecalls trap */
void wb_set_host(Machine *m, void *opaque, int (*mmio_read)(void *, uint64_t, uint32_t, uint32_t, uint64_t *),
                 int (*mmio_write)(void *, uint64_t, uint32_t, uint32_t, uint64_t),
                 int (*entropy)(void *, uint32_t, uint64_t *), int (*sbi_call)(void *, uint32_t));

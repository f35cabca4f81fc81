/* riscv.h: functions of the RISC-V guest that its table (riscv.c) gathers, and the names of CSRs. */
#ifndef WB_RISCV_RISCV_H
#define WB_RISCV_RISCV_H

#include "cpu.h"

/* Features of the processor: X(name, value unless told, the values there are). What a machine has is in
 * Machine.feature[FEATURE_<name>]; machine/cpu.py is what people choose from. */
#define RISCV_FEATURES(X)                                                                                    \
    X(v, 0, value <= 1) /* the vector extension */                                                           \
    X(vlen, 128, value == 128 || value == 256)
enum {
#define X(name, def, legal) FEATURE_##name,
    RISCV_FEATURES(X)
#undef X
        N_FEATURES
};
_Static_assert((int)N_FEATURES <= (int)WB_MAX_FEATURES, "there is room");

/* csr.c: does a machine with these features have it? */
bool riscv_csr_exists(const Machine *m, uint32_t csr);

/* translate.c */
void riscv_translate(Hart *h, IrBlock *ir, uint64_t pc, uint32_t flags, const uint8_t *page,
                     const uint8_t *next_page, uint32_t max_insns);

/* The word of tb_flags: FP instructions are illegal; vector instructions are; frm is 0 and fflags.NX is set.
 */
enum { TBF_FS_OFF = 1, TBF_VS_OFF = 2, TBF_FP_PLAIN = 4 };
enum { FETCH_KEY_FP_PLAIN_BIT = 60, FETCH_KEY_BARE_BIT = 61, FETCH_KEY_OPEN_BIT = 62 };

/* disasm.c */
uint32_t riscv_insn_bytes(uint16_t low);
uint32_t riscv_disasm(const uint8_t *code, uint32_t avail, uint64_t pc, char *out, size_t size);

/* trap.c and csr.c: see GuestOps for what each one does */
int riscv_pending_irq(Hart *h);
void riscv_take_irq(Hart *h, int irq);
bool riscv_wakes(Hart *h);
uint64_t riscv_timer_deadline(Hart *h);
void riscv_raise_mem(Hart *h, uint64_t vaddr, Access acc, uint32_t fault);
uint32_t riscv_access_fault(Access acc);
void riscv_irq_line(Hart *h, uint32_t line, bool level);
void riscv_reset(Hart *h, uint64_t pc, uint64_t arg0, uint64_t arg1);
/* State was written field by field: recompute what derives from it (fs_off, contexts). */
void riscv_state_loaded(Hart *h);

/* mmu.c */
uint64_t riscv_data_key(Hart *h);
uint64_t riscv_fetch_key(Hart *h);
void riscv_walk(Hart *h, uint64_t vaddr, Access acc, bool debug, Walk *w);

/* trigger.c */
bool riscv_watches_page(const Hart *h, Access acc, uint64_t vpage);
bool riscv_trigger_data(Hart *h, uint64_t vaddr, uint32_t size, Access acc);
/* May a trigger of any hart match the instruction at pc? */
bool riscv_trigger_covers(const Machine *m, uint64_t pc);

/* CSRs by name, for the disassembler and the register table: X(number, name).
 * SPEC: privileged 1.12, tables 2.2 to 2.6 */
/* clang-format off */
#define RISCV_CSR_NAMES(X)                                                                                   \
    X(0x001, fflags) X(0x002, frm) X(0x003, fcsr) X(0x015, seed)                                               \
    X(0x008, vstart) X(0x009, vxsat) X(0x00a, vxrm) X(0x00f, vcsr)                                           \
    X(0xc20, vl) X(0xc21, vtype) X(0xc22, vlenb)                                                             \
    X(0x100, sstatus) X(0x104, sie) X(0x105, stvec) X(0x106, scounteren) X(0x10a, senvcfg)                   \
    X(0x140, sscratch) X(0x141, sepc) X(0x142, scause) X(0x143, stval) X(0x144, sip)                         \
    X(0x10c, sstateen0) X(0x10d, sstateen1) X(0x10e, sstateen2) X(0x10f, sstateen3)                          \
    X(0x30c, mstateen0) X(0x30d, mstateen1) X(0x30e, mstateen2) X(0x30f, mstateen3)                          \
    X(0x14d, stimecmp) X(0x180, satp) X(0x5a8, scontext)                                                     \
    X(0x300, mstatus) X(0x301, misa) X(0x302, medeleg) X(0x303, mideleg) X(0x304, mie) X(0x305, mtvec)       \
    X(0x306, mcounteren) X(0x30a, menvcfg) X(0x320, mcountinhibit)                                           \
    X(0x340, mscratch) X(0x341, mepc) X(0x342, mcause) X(0x343, mtval) X(0x344, mip)                         \
    X(0x747, mseccfg) X(0x7a0, tselect) X(0x7a1, tdata1) X(0x7a2, tdata2) X(0x7a3, tdata3) X(0x7a4, tinfo)  \
    X(0x7a5, tcontrol) X(0x7a8, mcontext) X(0x7b0, dcsr) X(0x7b1, dpc) X(0x7b2, dscratch0) X(0x7b3, dscratch1)                  \
    X(0xb00, mcycle) X(0xb02, minstret)                                                                      \
    X(0xc00, cycle) X(0xc01, time) X(0xc02, instret) X(0xda0, scountovf)                                                         \
    X(0xf11, mvendorid) X(0xf12, marchid) X(0xf13, mimpid) X(0xf14, mhartid) X(0xf15, mconfigptr)
/* clang-format on */

enum {
#define X(number, name) CSR_##name = number,
    RISCV_CSR_NAMES(X)
#undef X
        CSR_pmpcfg0 = 0x3a0,
    CSR_pmpaddr0 = 0x3b0,
};

/* AMOs, by bits 31:27 of the encoding. SPEC: unprivileged, 8.4 */
enum {
    AMO_ADD = 0x00,
    AMO_SWAP = 0x01,
    AMO_XOR = 0x04,
    AMO_OR = 0x08,
    AMO_AND = 0x0c,
    AMO_MIN = 0x10,
    AMO_MAX = 0x14,
    AMO_MINU = 0x18,
    AMO_MAXU = 0x1c,
};

#endif

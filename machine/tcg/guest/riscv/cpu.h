/* cpu.h: the RISC-V part of a hart, and the borders between trans, csr, trap, mmu and fpu. */
#ifndef WB_RISCV_CPU_H
#define WB_RISCV_CPU_H

#include "../guest.h"

enum { PRV_U = 0, PRV_S = 1, PRV_M = 3 };

/* slots: x0..x31 are 0..31 (x0's slot always holds 0 and is never a destination), f0..f31 are 32..63 */
enum { SLOT_X = 0, SLOT_F = 32 };

enum { VLEN_MAX = 256 }; /* bits of a vector register at the most */
enum { TRIGGERS = 4 };

/* What a debug trigger matches: derived from tdata1 and tdata2 (trigger.c), not state. */
typedef struct {
    uint64_t first, last; /* vaddr; first > last: nothing */
    uint64_t kinds;       /* bit 0: loads, 1: stores, 2: instructions */
    uint64_t modes;       /* bit by privilege */
    uint64_t size;        /* bytes of the access; 0: any */
} Trigger;

enum { FFLAGS_NX = 1 }; /* of fflags: inexact */

struct GuestHart {
    uint64_t priv;
    uint64_t fs_off;   /* 1: mstatus.FS is Off, FP instructions are illegal; kept by csr.c */
    uint64_t fs_dirty; /* set to 1 by FP instructions; folded into mstatus.FS = Dirty on read */
    uint64_t frm;      /* 0..7 as written */
    uint64_t rm;       /* rounding mode of the fused multiply-add under way: 0..4, or 7 = frm */
    uint64_t rm_insn;  /* its encoding, for the trap value of a reserved mode */
    uint64_t fflags;   /* accrued, without what still sits in the host's MXCSR */
    uint64_t mstatus;  /* FS field: Off/Initial/Clean; Dirty comes from fs_dirty */
    uint64_t mip;      /* software- and device-written bits; riscv_mip() adds seip_line and the timers */
    uint64_t mie, mideleg, medeleg;
    uint64_t mtvec, mepc, mcause, mtval, mscratch;
    uint64_t stvec, sepc, scause, stval, sscratch, satp;
    uint64_t mcounteren, scounteren, mcountinhibit, menvcfg, senvcfg;
    uint64_t mseccfg, mstateen[4];
    uint64_t tselect, tcontrol, tdata1[TRIGGERS], tdata2[TRIGGERS];
    uint64_t stimecmp;  /* Sstc */
    uint64_t mtimecmp;  /* ACLINT, in ticks of `time`; ~0 = never */
    uint64_t seip_line; /* the PLIC's wire, apart from the software bit of mip.SEIP */
    uint64_t pmpcfg[2], pmpaddr[16];
    uint64_t minstret_off,
        mcycle_off;       /* added to the step counters by writes: minstret = hart_steps - traps + off */
    uint64_t traps;       /* trap entries of this hart: steps that are not retired instructions */
    uint64_t reservation; /* paddr of LR, ~0 = none; dropped when the hart's turn ends and by device writes */
    uint64_t hartid;
    /* The vector extension. vs_off and vs_dirty are to mstatus.VS what fs_off and fs_dirty are to FS. */
    uint64_t vs_off, vs_dirty;
    uint64_t vstart, vxsat, vxrm, vl;
    uint64_t vtype; /* as the CSR reads: 1 << 63 (vill) alone, or a legal setting */
    uint64_t vlenb; /* bytes of a register, 0: no vector extension; from the machine's features */
    uint64_t v[32 * VLEN_MAX / 64]; /* v0, v1 …, each of vlenb bytes, one behind the other */
    /* Derived from pmpcfg and pmpaddr (mmu.c), not state: */
    struct {
        uint64_t first, last; /* paddr; first > last: matches nothing */
        uint64_t cfg;
    } pmp[16];
    uint64_t pmp_used;   /* entries to look at */
    uint64_t pmp_open;   /* every address is open to every mode */
    uint64_t pmp_fine;   /* some entry begins or ends inside a page */
    uint64_t pmp_locked; /* some entry holds for M-mode too */
    Trigger trigger[TRIGGERS];
    uint64_t trigger_kinds; /* of all of them */
};
_Static_assert(sizeof(GuestHart) <= sizeof(((Hart *)0)->guest), "the guest part fits");

/* Exception causes. SPEC: privileged 1.12, table 3.6 */
enum {
    EXC_INSN_MISALIGNED = 0,
    EXC_INSN_ACCESS = 1,
    EXC_ILLEGAL = 2,
    EXC_BREAKPOINT = 3,
    EXC_LOAD_MISALIGNED = 4,
    EXC_LOAD_ACCESS = 5,
    EXC_STORE_MISALIGNED = 6,
    EXC_STORE_ACCESS = 7,
    EXC_ECALL_U = 8,
    EXC_ECALL_S = 9,
    EXC_ECALL_M = 11,
    EXC_INSN_PAGE = 12,
    EXC_LOAD_PAGE = 13,
    EXC_STORE_PAGE = 15,
};

/* trap.c: enters the trap for the instruction being executed: epc = hart_insn_pc(h), sets h->pc and
 * h->leave = LEAVE_JUMP. */
void riscv_raise(Hart *h, uint32_t cause, uint64_t tval);
void riscv_enter_trap(Hart *h, uint32_t cause, bool is_interrupt, uint64_t epc, uint64_t tval);

/* csr.c */
enum { CSR_OP_RW, CSR_OP_RS, CSR_OP_RC };
/* For debuggers: 0 on success; no side effect on reading. */
int riscv_csr_read_debug(Hart *h, uint32_t csr, uint64_t *value);
int riscv_csr_write_debug(Hart *h, uint32_t csr, uint64_t value);
uint64_t riscv_mip(Hart *h);     /* with lines and timers folded in */
uint64_t riscv_mstatus(Hart *h); /* with FS and SD as the guest reads them */
uint64_t riscv_time(Hart *h);    /* the time CSR at the exact position: vtime_ns / 100 */

/* Everything that keeps derived fields (fs_off, vs_off, contexts) right after privilege,
 * mstatus or satp changed. */
void riscv_regime_changed(Hart *h);

/* The soft FPU, on register images (f32 NaN-boxed); rm is 0..4; flags are or-ed into *fflags. fpu.h */

/* Helpers that CALL may name: HELP_<name>. */
#include "helpers.h"

#endif

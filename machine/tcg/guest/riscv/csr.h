/* csr.h: bit layouts of the CSRs, and the borders between csr.c, trap.c, mmu.c and fpu.c. Only they and the
 * front end's register table include it. */
#ifndef WB_RISCV_CSR_H
#define WB_RISCV_CSR_H

#include "cpu.h"

/* mstatus. SPEC: privileged 1.12, 3.1.6
 *
 *   63 | 35 34 | 33 32 | 22  21 20  19  18  17   | 14 13 | 12 11 | 10 9 | 8   7    5    3   1
 *   SD | SXL   | UXL   | TSR TW TVM MXR SUM MPRV | FS    | MPP   | VS   | SPP MPIE SPIE MIE SIE
 */
#define MSTATUS_SIE  (1ull << 1)
#define MSTATUS_MIE  (1ull << 3)
#define MSTATUS_SPIE (1ull << 5)
#define MSTATUS_MPIE (1ull << 7)
#define MSTATUS_SPP  (1ull << 8)
#define MSTATUS_VS   (3ull << 9)
#define MSTATUS_MPP  (3ull << 11)
#define MSTATUS_FS   (3ull << 13)
#define MSTATUS_MPRV (1ull << 17)
#define MSTATUS_SUM  (1ull << 18)
#define MSTATUS_MXR  (1ull << 19)
#define MSTATUS_TVM  (1ull << 20)
#define MSTATUS_TW   (1ull << 21)
#define MSTATUS_TSR  (1ull << 22)
#define MSTATUS_UXL  (3ull << 32)
#define MSTATUS_SXL  (3ull << 34)
#define MSTATUS_SD   (1ull << 63)
#define MSTATUS_XLEN ((2ull << 32) | (2ull << 34)) /* UXL = SXL = 64 bits, read-only */
enum {
    MSTATUS_VS_SHIFT = 9,
    MSTATUS_MPP_SHIFT = 11,
    MSTATUS_FS_SHIFT = 13,
    FS_OFF = 0,
    FS_INITIAL = 1,
    FS_CLEAN = 2,
    FS_DIRTY = 3
}; /* VS has the values of FS */

/* Interrupt numbers: bits of mip, mie, mideleg. SPEC: privileged 1.12, 3.1.9 */
enum { IRQ_SSI = 1, IRQ_MSI = 3, IRQ_STI = 5, IRQ_MTI = 7, IRQ_SEI = 9, IRQ_MEI = 11, IRQ_LCOFI = 13 };
#define IRQ_BIT(n) (1ull << (n))
/* LCOFI: a counter's overflow, which software alone can make pending here. SPEC: Sscofpmf */
#define IRQS_S    (IRQ_BIT(IRQ_SSI) | IRQ_BIT(IRQ_STI) | IRQ_BIT(IRQ_SEI) | IRQ_BIT(IRQ_LCOFI))
#define IRQS_M    (IRQ_BIT(IRQ_MSI) | IRQ_BIT(IRQ_MTI) | IRQ_BIT(IRQ_MEI))
#define CAUSE_IRQ (1ull << 63)
/* Exceptions that medeleg can hold: all that exist but the call from M-mode. */
#define MEDELEG_MASK 0xb3ffull

/* menvcfg and senvcfg. SPEC: privileged 1.12, 3.1.18; Sstc; Svadu */
#define ENVCFG_FIOM  (1ull << 0)
#define ENVCFG_CBIE  (3ull << 4) /* CBO.INVAL: 0 no, 1 as a flush, 3 yes; 2 is reserved */
#define ENVCFG_CBCFE (1ull << 6) /* CBO.CLEAN and CBO.FLUSH */
#define ENVCFG_CBZE  (1ull << 7) /* CBO.ZERO */
#define ENVCFG_S     (ENVCFG_FIOM | ENVCFG_CBIE | ENVCFG_CBCFE | ENVCFG_CBZE)
#define ENVCFG_PBMTE (1ull << 62) /* memory types in PTEs */
#define ENVCFG_ADUE  (1ull << 61) /* page-table walks set A and D */
#define ENVCFG_STCE  (1ull << 63) /* stimecmp exists for S-mode, and drives mip.STIP */

/* mseccfg. SPEC: scalar cryptography, 4.4 */
#define MSECCFG_USEED (1ull << 8)
#define MSECCFG_SSEED (1ull << 9)

/* mstateen: what lower modes may use of the state that this hart has. SPEC: Smstateen, 2.3 */
#define STATEEN_SE     (1ull << 63) /* sstateen itself */
#define STATEEN_ENVCFG (1ull << 62) /* senvcfg */

/* seed. SPEC: scalar cryptography, 4.1 */
enum { SEED_ES16 = 2, SEED_DEAD = 3, SEED_STATUS_SHIFT = 30 };

/* satp. SPEC: privileged 1.12, 4.1.11 */
enum { SATP_MODE_SHIFT = 60, SATP_BARE = 0, SATP_SV39 = 8, SATP_SV48 = 9, SATP_SV57 = 10 };
#define SATP_PPN ((1ull << 44) - 1)

enum { CBO_BLOCK_BYTES = 64 }; /* the device tree says so too */

/* Counter-enable and -inhibit bits */
enum { CTR_CY = 1, CTR_TM = 2, CTR_IR = 4 };

/* PMP. SPEC: privileged 1.12, 3.7 */
enum { PMP_ENTRIES = 16, PMP_R = 1, PMP_W = 2, PMP_X = 4, PMP_RWX = 7, PMP_A = 0x18, PMP_L = 0x80 };
enum { PMP_OFF = 0x00, PMP_TOR = 0x08, PMP_NA4 = 0x10, PMP_NAPOT = 0x18 };
#define PMP_ADDR_MASK ((1ull << 54) - 1)

/* mmu.c */
uint64_t riscv_pmpcfg_read(const GuestHart *g, uint32_t word);
/* Locked entries keep their values. Both return whether anything changed. */
bool riscv_pmpcfg_write(GuestHart *g, uint32_t word, uint64_t value);
bool riscv_pmpaddr_write(GuestHart *g, uint32_t entry, uint64_t value);
/* Recomputes the entries' ranges from pmpcfg and pmpaddr; returns whether any differs. */
bool riscv_pmp_update(GuestHart *g);

/* trigger.c. After the fields were written: drops what was translated for other triggers. */
void riscv_triggers_loaded(Hart *h);
bool riscv_triggers_update(GuestHart *g);
uint64_t riscv_tdata1_legal(uint64_t value);
uint64_t riscv_tdata_read(Hart *h, uint32_t csr);
void riscv_tdata_write(Hart *h, uint32_t csr, uint64_t value);
void riscv_tselect_write(Hart *h, uint32_t csr, uint64_t value);
uint64_t riscv_tinfo_read(Hart *h, uint32_t csr);
void riscv_trigger_enter_m(GuestHart *g);
void riscv_trigger_leave_m(GuestHart *g);
/* Before an access: true when a trigger has taken it; the breakpoint is entered then. */
bool riscv_trigger_exec(Hart *h, uint64_t pc);
bool riscv_trigger_amo(Hart *h, uint64_t vaddr, uint32_t size);

/* Ends the TB after this instruction, unless something stronger ends it already. */
static inline void riscv_leave_after(Hart *h)
{
    if (h->leave == LEAVE_NONE)
        h->leave = LEAVE_AFTER;
}

#endif

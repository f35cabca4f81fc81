/* guest.h: what the core asks of a guest architecture. One table a guest; the core has no #ifdef. */
#ifndef WB_GUEST_H
#define WB_GUEST_H

#include "../core/softmmu.h"

typedef struct {
    const char *name;
    uint32_t writable;
} RegInfo;

/* Of tb_flags, for the core: loads and stores are of physical addresses. */
#define TB_BARE_DATA (1u << 31)
/* … and loads have been open to all of RAM (DataCtx.open): they may not be any more. */
#define TB_OPEN_RAM (1u << 30)

typedef struct GuestOps {
    const char *name;
    const Helper *helpers; /* indexed by CALL's off */
    uint32_t n_helpers;
    /* Slots worth a host register, most wanted first. */
    const uint8_t *hot_slots;
    uint32_t n_hot_slots;

    void (*init)(Machine *m); /* the features of a processor that nobody chooses anything of */
    /* Chooses a feature of the processor, before anything runs; false: no such feature or value. */
    bool (*set_feature)(Machine *m, const char *name, uint32_t value);
    void (*reset)(Hart *h, uint64_t pc, uint64_t arg0, uint64_t arg1);
    /* What besides pc and code bytes decides on the translation (for RISC-V: is the FPU off?). Part of a TB's
     * identity and of fetch_key; an instruction that changes it ends with leave set. A flag by which blocks
     * rely on something follows the context alone: it may come true unnoticed, but never become false. */
    uint32_t (*tb_flags)(Hart *h);
    /* Appends IR for the instructions from pc on: at least one, at most max_insns, none beginning outside the
     * virtual page of pc. `page` is the host address of that physical page; `next_page` that of
     * the page behind it, or NULL: then an instruction that crosses may not be the first, and ends the block
     * before it. With m->sw.superblock a direct jump inside the page goes on at its target.
     * Ends the block with GOTO, GOTO_IND or EXIT. Emits the probes' CALLs (core/probe.h). */
    void (*translate)(Hart *h, IrBlock *ir, uint64_t pc, uint32_t flags, const uint8_t *page,
                      const uint8_t *next_page, uint32_t max_insns);
    /* Length in bytes of the instruction that begins with these 16 bits. */
    uint32_t (*insn_bytes)(uint16_t low);

    /* An interrupt that is pending and enabled now, or -1. Does nothing. */
    int (*pending_irq)(Hart *h);
    void (*take_irq)(Hart *h, int irq); /* the trap entry: sets pc; the caller counts the step */
    /* In WFI: does anything pending (enabled or not by the global bit) end the wait? */
    bool (*wakes)(Hart *h);
    /* The next vtime_ns at which a timer of this hart makes an interrupt pending, ~0 = never. */
    uint64_t (*timer_deadline)(Hart *h);

    /* The hart's turn ends, or a device wrote to RAM: a load reservation goes. */
    void (*turn_ended)(Hart *h);

    uint64_t (*data_key)(Hart *h); /* never 0; equal keys, equal translations */
    uint64_t (*fetch_key)(Hart *h);
    void (*walk)(Hart *h, uint64_t vaddr, Access acc, bool debug, Walk *w);
    /* Takes the trap of a failed access (also for physical addresses where there is nothing). */
    void (*raise_mem)(Hart *h, uint64_t vaddr, Access acc, uint32_t fault);
    uint32_t (*access_fault)(Access acc); /* fault code of a bad physical address */
    /* With Hart.watched: may a load or store to this page be a hardware breakpoint of the guest's own? Is
     * this one, and the trap taken? */
    bool (*watches_page)(const Hart *h, Access acc, uint64_t vpage);
    bool (*data_trigger)(Hart *h, uint64_t vaddr, uint32_t size, Access acc);
    void (*irq_line)(Hart *h, uint32_t line, bool level);

    /* Registers by number, for debuggers and checkpoints. */
    const RegInfo *regs;
    uint32_t n_regs;
    uint32_t (*reg_bits)(const Machine *m, uint32_t reg); /* 0: this machine has no such register */
    uint64_t (*get_reg)(Hart *h, uint32_t reg);
    bool (*set_reg)(Hart *h, uint32_t reg, uint64_t value); /* false: not writable or no such value */
    /* All state that a checkpoint must hold: the first n_state registers of `regs`, raw. */
    uint32_t n_state;
    uint64_t (*get_state)(Hart *h, uint32_t reg);
    void (*set_state)(Hart *h, uint32_t reg, uint64_t value);
    /* Of a register of more than 64 bits, its words; NULL: it is none. */
    uint64_t *(*wide_reg)(Hart *h, uint32_t reg);
    void (*state_loaded)(Hart *h);
    /* For probes: a register by gdb's number; what a record keeps of the hart: privilege, the running context
     * (the kernel's task, or a process's address space) and eight argument registers. */
    uint64_t (*debug_reg)(Hart *h, uint32_t gdb_number);
    void (*debug_context)(Hart *h, uint8_t *priv, uint64_t *context, uint64_t args[8]);
    /* Assembly of one instruction; returns its length, 0 if there is none. */
    uint32_t (*disasm)(const uint8_t *code, uint32_t avail, uint64_t pc, char *out, size_t size);
} GuestOps;

extern const GuestOps riscv64_guest;

#endif

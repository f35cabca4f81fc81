/* x86_thunk.c: entry, exits, and calls into C that all blocks share. */
#include "../core/brief.h" /* writes each block once */

#include "x86.h"

#if defined(__x86_64__)

static const uint8_t callee_saved[] = {RBX, RBP, R12, R13, R14, R15};

static void emit_mov_env_reg(Asm *a, size_t off, unsigned r)
{
    em_rm(a, EM_W, 0x89, r, opnd_env(off));
}

static void emit_mov_reg_env(Asm *a, unsigned r, size_t off)
{
    em_rm(a, EM_W, 0x8b, r, opnd_env(off));
}

static void emit_mov_env_zero(Asm *a, size_t off)
{
    em_rm(a, EM_W, 0xc7, 0, opnd_env(off));
    em_32(a, 0);
}

static bool is_callee_saved(unsigned r)
{
    return r == RBX || r == R12 || r == R13;
}

/* Pinned registers to (or from) their slots; only those a C function may change, if so asked. */
static void emit_pins(CodeBuf *cb, bool load, bool volatile_only)
{
    for (unsigned slot = 0; slot < IR_GLOBALS; slot++) {
        int r = cb->pin_of[slot];
        if (r < 0 || (volatile_only && is_callee_saved((unsigned)r)))
            continue;
        em_rm(&cb->a, EM_W, load ? 0x8b : 0x89, (unsigned)r, opnd_slot_mem(slot));
    }
}

static void emit_enter_and_leave(CodeBuf *cb)
{
    Asm *a = &cb->a;
    cb->enter = a->p;
    for (unsigned i = 0; i < sizeof callee_saved; i++) {
        if (callee_saved[i] & 8)
            em_8(a, 0x41);
        em_8(a, 0x50 | (callee_saved[i] & 7));
    }
    em_alu_oi(a, EM_W, X_SUB, opnd_reg(RSP), 8);
    em_mov_ro(a, RAX, opnd_reg(RSI));
    em_lea(a, EM_W, R_ENV, opnd_mem(RDI, ENV_BIAS));
    emit_mov_reg_env(a, R_BUDGET, offsetof(Hart, budget));
    emit_mov_reg_env(a, R_DCTX, offsetof(Hart, dctx));
    emit_pins(cb, true, false);
    em_rm(a, 0, 0xff, 4, opnd_reg(RAX));

    cb->exit_chain = a->p;
    em_rm(a, EM_W, 0x8b, RDX, opnd_mem(RDX, 0));
    emit_mov_env_reg(a, offsetof(Hart, exit_slot), RAX);
    emit_mov_env_reg(a, offsetof(Hart, pc), RCX);
    emit_mov_env_reg(a, offsetof(Hart, exit_tb), RDX);
    uint8_t *to_out = em_jmp8(a);
    cb->exit_pc = a->p;
    emit_mov_env_reg(a, offsetof(Hart, pc), RAX);
    emit_mov_env_zero(a, offsetof(Hart, exit_tb));
    em_bind8(a, to_out);
    emit_mov_env_reg(a, offsetof(Hart, budget), R_BUDGET);
    emit_pins(cb, false, false);
    cb->leave = a->p;
    em_alu_oi(a, EM_W, X_ADD, opnd_reg(RSP), 8);
    for (unsigned i = sizeof callee_saved; i-- > 0;) {
        if (callee_saved[i] & 8)
            em_8(a, 0x41);
        em_8(a, 0x58 | (callee_saved[i] & 7));
    }
    em_8(a, 0xc3);

    cb->leave_d = a->p;
    em_alu_oi(a, 0, X_CMP, opnd_env(offsetof(Hart, leave)), LEAVE_AFTER);
    em_jcc(a, CC_NE, cb->leave);
    Opnd slot = opnd_idx(R_ENV, RCX, -ENV_BIAS);
    slot.scale = 3;
    em_mov_or(a, slot, RAX);
    em_jmp(a, cb->leave);
}

/* State to env, the call of the function in rax, and its verdict in ZF (set: go on). */
static void emit_call_c(CodeBuf *cb)
{
    Asm *a = &cb->a;
    emit_mov_env_reg(a, offsetof(Hart, budget), R_BUDGET);
    emit_pins(cb, false, false);
    em_lea(a, EM_W, RDI, opnd_mem(R_ENV, -ENV_BIAS));
    em_rm(a, 0, 0xff, 2, opnd_reg(RAX));
    em_alu_oi(a, 0, X_CMP, opnd_env(offsetof(Hart, leave)), 0);
}

/* What a block needs again after a call of C, which changed no slot if the block goes on. Keeps the flags. */
static void emit_restore(CodeBuf *cb)
{
    emit_mov_env_zero(&cb->a, offsetof(Hart, cur_tb));
    emit_mov_reg_env(&cb->a, R_DCTX, offsetof(Hart, dctx));
    emit_pins(cb, true, true);
}

/* Accesses that the blocks' own look-up did not settle. In the red zone of an entry, and above the stack
 * pointer of the common part: */
enum { AT_RSI = -24, AT_VADDR = -16, MEM_FRAME = 24 };

/* The slow path of loads or stores, from an entry with the function in rax. On leave it does not return. */
static uint8_t *emit_mem_common(CodeBuf *cb)
{
    Asm *a = &cb->a;
    uint8_t *start = a->p;
    em_mov_ro(a, RSI, opnd_mem(RSP, AT_VADDR));
    em_lea(a, EM_W, RSP, opnd_mem(RSP, -MEM_FRAME));
    emit_call_c(cb);
    uint8_t *out = em_jcc8(a, CC_NE);
    emit_restore(cb);
    em_lea(a, EM_W, RSP, opnd_mem(RSP, MEM_FRAME));
    em_mov_ro(a, RSI, opnd_mem(RSP, AT_RSI));
    em_8(a, 0xc3);
    em_bind8(a, out);
    em_lea(a, EM_W, RSP, opnd_mem(RSP, MEM_FRAME + 8));
    em_jmp(a, cb->leave);
    return start;
}

/* The rule of softmmu.h in full: what is misaligned within a page is served here. */
static void emit_mem_entry(CodeBuf *cb, bool store, unsigned mo, const uint8_t *common)
{
    Asm *a = &cb->a;
    const unsigned size = mo & MO_SIZE, last = store ? RAX : RDX;
    const size_t table = store ? offsetof(DataCtx, wr) : offsetof(DataCtx, rd);
    em_mov_or(a, opnd_mem(RSP, AT_RSI), RSI);
    em_mov_or(a, opnd_mem(RSP, AT_VADDR), RAX);
    em_rm(a, 0, 0x8b, RSI, opnd_reg(RAX));
    em_shift_i(a, 0, X_SHR, RSI, WB_PAGE_BITS - 4);
    em_alu_oi(a, 0, X_AND, opnd_reg(RSI), (TLB_SIZE - 1) << 4);
    em_alu_ro(a, EM_W, X_ADD, RSI, opnd_reg(R_DCTX));
    em_lea(a, EM_W, last, opnd_mem(RAX, (1 << size) - 1));
    em_alu_oi(a, EM_W, X_AND, opnd_reg(last), (int32_t)WB_PAGE_MASK);
    em_alu_ro(a, EM_W, X_CMP, last, opnd_mem(RSI, (int32_t)(table + offsetof(TlbEntry, tag))));
    uint8_t *slow = em_jcc8(a, CC_NE);
    em_mov_ro(a, RSI, opnd_mem(RSI, (int32_t)(table + offsetof(TlbEntry, addend))));
    if (store) {
        em_mov_ro(a, RAX, opnd_mem(RSP, AT_VADDR));
        em_store_sized(a, size, opnd_idx(RSI, RAX, 0), opnd_reg(RDX));
    } else { /* the block extends */
        em_rm(a, size == MO_64 ? EM_W : 0,
              size == MO_8    ? 0x0fb6
              : size == MO_16 ? 0x0fb7
                              : 0x8b,
              RAX, opnd_idx(RSI, RAX, 0));
    }
    em_mov_ro(a, RSI, opnd_mem(RSP, AT_RSI));
    em_8(a, 0xc3);
    em_bind8(a, slow);
    em_rm(a, EM_W, 0x8b, RCX, opnd_mem(RCX, 0));
    emit_mov_env_reg(a, offsetof(Hart, cur_tb), RCX);
    em_mov_ri(a, store ? RCX : RDX, mo);
    em_mov_ri(a, RAX, (int64_t)(store ? (uintptr_t)softmmu_store : (uintptr_t)softmmu_load));
    em_jmp(a, common);
}

static void emit_mem(CodeBuf *cb)
{
    const uint8_t *common = emit_mem_common(cb);
    for (unsigned mo = 0; mo < 16; mo++) {
        cb->load[mo] = cb->a.p;
        emit_mem_entry(cb, false, mo, common);
    }
    for (unsigned mo = 0; mo < 4; mo++) {
        cb->store[mo] = cb->a.p;
        emit_mem_entry(cb, true, mo, common);
    }
}

/* Helpers: rsi, rdx, rcx = a, b, c; rax = address of the TB pointer. Back with the result in rax and ZF
 * clear if the block is to be left. */
static void emit_helpers(CodeBuf *cb)
{
    Asm *a = &cb->a;
    const GuestOps *guest = cb->m->guest;

    const uint8_t *common = a->p;
    em_lea(a, EM_W, RSP, opnd_mem(RSP, -8));
    emit_call_c(cb);
    uint8_t *out = em_jcc8(a, CC_NE);
    emit_restore(cb);
    em_bind8(a, out);
    em_lea(a, EM_W, RSP, opnd_mem(RSP, 8));
    em_8(a, 0xc3);

    const uint8_t *common_noleave = a->p;
    em_lea(a, EM_W, RSP, opnd_mem(RSP, -8));
    emit_pins(cb, false, true);
    em_lea(a, EM_W, RDI, opnd_mem(R_ENV, -ENV_BIAS));
    em_rm(a, 0, 0xff, 2, opnd_reg(RAX));
    emit_pins(cb, true, true);
    em_lea(a, EM_W, RSP, opnd_mem(RSP, 8));
    em_8(a, 0xc3);

    for (uint32_t i = 0; i < guest->n_helpers; i++) {
        bool noleave = guest->helpers[i].flags & (HF_PURE | HF_NOLEAVE);
        cb->helper[i] = a->p;
        if (!noleave) {
            em_rm(a, EM_W, 0x8b, RAX, opnd_mem(RAX, 0));
            emit_mov_env_reg(a, offsetof(Hart, cur_tb), RAX);
        }
        em_mov_ri(a, RAX, (int64_t)(uintptr_t)guest->helpers[i].fn);
        em_jmp(a, noleave ? common_noleave : common);
    }
}

static void choose_pins(CodeBuf *cb)
{
    static const uint8_t regs[N_PIN_REGS] = {RBX, R12, R13, R8, R9, R10, R11, RDI};
    const GuestOps *guest = cb->m->guest;
    unsigned n = 0;
    memset(cb->pin_of, -1, sizeof cb->pin_of);
    cb->pinned = cb->m->sw.pin;
    for (uint32_t i = 0; cb->pinned && i < guest->n_hot_slots && n < N_PIN_REGS; i++)
        if (guest->hot_slots[i] < IR_GLOBALS && cb->pin_of[guest->hot_slots[i]] < 0)
            cb->pin_of[guest->hot_slots[i]] = (int8_t)regs[n++];
}

void thunks_emit(CodeBuf *cb)
{
    cb->a.p = cb->mem.rw;
    choose_pins(cb);
    cb->mxcsr = cb->a.p;
    em_64(&cb->a, MXCSR_DEFAULT);
    cb->ram_addend = cb->a.p;
    em_64(&cb->a, (uintptr_t)cb->m->ram - cb->m->ram_base);
    emit_enter_and_leave(cb);
    emit_mem(cb);
    emit_helpers(cb);
    cb->blocks = cb->a.p;
}

#endif

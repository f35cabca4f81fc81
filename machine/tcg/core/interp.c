/* interp.c: the portable back end: runs the IR itself.
 *
 * It is what runs cold blocks, single instructions, and everything on hosts without a code
 * generator. It meets the contract of host_enter() in host/host.h.
 */
#include "eval.h"
#include "softmmu.h"
#include "../guest/guest.h"

#include <string.h>

static inline uint64_t load_host(const uint8_t *p, uint32_t mo)
{
    union {
        uint8_t u8;
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
    } v;
    switch (mo & (MO_SIZE | MO_SIGN)) {
    case MO_8:
        return *p;
    case MO_8 | MO_SIGN:
        return (uint64_t)(int64_t)(int8_t)*p;
    case MO_16:
        memcpy(&v.u16, p, 2);
        return v.u16;
    case MO_16 | MO_SIGN:
        memcpy(&v.u16, p, 2);
        return (uint64_t)(int64_t)(int16_t)v.u16;
    case MO_32:
        memcpy(&v.u32, p, 4);
        return (mo & MO_BOX) ? v.u32 | UINT64_C(0xffffffff00000000) : v.u32;
    case MO_32 | MO_SIGN:
        memcpy(&v.u32, p, 4);
        return ir_sext32(v.u32);
    default:
        memcpy(&v.u64, p, 8);
        return v.u64;
    }
}

static inline void store_host(uint8_t *p, uint64_t value, uint32_t mo)
{
    switch (mo & MO_SIZE) {
    case MO_8:
        *p = (uint8_t)value;
        break;
    case MO_16:
        memcpy(p, &value, 2);
        break;
    case MO_32:
        memcpy(p, &value, 4);
        break;
    default:
        memcpy(p, &value, 8);
        break;
    }
}

static inline bool tlb_hit(const TlbEntry *e, uint64_t vaddr, uint32_t mo)
{
    const uint64_t last = vaddr + (UINT64_C(1) << (mo & MO_SIZE)) - 1;
    return (last & WB_PAGE_MASK) == e->tag;
}

/* Slow paths and helpers find the position through these. */
static inline void enter_site(Hart *h, TB *tb, const IrOp *o)
{
    h->cur_tb = tb;
    h->site = o->exit;
}

/* Should an exit go on in this loop? Cold blocks that are now hot go back to be compiled. */
static inline bool stays_here(const Machine *m, const TB *tb)
{
    return tb && !tb->code && !(m->sw.jit && tb->runs >= m->hot_runs);
}

static TB *jump_cache_find(const Hart *h, uint64_t pc)
{
    const uint32_t i = jc_index(pc);
    return h->m->sw.jump_cache && h->fctx->jc[i].pc == pc ? h->fctx->jc_tb[i] : NULL;
}

#define OPERAND(ref)      ((ref) == IR_CONST ? (uint64_t)o->imm : s[(ref)])
#define OPERAND_OR_0(ref) ((ref) == IR_NONE ? 0 : OPERAND(ref))
#define PURE2(name)                                                                                          \
    case IR_##name:                                                                                          \
        s[o->d] = ir_eval(IR_##name, OPERAND(o->a), OPERAND(o->b));                                          \
        break;
#define PURE1(name)                                                                                          \
    case IR_##name:                                                                                          \
        s[o->d] = ir_eval(IR_##name, OPERAND(o->a), 0);                                                      \
        break;

void interp_run(Hart *h, TB *tb)
{
    Machine *const m = h->m;
    const Helper *const helpers = m->guest->helpers;
    uint64_t *const s = h->slot;
    const IrOp *o;

enter:
    if (h->budget < tb->n_insns) {
        h->pc = tb->pc;
        h->exit_tb = NULL;
        return;
    }
    h->budget -= tb->n_insns;
    tb->runs++;
    for (o = tb->ops;; o++) {
        switch ((IrOpcode)o->op) {
        case IR_NOP:
        case IR_INSN:
            break;
            PURE1(MOV)
            PURE2(ADD)
            PURE2(SUB)
            PURE2(AND)
            PURE2(OR)
            PURE2(XOR)
            PURE2(SHL)
            PURE2(SHR)
            PURE2(SAR)
            PURE2(ADD32S)
            PURE2(SUB32S)
            PURE2(SHL32S)
            PURE2(SHR32S)
            PURE2(SAR32S)
            PURE1(SEXT8)
            PURE1(SEXT16)
            PURE1(SEXT32)
            PURE1(ZEXT8)
            PURE1(ZEXT16)
            PURE1(ZEXT32)
            PURE2(MUL)
            PURE2(MULHS)
            PURE2(MULHU)
            PURE2(MULHSU)
            PURE2(MUL32S)
            PURE2(DIVS)
            PURE2(DIVU)
            PURE2(REMS)
            PURE2(REMU)
            PURE2(DIVS32S)
            PURE2(DIVU32S)
            PURE2(REMS32S)
            PURE2(REMU32S)
            PURE2(ROTR)
            PURE2(ROTR32S)
            PURE1(CLZ)
            PURE1(CTZ)
            PURE1(POPCNT)
            PURE1(CLZ32)
            PURE1(CTZ32)
            PURE1(POPCNT32)
            PURE1(BSWAP)
        case IR_SETCC:
            s[o->d] = ir_eval_cond(o->cond, OPERAND(o->a), OPERAND(o->b));
            break;
        case IR_SELECT:
            if (ir_eval_cond(o->cond, OPERAND(o->a), OPERAND(o->b)))
                s[o->d] = OPERAND(o->c);
            break;
        case IR_LD: {
            const uint64_t vaddr = OPERAND(o->a) + (uint64_t)(int64_t)o->off;
            const TlbEntry *e = &h->dctx->rd[(vaddr >> WB_PAGE_BITS) & (TLB_SIZE - 1)];
            if (tlb_hit(e, vaddr, o->flags)) {
                s[o->d] = load_host((const uint8_t *)(uintptr_t)(vaddr + e->addend), o->flags);
                break;
            }
            enter_site(h, tb, o);
            const uint64_t value = softmmu_load(h, vaddr, o->flags);
            if (h->leave)
                return;
            h->cur_tb = NULL;
            s[o->d] = value;
            break;
        }
        case IR_ST: {
            const uint64_t vaddr = OPERAND(o->a) + (uint64_t)(int64_t)o->off;
            const TlbEntry *e = &h->dctx->wr[(vaddr >> WB_PAGE_BITS) & (TLB_SIZE - 1)];
            if (tlb_hit(e, vaddr, o->flags)) {
                store_host((uint8_t *)(uintptr_t)(vaddr + e->addend), OPERAND(o->b), o->flags);
                break;
            }
            enter_site(h, tb, o);
            softmmu_store(h, vaddr, OPERAND(o->b), o->flags);
            if (h->leave)
                return;
            h->cur_tb = NULL;
            break;
        }
        case IR_LDENV:
            s[o->d] = load_host((const uint8_t *)h + o->off, o->flags);
            break;
        case IR_STENV:
            store_host((uint8_t *)h + o->off, OPERAND(o->b), o->flags);
            break;
        case IR_CALL: {
            enter_site(h, tb, o);
            const uint64_t value =
                helpers[o->off].fn(h, OPERAND_OR_0(o->a), OPERAND_OR_0(o->b), OPERAND_OR_0(o->c));
            if (o->d != IR_NONE && (h->leave == LEAVE_NONE || h->leave == LEAVE_AFTER))
                s[o->d] = value;
            if (h->leave)
                return;
            h->cur_tb = NULL;
            break;
        }
        case IR_BRCOND:
            if (!ir_eval_cond(o->cond, OPERAND(o->a), OPERAND(o->b)))
                break;
            goto chain;
        case IR_GOTO:
            goto chain;
        case IR_GOTO_IND: {
            const uint64_t pc = OPERAND(o->a);
            h->budget += tb->n_insns - (o->off + 1);
            TB *next = jump_cache_find(h, pc);
            if (stays_here(m, next)) {
                tb = next;
                goto enter;
            }
            h->pc = pc;
            h->exit_tb = NULL;
            return;
        }
        case IR_EXIT:
            h->budget += tb->n_insns - (o->off + 1);
            h->pc = o->imm2;
            h->exit_tb = NULL;
            return;
        case IR_N_OPS:
            __builtin_unreachable();
        }
    }

chain:
    h->budget += tb->n_insns - (o->off + 1);
    TB *const dest = tb->chain[o->exit].dest;
    if (stays_here(m, dest)) {
        tb = dest;
        goto enter;
    }
    h->pc = o->imm2;
    h->exit_tb = tb->single ? NULL : tb;
    h->exit_slot = o->exit;
    return;
}

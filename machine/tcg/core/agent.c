/* agent.c: conditions of probes: the stack machine of gdb's agent expressions. SPEC: gdb manual, "Agent
 * Expressions"
 *
 * Programs come from debuggers and are hostile: stack, steps and memory are bounded, and what fails is false.
 */
#include "probe.h"
#include "mach_priv.h"
#include "../guest/guest.h"

enum { AX_STACK = 64, AX_STEPS = 10000 };

/* Registers beyond the guest's: what a condition can ask of the happening itself. */
enum { AX_REG_VALUE = 0x1000, AX_REG_OLD, AX_REG_ADDR, AX_REG_SIZE, AX_REG_ICOUNT, AX_REG_PADDR };

static bool ax_read(Hart *h, uint64_t vaddr, uint32_t size, uint64_t *value)
{
    *value = 0;
    for (uint32_t i = 0; i < size; i++) {
        uint64_t paddr;
        uint8_t byte;
        if (!softmmu_debug_translate(h, vaddr + i, ACC_READ, &paddr) || !phys_read(h->m, paddr, &byte, 1))
            return false;
        *value |= (uint64_t)byte << (8 * i);
    }
    return true;
}

static uint64_t ax_reg(Hart *h, const Happening *what, uint32_t reg)
{
    switch (reg) {
    case AX_REG_VALUE:
        return what->value;
    case AX_REG_OLD:
        return what->old;
    case AX_REG_ADDR:
        return what->at;
    case AX_REG_SIZE:
        return what->size;
    case AX_REG_ICOUNT:
        return mach_icount(h->m);
    case AX_REG_PADDR:
        return what->paddr;
    default:
        return h->m->guest->debug_reg(h, reg);
    }
}

static uint64_t ax_sext(uint64_t v, uint32_t bits)
{
    if (!bits || bits >= 64)
        return v;
    const uint64_t sign = UINT64_C(1) << (bits - 1);
    v &= (sign << 1) - 1;
    return (v ^ sign) - sign;
}

static uint64_t ax_zext(uint64_t v, uint32_t bits)
{
    return bits >= 64 ? v : v & ((UINT64_C(1) << bits) - 1);
}

/* gdb's numbers of the ops that compute. */
static bool ax_binary(uint8_t op, uint64_t a, uint64_t b, uint64_t *out)
{
    switch (op) {
    case 0x02:
        *out = a + b;
        return true;
    case 0x03:
        *out = a - b;
        return true;
    case 0x04:
        *out = a * b;
        return true;
    case 0x05:
        if (!b || ((int64_t)b == -1 && a == UINT64_C(1) << 63))
            return false;
        *out = (uint64_t)((int64_t)a / (int64_t)b);
        return true;
    case 0x06:
        *out = b ? a / b : 0;
        return b != 0;
    case 0x07:
        if (!b)
            return false;
        *out = (int64_t)b == -1 ? 0 : (uint64_t)((int64_t)a % (int64_t)b);
        return true;
    case 0x08:
        *out = b ? a % b : 0;
        return b != 0;
    case 0x09:
        *out = b < 64 ? a << b : 0;
        return true;
    case 0x0a:
        *out = (uint64_t)((int64_t)a >> (b < 64 ? b : 63));
        return true;
    case 0x0b:
        *out = b < 64 ? a >> b : 0;
        return true;
    case 0x0f:
        *out = a & b;
        return true;
    case 0x10:
        *out = a | b;
        return true;
    case 0x11:
        *out = a ^ b;
        return true;
    case 0x13:
        *out = a == b;
        return true;
    case 0x14:
        *out = (int64_t)a < (int64_t)b;
        return true;
    case 0x15:
        *out = a < b;
        return true;
    default:
        return false;
    }
}

static uint64_t ax_operand(const uint8_t *code, uint32_t n)
{
    uint64_t v = 0;
    for (uint32_t i = 0; i < n; i++)
        v = v << 8 | code[i];
    return v;
}

/* Bytes of operand behind an op; 255: no such op. */
static uint32_t ax_operand_size(uint8_t op)
{
    switch (op) {
    case 0x16: /* ext */
    case 0x22: /* const8 */
    case 0x2a: /* zero_ext */
    case 0x32: /* pick */
        return 1;
    case 0x20: /* if_goto */
    case 0x21: /* goto */
    case 0x23: /* const16 */
    case 0x26: /* reg */
        return 2;
    case 0x24:
        return 4;
    case 0x25:
        return 8;
    default:
        return (op >= 0x02 && op <= 0x15) || (op >= 0x17 && op <= 0x1a) || (op >= 0x27 && op <= 0x2b) ||
                       op == 0x33
                   ? 0
                   : 255;
    }
}

bool agent_eval(Hart *h, const Happening *what, const uint8_t *code, uint32_t len)
{
    uint64_t st[AX_STACK];
    uint32_t sp = 0, pc = 0;
    for (uint32_t steps = 0; steps < AX_STEPS && pc < len; steps++) {
        const uint8_t op = code[pc++];
        const uint32_t n = ax_operand_size(op);
        if (n == 255 || n > len - pc)
            return false;
        const uint64_t arg = ax_operand(code + pc, n);
        uint64_t arg2;
        pc += n;
        if (op == 0x27) /* end */
            return sp && st[sp - 1];
        if (ax_binary(op, sp >= 2 ? st[sp - 2] : 0, sp >= 2 ? st[sp - 1] : 0, &st[sp >= 2 ? sp - 2 : 0])) {
            if (sp < 2)
                return false;
            sp--;
            continue;
        }
        const bool pushes = (op >= 0x22 && op <= 0x26) || op == 0x28 || op == 0x32;
        if (pushes ? sp >= AX_STACK : (op != 0x21 && !sp))
            return false;
        switch (op) {
        case 0x0e: /* log_not */
            st[sp - 1] = !st[sp - 1];
            break;
        case 0x12: /* bit_not */
            st[sp - 1] = ~st[sp - 1];
            break;
        case 0x16:
            st[sp - 1] = ax_sext(st[sp - 1], (uint32_t)arg);
            break;
        case 0x2a:
            st[sp - 1] = ax_zext(st[sp - 1], (uint32_t)arg);
            break;
        case 0x17: /* ref8, 16, 32, 64 */
        case 0x18:
        case 0x19:
        case 0x1a:
            if (!ax_read(h, st[sp - 1], 1u << (op - 0x17), &st[sp - 1]))
                return false;
            break;
        case 0x20:
            if (st[--sp])
                pc = (uint32_t)arg;
            break;
        case 0x21:
            pc = (uint32_t)arg;
            break;
        case 0x22:
        case 0x23:
        case 0x24:
        case 0x25:
            st[sp++] = arg;
            break;
        case 0x26:
            st[sp++] = ax_reg(h, what, (uint32_t)arg);
            break;
        case 0x28: /* dup */
            if (!sp)
                return false;
            st[sp] = st[sp - 1];
            sp++;
            break;
        case 0x29: /* pop */
            sp--;
            break;
        case 0x2b: /* swap */
            if (sp < 2)
                return false;
            arg2 = st[sp - 1];
            st[sp - 1] = st[sp - 2];
            st[sp - 2] = arg2;
            break;
        case 0x32: /* pick */
            if (arg >= sp)
                return false;
            st[sp] = st[sp - 1 - arg];
            sp++;
            break;
        default:
            return false;
        }
    }
    return false;
}

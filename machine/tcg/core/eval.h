/* eval.h: the meaning of the IR's pure ops, in one place for the interpreter and the optimiser. */
#ifndef WB_EVAL_H
#define WB_EVAL_H

#include "ir.h"

static inline bool ir_eval_cond(IrCond cond, uint64_t a, uint64_t b)
{
    switch (cond) {
    case IR_EQ:
        return a == b;
    case IR_NE:
        return a != b;
    case IR_LT:
        return (int64_t)a < (int64_t)b;
    case IR_GE:
        return (int64_t)a >= (int64_t)b;
    case IR_LTU:
        return a < b;
    case IR_GEU:
        return a >= b;
    }
    return false;
}

static inline uint64_t ir_sext32(uint64_t v)
{
    return (uint64_t)(int64_t)(int32_t)v;
}

static inline uint64_t ir_eval_divs(int64_t a, int64_t b, int64_t min)
{
    if (!b)
        return ~UINT64_C(0);
    return a == min && b == -1 ? (uint64_t)min : (uint64_t)(a / b);
}

static inline uint64_t ir_eval_rems(int64_t a, int64_t b)
{
    if (!b)
        return (uint64_t)a;
    return b == -1 ? 0 : (uint64_t)(a % b);
}

/* Ops with IRF_PURE but SETCC and SELECT. One-operand ops ignore b. */
static inline __attribute__((always_inline)) uint64_t ir_eval(IrOpcode op, uint64_t a, uint64_t b)
{
    switch (op) {
    case IR_MOV:
        return a;
    case IR_ADD:
        return a + b;
    case IR_SUB:
        return a - b;
    case IR_AND:
        return a & b;
    case IR_OR:
        return a | b;
    case IR_XOR:
        return a ^ b;
    case IR_SHL:
        return a << (b & 63);
    case IR_SHR:
        return a >> (b & 63);
    case IR_SAR:
        return (uint64_t)((int64_t)a >> (b & 63));
    case IR_ADD32S:
        return ir_sext32(a + b);
    case IR_SUB32S:
        return ir_sext32(a - b);
    case IR_SHL32S:
        return ir_sext32((uint32_t)a << (b & 31));
    case IR_SHR32S:
        return ir_sext32((uint32_t)a >> (b & 31));
    case IR_SAR32S:
        return (uint64_t)(int64_t)((int32_t)a >> (b & 31));
    case IR_SEXT8:
        return (uint64_t)(int64_t)(int8_t)a;
    case IR_SEXT16:
        return (uint64_t)(int64_t)(int16_t)a;
    case IR_SEXT32:
        return ir_sext32(a);
    case IR_ZEXT8:
        return (uint8_t)a;
    case IR_ZEXT16:
        return (uint16_t)a;
    case IR_ZEXT32:
        return (uint32_t)a;
    case IR_MUL:
        return a * b;
    case IR_MULHS:
        return (uint64_t)(((__int128)(int64_t)a * (int64_t)b) >> 64);
    case IR_MULHU:
        return (uint64_t)(((unsigned __int128)a * b) >> 64);
    case IR_MULHSU:
        return (uint64_t)(((__int128)(int64_t)a * (__int128)b) >> 64);
    case IR_MUL32S:
        return ir_sext32(a * b);
    case IR_DIVS:
        return ir_eval_divs((int64_t)a, (int64_t)b, INT64_MIN);
    case IR_DIVU:
        return b ? a / b : ~UINT64_C(0);
    case IR_REMS:
        return ir_eval_rems((int64_t)a, (int64_t)b);
    case IR_REMU:
        return b ? a % b : a;
    case IR_DIVS32S:
        return ir_eval_divs((int32_t)a, (int32_t)b, INT32_MIN);
    case IR_DIVU32S:
        return (uint32_t)b ? ir_sext32((uint32_t)a / (uint32_t)b) : ~UINT64_C(0);
    case IR_REMS32S:
        return ir_eval_rems((int32_t)a, (int32_t)b);
    case IR_REMU32S:
        return ir_sext32((uint32_t)b ? (uint32_t)a % (uint32_t)b : (uint32_t)a);
    case IR_ROTR:
        return a >> (b & 63) | a << (-b & 63);
    case IR_ROTR32S:
        return ir_sext32((uint32_t)a >> (b & 31) | (uint32_t)a << (-b & 31));
    case IR_CLZ:
        return a ? (uint64_t)__builtin_clzll(a) : 64;
    case IR_CTZ:
        return a ? (uint64_t)__builtin_ctzll(a) : 64;
    case IR_POPCNT:
        return (uint64_t)__builtin_popcountll(a);
    case IR_CLZ32:
        return (uint32_t)a ? (uint64_t)__builtin_clz((uint32_t)a) : 32;
    case IR_CTZ32:
        return (uint32_t)a ? (uint64_t)__builtin_ctz((uint32_t)a) : 32;
    case IR_POPCNT32:
        return (uint64_t)__builtin_popcount((uint32_t)a);
    case IR_BSWAP:
        return __builtin_bswap64(a);
    default:
        __builtin_unreachable();
    }
}

#endif

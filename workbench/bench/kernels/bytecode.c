/* bytecode.c: an interpreter of a small stack machine, whose program sums a congruential sequence. */
#include "kernel.h"

enum { PUSH, LOAD, STORE, ADD, MUL, AND, SUB, JNZ, HALT };
enum { LOOPS = 9000 * 1000 };

const char kernel_name[] = "bytecode";

/* x = 1, s = 0, n = LOOPS; do { x = x * 69 + 5 & 0xffffff; s += x; n -= 1; } while (n) */
static const int32_t program[] = {
    PUSH, 1,    STORE, 0,   PUSH,  0, STORE, 1,    PUSH,     LOOPS, STORE, 2,     /* 12: */ LOAD,
    0,    PUSH, 69,    MUL, PUSH,  5, ADD,   PUSH, 0xffffff, AND,   STORE, 0,     LOAD,
    1,    LOAD, 0,     ADD, STORE, 1, LOAD,  2,    PUSH,     1,     SUB,   STORE, 2,
    LOAD, 2,    JNZ,   12,  LOAD,  1, HALT};

static int64_t interpret(const int32_t *code)
{
    int64_t stack[16], local[4] = {0}, *sp = stack;
    const int32_t *pc = code;
    for (;;) {
        switch (*pc++) {
        case PUSH:
            *sp++ = *pc++;
            break;
        case LOAD:
            *sp++ = local[*pc++];
            break;
        case STORE:
            local[*pc++] = *--sp;
            break;
        case ADD:
            sp--;
            sp[-1] += sp[0];
            break;
        case MUL:
            sp--;
            sp[-1] *= sp[0];
            break;
        case AND:
            sp--;
            sp[-1] &= sp[0];
            break;
        case SUB:
            sp--;
            sp[-1] -= sp[0];
            break;
        case JNZ:
            pc = *--sp ? code + *pc : pc + 1;
            break;
        default:
            return *--sp;
        }
    }
}

uint64_t kernel_run(void)
{
    return (uint64_t)interpret(program);
}

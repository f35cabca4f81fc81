/* words.c: 32-bit values in 64-bit slots: extensions that change nothing, rotations, upper halves nobody
 * reads.
 *
 * RISC-V keeps words sign-extended, so compilers extend much that is extended already, and without Zbb a
 * rotation is two shifts and an OR.
 */
#include "words.h"

#include <string.h>

void words_init(Words *w)
{
    for (unsigned i = 0; i < IR_SLOTS; i++) {
        w->def[i] = -1;
        w->number[i] = (uint16_t)i;
    }
    w->numbers = IR_SLOTS;
    memset(w->s_bits, 64, sizeof w->s_bits);
    memset(w->z_bits, 64, sizeof w->z_bits);
}

static unsigned min_u(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static unsigned max_u(unsigned a, unsigned b)
{
    return a > b ? a : b;
}

static unsigned const_z(int64_t v)
{
    return v ? 64 - (unsigned)__builtin_clzll((uint64_t)v) : 0;
}

static unsigned const_s(int64_t v)
{
    return 65 - (unsigned)(v ? __builtin_clzll((uint64_t)(v < 0 ? ~v : v) << 1 | 1) + 1 : 64);
}

/* ---- forwards ---- */

static unsigned s_of(const Words *w, const IrOp *o, uint16_t ref)
{
    return ref == IR_CONST ? const_s(o->imm) : ref < IR_SLOTS ? w->s_bits[ref] : 64;
}

static unsigned z_of(const Words *w, const IrOp *o, uint16_t ref)
{
    return ref == IR_CONST ? const_z(o->imm) : ref < IR_SLOTS ? w->z_bits[ref] : 64;
}

static void become_mov(IrOp *o)
{
    o->op = IR_MOV;
    o->b = o->c = IR_NONE;
}

/* The op that made ref's value, if it is `op` of a slot by a constant amount. */
static const IrOp *made_by(const Words *w, const IrOp *ops, uint16_t ref, IrOpcode op)
{
    if (ref >= IR_SLOTS || w->def[ref] < 0)
        return NULL;
    const IrOp *o = &ops[w->def[ref]];
    return o->op == op && o->b == IR_CONST && o->a < IR_SLOTS ? o : NULL;
}

/* Nobody sees slot's value between the op at `from` that wrote it and op i. */
static bool unseen(const IrOp *ops, uint32_t from, uint32_t i, uint16_t slot)
{
    for (uint32_t k = from + 1; k < i; k++) {
        const IrOp *o = &ops[k];
        if ((ir_op_flags((IrOpcode)o->op) & IRF_EXIT) || o->a == slot || o->b == slot || o->c == slot)
            return false;
    }
    return true;
}

/* The rotation takes the place of the part that the result overwrites: where both were made, their source was
 * still there. */
static bool rotate_earlier(Words *w, IrOp *ops, uint32_t i, IrOpcode turn, unsigned n)
{
    IrOp *o = &ops[i];
    const uint16_t d = o->d;
    if ((o->a != d && o->b != d) || !unseen(ops, (uint32_t)w->def[d], i, d))
        return false;
    IrOp *part = &ops[w->def[d]];
    part->op = (uint8_t)turn;
    part->imm = n;
    w->number[d] = w->numbers++;
    w->s_bits[d] = turn == IR_ROTR32S ? 32 : 64;
    w->z_bits[d] = 64;
    become_mov(o);
    o->a = d;
    return true;
}

static bool fold_rotation(Words *w, IrOp *ops, uint32_t i, IrOpcode right, IrOpcode left, IrOpcode turn)
{
    IrOp *o = &ops[i];
    const unsigned bits = turn == IR_ROTR32S ? 32 : 64;
    for (unsigned k = 0; k < 2; k++) {
        const uint16_t ref_r = k ? o->b : o->a, ref_l = k ? o->a : o->b;
        const IrOp *r = made_by(w, ops, ref_r, right), *l = made_by(w, ops, ref_l, left);
        if (!r || !l || w->number_a[ref_r] != w->number_a[ref_l])
            continue;
        const unsigned n = (unsigned)r->imm & (bits - 1);
        if (!n || n + ((unsigned)l->imm & (bits - 1)) != bits)
            continue;
        const uint16_t from = w->number[r->a] == w->number_a[ref_r] ? r->a : l->a;
        if (w->number[from] != w->number_a[ref_r])
            return rotate_earlier(w, ops, i, turn, n);
        o->op = (uint8_t)turn;
        o->a = from;
        o->b = IR_CONST;
        o->imm = n;
        return true;
    }
    return false;
}

/* shl k, then shr (sar) k, k = 32, 48, 56: the extension of what is left */
static void fold_shifts(Words *w, IrOp *ops, uint32_t i, const uint8_t extend[3])
{
    enum { NEAR = 24 };
    IrOp *o = &ops[i];
    const unsigned k = (unsigned)o->imm & 63;
    if (o->b != IR_CONST || o->a >= IR_SLOTS || (k != 32 && k != 48 && k != 56))
        return;
    const int at = w->def[o->a];
    if (at < 0 || ops[at].op != IR_SHL || ops[at].b != IR_CONST || ((unsigned)ops[at].imm & 63) != k)
        return;
    const uint16_t from = ops[at].a;
    if (from == o->a) { /* shifted in place: the first shift goes if only this op sees its result */
        if (o->d != from || i - (uint32_t)at > NEAR || !unseen(ops, (uint32_t)at, i, from))
            return;
        ops[at].op = IR_NOP;
        w->s_bits[from] = w->z_bits[from] = 64;
    } else if (from >= IR_SLOTS || w->number[from] != w->number_a[o->a]) {
        return;
    }
    o->op = extend[k == 32 ? 0 : k == 48 ? 1 : 2];
    o->a = from;
    o->b = IR_NONE;
}

static unsigned extension_bits(IrOpcode op)
{
    switch (op) {
    case IR_SEXT8:
    case IR_ZEXT8:
        return 8;
    case IR_SEXT16:
    case IR_ZEXT16:
        return 16;
    default:
        return 32;
    }
}

void words_fold(Words *w, IrOp *ops, uint32_t i)
{
    static const uint8_t zext[] = {IR_ZEXT32, IR_ZEXT16, IR_ZEXT8}, sext[] = {IR_SEXT32, IR_SEXT16, IR_SEXT8};
    IrOp *o = &ops[i];
    if (o->op == IR_SHR)
        fold_shifts(w, ops, i, zext);
    else if (o->op == IR_SAR)
        fold_shifts(w, ops, i, sext);
    switch (o->op) {
    case IR_SEXT8:
    case IR_SEXT16:
    case IR_SEXT32:
        if (s_of(w, o, o->a) <= extension_bits(o->op))
            become_mov(o);
        break;
    case IR_ZEXT8:
    case IR_ZEXT16:
    case IR_ZEXT32:
        if (z_of(w, o, o->a) <= extension_bits(o->op))
            become_mov(o);
        break;
    case IR_AND:
        if (o->b == IR_CONST && o->a < IR_SLOTS && w->z_bits[o->a] < 64 &&
            (o->imm | (int64_t)(~UINT64_C(0) << w->z_bits[o->a])) == -1)
            become_mov(o);
        break;
    case IR_OR:
    case IR_XOR:
    case IR_ADD:
        if (!fold_rotation(w, ops, i, IR_SHR32S, IR_SHL32S, IR_ROTR32S))
            fold_rotation(w, ops, i, IR_SHR, IR_SHL, IR_ROTR);
        break;
    default:
        break;
    }
}

static void note_shift(const Words *w, const IrOp *o, unsigned *s, unsigned *z)
{
    const unsigned s_a = s_of(w, o, o->a), z_a = z_of(w, o, o->a), k = (unsigned)o->imm;
    if (o->a == IR_CONST || o->b != IR_CONST) {
        *s = o->op == IR_SHL || o->op == IR_SHR || o->op == IR_SAR ? 64 : 32;
        return;
    }
    switch (o->op) {
    case IR_SHL:
        *s = s_a + (k & 63);
        *z = z_a + (k & 63);
        break;
    case IR_SHR:
        *z = max_u(z_a, k & 63) - (k & 63);
        break;
    case IR_SAR:
        *s = max_u(s_a, (k & 63) + 1) - (k & 63);
        break;
    case IR_SHR32S:
        *s = 32;
        *z = k & 31 ? 32 - (k & 31) : 64;
        break;
    case IR_SAR32S:
        *s = 32 - (k & 31);
        break;
    default:
        *s = 32;
        break;
    }
}

/* Widths of what an op writes. */
static void note_width(const Words *w, const IrOp *o, unsigned *s, unsigned *z)
{
    const unsigned s_a = s_of(w, o, o->a), z_a = z_of(w, o, o->a);
    switch (o->op) {
    case IR_MOV:
        *s = s_a, *z = z_a;
        break;
    case IR_SEXT8:
    case IR_SEXT16:
    case IR_SEXT32:
        *s = min_u(s_a, extension_bits(o->op));
        break;
    case IR_ZEXT8:
    case IR_ZEXT16:
    case IR_ZEXT32:
        *z = min_u(z_a, extension_bits(o->op));
        break;
    case IR_AND:
        *s = max_u(s_a, s_of(w, o, o->b));
        *z = min_u(z_a, z_of(w, o, o->b));
        break;
    case IR_OR:
    case IR_XOR:
        *s = max_u(s_a, s_of(w, o, o->b));
        *z = max_u(z_a, z_of(w, o, o->b));
        break;
    case IR_SHL:
    case IR_SHR:
    case IR_SAR:
    case IR_SHL32S:
    case IR_SHR32S:
    case IR_SAR32S:
        note_shift(w, o, s, z);
        break;
    case IR_ADD32S:
    case IR_SUB32S:
    case IR_MUL32S:
    case IR_DIVS32S:
    case IR_DIVU32S:
    case IR_REMS32S:
    case IR_REMU32S:
    case IR_ROTR32S:
        *s = 32;
        break;
    case IR_SETCC:
        *z = 1;
        break;
    case IR_CLZ:
    case IR_CTZ:
    case IR_POPCNT:
    case IR_CLZ32:
    case IR_CTZ32:
    case IR_POPCNT32:
        *z = 7;
        break;
    case IR_SELECT:
        *s = max_u(w->s_bits[o->d], s_of(w, o, o->c));
        *z = max_u(w->z_bits[o->d], z_of(w, o, o->c));
        break;
    case IR_LD:
        if (!(o->flags & MO_BOX))
            *(o->flags & MO_SIGN ? s : z) = 8u << (o->flags & MO_SIZE);
        break;
    default:
        break;
    }
}

void words_note(Words *w, const IrOp *ops, uint32_t i)
{
    const IrOp *o = &ops[i];
    unsigned s = 64, z = 64;
    note_width(w, o, &s, &z);
    z = min_u(z, 64);
    s = min_u(min_u(s, z + 1), 64);
    w->s_bits[o->d] = (uint8_t)s;
    w->z_bits[o->d] = (uint8_t)z;
    w->number_a[o->d] = o->a < IR_SLOTS ? w->number[o->a] : UINT16_MAX;
    w->number[o->d] = o->op == IR_MOV && o->a < IR_SLOTS ? w->number[o->a] : w->numbers++;
    w->def[o->d] = (int16_t)i;
}

/* ---- backwards ---- */

void words_relax(IrOp *o)
{
    switch (o->op) {
    case IR_ADD32S:
        o->op = IR_ADD;
        break;
    case IR_SUB32S:
        o->op = IR_SUB;
        break;
    case IR_MUL32S:
        o->op = IR_MUL;
        break;
    case IR_SHL32S:
        if (o->b != IR_CONST || o->a == IR_CONST)
            return;
        o->op = IR_SHL;
        o->imm &= 31;
        return;
    case IR_SEXT32:
    case IR_ZEXT32:
        become_mov(o);
        break;
    case IR_ROTR32S:
        o->flags |= IR_LOW_ONLY;
        return;
    case IR_ADD:
    case IR_SUB:
    case IR_MUL:
    case IR_AND:
    case IR_OR:
    case IR_XOR:
    case IR_MOV:
        break;
    default:
        return;
    }
    o->imm = (int32_t)o->imm;
}

bool words_reads_high_a(const IrOp *o, bool need)
{
    switch (o->op) {
    case IR_MOV:
    case IR_ADD:
    case IR_SUB:
    case IR_MUL:
    case IR_OR:
    case IR_XOR:
        return need;
    case IR_AND:
        return need && !(o->b == IR_CONST && (uint64_t)o->imm <= UINT32_MAX);
    case IR_SHL:
        return o->b == IR_CONST ? need && ((unsigned)o->imm & 63) < 32 : need;
    case IR_ADD32S:
    case IR_SUB32S:
    case IR_MUL32S:
    case IR_SHL32S:
    case IR_SHR32S:
    case IR_SAR32S:
    case IR_ROTR32S:
    case IR_SEXT8:
    case IR_SEXT16:
    case IR_SEXT32:
    case IR_ZEXT8:
    case IR_ZEXT16:
    case IR_ZEXT32:
    case IR_CLZ32:
    case IR_CTZ32:
    case IR_POPCNT32:
        return false;
    default:
        return true;
    }
}

bool words_reads_high_b(const IrOp *o, bool need)
{
    switch (o->op) {
    case IR_ADD:
    case IR_SUB:
    case IR_MUL:
    case IR_AND:
    case IR_OR:
    case IR_XOR:
        return need;
    case IR_SHL:
    case IR_SHR:
    case IR_SAR:
    case IR_ROTR:
    case IR_ADD32S:
    case IR_SUB32S:
    case IR_MUL32S:
    case IR_SHL32S:
    case IR_SHR32S:
    case IR_SAR32S:
    case IR_ROTR32S:
        return false;
    case IR_ST:
    case IR_STENV:
        return (o->flags & MO_SIZE) == MO_64;
    default:
        return true;
    }
}

/* vector.c: configuration, what every vector instruction checks, and the loops over elements.
 *
 * What a reserved encoding does is free; here it is illegal, but for two where software was known to rely on
 * more: a source register that is read with two widths (5.2), and vsetvl with both registers x0 that changes
 * VLMAX (6.2), where vl is cut to the new one. SPEC: vector 1.0
 */
#include "csr.h"
#include "riscv.h"
#include "vector.h"

enum { OPIVV, OPFVV, OPMVV, OPIVI, OPIVX, OPFVF, OPMVX, OPCFG };

static uint32_t funct3(uint32_t insn)
{
    return insn >> 12 & 7;
}

/* ---- vtype ---- */

/* log2 of LMUL; -4: reserved. SPEC: 3.4.2 */
static int vtype_lmul(uint64_t vtype)
{
    const int code = vtype & 7;
    return code < 4 ? code : code - 8;
}

static int vtype_sew(uint64_t vtype)
{
    return vtype >> 3 & 7;
}

static uint32_t vtype_vlmax(const GuestHart *g, uint64_t vtype)
{
    const int up = vtype_lmul(vtype) - vtype_sew(vtype);
    return (uint32_t)(up >= 0 ? g->vlenb << up : g->vlenb >> -up);
}

/* SPEC: 3.4.2: with LMUL below 1 an element has at most LMUL * ELEN bits. */
static bool is_vtype_legal(uint64_t vtype)
{
    const int lmul = vtype_lmul(vtype), sew = vtype_sew(vtype);
    return !(vtype >> 8) && sew <= 3 && lmul != -4 && sew <= 3 + lmul;
}

/* SPEC: 6 */
uint64_t helper_vset(Hart *h, uint64_t insn, uint64_t rs1_value, uint64_t rs2_value)
{
    GuestHart *g = h->g;
    const uint32_t rd = insn >> 7 & 31, rs1 = insn >> 15 & 31;
    const bool is_register = insn >> 30 == 2, is_immediate = insn >> 30 == 3;
    const uint64_t vtype = is_register ? rs2_value : insn >> 20 & (is_immediate ? 0x3ff : 0x7ff);
    uint64_t avl = rs1_value;
    if (is_immediate)
        avl = rs1;
    else if (!rs1)
        avl = rd ? ~0ull : g->vl;
    g->vs_dirty = 1;
    g->vstart = 0;
    if (is_vtype_legal(vtype)) {
        const uint32_t vlmax = vtype_vlmax(g, vtype);
        g->vtype = vtype;
        g->vl = avl < vlmax ? avl : vlmax;
    } else {
        g->vtype = VTYPE_VILL;
        g->vl = 0;
    }
    return g->vl;
}

void riscv_vector_loaded(Hart *h)
{
    GuestHart *g = h->g;
    g->vlenb = h->m->feature[FEATURE_v] ? h->m->feature[FEATURE_vlen] / 8 : 0;
    if (!g->vlenb) {
        g->mstatus &= ~MSTATUS_VS;
        g->vs_dirty = 0;
    }
    /* VS = Dirty is in vs_dirty alone */
    if ((g->mstatus & MSTATUS_VS) == MSTATUS_VS)
        g->mstatus ^= (uint64_t)(FS_DIRTY ^ FS_CLEAN) << MSTATUS_VS_SHIFT;
    if (!g->vlenb || !is_vtype_legal(g->vtype)) {
        g->vtype = VTYPE_VILL;
        g->vl = 0;
    } else if (g->vl > vtype_vlmax(g, g->vtype)) {
        g->vl = vtype_vlmax(g, g->vtype);
    }
    g->vstart &= g->vlenb ? 8 * g->vlenb - 1 : 0;
    g->vxrm &= 3;
    g->vxsat &= 1;
}

/* ---- every instruction ---- */

uint64_t v_illegal(VOp *o)
{
    riscv_raise(o->h, EXC_ILLEGAL, o->insn);
    return 0;
}

/* SPEC: 11.1, 13.2: an immediate or an x register gives its low SEW bits; an f register has to be boxed. */
static uint64_t scalar_operand(const VOp *o, uint64_t x)
{
    const uint32_t imm = o->insn >> 15 & 31;
    switch (funct3(o->insn)) {
    case OPIVI:
        return o->shape & V_UIMM ? imm : (uint64_t)((int64_t)((uint64_t)imm << 59) >> 59);
    case OPFVF:
        if (o->sew == 2)
            return x >> 32 == UINT32_MAX ? (uint32_t)x : F32_NAN;
        return x;
    default:
        return x;
    }
}

bool v_begin(VOp *o, Hart *h, uint32_t insn, uint32_t shape, uint64_t x)
{
    GuestHart *g = h->g;
    *o = (VOp){.h = h,
               .g = g,
               .insn = insn,
               .shape = shape,
               .vd = insn >> 7 & 31,
               .vs1 = insn >> 15 & 31,
               .vs2 = insn >> 20 & 31,
               .masked = !(insn >> 25 & 1),
               .vl = (uint32_t)g->vl,
               .vstart = (uint32_t)g->vstart,
               .sew = vtype_sew(g->vtype)};
    if (g->vtype & VTYPE_VILL) {
        if (!(shape & V_ANY_TYPE))
            return v_illegal(o), false;
    } else {
        o->lmul = vtype_lmul(g->vtype);
        o->vlmax = vtype_vlmax(g, g->vtype);
    }
    if (shape & V_IS_FP) {
        /* SPEC: 13.1, 13.2: a reserved mode in frm, whether it matters or not; a width without a format. */
        const int fp = o->sew + (shape & V_FP_WIDE ? 1 : 0);
        if (g->frm >= SF_N_ROUNDS || fp < 2 || fp > 3)
            return v_illegal(o), false;
        o->rm = (SfRound)g->frm;
    }
    o->x = scalar_operand(o, x);
    g->vs_dirty = 1;
    return true;
}

void v_end(VOp *o)
{
    GuestHart *g = o->g;
    g->vstart = 0;
    g->vxsat |= o->saturated;
    if (o->fp_flags) {
        g->fflags |= o->fp_flags;
        g->fs_dirty = 1;
    }
}

bool v_group(const VOp *o, uint32_t reg, int eew, int *regs)
{
    const int emul = o->lmul + eew - o->sew;
    if (eew < 0 || eew > 3 || emul < -3 || emul > 3)
        return false;
    *regs = emul > 0 ? emul : 0;
    return !(reg & ((1u << *regs) - 1));
}

bool v_overlaps(uint32_t a, int a_regs, uint32_t b, int b_regs)
{
    return a < b + (1u << b_regs) && b < a + (1u << a_regs);
}

bool v_overlap_legal(uint32_t dest, int dest_eew, int dest_regs, uint32_t src, int src_eew, int src_regs)
{
    if (dest_eew == src_eew || !v_overlaps(dest, dest_regs, src, src_regs))
        return true;
    if (dest_eew < src_eew)
        return dest == src;
    /* In the highest part, and the source's EMUL is at least 1: less of it has one register all the same. */
    return src + (1u << src_regs) == dest + (1u << dest_regs) && dest_regs - (dest_eew - src_eew) == src_regs;
}

static bool has_vector_b(const VOp *o)
{
    return funct3(o->insn) <= OPMVV && !(o->shape & V_UNARY);
}

static int width_of_a(const VOp *o)
{
    if (o->shape & V_WIDE_A)
        return o->sew + 1;
    const int down = o->shape & V_HALF_A ? 1 : o->shape & V_QUARTER_A ? 2 : o->shape & V_EIGHTH_A ? 3 : 0;
    return o->sew - down;
}

/* ---- element by element ---- */

static bool check_elementwise(const VOp *o, int eew_a, int eew_d)
{
    int regs_a, regs_b, regs_d = 0;
    const bool is_mask = o->shape & V_MASK;
    if (!v_group(o, o->vs2, eew_a, &regs_a) || (!is_mask && !v_group(o, o->vd, eew_d, &regs_d)))
        return false;
    if (is_mask)
        eew_d = EEW_MASK;
    else if (o->masked && !o->vd) /* SPEC: 5.3 */
        return false;
    if (!v_overlap_legal(o->vd, eew_d, regs_d, o->vs2, eew_a, regs_a))
        return false;
    return !has_vector_b(o) || (v_group(o, o->vs1, o->sew, &regs_b) &&
                                v_overlap_legal(o->vd, eew_d, regs_d, o->vs1, o->sew, regs_b));
}

static const struct {
    VElement *element;
    uint32_t shape;
} elementwise[] = {
#define X(name, shape) {vk_##name, (shape)},
    RVV_ELEMENTWISE(X)
#undef X
};

/* From the first element up: what the rules let overlap is read before it is written over. */
static void run_elementwise(VOp *o, VElement *element, int eew_a, int eew_d)
{
    const bool vector_b = has_vector_b(o), is_mask = o->shape & V_MASK, carries = o->shape & V_CARRY;
    const bool signed_a = o->shape & V_SIGNED_A, signed_b = o->shape & V_SIGNED_B;
    uint64_t b = v_extend(o->x, o->sew, signed_b);
    for (uint32_t i = o->vstart; i < o->vl; i++) {
        if (carries)
            o->carry = o->masked && v_bit(o, 0, i);
        else if (!v_active(o, i))
            continue;
        const uint64_t a = v_extend(v_get(o, o->vs2, i, eew_a), eew_a, signed_a);
        if (vector_b)
            b = v_extend(v_get(o, o->vs1, i, o->sew), o->sew, signed_b);
        if (is_mask)
            v_put_bit(o, o->vd, i, element(o, a, b, 0) & 1);
        else
            v_set(o, o->vd, i, eew_d, element(o, a, b, v_get(o, o->vd, i, eew_d)));
    }
}

/* a: the encoding, and above it the row; b: the scalar operand. */
uint64_t helper_v_elementwise(Hart *h, uint64_t insn, uint64_t x, uint64_t unused)
{
    (void)unused;
    VOp o;
    const uint32_t row = (uint32_t)(insn >> 32);
    if (!v_begin(&o, h, (uint32_t)insn, elementwise[row].shape, x))
        return 0;
    const int eew_a = width_of_a(&o), eew_d = o.sew + (o.shape & V_WIDE ? 1 : 0);
    if (!check_elementwise(&o, eew_a, eew_d))
        return v_illegal(&o);
    VFast *const fast = o.masked || o.vstart || !h->m->sw.vector_loops ? NULL : v_fast(row);
    if (fast)
        fast(&o, has_vector_b(&o));
    else
        run_elementwise(&o, elementwise[row].element, eew_a, eew_d);
    v_end(&o);
    return 0;
}

/* ---- reductions ---- */

static const struct {
    VElement *element;
    uint32_t shape;
} reductions[] = {
#define X(name, shape, element) {vk_##element, (shape)},
    RVV_REDUCTIONS(X)
#undef X
};

/* Unordered sums too are summed in the order of elements, which is one of those allowed. SPEC: 14 */
uint64_t helper_v_reduce(Hart *h, uint64_t insn, uint64_t x, uint64_t unused)
{
    (void)unused;
    VOp o;
    int regs;
    const uint32_t row = (uint32_t)(insn >> 32);
    if (!v_begin(&o, h, (uint32_t)insn, reductions[row].shape, x))
        return 0;
    const int eew_d = o.sew + (o.shape & V_WIDE ? 1 : 0);
    if (o.vstart || eew_d > 3 || !v_group(&o, o.vs2, o.sew, &regs))
        return v_illegal(&o);
    const bool is_signed = o.shape & V_SIGNED_A;
    uint64_t result = v_extend(v_get(&o, o.vs1, 0, eew_d), eew_d, is_signed);
    for (uint32_t i = 0; i < o.vl; i++)
        if (v_active(&o, i))
            result = reductions[row].element(&o, result,
                                             v_extend(v_get(&o, o.vs2, i, o.sew), o.sew, is_signed), 0);
    if (o.vl)
        v_set(&o, o.vd, 0, eew_d, result);
    v_end(&o);
    return 0;
}

/* ---- whole instructions ---- */

static const struct {
    VWhole *whole;
    uint32_t shape;
} wholes[] = {
#define X(name, shape) {vw_##name, (shape)},
    RVV_WHOLE(X)
#undef X
};

uint64_t helper_v_whole(Hart *h, uint64_t insn, uint64_t x, uint64_t unused)
{
    (void)unused;
    VOp o;
    const uint32_t row = (uint32_t)(insn >> 32);
    if (!v_begin(&o, h, (uint32_t)insn, wholes[row].shape, x))
        return 0;
    const uint64_t result = wholes[row].whole(&o);
    if (h->leave == LEAVE_NONE)
        v_end(&o);
    return result;
}

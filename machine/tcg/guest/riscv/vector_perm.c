/* vector_perm.c: moves between registers and elements, slides, gathers, compress. SPEC: vector 1.0, chapter
 * 16 */
#include "vector.h"

/* ---- one element: 16.1, 16.2; LMUL does not matter ---- */

uint64_t vw_vmv_x_s(VOp *o)
{
    return v_extend(v_get(o, o->vs2, 0, o->sew), o->sew, true);
}

uint64_t vw_vmv_s_x(VOp *o)
{
    if (o->vstart < o->vl)
        v_set(o, o->vd, 0, o->sew, o->x);
    return 0;
}

uint64_t vw_vfmv_f_s(VOp *o)
{
    o->g->fs_dirty = 1;
    const uint64_t value = v_get(o, o->vs2, 0, o->sew);
    return o->sew == 2 ? value | ~(uint64_t)UINT32_MAX : value;
}

uint64_t vw_vfmv_s_f(VOp *o)
{
    return vw_vmv_s_x(o);
}

/* ---- slides: 16.3 ---- */

/* The groups at vd and vs2; `apart`: they may share no register. */
static bool check_groups(const VOp *o, bool apart, int *regs)
{
    return v_group(o, o->vd, o->sew, regs) && v_group(o, o->vs2, o->sew, regs) && !(o->masked && !o->vd) &&
           !(apart && v_overlaps(o->vd, *regs, o->vs2, *regs));
}

uint64_t vw_vslideup(VOp *o)
{
    int regs;
    if (!check_groups(o, true, &regs))
        return v_illegal(o);
    for (uint64_t i = o->x > o->vstart ? o->x : o->vstart; i < o->vl; i++)
        if (v_active(o, i))
            v_set(o, o->vd, i, o->sew, v_get(o, o->vs2, i - o->x, o->sew));
    return 0;
}

uint64_t vw_vslidedown(VOp *o)
{
    int regs;
    if (!check_groups(o, false, &regs))
        return v_illegal(o);
    for (uint64_t i = o->vstart; i < o->vl; i++) {
        const bool inside = o->x < o->vlmax && i + o->x < o->vlmax;
        if (v_active(o, i))
            v_set(o, o->vd, i, o->sew, inside ? v_get(o, o->vs2, i + o->x, o->sew) : 0);
    }
    return 0;
}

uint64_t vw_vslide1up(VOp *o)
{
    int regs;
    if (!check_groups(o, true, &regs))
        return v_illegal(o);
    for (uint32_t i = o->vstart; i < o->vl; i++)
        if (v_active(o, i))
            v_set(o, o->vd, i, o->sew, i ? v_get(o, o->vs2, i - 1, o->sew) : o->x);
    return 0;
}

uint64_t vw_vslide1down(VOp *o)
{
    int regs;
    if (!check_groups(o, false, &regs))
        return v_illegal(o);
    for (uint32_t i = o->vstart; i < o->vl; i++)
        if (v_active(o, i))
            v_set(o, o->vd, i, o->sew, i + 1 < o->vl ? v_get(o, o->vs2, i + 1, o->sew) : o->x);
    return 0;
}

uint64_t vw_vfslide1up(VOp *o)
{
    return vw_vslide1up(o);
}

uint64_t vw_vfslide1down(VOp *o)
{
    return vw_vslide1down(o);
}

/* ---- gathers: 16.4 ---- */

/* index_eew: of vs1's elements; -1: the index is the scalar operand */
static uint64_t gather(VOp *o, int index_eew)
{
    int regs, index_regs;
    if (!check_groups(o, true, &regs))
        return v_illegal(o);
    if (index_eew >= 0 &&
        (!v_group(o, o->vs1, index_eew, &index_regs) || v_overlaps(o->vd, regs, o->vs1, index_regs)))
        return v_illegal(o);
    for (uint32_t i = o->vstart; i < o->vl; i++) {
        const uint64_t index = index_eew < 0 ? o->x : v_get(o, o->vs1, i, index_eew);
        if (v_active(o, i))
            v_set(o, o->vd, i, o->sew, index < o->vlmax ? v_get(o, o->vs2, index, o->sew) : 0);
    }
    return 0;
}

uint64_t vw_vrgather(VOp *o)
{
    const bool by_vector = !(o->insn >> 12 & 7);
    return gather(o, by_vector ? o->sew : -1);
}

uint64_t vw_vrgatherei16(VOp *o)
{
    return gather(o, 1);
}

/* 16.5 */
uint64_t vw_vcompress(VOp *o)
{
    int regs;
    uint32_t n = 0;
    if (o->vstart || !check_groups(o, true, &regs) || v_overlaps(o->vd, regs, o->vs1, 0))
        return v_illegal(o);
    for (uint32_t i = 0; i < o->vl; i++)
        if (v_bit(o, o->vs1, i))
            v_set(o, o->vd, n++, o->sew, v_get(o, o->vs2, i, o->sew));
    return 0;
}

/* 16.6: 1, 2, 4 or 8 registers as they are; vstart counts elements of SEW bits. */
uint64_t vw_vmvr(VOp *o)
{
    const uint32_t n = o->vs1 + 1;
    const uint64_t from = (uint64_t)o->vstart << o->sew, size = n * o->g->vlenb;
    if ((o->vd | o->vs2) & (n - 1))
        return v_illegal(o);
    if (from < size)
        memmove(v_at(o, o->vd, from, 0), v_at(o, o->vs2, from, 0), size - from);
    return 0;
}

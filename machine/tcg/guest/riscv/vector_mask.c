/* vector_mask.c: instructions on masks, and those that number elements by them. SPEC: vector 1.0, chapter 15
 */
#include "vector.h"

#define MASK_LOGIC(name, expr)                                                                               \
    uint64_t vw_##name(VOp *o)                                                                               \
    {                                                                                                        \
        for (uint32_t i = o->vstart; i < o->vl; i++) {                                                       \
            const bool a = v_bit(o, o->vs2, i), b = v_bit(o, o->vs1, i);                                     \
            v_put_bit(o, o->vd, i, expr);                                                                    \
        }                                                                                                    \
        return 0;                                                                                            \
    }
MASK_LOGIC(vmand, a &&b)
MASK_LOGIC(vmnand, !(a && b))
MASK_LOGIC(vmandn, a && !b)
MASK_LOGIC(vmxor, a != b)
MASK_LOGIC(vmor, a || b)
MASK_LOGIC(vmnor, !(a || b))
MASK_LOGIC(vmorn, a || !b)
MASK_LOGIC(vmxnor, a == b)

/* The instructions below are never interrupted, and say so: a vstart that is not zero is illegal. */

uint64_t vw_vcpop(VOp *o)
{
    uint64_t n = 0;
    if (o->vstart)
        return v_illegal(o);
    for (uint32_t i = 0; i < o->vl; i++)
        n += v_active(o, i) && v_bit(o, o->vs2, i);
    return n;
}

uint64_t vw_vfirst(VOp *o)
{
    if (o->vstart)
        return v_illegal(o);
    for (uint32_t i = 0; i < o->vl; i++)
        if (v_active(o, i) && v_bit(o, o->vs2, i))
            return i;
    return ~0ull;
}

/* Bits before, at and behind the first active one that is set. */
static uint64_t set_by_first(VOp *o, bool before, bool at)
{
    bool found = false;
    if (o->vstart || o->vd == o->vs2 || (o->masked && !o->vd))
        return v_illegal(o);
    for (uint32_t i = 0; i < o->vl; i++) {
        if (!v_active(o, i))
            continue;
        const bool first = !found && v_bit(o, o->vs2, i);
        v_put_bit(o, o->vd, i, first ? at : before && !found);
        found |= first;
    }
    return 0;
}

uint64_t vw_vmsbf(VOp *o)
{
    return set_by_first(o, true, false);
}

uint64_t vw_vmsif(VOp *o)
{
    return set_by_first(o, true, true);
}

uint64_t vw_vmsof(VOp *o)
{
    return set_by_first(o, false, true);
}

uint64_t vw_viota(VOp *o)
{
    int regs;
    uint64_t n = 0;
    if (o->vstart || !v_group(o, o->vd, o->sew, &regs) || v_overlaps(o->vd, regs, o->vs2, 0) ||
        (o->masked && !o->vd))
        return v_illegal(o);
    for (uint32_t i = 0; i < o->vl; i++) {
        if (!v_active(o, i))
            continue;
        v_set(o, o->vd, i, o->sew, n);
        n += v_bit(o, o->vs2, i);
    }
    return 0;
}

uint64_t vw_vid(VOp *o)
{
    int regs;
    if (!v_group(o, o->vd, o->sew, &regs) || (o->masked && !o->vd))
        return v_illegal(o);
    for (uint32_t i = o->vstart; i < o->vl; i++)
        if (v_active(o, i))
            v_set(o, o->vd, i, o->sew, i);
    return 0;
}

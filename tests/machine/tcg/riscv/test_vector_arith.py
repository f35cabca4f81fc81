"""Vector arithmetic, masks and permutations, held against a model on Python's integers. SPEC: vector 1.0, 11 to 16."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.differential.values import FLOATS32, FLOATS64, INTEGERS
from tests.machine.tcg.riscv.onestep import A0, A1, NONE
from tests.machine.tcg.riscv.vectormodel import (
    REDUCTIONS,
    ROWS,
    UNSIGNED_IMMEDIATE,
    Machine,
    elementwise,
    round_to,
    signed,
    value_of,
)
from tests.machine.tcg.riscv.vectorstep import LMULS, VectorStep, encode, find

BOX = 0xFFFF_FFFF << 32
NX, NV, DZ, OF = 1, 16, 8, 4
FORMATS = {32: (23, 8), 64: (52, 11)}


@cache
def hart(backend: str, vlen: int) -> VectorStep:
    return VectorStep(backend, vlen)


HARTS = [("jit", 128), ("interp", 128), ("jit", 256)]
harts = st.sampled_from(HARTS)
seeds = st.integers(0, 1 << 32)


def forms() -> list[str]:
    """Every mnemonic of the model's rows that the tables have."""
    out = []
    for stem in ROWS:
        for form in "vxi":
            try:
                find(stem + form)
            except ValueError:
                continue
            out.append(stem + form)
    return out


FORMS = forms()


def machine(seed: int, vlen: int, sew: int, lmul: Fraction) -> Machine:
    """Registers full of corners of every width, and of anything."""
    rng = random.Random(seed)
    v = bytearray()
    while len(v) < 32 * vlen // 8:
        value = rng.choice((rng.choice(INTEGERS), rng.getrandbits(64), rng.choice((0, NONE))))
        v += value.to_bytes(8, "little")
    m = Machine(vlen // 8, v, 0, sew, lmul, vxrm=rng.randrange(4), x=rng.choice(INTEGERS))
    m.vl = rng.choice((m.vlmax, rng.randint(0, m.vlmax)))
    if m.vl > 1 and rng.random() < 0.2:
        m.vstart = rng.randrange(m.vl)
    return m


def shapes(*, least: int = 8, most: int = 64, up: int = 1) -> st.SearchStrategy[tuple[int, Fraction]]:
    """SEW and LMUL of legal types whose widened elements and groups are legal too."""
    return st.sampled_from(
        [
            (sew, lmul)
            for sew in (8, 16, 32, 64)
            for lmul in LMULS
            if least <= sew <= most and sew <= 64 * lmul and sew * up <= 64 and lmul * up <= 8
        ]
    )


def check(cpu: VectorStep, m: Machine, word: int) -> None:
    """The hart, which had the model's state before, after the instruction has the model's state of now."""
    assert cpu.step(word) is None
    assert cpu.file() == bytes(m.v)
    assert (cpu["vstart"], cpu["vxsat"], cpu["vl"]) == (0, m.vxsat, m.vl)


@settings(max_examples=600)
@given(harts, st.sampled_from(FORMS), seeds, st.data())
def test_elementwise_instruction_meets_its_model(
    which: tuple[str, int], name: str, seed: int, data: st.DataObject
) -> None:
    row = ROWS[name[:-1]]
    sew, lmul = data.draw(shapes(up=max(row.d, row.a, 1)))
    m, rng, cpu = machine(seed, which[1], sew, lmul), random.Random(seed + 1), hart(*which)
    registers = [8 * i for i in range(1, 4)]
    rng.shuffle(registers)
    vd, vs2, vs1 = registers
    if rng.random() < 0.3 and row.d == row.a:
        vd = vs2
    masked, form = rng.random() < 0.4, name[-1]
    immediate = rng.randrange(32)
    scalar = m.x if form == "x" else immediate
    if form == "i" and not name.startswith(UNSIGNED_IMMEDIATE):
        scalar = signed(immediate, 5)
    cpu.load(m)
    cpu[A1] = m.x
    b = {"v": vs1, "x": A1, "i": scalar}[form]
    word = encode(name, vd=vd, vs2=vs2, rs1=b, vm=not masked)
    elementwise(m, name, vd, vs2, vs1 if form == "v" else None, scalar, masked)
    check(cpu, m, word)


@settings(max_examples=300)
@given(harts, st.sampled_from(["vadc", "vsbc", "vmadc", "vmsbc", "vmerge"]), st.booleans(), shapes(), seeds)
def test_carries_and_merges(
    which: tuple[str, int], name: str, by_vector: bool, shape: tuple[int, Fraction], seed: int
) -> None:
    m, cpu = machine(seed, which[1], *shape), hart(*which)
    vd, vs2, vs1 = 8, 16, 24
    carries = not name.startswith("vm") or name == "vmerge" or seed % 2 == 0
    cpu.load(m)
    cpu[A1] = m.x
    suffix = (".vv" if by_vector else ".vx") + ("m" if carries else "")
    word = encode(name + suffix, vd=vd, vs2=vs2, rs1=vs1 if by_vector else A1)
    for i in range(m.vstart, m.vl):
        a = m.get(vs2, i, m.sew)
        b = m.get(vs1, i, m.sew) if by_vector else m.x & (1 << m.sew) - 1
        c = m.bit(0, i) if carries else 0
        if name == "vmadc":
            m.put_bit(vd, i, a + b + c >> m.sew)
        elif name == "vmsbc":
            m.put_bit(vd, i, a - b - c < 0)
        else:
            m.put(vd, i, m.sew, {"vadc": a + b + c, "vsbc": a - b - c, "vmerge": b if c else a}[name])
    check(cpu, m, word)


@settings(max_examples=200)
@given(
    harts, st.sampled_from([(f"v{sign}ext.vf{n}", n) for sign in "sz" for n in (2, 4, 8)]), seeds, st.data()
)
def test_extensions(which: tuple[str, int], op: tuple[str, int], seed: int, data: st.DataObject) -> None:
    name, n = op
    sew, lmul = data.draw(shapes(least=8 * n).filter(lambda s: s[1] / n >= Fraction(1, 8)))
    m, cpu = machine(seed, which[1], sew, lmul), hart(*which)
    cpu.load(m)
    for i in range(m.vstart, m.vl):
        a = m.get(16, i, sew // n)
        m.put(8, i, sew, signed(a, sew // n) if name[1] == "s" else a)
    check(cpu, m, encode(name, vd=8, vs2=16))


@settings(max_examples=300)
@given(harts, st.sampled_from([*REDUCTIONS, "vwredsum.vs", "vwredsumu.vs"]), st.booleans(), seeds, st.data())
def test_reductions(which: tuple[str, int], name: str, masked: bool, seed: int, data: st.DataObject) -> None:
    wide = 2 if name.startswith("vw") else 1
    sew, lmul = data.draw(shapes(most=64 // wide))
    m, cpu = machine(seed, which[1], sew, lmul), hart(*which)
    m.vstart = 0
    cpu.load(m)
    result = m.get(3, 0, wide * sew)
    for i in range(m.vl):
        if masked and not m.bit(0, i):
            continue
        a = m.get(16, i, sew)
        if wide == 2:
            result += signed(a, sew) if name == "vwredsum.vs" else a
        else:
            result = REDUCTIONS[name](result, a, sew)
    if m.vl:
        m.put(5, 0, wide * sew, result)
    check(cpu, m, encode(name, vd=5, vs2=16, rs1=3, vm=not masked))


LOGIC: dict[str, Callable[[int, int], int]] = {
    "vmand.mm": lambda a, b: a & b,
    "vmnand.mm": lambda a, b: 1 ^ a & b,
    "vmandn.mm": lambda a, b: a & (1 ^ b),
    "vmxor.mm": lambda a, b: a ^ b,
    "vmor.mm": lambda a, b: a | b,
    "vmnor.mm": lambda a, b: 1 ^ (a | b),
    "vmorn.mm": lambda a, b: a | (1 ^ b),
    "vmxnor.mm": lambda a, b: 1 ^ a ^ b,
}


@settings(max_examples=200)
@given(harts, st.sampled_from(sorted(LOGIC)), shapes(), seeds)
def test_mask_logic(which: tuple[str, int], name: str, shape: tuple[int, Fraction], seed: int) -> None:
    m, cpu = machine(seed, which[1], *shape), hart(*which)
    cpu.load(m)
    for i in range(m.vstart, m.vl):
        m.put_bit(3, i, LOGIC[name](m.bit(4, i), m.bit(3, i)))
    check(cpu, m, encode(name, vd=3, vs2=4, rs1=3))


@settings(max_examples=300)
@given(
    harts,
    st.sampled_from(["vcpop.m", "vfirst.m", "vmsbf.m", "vmsif.m", "vmsof.m", "viota.m", "vid.v"]),
    st.booleans(),
    shapes(),
    seeds,
)
def test_mask_instructions(
    which: tuple[str, int], name: str, masked: bool, shape: tuple[int, Fraction], seed: int
) -> None:
    m, cpu = machine(seed, which[1], *shape), hart(*which)
    m.vstart = 0
    if seed % 3:  # a mask of a few bits
        m.v[4 * m.vlenb : 5 * m.vlenb] = (1 << seed % m.vlenb * 8).to_bytes(m.vlenb, "little")
    cpu.load(m)
    active = [i for i in range(m.vl) if not masked or m.bit(0, i)]
    set_ones = [i for i in active if m.bit(4, i)]
    first = min(set_ones, default=m.vl)
    to_x = name in ("vcpop.m", "vfirst.m")
    word = encode(name, vd=A0 if to_x else 8, vm=not masked, **({} if name == "vid.v" else {"vs2": 4}))
    for i in active:
        if name == "vid.v":
            m.put(8, i, m.sew, i)
        elif name == "viota.m":
            m.put(8, i, m.sew, sum(k < i for k in set_ones))
        elif not to_x:
            m.put_bit(8, i, {"vmsbf.m": i < first, "vmsif.m": i <= first, "vmsof.m": i == first}[name])
    check(cpu, m, word)
    if to_x:
        assert cpu[A0] == (len(set_ones) if name == "vcpop.m" else first if set_ones else NONE)


@settings(max_examples=400)
@given(
    harts,
    st.sampled_from(
        ["vslideup.vx", "vslideup.vi", "vslidedown.vx", "vslidedown.vi", "vslide1up.vx", "vslide1down.vx",
         "vrgather.vv", "vrgather.vx", "vrgather.vi", "vrgatherei16.vv", "vcompress.vm"]
    ),
    st.booleans(),
    seeds,
    st.data(),
)  # fmt: skip
def test_permutations(
    which: tuple[str, int], name: str, masked: bool, seed: int, data: st.DataObject
) -> None:
    sew, lmul = data.draw(shapes().filter(lambda s: Fraction(1, 8) <= s[1] * 16 / s[0] <= 8))
    m, rng, cpu = machine(seed, which[1], sew, lmul), random.Random(seed), hart(*which)
    vd, vs2, vs1 = 8, 16, 24
    if name == "vcompress.vm":
        m.vstart, masked = 0, False
    index_bits = 16 if name == "vrgatherei16.vv" else sew
    if name.startswith("vrgather") and name.endswith("vv"):  # indexes that are inside, often
        for i in range(m.vl):
            if rng.random() < 0.8:
                m.put(vs1, i, index_bits, rng.randrange(m.vlmax))
    x = rng.choice((rng.randrange(2 * m.vlmax), rng.randrange(4), NONE, 1 << 63, m.x))
    offset = x & 31 if name.endswith("i") else x
    before = Machine(m.vlenb, bytearray(m.v), m.vl, sew, lmul)
    cpu.load(m)
    cpu[A1] = x
    b = vs1 if name.endswith(("v", "m")) else offset if name.endswith("i") else A1
    word = encode(name, vd=vd, vs2=vs2, rs1=b, vm=not masked)

    def source(i: int) -> int:
        return before.get(vs2, i, sew) if i < m.vlmax else 0

    packed = 0
    for i in range(m.vstart, m.vl):
        if masked and not m.bit(0, i):
            continue
        if name.startswith("vslideup"):
            if i >= offset:
                m.put(vd, i, sew, source(i - offset))
        elif name.startswith("vslidedown"):
            m.put(vd, i, sew, source(i + offset))
        elif name == "vslide1up.vx":
            m.put(vd, i, sew, source(i - 1) if i else x)
        elif name == "vslide1down.vx":
            m.put(vd, i, sew, x if i == m.vl - 1 else source(i + 1))
        elif name == "vcompress.vm":
            if m.bit(vs1, i):
                m.put(vd, packed, sew, source(i))
                packed += 1
        else:
            m.put(vd, i, sew, source(m.get(vs1, i, index_bits) if name.endswith("vv") else offset))
    check(cpu, m, word)


@settings(max_examples=150)
@given(harts, shapes(), seeds, st.sampled_from([1, 2, 4, 8]))
def test_moves(which: tuple[str, int], shape: tuple[int, Fraction], seed: int, registers: int) -> None:
    m, cpu = machine(seed, which[1], *shape), hart(*which)
    cpu.load(m)
    begin = m.vstart * m.sew // 8
    size = max(0, registers * m.vlenb - begin)
    m.v[8 * m.vlenb + begin : 8 * m.vlenb + begin + size] = m.v[
        16 * m.vlenb + begin : 16 * m.vlenb + begin + size
    ]
    check(cpu, m, encode(f"vmv{registers}r.v", vd=8, vs2=16))
    assert cpu.step(encode("vmv.x.s", vd=A0, vs2=7)) is None
    assert cpu[A0] == signed(m.get(7, 0, m.sew), m.sew) & NONE
    cpu[A1] = m.x
    if m.vl:
        m.put(7, 0, m.sew, m.x)
    check(cpu, m, encode("vmv.s.x", vd=7, rs1=A1))
    for i in range(m.vl):
        m.put(8, i, m.sew, m.x)
    check(cpu, m, encode("vmv.v.x", vd=8, rs1=A1))


# ---- floating point: where the exact value is a fraction


FP_ROWS: dict[str, Callable[[Fraction, Fraction, Fraction], Fraction]] = {
    "vfadd.v": lambda a, b, d: a + b,
    "vfsub.v": lambda a, b, d: a - b,
    "vfrsub.v": lambda a, b, d: b - a,
    "vfmul.v": lambda a, b, d: a * b,
    "vfdiv.v": lambda a, b, d: a / b if b else Fraction(0),
    "vfrdiv.v": lambda a, b, d: b / a if a else Fraction(0),
    "vfmin.v": lambda a, b, d: min(a, b),
    "vfmax.v": lambda a, b, d: max(a, b),
    "vfmacc.v": lambda a, b, d: b * a + d,
    "vfnmacc.v": lambda a, b, d: -(b * a) - d,
    "vfmsac.v": lambda a, b, d: b * a - d,
    "vfnmsac.v": lambda a, b, d: -(b * a) + d,
    "vfmadd.v": lambda a, b, d: b * d + a,
    "vfnmadd.v": lambda a, b, d: -(b * d) - a,
    "vfmsub.v": lambda a, b, d: b * d - a,
    "vfnmsub.v": lambda a, b, d: -(b * d) + a,
    "vfwadd.v": lambda a, b, d: a + b,
    "vfwsub.v": lambda a, b, d: a - b,
    "vfwmul.v": lambda a, b, d: a * b,
    "vfwadd.w": lambda a, b, d: a + b,
    "vfwsub.w": lambda a, b, d: a - b,
    "vfwmacc.v": lambda a, b, d: b * a + d,
    "vfwnmacc.v": lambda a, b, d: -(b * a) - d,
    "vfwmsac.v": lambda a, b, d: b * a - d,
    "vfwnmsac.v": lambda a, b, d: -(b * a) + d,
}


def put_numbers(m: Machine, reg: int, bits: int, rng: random.Random) -> None:
    """Odd multiples of 1/16 of either sign, so that no sum is zero by chance of its sign."""
    for i in range(8 * m.vlenb * 8 // bits):
        value = Fraction(rng.choice((-1, 1)) * (2 * rng.randrange(1, 1 << 12) + 1), 16)
        m.put(reg, i, bits, round_to(value, *FORMATS[bits])[0])


@settings(max_examples=250)
@given(harts, st.sampled_from(sorted(FP_ROWS)), st.booleans(), st.booleans(), seeds, st.data())
def test_floating_point_meets_fractions(
    which: tuple[str, int], stem: str, by_vector: bool, masked: bool, seed: int, data: st.DataObject
) -> None:
    wide = 2 if stem.startswith("vfw") else 1
    if stem in ("vfrsub.v", "vfrdiv.v"):
        by_vector = False
    sew, lmul = data.draw(shapes(least=32, up=wide))
    m, rng, cpu = machine(seed, which[1], sew, lmul), random.Random(seed), hart(*which)
    vd, vs2, vs1 = 8, 16, 24
    wide_a = 2 if stem.endswith("w") else 1
    for reg, bits in ((vd, wide * sew), (vs2, wide_a * sew), (vs1, sew)):
        put_numbers(m, reg, bits, rng)
    scalar = m.get(vs1, 0, sew)
    cpu.load(m)
    cpu["fflags"], cpu["frm"], cpu["f11"] = 0, 0, scalar | (BOX if sew == 32 else 0)
    word = encode(
        stem + ("v" if by_vector else "f"), vd=vd, vs2=vs2, rs1=vs1 if by_vector else 11, vm=not masked
    )
    exact = True
    for i in range(m.vstart, m.vl):
        if masked and not m.bit(0, i):
            continue
        a = value_of(m.get(vs2, i, wide_a * sew), *FORMATS[wide_a * sew])
        b = value_of(m.get(vs1, i, sew) if by_vector else scalar, *FORMATS[sew])
        d = value_of(m.get(vd, i, wide * sew), *FORMATS[wide * sew])
        bits, is_exact = round_to(FP_ROWS[stem](a, b, d), *FORMATS[wide * sew])
        m.put(vd, i, wide * sew, bits)
        exact &= is_exact
    check(cpu, m, word)
    assert cpu["fflags"] == (0 if exact else NX)


COMPARES: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "vmfeq.v": lambda a, b: a == b,
    "vmfne.v": lambda a, b: a != b,
    "vmflt.v": lambda a, b: a < b,
    "vmfle.v": lambda a, b: a <= b,
    "vmfgt.v": lambda a, b: a > b,
    "vmfge.v": lambda a, b: a >= b,
}


@settings(max_examples=150)
@given(harts, st.sampled_from(sorted(COMPARES)), shapes(least=32), seeds)
def test_comparisons(which: tuple[str, int], stem: str, shape: tuple[int, Fraction], seed: int) -> None:
    m, rng, cpu = machine(seed, which[1], *shape), random.Random(seed), hart(*which)
    by_vector = stem not in ("vmfgt.v", "vmfge.v") and seed % 2 == 0
    put_numbers(m, 16, m.sew, rng)
    put_numbers(m, 24, m.sew, rng)
    for i in range(0, m.vl, 3):
        m.put(16, i, m.sew, m.get(24, i if by_vector else 0, m.sew))
    scalar = m.get(24, 0, m.sew)
    cpu.load(m)
    cpu["f11"] = scalar | (BOX if m.sew == 32 else 0)
    word = encode(stem + ("v" if by_vector else "f"), vd=8, vs2=16, rs1=24 if by_vector else 11)
    for i in range(m.vstart, m.vl):
        a = value_of(m.get(16, i, m.sew), *FORMATS[m.sew])
        b = value_of(m.get(24, i, m.sew) if by_vector else scalar, *FORMATS[m.sew])
        m.put_bit(8, i, COMPARES[stem](a, b))
    check(cpu, m, word)


def test_a_scalar_that_is_not_boxed_is_a_nan() -> None:
    cpu = hart("jit", 128)
    cpu.configure(32)
    cpu["f11"] = 0x3F80_0000
    assert cpu.step(encode("vfmv.v.f", vd=8, rs1=11)) is None
    assert cpu["v8"] == int.from_bytes((0x7FC0_0000).to_bytes(4, "little") * 4, "little")
    assert cpu.step(encode("vfmv.f.s", vd=12, vs2=8)) is None
    assert cpu["f12"] == BOX | 0x7FC0_0000


def clipped(value: int, bits: int, is_signed: bool) -> tuple[int, bool]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
    return min(max(value, low), high), low <= value <= high


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize(("prefix", "source", "target"), [
    ("vfcvt", 32, 32), ("vfcvt", 64, 64), ("vfwcvt", 32, 64), ("vfncvt", 32, 16), ("vfncvt", 64, 32),
])  # fmt: skip
def test_conversions_to_integers_clip_and_tell(
    prefix: str, source: int, target: int, is_signed: bool
) -> None:
    cpu = hart("jit", 128)
    suffix = "w" if prefix == "vfncvt" else "v"
    name = f"{prefix}.rtz.x{'' if is_signed else 'u'}.f.{suffix}"
    cpu.configure(min(source, target))
    frac, exp = FORMATS[source]
    for bits in FLOATS32 if source == 32 else FLOATS64:
        cpu.set_file(bits.to_bytes(source // 8, "little") * (512 * 8 // source))
        cpu["fflags"] = 0
        assert cpu.step(encode(name, vd=8, vs2=16)) is None
        got = cpu["v8"] & (1 << target) - 1
        field, rest = bits >> frac & (1 << exp) - 1, bits & (1 << frac) - 1
        negative = bits >> (frac + exp)
        if field == (1 << exp) - 1:
            whole, fits = clipped(-(1 << 200) if negative and not rest else 1 << 200, target, is_signed)
            exact = True
        else:
            size = value_of(bits & (1 << frac + exp) - 1, frac, exp) if field else Fraction(rest, 1 << 2000)
            whole = -int(size) if negative else int(size)
            exact = size.denominator == 1
            whole, fits = clipped(whole, target, is_signed)
        assert got == whole & (1 << target) - 1, (name, hex(bits))
        assert cpu["fflags"] == (NV if not fits else 0 if exact else NX), (name, hex(bits))


@pytest.mark.parametrize("sew", [32, 64])
def test_estimates_are_within_seven_bits(sew: int) -> None:
    """13.9, 13.10: the relative error is at most 1/128; one value of each table's index and exponent's parity."""
    cpu = hart("jit", 128)
    cpu.configure(sew)
    frac, exp = FORMATS[sew]
    for index in range(1 << 7):
        for exponent in (exp_bias := (1 << exp - 1) - 1, exp_bias + 1, exp_bias - 4):
            bits = exponent << frac | index << frac - 7 | 1 << frac - 9
            cpu.set_file(bits.to_bytes(sew // 8, "little") * (512 * 8 // sew))
            cpu["fflags"] = 0
            value = value_of(bits, frac, exp)
            assert cpu.step(encode("vfrec7.v", vd=8, vs2=16)) is None
            estimate = value_of(cpu["v8"] & (1 << sew) - 1, frac, exp)
            assert abs(estimate * value - 1) <= Fraction(1, 128)
            assert cpu.step(encode("vfrsqrt7.v", vd=8, vs2=16)) is None
            estimate = value_of(cpu["v8"] & (1 << sew) - 1, frac, exp)
            # |y sqrt(x) - 1| <= e, by squares
            assert (1 - Fraction(1, 128)) ** 2 <= estimate**2 * value <= (1 + Fraction(1, 128)) ** 2
            assert cpu["fflags"] == 0


def test_estimates_of_the_specifications_examples() -> None:
    cpu = hart("jit", 128)
    cpu.configure(32)
    nan, inf = 0x7FC0_0000, 0x7F80_0000
    cases = {
        "vfrsqrt7.v": [
            (0x0071_8ABC, 0x5F08_0000, 0), (inf, 0, 0), (0, inf, DZ), (1 << 31, inf | 1 << 31, DZ),
            (0xBF80_0000, nan, NV), (0x7F80_0001, nan, NV), (nan | 5, nan, 0),
        ],
        "vfrec7.v": [
            (inf, 0, 0), (inf | 1 << 31, 1 << 31, 0), (0, inf, DZ), (1 << 31, inf | 1 << 31, DZ),
            (0x7F80_0001, nan, NV), (1, inf, OF | NX), (0x7EFF_FFFF, 0x0040_0000, 0),
        ],
    }  # fmt: skip
    for name, rows in cases.items():
        for bits, result, flags in rows:
            cpu.set_file(bits.to_bytes(4, "little") * 128)
            cpu["fflags"] = 0
            assert cpu.step(encode(name, vd=8, vs2=16)) is None
            assert (hex(cpu["v8"] & 0xFFFF_FFFF), cpu["fflags"]) == (hex(result), flags), (name, hex(bits))

"""Division, square root and fused multiply-add in every rounding mode, against exact rational arithmetic."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from math import isqrt

import pytest

from tests.machine.tcg.riscv.onestep import FS, OneStep

BACKENDS = ["jit", "interp"]
RNE, RTZ, RDN, RUP, RMM = range(5)
NX = 1
#: Fraction bits, exponent bits, and the fmt field.
FORMATS = {"s": (23, 8, 0), "d": (52, 11, 1)}


@pytest.fixture(params=BACKENDS)
def cpu(request: pytest.FixtureRequest) -> OneStep:
    cpu = OneStep(request.param)
    cpu["mstatus"] = FS
    return cpu


def value_of(bits: int, fmt: str) -> Fraction:
    """A finite number's exact value."""
    fraction, exponent, _ = FORMATS[fmt]
    bias = (1 << (exponent - 1)) - 1
    e = bits >> fraction & ((1 << exponent) - 1)
    m = bits & ((1 << fraction) - 1) | (bool(e) << fraction)
    sign = -1 if bits >> (fraction + exponent) else 1
    return sign * m * Fraction(2) ** (max(e, 1) - bias - fraction)


def up(rest: Fraction | int, half: Fraction | int, odd: bool, negative: bool, mode: int) -> bool:
    """Does what is left over go up, away from zero?"""
    if mode == RNE:
        return rest > half or (rest == half and odd)
    if mode == RMM:
        return rest >= half
    return bool(rest) and mode == (RDN if negative else RUP)


def rounded(value: Fraction, fmt: str, mode: int) -> tuple[int, bool]:
    """Round to a number of the format, subnormals too; overflow is not for here. Return its bits and NX."""
    fraction, exponent, _ = FORMATS[fmt]
    bias = (1 << (exponent - 1)) - 1
    size, negative = abs(value), value < 0
    e = 1 - bias
    while size >= Fraction(2) ** (e + 1):
        e += max(1, (size / Fraction(2) ** (e + 1)).numerator.bit_length() - (size / Fraction(2) ** (e + 1)).denominator
                 .bit_length())  # fmt: skip
        while size < Fraction(2) ** e:
            e -= 1
    unit = Fraction(2) ** (e - fraction)
    kept = size // unit
    rest = size - kept * unit
    kept += up(rest, unit / 2, bool(kept & 1), negative, mode)
    bits = kept if e == 1 - bias else kept + ((e + bias - 1) << fraction)
    return negative << (fraction + exponent) | bits, rest != 0


def root(value: Fraction, fmt: str, mode: int) -> tuple[int, bool]:
    """The rounded square root of a positive number, which is never subnormal and seldom rational."""
    fraction = FORMATS[fmt][0]
    # sqrt(v) * 2^shift with `fraction` bits and many more behind: a root that is cut still rounds as itself,
    # when a bit that stands for the rest is put behind it.
    shift = 2 * fraction + 1100
    scaled = value * Fraction(4) ** shift
    assert scaled.denominator == 1
    low = isqrt(scaled.numerator)
    exact = low * low == scaled.numerator
    return rounded(Fraction(2 * low + (not exact), 2) / Fraction(2) ** shift, fmt, mode)


def operands(rng: random.Random, fmt: str, count: int) -> Iterator[int]:
    fraction, exponent, _ = FORMATS[fmt]
    bias = (1 << (exponent - 1)) - 1
    for _ in range(count):
        e = bias + rng.choice((0, 0, 1, -1, rng.randint(-8, 8), rng.randint(-bias // 3, bias // 3)))
        m = rng.choice((0, 1, (1 << fraction) - 1, 1 << rng.randrange(fraction), rng.getrandbits(fraction)))
        yield rng.getrandbits(1) << (fraction + exponent) | e << fraction | m


def execute(cpu: OneStep, insn: int, fmt: str, *values: int) -> tuple[int, bool]:
    """Run an instruction on f1, f2, f3 into f0; return its result's bits and NX."""
    box = 0xFFFF_FFFF << 32 if fmt == "s" else 0
    for i, value in enumerate(values, 1):
        cpu[f"f{i}"] = value | box
    cpu["fflags"] = 0
    assert cpu.step(insn) is None
    return cpu["f0"] & ~box, bool(cpu["fflags"] & NX)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("mode", [RNE, RTZ, RDN, RUP, RMM])
def test_quotients_are_rounded_once(cpu: OneStep, fmt: str, mode: int) -> None:
    insn = 0x18 << 24 | FORMATS[fmt][2] << 25 | 2 << 20 | 1 << 15 | mode << 12 | 0x53
    numbers = list(operands(random.Random(mode), fmt, 160))
    for a, b in zip(numbers[::2], numbers[1::2], strict=True):
        assert execute(cpu, insn, fmt, a, b) == rounded(value_of(a, fmt) / value_of(b, fmt), fmt, mode), (
            hex(a),
            hex(b),
        )


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("mode", [RNE, RTZ, RDN, RUP, RMM])
def test_roots_are_rounded_once(cpu: OneStep, fmt: str, mode: int) -> None:
    insn = 0x58 << 24 | FORMATS[fmt][2] << 25 | 1 << 15 | mode << 12 | 0x53
    top = sum(FORMATS[fmt][:2])
    for a in operands(random.Random(mode), fmt, 80):
        a &= ~(1 << top)
        assert execute(cpu, insn, fmt, a) == root(value_of(a, fmt), fmt, mode), hex(a)


@pytest.mark.parametrize("opcode", [0x43, 0x47, 0x4B, 0x4F])
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("mode", [RNE, RTZ, RDN, RUP, RMM])
def test_fused_products_are_rounded_once(cpu: OneStep, opcode: int, fmt: str, mode: int) -> None:
    """Also where the addend is just behind the product's last bit, which is where a second rounding shows."""
    rng = random.Random(mode)
    insn = 3 << 27 | FORMATS[fmt][2] << 25 | 2 << 20 | 1 << 15 | mode << 12 | opcode
    fraction, exponent, _ = FORMATS[fmt]
    numbers = list(operands(rng, fmt, 120))
    for a, b, c in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True):
        product = value_of(a, fmt) * value_of(b, fmt)
        if rng.random() < 0.5:
            near, _nx = rounded(product * Fraction(2) ** -rng.choice((fraction, fraction + 1, 2)), fmt, RTZ)
            c = near ^ rng.getrandbits(1) << (fraction + exponent)
        addend = value_of(c, fmt)
        exact = (-product if opcode in (0x4B, 0x4F) else product) + (
            -addend if opcode in (0x47, 0x4F) else addend
        )
        if exact:  # the sign of an exact zero is not rounding's
            assert execute(cpu, insn, fmt, a, b, c) == rounded(exact, fmt, mode), (hex(a), hex(b), hex(c))

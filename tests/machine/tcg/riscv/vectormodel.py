"""Vector instructions as the specification words them, on Python's integers and fractions: one element at a time.

Independent of the translator: nothing here knows its tables of shapes. SPEC: vector 1.0
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

RNU, RNE, RDN, ROD = range(4)


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (value >> (bits - 1) << bits)


def roundoff(value: int, shift: int, vxrm: int) -> int:
    """3.8, on unbounded integers."""
    exact = Fraction(value, 1 << shift)
    below = exact.numerator // exact.denominator
    rest = exact - below
    up = {
        RNU: rest >= Fraction(1, 2),
        RNE: rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1),
        RDN: False,
        ROD: rest != 0 and below % 2 == 0,
    }[vxrm]
    return below + up


@dataclass
class Machine:
    """What vector arithmetic reads and writes.

    Args:
        vlenb: bytes of a register. v: v0 to v31, one behind the other.
        sew: bits. lmul: registers of a group, as a fraction.
    """

    vlenb: int
    v: bytearray
    vl: int
    sew: int
    lmul: Fraction
    vstart: int = 0
    vxrm: int = 0
    vxsat: int = 0
    x: int = 0

    @property
    def vlmax(self) -> int:
        return int(self.lmul * self.vlenb * 8 / self.sew)

    def get(self, reg: int, i: int, bits: int) -> int:
        at = reg * self.vlenb + i * bits // 8
        return int.from_bytes(self.v[at : at + bits // 8], "little")

    def put(self, reg: int, i: int, bits: int, value: int) -> None:
        at = reg * self.vlenb + i * bits // 8
        self.v[at : at + bits // 8] = (value & (1 << bits) - 1).to_bytes(bits // 8, "little")

    def bit(self, reg: int, i: int) -> int:
        return self.v[reg * self.vlenb + i // 8] >> i % 8 & 1

    def put_bit(self, reg: int, i: int, bit: int) -> None:
        at = reg * self.vlenb + i // 8
        self.v[at] = self.v[at] & ~(1 << i % 8) | bit << i % 8

    def clip(self, value: int, low: int, high: int) -> int:
        if low <= value <= high:
            return value
        self.vxsat = 1
        return low if value < low else high

    def clip_signed(self, value: int) -> int:
        return self.clip(value, -(1 << self.sew - 1), (1 << self.sew - 1) - 1)

    def clip_unsigned(self, value: int) -> int:
        return self.clip(value, 0, (1 << self.sew) - 1)


#: d, a (vs2), b (vs1, rs1 or the immediate) as bit patterns of their widths; the result is cut to its width.
Operation = Callable[[Machine, int, int, int], int]


@dataclass(frozen=True)
class Row:
    """An instruction: widths of d, a and b as multiples of SEW (d = 0: a mask), and its meaning."""

    d: int
    a: int
    b: int
    function: Operation


def _s(function: Callable[[Machine, int, int, int], int], wa: int = 1, wb: int = 1, wd: int = 1) -> Operation:
    """The function of signed operands."""
    return lambda m, a, b, d: function(m, signed(a, wa * m.sew), signed(b, wb * m.sew), signed(d, wd * m.sew))


def _divide(a: int, b: int) -> int:
    return int(Fraction(a, b)) if b else -1


def _remainder(a: int, b: int) -> int:
    return a - b * int(Fraction(a, b)) if b else a


def _mixed(function: Callable[[int, int, int], int], sa: bool, sb: bool) -> Operation:
    return lambda m, a, b, d: function(signed(a, m.sew) if sa else a, signed(b, m.sew) if sb else b, d)


SAME: dict[str, Operation] = {
    "vadd": lambda m, a, b, d: a + b,
    "vsub": lambda m, a, b, d: a - b,
    "vrsub": lambda m, a, b, d: b - a,
    "vand": lambda m, a, b, d: a & b,
    "vor": lambda m, a, b, d: a | b,
    "vxor": lambda m, a, b, d: a ^ b,
    "vminu": lambda m, a, b, d: min(a, b),
    "vmaxu": lambda m, a, b, d: max(a, b),
    "vmin": _s(lambda m, a, b, d: min(a, b)),
    "vmax": _s(lambda m, a, b, d: max(a, b)),
    "vsll": lambda m, a, b, d: a << b % m.sew,
    "vsrl": lambda m, a, b, d: a >> b % m.sew,
    "vsra": _s(lambda m, a, b, d: a >> b % m.sew),
    "vmul": lambda m, a, b, d: a * b,
    "vmulhu": lambda m, a, b, d: a * b >> m.sew,
    "vmulh": _s(lambda m, a, b, d: a * b >> m.sew),
    "vmulhsu": lambda m, a, b, d: signed(a, m.sew) * b >> m.sew,
    "vdivu": lambda m, a, b, d: _divide(a, b),
    "vremu": lambda m, a, b, d: _remainder(a, b),
    "vdiv": _s(lambda m, a, b, d: _divide(a, b)),
    "vrem": _s(lambda m, a, b, d: _remainder(a, b)),
    "vmacc": lambda m, a, b, d: a * b + d,
    "vnmsac": lambda m, a, b, d: -(a * b) + d,
    "vmadd": lambda m, a, b, d: b * d + a,
    "vnmsub": lambda m, a, b, d: -(b * d) + a,
    "vsaddu": lambda m, a, b, d: m.clip_unsigned(a + b),
    "vsadd": _s(lambda m, a, b, d: m.clip_signed(a + b)),
    "vssubu": lambda m, a, b, d: m.clip_unsigned(a - b),
    "vssub": _s(lambda m, a, b, d: m.clip_signed(a - b)),
    "vaaddu": lambda m, a, b, d: roundoff(a + b, 1, m.vxrm),
    "vaadd": _s(lambda m, a, b, d: roundoff(a + b, 1, m.vxrm)),
    "vasubu": lambda m, a, b, d: roundoff(a - b, 1, m.vxrm),
    "vasub": _s(lambda m, a, b, d: roundoff(a - b, 1, m.vxrm)),
    "vsmul": _s(lambda m, a, b, d: m.clip_signed(roundoff(a * b, m.sew - 1, m.vxrm))),
    "vssrl": lambda m, a, b, d: roundoff(a, b % m.sew, m.vxrm),
    "vssra": _s(lambda m, a, b, d: roundoff(a, b % m.sew, m.vxrm)),
}
MASKS: dict[str, Operation] = {
    "vmseq": lambda m, a, b, d: a == b,
    "vmsne": lambda m, a, b, d: a != b,
    "vmsltu": lambda m, a, b, d: a < b,
    "vmslt": _s(lambda m, a, b, d: a < b),
    "vmsleu": lambda m, a, b, d: a <= b,
    "vmsle": _s(lambda m, a, b, d: a <= b),
    "vmsgtu": lambda m, a, b, d: a > b,
    "vmsgt": _s(lambda m, a, b, d: a > b),
}
WIDENING: dict[str, Operation] = {
    "vwaddu": _mixed(lambda a, b, d: a + b, False, False),
    "vwadd": _mixed(lambda a, b, d: a + b, True, True),
    "vwsubu": _mixed(lambda a, b, d: a - b, False, False),
    "vwsub": _mixed(lambda a, b, d: a - b, True, True),
    "vwmulu": _mixed(lambda a, b, d: a * b, False, False),
    "vwmul": _mixed(lambda a, b, d: a * b, True, True),
    "vwmulsu": _mixed(lambda a, b, d: a * b, True, False),
    "vwmaccu": _mixed(lambda a, b, d: a * b + d, False, False),
    "vwmacc": _mixed(lambda a, b, d: a * b + d, True, True),
    "vwmaccsu": _mixed(lambda a, b, d: a * b + d, False, True),  # of vs1 signed, vs2 unsigned
    "vwmaccus": _mixed(lambda a, b, d: a * b + d, True, False),
}
WIDE_A: dict[str, Operation] = {
    "vwaddu.w": lambda m, a, b, d: a + b,
    "vwadd.w": _s(lambda m, a, b, d: a + b, wa=2),
    "vwsubu.w": lambda m, a, b, d: a - b,
    "vwsub.w": _s(lambda m, a, b, d: a - b, wa=2),
}
NARROWING: dict[str, Operation] = {
    "vnsrl.w": lambda m, a, b, d: a >> b % (2 * m.sew),
    "vnsra.w": _s(lambda m, a, b, d: a >> b % (2 * m.sew), wa=2),
    "vnclipu.w": lambda m, a, b, d: m.clip_unsigned(roundoff(a, b % (2 * m.sew), m.vxrm)),
    "vnclip.w": _s(lambda m, a, b, d: m.clip_signed(roundoff(a, b % (2 * m.sew), m.vxrm)), wa=2),
}
#: By the mnemonic less its last letter, which says what b is.
ROWS: dict[str, Row] = {
    **{f"{name}.v": Row(1, 1, 1, function) for name, function in SAME.items()},
    **{f"{name}.v": Row(0, 1, 1, function) for name, function in MASKS.items()},
    **{f"{name}.v": Row(2, 1, 1, function) for name, function in WIDENING.items()},
    **{name: Row(2, 2, 1, function) for name, function in WIDE_A.items()},
    **{name: Row(1, 2, 1, function) for name, function in NARROWING.items()},
}
UNSIGNED_IMMEDIATE = ("vsll", "vsrl", "vsra", "vssrl", "vssra", "vnsrl", "vnsra", "vnclipu", "vnclip")
REDUCTIONS: dict[str, Callable[[int, int, int], int]] = {
    "vredsum.vs": lambda a, b, n: a + b,
    "vredand.vs": lambda a, b, n: a & b,
    "vredor.vs": lambda a, b, n: a | b,
    "vredxor.vs": lambda a, b, n: a ^ b,
    "vredminu.vs": lambda a, b, n: min(a, b),
    "vredmin.vs": lambda a, b, n: min(signed(a, n), signed(b, n)),
    "vredmaxu.vs": lambda a, b, n: max(a, b),
    "vredmax.vs": lambda a, b, n: max(signed(a, n), signed(b, n)),
}


def elementwise(m: Machine, name: str, vd: int, vs2: int, vs1: int | None, scalar: int, masked: bool) -> None:
    """Carry out an instruction of ``ROWS``. vs1 None: b is the scalar."""
    row = ROWS[name[:-1]]
    for i in range(m.vstart, m.vl):
        if masked and not m.bit(0, i):
            continue
        a = m.get(vs2, i, row.a * m.sew)
        b = m.get(vs1, i, m.sew) if vs1 is not None else scalar & (1 << m.sew) - 1
        if row.d == 0:
            m.put_bit(vd, i, row.function(m, a, b, 0))
        else:
            width = row.d * m.sew
            m.put(vd, i, width, row.function(m, a, b, m.get(vd, i, width)))
    m.vstart = 0


def round_to(value: Fraction, fraction_bits: int, exponent_bits: int) -> tuple[int, bool]:
    """Return the nearest normal binary floating-point number's bits, ties to even, and whether it is exact.

    Zero is +0; the value's magnitude has to be within the format's normal numbers.
    """
    if value == 0:
        return 0, True
    size, exponent = abs(value), 0
    while size >= 2:
        size, exponent = size / 2, exponent + 1
    while size < 1:
        size, exponent = size * 2, exponent - 1
    scaled = size * (1 << fraction_bits)
    whole = scaled.numerator // scaled.denominator
    rest = scaled - whole
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1)
    bias = (1 << exponent_bits - 1) - 1
    bits = (exponent + bias << fraction_bits) + (whole + up - (1 << fraction_bits))
    return bits | (value < 0) << fraction_bits + exponent_bits, rest == 0


def value_of(bits: int, fraction_bits: int, exponent_bits: int) -> Fraction:
    """Return the value of a normal number or zero."""
    bias = (1 << exponent_bits - 1) - 1
    exponent = bits >> fraction_bits & (1 << exponent_bits) - 1
    if exponent == 0:
        return Fraction(0)
    size = Fraction(bits & (1 << fraction_bits) - 1 | 1 << fraction_bits, 1 << fraction_bits)
    size *= Fraction(2) ** (exponent - bias)
    return -size if bits >> fraction_bits + exponent_bits else size

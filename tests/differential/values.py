"""Operands at the corners of the formats."""

from __future__ import annotations

MASK64 = (1 << 64) - 1


def _around(*values: int) -> set[int]:
    return {(v + d) & MASK64 for v in values for d in (-1, 0, 1)}


#: 64-bit integers at the edges of every width, and patterns.
INTEGERS = sorted(
    _around(0, 1 << 7, 1 << 8, 1 << 15, 1 << 16, 1 << 31, 1 << 32, 1 << 63, -(1 << 31), -(1 << 15), -(1 << 7))
    | {0x5555_5555_5555_5555, 0xAAAA_AAAA_AAAA_AAAA, 0x0123_4567_89AB_CDEF, 0xFFFF_0000_FFFF_0000}
    | {1 << n for n in range(2, 64, 7)} | {63, 64, 65, 31, 33, 0x8000_0000_0000, 0x00FF_0000_0000_FF00}
)  # fmt: skip


def _corners(exponent_bits: int, fraction_bits: int) -> list[int]:
    top = (1 << exponent_bits) - 1
    bias = top >> 1
    ones = (1 << fraction_bits) - 1
    fractions = (
        0,
        1,
        ones,
        ones - 1,
        1 << (fraction_bits - 1),
        (1 << (fraction_bits - 1)) + 1,
        0x5A5A5A & ones,
    )
    # Zero and subnormals, the least and the largest, one and its neighbours, the limits of integers, infinity, NaNs.
    exponents = [0, 1, 2, bias - fraction_bits - 1, bias - 1, bias, bias + 1, bias + fraction_bits]
    exponents += [
        e for e in (bias + 7, bias + 30, bias + 31, bias + 32, bias + 62, bias + 63, bias + 64) if e < top
    ]
    exponents += [top - 2, top - 1, top]
    width = exponent_bits + fraction_bits
    return sorted({s << width | e << fraction_bits | f for s in (0, 1) for e in exponents for f in fractions})


FLOATS16 = _corners(5, 10)
FLOATS32 = _corners(8, 23)
FLOATS64 = _corners(11, 52)

"""F and D through the engine: which helper an encoding reaches, with which operands and rounding mode.

Values are small integers and halves, exact in both formats; the arithmetic itself is tested with the soft
FPU.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest

from machine.tcg.engine import Engine
from tests.machine.tcg.rvmodel import CODE, M64, PATTERNS

RNE, RTZ, RDN, RUP, DYN = 0, 1, 2, 3, 7
FS_INITIAL = 3 << 11 | 1 << 13
ENCODING = {p.mnemonic: p for p in PATTERNS if p.extension in "FD"}


def image(value: float, fmt: str) -> int:
    """A register's bits; a single is boxed."""
    if fmt == "d":
        return int.from_bytes(struct.pack("<d", value), "little")
    return int.from_bytes(struct.pack("<f", value), "little") | 0xFFFFFFFF << 32


def run(e: Engine, name: str, *, rm: int | None = None, rd: int = 4) -> None:
    """One instruction on registers 1, 2 and 3; rm None: what the encoding has there."""
    p = ENCODING[name]
    word = p.match | (rd << 7 | 1 << 15 | 2 << 20 | 3 << 27) & ~p.mask
    if rm is not None:
        assert not p.mask >> 12 & 7
        word |= rm << 12
    e.write_phys(CODE, word.to_bytes(4, "little"))
    e.set_reg(0, "pc", CODE)
    e.run(e.icount + 1)
    assert e.get_reg(0, "pc") == CODE + 4, "trapped"


@pytest.fixture
def fpu(engine: Engine) -> Engine:
    engine.set_reg(0, "mstatus", FS_INITIAL)
    return engine


ARITHMETIC: dict[str, Callable[[float, float, float], float]] = {
    "fadd": lambda a, b, c: a + b,
    "fsub": lambda a, b, c: a - b,
    "fmul": lambda a, b, c: a * b,
    "fdiv": lambda a, b, c: a / b,
    "fmadd": lambda a, b, c: a * b + c,
    "fmsub": lambda a, b, c: a * b - c,
    "fnmsub": lambda a, b, c: -(a * b) + c,
    "fnmadd": lambda a, b, c: -(a * b) - c,
}


@pytest.mark.parametrize("fmt", ["s", "d"])
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_takes_its_operands_in_order(fpu: Engine, name: str, fmt: str) -> None:
    rng = random.Random(name)
    for rm in (RNE, RTZ, RDN, RUP, DYN):
        a, b, c = rng.randrange(-99, 99) + 0.5, rng.choice([-4.0, 0.5, 8.0]), rng.randrange(100, 200) + 0.25
        for i, v in enumerate((a, b, c), 1):
            fpu.set_reg(0, f"f{i}", image(v, fmt))
        run(fpu, f"{name}.{fmt}", rm=rm)
        assert fpu.get_reg(0, "f4") == image(ARITHMETIC[name](a, b, c), fmt), (a, b, c, rm)
        assert fpu.get_reg(0, "fflags") == 0


@pytest.mark.parametrize("fmt", ["s", "d"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [("feq", lambda a, b: a == b), ("flt", lambda a, b: a < b), ("fle", lambda a, b: a <= b)],
)
def test_comparisons_write_an_integer_register(
    fpu: Engine, name: str, expected: Callable[[float, float], bool], fmt: str
) -> None:
    for a, b in ((1.0, 2.0), (2.0, 1.0), (2.0, 2.0), (-0.0, 0.0)):
        fpu.set_reg(0, "f1", image(a, fmt))
        fpu.set_reg(0, "f2", image(b, fmt))
        run(fpu, f"{name}.{fmt}")
        assert fpu.get_reg(0, "x4") == expected(a, b)


@pytest.mark.parametrize("fmt", ["s", "d"])
def test_a_comparison_into_x0_still_sets_flags(fpu: Engine, fmt: str) -> None:
    fpu.set_reg(0, "f1", image(float("nan"), fmt))
    fpu.set_reg(0, "f2", image(1.0, fmt))
    run(fpu, f"flt.{fmt}", rd=0)
    assert fpu.get_reg(0, "fflags") == 0x10
    assert fpu.get_reg(0, "mstatus") >> 13 & 3 == 3


@pytest.mark.parametrize("fmt", ["s", "d"])
def test_min_max_root_and_class(fpu: Engine, fmt: str) -> None:
    fpu.set_reg(0, "f1", image(9.0, fmt))
    fpu.set_reg(0, "f2", image(-2.0, fmt))
    for name, expected in (("fmin", -2.0), ("fmax", 9.0), ("fsqrt", 3.0)):
        run(fpu, f"{name}.{fmt}", rm=RNE if name == "fsqrt" else None)
        assert fpu.get_reg(0, "f4") == image(expected, fmt)
    run(fpu, f"fclass.{fmt}")
    assert fpu.get_reg(0, "x4") == 1 << 6


@pytest.mark.parametrize("fmt", ["s", "d"])
def test_conversions_to_integers_round_as_told(fpu: Engine, fmt: str) -> None:
    for value in (-2.5, 2.5):
        fpu.set_reg(0, "f1", image(value, fmt))
        for kind in ("w", "l"):
            for rm, expected in ((RTZ, int(value)), (RDN, int(value // 1)), (RUP, int(-(-value // 1)))):
                run(fpu, f"fcvt.{kind}.{fmt}", rm=rm)
                assert fpu.get_reg(0, "x4") == expected & M64
                fpu.set_reg(0, "frm", rm)
                run(fpu, f"fcvt.{kind}.{fmt}", rm=DYN)
                assert fpu.get_reg(0, "x4") == expected & M64
    fpu.set_reg(0, "f1", image(3000000000.0, fmt))
    for kind, result in (("wu", 0xFFFFFFFF_B2D05E00), ("lu", 3000000000), ("w", 0x7FFFFFFF)):
        run(fpu, f"fcvt.{kind}.{fmt}", rm=RTZ)
        assert fpu.get_reg(0, "x4") == result


@pytest.mark.parametrize("fmt", ["s", "d"])
def test_conversions_from_integers_take_their_width_and_sign(fpu: Engine, fmt: str) -> None:
    fpu.set_reg(0, "x1", 0xFFFF0000_FF000000)
    values = {"w": -(1 << 24), "wu": 0xFF000000, "l": -0xFFFF01000000, "lu": 0xFFFF0000FF000000}
    for kind, value in values.items():
        run(fpu, f"fcvt.{fmt}.{kind}", rm=RNE)
        assert fpu.get_reg(0, "f4") == image(float(value), fmt)


def test_conversions_between_formats(fpu: Engine) -> None:
    fpu.set_reg(0, "f1", image(-6.25, "d"))
    run(fpu, "fcvt.s.d", rm=DYN)
    assert fpu.get_reg(0, "f4") == image(-6.25, "s")
    fpu.set_reg(0, "f1", image(-6.25, "s"))
    run(fpu, "fcvt.d.s", rm=RNE)
    assert fpu.get_reg(0, "f4") == image(-6.25, "d")


@pytest.mark.parametrize(("name", "sign"), [("fsgnj.s", 1), ("fsgnjn.s", 0), ("fsgnjx.s", 1)])
def test_signs_of_singles_mind_the_box(fpu: Engine, name: str, sign: int) -> None:
    fpu.set_reg(0, "f1", image(1.5, "s"))
    fpu.set_reg(0, "f2", image(-2.0, "s"))
    run(fpu, name)
    assert fpu.get_reg(0, "f4") == image(-1.5 if sign else 1.5, "s")
    fpu.set_reg(0, "f1", 0x3FC00000)  # not boxed: a NaN
    run(fpu, name)
    assert fpu.get_reg(0, "f4") & 0x7FFFFFFF == 0x7FC00000

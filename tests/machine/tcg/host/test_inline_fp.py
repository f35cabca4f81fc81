"""Floating point on the host's unit gives the results and the flags of the soft FPU."""

from __future__ import annotations

import random
import struct

import pytest

from tests.bare import Bare

DOUBLES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1.5,
    0.1,
    3.0,
    1e300,
    -1e300,
    1e-300,
    2.2250738585072014e-308,
    5e-324,
    2147483648.0,
]
PATTERNS = [0x7FF0 << 48, 0xFFF0 << 48, 0x7FF8 << 48, 0x7FF0 << 48 | 1, 0x43E0 << 48, 0xFFFFFFFF7FC00000]
RNE, RTZ, RUP, DYN = 0, 1, 3, 7
FUSED_OPCODES = [0x43, 0x47, 0x4B, 0x4F]  # fmadd fmsub fnmsub fnmadd
READ_FLAGS, CLEAR_FLAGS, SET_MODE = 0x001023F3, 0x00101073, 0x00229073  # into t2, from zero, from t0


def op_fp(funct5: int, fmt: int, rd: int, rs1: int, rs2: int, rm: int) -> int:
    return funct5 << 27 | fmt << 25 | rs2 << 20 | rs1 << 15 | rm << 12 | rd << 7 | 0x53


def random_double(rng: random.Random) -> int:
    kind = rng.randrange(5)
    if kind == 0:
        return int.from_bytes(struct.pack("<d", rng.choice(DOUBLES)), "little")
    if kind == 1:
        return rng.choice(PATTERNS)
    if kind == 2:
        return rng.getrandbits(64)
    if kind == 3:
        return int.from_bytes(struct.pack("<d", float(rng.randrange(-1000, 1000))), "little")
    return int.from_bytes(struct.pack("<d", rng.uniform(-10, 10)), "little")


def random_single(rng: random.Random) -> int:
    if rng.randrange(12) == 0:
        return random_double(rng)  # not boxed
    if rng.randrange(4) == 0:
        return 0xFFFFFFFF << 32 | rng.choice([0, 1 << 31, 0x7F800000, 0x7FC00000, 0x7F800001, 1, 0x00800000])
    if rng.randrange(4) == 0:
        return 0xFFFFFFFF << 32 | rng.getrandbits(32)
    return 0xFFFFFFFF << 32 | int.from_bytes(struct.pack("<f", rng.uniform(-100, 100)), "little")


def random_instruction(rng: random.Random, fmt: int) -> int:
    rd, rs1, rs2, rs3 = (rng.randrange(32) for _ in range(4))
    x, rm = rng.choice([10, 15, 28, 29, 30]), rng.choice([DYN, DYN, DYN, RNE, RTZ, RUP])
    kind = rng.randrange(10)
    if kind < 4:
        return op_fp(kind, fmt, rd, rs1, rs2, rm)
    if kind == 4:
        head = rs3 << 27 | fmt << 25 | rs2 << 20 | rs1 << 15 | rm << 12 | rd << 7
        return head | rng.choice(FUSED_OPCODES)
    if kind == 5:
        return op_fp(0x0B, fmt, rd, rs1, 0, rm)
    if kind == 6:  # feq, flt, fle
        return op_fp(0x14, fmt, x, rs1, rs2, rng.randrange(3))
    if kind == 7:  # fsgnj, fsgnjn, fsgnjx
        return op_fp(0x04, fmt, rd, rs1, rng.choice([rs1, rs2]), rng.randrange(3))
    if kind == 8:  # fcvt.w, fcvt.l
        return op_fp(0x18, fmt, x, rs1, rng.choice([0, 2]), rng.choice([RTZ, RTZ, RNE]))
    if rng.randrange(2):  # fcvt from w, wu, l
        return op_fp(0x1A, rng.randrange(2), rd, x, rng.randrange(3), rm)
    to = rng.randrange(2)
    return op_fp(0x08, to, rd, rs1, 1 - to, rm)


def program(rng: random.Random, fmt: int) -> str:
    value = random_double if fmt else random_single
    lines = ["li t0, 0x6000", "csrrs zero, mstatus, t0", f"li t0, {rng.choice([0, 0, 0, 1, 2])}"]
    lines += [f".word {SET_MODE}", "la t1, data"]
    lines += [f".word {8 * i << 20 | 6 << 15 | 3 << 12 | i << 7 | 7}" for i in range(32)]
    lines += [f"li {r}, {rng.randrange(-(1 << 31), 1 << 31)}" for r in ("a0", "a5", "t3", "t4", "t5")]
    for _ in range(24):
        lines.append(f".word {random_instruction(rng, fmt)}")
        if rng.randrange(4) == 0:
            lines += [f".word {READ_FLAGS}", "slli s2, s2, 5", "xor s2, s2, t2"]
        if rng.randrange(8) == 0:
            lines.append(f".word {CLEAR_FLAGS}")
    lines += ["end:", "j end", ".align 8", "data:"] + [f".dword {value(rng)}" for _ in range(32)]
    return "\n".join(lines) + "\n"


def final_state(source: str, inline_fp: bool) -> dict[str, int]:
    machine = Bare(source)
    machine.engine.translator.set_hot_runs(0)
    machine.engine.translator.set_switch("inline_fp", inline_fp)
    machine.run(2000)
    return machine.engine.save_state(0)


@pytest.mark.parametrize("fmt", [0, 1], ids=["single", "double"])
@pytest.mark.parametrize("seed", range(6))
def test_inline_fp_gives_the_state_of_the_soft_fpu(fmt: int, seed: int) -> None:
    rng = random.Random(2 * seed + fmt)
    for _ in range(8):
        source = program(rng, fmt)
        assert final_state(source, True) == final_state(source, False), source


WRITE, SET, CLEAR = 5, 6, 7  # csrrwi, csrrsi, csrrci
FFLAGS, FRM, FCSR = 1, 2, 3


def csr(op: int, number: int, value: int) -> str:
    return f".word {number << 20 | value << 15 | op << 12 | 0x73}"


def loop(rng: random.Random, fmt: int) -> str:
    """A program that goes around for ever: values anew, arithmetic, now and then a write of fcsr's parts."""
    value = random_double if fmt else random_single
    lines = [
        "li t0, 0x6000",
        "csrrs zero, mstatus, t0",
        csr(SET, FFLAGS, 1),
        "li s3, 0",
        "la t1, data",
        "loop:",
    ]
    lines += ["andi t2, s3, 0xf8", "add t2, t2, t1"]
    lines += [f".word {8 * i << 20 | 7 << 15 | 3 << 12 | rng.randrange(32) << 7 | 7}" for i in range(12)]
    for _ in range(rng.randrange(6, 30)):
        lines.append(f".word {random_instruction(rng, fmt)}")
        if rng.randrange(12) == 0:
            lines += [f".word {READ_FLAGS}", "slli s2, s2, 5", "xor s2, s2, t2", "sd s2, 0(t1)"]
        if rng.randrange(20) == 0:  # every eighth time around: no flags, then all, then another mode
            writes = [
                (CLEAR, FFLAGS, 31),
                (SET, FFLAGS, 1),
                (WRITE, FRM, 1),
                (WRITE, FCSR, 0x11),
                (WRITE, FCSR, 1),
            ]
            over = f"over{len(lines)}"
            lines += ["andi t0, s3, 56", f"bnez t0, {over}", csr(*rng.choice(writes)), f"{over}:"]
    lines += ["andi t0, s3, 24", "bnez t0, same", csr(WRITE, FRM, 0), "same:"]
    lines += ["addi s3, s3, 8", "j loop", ".align 8", "data:"]
    return "\n".join([*lines, *(f".dword {value(rng)}" for _ in range(48))]) + "\n"


def states_on_the_way(source: str, cuts: list[int], off: tuple[str, ...]) -> list[dict[str, int]]:
    machine = Bare(source).at_once(off)
    states = []
    for steps in cuts:
        machine.run(steps)
        states.append(machine.engine.save_state(0))
    return states


@pytest.mark.parametrize("fmt", [0, 1], ids=["single", "double"])
@pytest.mark.parametrize("seed", range(4))
def test_a_block_that_relies_on_the_rounding_mode_and_the_flags_is_left_when_they_change(
    fmt: int, seed: int
) -> None:
    """Blocks of that kind are chosen where a run begins; it is cut at random, and neither cuts nor switches show."""
    rng = random.Random(1000 + 2 * seed + fmt)
    for _ in range(6):
        source = loop(rng, fmt)
        cuts = [rng.randrange(1, 400) for _ in range(24)]
        relied = states_on_the_way(source, cuts, ())
        assert relied == states_on_the_way(source, cuts, ("fp_plain",)), source
        assert relied == states_on_the_way(source, cuts, ("inline_fp", "fp_plain", "jit")), source

"""F and D on registers: boxing, rounding modes, accrued flags. SPEC: unprivileged, chapters 11 and 12."""

from __future__ import annotations

import struct

import pytest

from tests.machine.tcg.riscv.onestep import A0, A1, FS, NONE, OneStep, csr

BACKENDS = ["jit", "interp"]
BOX = 0xFFFFFFFF << 32
NAN_S, NAN_D = BOX | 0x7FC00000, 0x7FF8 << 48
SNAN_S, SNAN_D = BOX | 0x7F800001, 0x7FF0 << 48 | 1
NX, UF, OF, DZ, NV = 1, 2, 4, 8, 16
RNE, RTZ, RDN, RUP, RMM, DYN = 0, 1, 2, 3, 4, 7
ADD, SUB, MUL, DIV = 0, 1, 2, 3
F1, F2, F3, F4 = 1, 2, 3, 4


@pytest.fixture(params=BACKENDS)
def cpu(request: pytest.FixtureRequest) -> OneStep:
    cpu = OneStep(request.param)
    cpu["mstatus"] = 1 << 13
    return cpu


def s(value: float) -> int:
    return BOX | int.from_bytes(struct.pack("<f", value), "little")


def d(value: float) -> int:
    return int.from_bytes(struct.pack("<d", value), "little")


def op(funct5: int, fmt: int, rm: int = DYN, rd: int = F3, rs1: int = F1, rs2: int = F2) -> int:
    return funct5 << 27 | fmt << 25 | rs2 << 20 | rs1 << 15 | rm << 12 | rd << 7 | 0x53


def fused(opcode: int, fmt: int, rm: int = DYN) -> int:
    return F4 << 27 | fmt << 25 | F2 << 20 | F1 << 15 | rm << 12 | F3 << 7 | opcode


def run(cpu: OneStep, insn: int, a: int = 0, b: int = 0, c: int = 0, x: int = 0) -> tuple[int, int, int]:
    """Return f3, a0 and the flags that one instruction accrued."""
    cpu["f1"], cpu["f2"], cpu["f4"], cpu["f3"], cpu[A1], cpu[A0] = a, b, c, 0, x, 0x5A5A
    cpu["fflags"] = 0
    assert cpu.step(insn) is None
    return cpu["f3"], cpu[A0], cpu["fflags"]


@pytest.mark.parametrize("bad", [0x3F800000, 0xFFFFFFFE_3F800000, 0x7FFFFFFF_3F800000])
def test_single_that_is_not_boxed_reads_as_nan(cpu: OneStep, bad: int) -> None:
    assert run(cpu, op(ADD, 0), bad, s(1))[::2] == (NAN_S, 0)
    assert run(cpu, op(0x04, 0, 0), bad, s(-1))[::2] == (NAN_S | 0x80000000, 0)
    assert run(cpu, op(0x05, 0, 0), bad, s(2))[::2] == (s(2), 0)
    assert run(cpu, op(0x1C, 0, 1, A0, F1, 0), bad)[1] == 1 << 9
    assert run(cpu, op(0x18, 0, RNE, A0, F1, 0), bad)[1:] == (0x7FFFFFFF, NV)
    assert run(cpu, op(0x08, 1, RNE, F3, F1, 0), bad)[::2] == (NAN_D, 0)


def test_moves_and_stores_of_a_single_do_not_look_at_the_box(cpu: OneStep) -> None:
    assert run(cpu, op(0x1C, 0, 0, A0, F1, 0), 0x1234_5678_9ABC_DEF0)[1] == 0xFFFF_FFFF_9ABC_DEF0
    assert run(cpu, op(0x1E, 0, 0, F3, A1, 0), x=0x1234_5678_9ABC_DEF0)[0] == BOX | 0x9ABCDEF0
    assert run(cpu, op(0x1E, 1, 0, F3, A1, 0), x=0x1234_5678_9ABC_DEF0)[0] == 0x1234_5678_9ABC_DEF0


def test_double_uses_the_whole_register(cpu: OneStep) -> None:
    assert run(cpu, op(ADD, 1), d(1.5), d(2.25))[::2] == (d(3.75), 0)
    assert run(cpu, op(DIV, 1), d(1), d(3))[::2] == (d(1 / 3), NX)


@pytest.mark.parametrize(("fmt", "one", "tiny"), [(0, s(1), s(2.0**-30)), (1, d(1), d(2.0**-60))])
def test_rounding_mode_comes_from_the_instruction_or_frm(cpu: OneStep, fmt: int, one: int, tiny: int) -> None:
    for mode, up in ((RNE, 0), (RTZ, 0), (RDN, 0), (RUP, 1), (RMM, 0)):
        assert run(cpu, op(ADD, fmt, mode), one, tiny)[::2] == (one + up, NX)
        cpu["frm"] = mode
        assert run(cpu, op(ADD, fmt, DYN), one, tiny)[::2] == (one + up, NX)
        assert run(cpu, fused(0x43, fmt), one, one, tiny)[::2] == (one + up, NX)
        cpu["frm"] = RUP
        assert run(cpu, fused(0x43, fmt, mode), one, one, tiny)[::2] == (one + up, NX)


@pytest.mark.parametrize("frm", [5, 6, 7])
def test_reserved_mode_in_frm_is_illegal_when_it_is_used(cpu: OneStep, frm: int) -> None:
    cpu["frm"] = frm
    rounding = [op(ADD, 0), op(MUL, 1), op(0x0B, 1, rs2=0), fused(0x43, 0), fused(0x4F, 1)]
    rounding += [op(0x18, 1, DYN, A0, F1, 0), op(0x1A, 0, DYN, F3, A1, 2), op(0x1A, 1, DYN, F3, A1, 0)]
    rounding += [op(0x08, 0, DYN, F3, F1, 1), op(0x08, 1, DYN, F3, F1, 0)]
    for insn in rounding:
        cpu["f3"], cpu[A0] = 0x77, 0x88
        assert cpu.step(insn) == 2
        assert (cpu["mtval"], cpu["f3"], cpu[A0]) == (insn, 0x77, 0x88)
    assert run(cpu, op(ADD, 0, RNE), s(1), s(1))[0] == s(2), "an explicit mode does not ask"
    assert run(cpu, op(0x14, 0, 2, A0), s(1), s(1))[1] == 1, "nor does what never rounds"


@pytest.mark.parametrize("mode", [5, 6])
def test_reserved_mode_in_the_instruction_is_illegal(cpu: OneStep, mode: int) -> None:
    for insn in (op(ADD, 0, mode), op(DIV, 1, mode), fused(0x43, 1, mode)):
        assert cpu.step(insn) == 2
        assert cpu["mtval"] == insn


def test_flags_accrue_until_they_are_cleared(cpu: OneStep) -> None:
    cpu["f1"], cpu["f2"] = s(1), s(0)
    cpu.step(op(DIV, 0))
    cpu["f2"] = s(3)
    cpu.step(op(DIV, 0))
    assert cpu.csr(2, 0x001, rs1=0) == DZ | NX
    assert cpu.write(0x001, 0) == 0
    assert cpu["mstatus"] & FS == FS


@pytest.mark.parametrize(
    ("opcode", "want"), [(0x43, 2 * 3 + 4), (0x47, 2 * 3 - 4), (0x4B, -(2 * 3) + 4), (0x4F, -(2 * 3) - 4)]
)
def test_fused_signs(cpu: OneStep, opcode: int, want: float) -> None:
    assert run(cpu, fused(opcode, 0), s(2), s(3), s(4))[0] == s(want)
    assert run(cpu, fused(opcode, 1), d(2), d(3), d(4))[0] == d(want)


def test_fused_infinity_times_zero_is_invalid_beside_a_quiet_nan(cpu: OneStep) -> None:
    assert run(cpu, fused(0x43, 1), d(float("inf")), 0, NAN_D)[::2] == (NAN_D, NV)
    assert run(cpu, fused(0x43, 1), d(1), 0, NAN_D | 1 << 63 | 5)[::2] == (NAN_D, 0)


@pytest.mark.parametrize(("rm", "zeros"), [(0, 1 << 63), (1, 0)])
def test_min_and_max(cpu: OneStep, rm: int, zeros: int) -> None:
    minmax = op(0x05, 1, rm)
    assert run(cpu, minmax, 1 << 63, 0)[::2] == (zeros, 0)
    assert run(cpu, minmax, 0, 1 << 63)[::2] == (zeros, 0)
    assert run(cpu, minmax, NAN_D, d(1))[::2] == (d(1), 0)
    assert run(cpu, minmax, d(1), SNAN_D)[::2] == (d(1), NV)
    assert run(cpu, minmax, SNAN_D, NAN_D)[::2] == (NAN_D, NV)
    assert run(cpu, minmax, NAN_D | 7, NAN_D)[::2] == (NAN_D, 0)


def test_compares_are_quiet_for_equal_alone(cpu: OneStep) -> None:
    for nan, quiet in ((NAN_S, 0), (SNAN_S, NV)):
        assert run(cpu, op(0x14, 0, 2, A0), nan, s(1))[1:] == (0, quiet)
        assert run(cpu, op(0x14, 0, 1, A0), nan, s(1))[1:] == (0, NV)
        assert run(cpu, op(0x14, 0, 0, A0), s(1), nan)[1:] == (0, NV)
    for rm, want in ((2, 1), (1, 0), (0, 1)):
        assert run(cpu, op(0x14, 0, rm, A0), s(-0.0), s(0.0))[1:] == (want, 0)


@pytest.mark.parametrize(
    ("kind", "value", "want", "flags"),
    [
        (0, -1.5, -2 & NONE, NX),
        (0, 2.0**31, 0x7FFFFFFF, NV),
        (0, -(2.0**31), -(1 << 31) & NONE, 0),
        (0, -(2.0**31) - 1, -(1 << 31) & NONE, NV),
        (1, -0.25, 0, NX),
        (1, -1.0, 0, NV),
        (1, 2.0**32 - 1, NONE, 0),
        (1, 2.0**32, NONE, NV),
        (2, 2.0**63, (1 << 63) - 1, NV),
        (2, float("-inf"), 1 << 63, NV),
        (3, 2.0**63, 1 << 63, 0),
        (3, -1.0, 0, NV),
        (3, float("nan"), NONE, NV),
        (2, float("nan"), (1 << 63) - 1, NV),
    ],
)
def test_conversions_saturate(cpu: OneStep, kind: int, value: float, want: int, flags: int) -> None:
    assert run(cpu, op(0x18, 1, RNE, A0, F1, kind), d(value))[1:] == (want, flags)


def test_conversions_from_integers_take_their_width(cpu: OneStep) -> None:
    x = 0xFFFF_FFFF_8000_0001
    assert run(cpu, op(0x1A, 1, RNE, F3, A1, 0), x=x)[::2] == (d(-0x7FFFFFFF), 0)
    assert run(cpu, op(0x1A, 1, RNE, F3, A1, 1), x=x)[::2] == (d(0x80000001), 0)
    assert run(cpu, op(0x1A, 0, RTZ, F3, A1, 1), x=x)[::2] == (s(2.0**31), NX)
    assert run(cpu, op(0x1A, 1, RDN, F3, A1, 3), x=x)[::2] == (d(0xFFFF_FFFF_8000_0000), NX)


@pytest.mark.parametrize("fs", [0, 1, 2, 3])
def test_fp_instructions_follow_fs(cpu: OneStep, fs: int) -> None:
    cpu["mstatus"] = fs << 13
    insn = op(ADD, 0)
    cpu["f1"], cpu["f2"] = s(1), s(2)
    cause = cpu.step(insn)
    if fs == 0:
        assert (cause, cpu["mtval"]) == (2, insn)
        assert cpu["mstatus"] & FS == 0
    else:
        assert cause is None
        assert (cpu["f3"], cpu["mstatus"] & FS) == (s(3), FS)


def test_fs_switched_inside_a_block_holds_for_the_next_instruction(cpu: OneStep) -> None:
    cpu["mstatus"] = 0
    cpu[A1] = FS
    cpu["f1"], cpu["f2"] = s(1), s(2)
    on, off = csr(2, 0x300, 0), csr(3, 0x300, 0)
    assert cpu.step(on, op(ADD, 0)) is None
    assert cpu.step(op(ADD, 0), off, op(ADD, 0)) == 2

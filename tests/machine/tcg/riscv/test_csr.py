"""CSRs: access checks, WARL fields, views of each other, counters. SPEC: privileged 1.12, chapters 2 to 4."""

from __future__ import annotations

import pytest

from tests.machine.tcg.riscv.onestep import (
    A0,
    A1,
    ADUE,
    CODE,
    FS,
    MIE,
    MPIE,
    MPP,
    MPRV,
    MTVEC,
    MXR,
    NONE,
    NOP,
    PBMTE,
    RC,
    RS,
    RSI,
    RW,
    RWI,
    SIE,
    SPIE,
    SPP,
    STCE,
    SUM,
    TSR,
    TVM,
    TW,
    M,
    OneStep,
    S,
    U,
    csr,
)

ILLEGAL = 2
BACKENDS = ["jit", "interp"]
XLEN = 2 << 32 | 2 << 34
MSTATUS = XLEN | 1 << 63 | SIE | MIE | SPIE | MPIE | SPP | MPP | FS | MPRV | SUM | MXR | TVM | TW | TSR


@pytest.fixture(params=BACKENDS)
def cpu(request: pytest.FixtureRequest) -> OneStep:
    return OneStep(request.param)


def illegal(cpu: OneStep, insn: int) -> bool:
    """Did it trap as an illegal instruction, with its encoding and address noted and no register written?"""
    cpu[A0] = 0x1234
    if cpu.step(insn) is None:
        return False
    assert (cpu["mcause"], cpu["mtval"], cpu["mepc"], cpu["pc"]) == (ILLEGAL, insn, CODE, MTVEC)
    assert cpu[A0] == 0x1234
    return True


@pytest.mark.parametrize(
    ("number", "value", "reads"),
    [
        (0x300, NONE, MSTATUS),
        (0x300, 2 << 11, XLEN),  # no such mode in MPP
        (0x300, 1 << 13, XLEN | 1 << 13),
        (0x300, 2 << 13, XLEN | 2 << 13),
        (0x301, 0, 2 << 62 | 0x14112F),
        (0x302, NONE, 0xB3FF),
        (0x303, NONE, 0x2222),
        (0x304, NONE, 0x2AAA),
        (0x305, 0x80001001, 0x80001001),
        (0x306, NONE, 0xFFFFFFFF),
        (0x30A, NONE, STCE | PBMTE | ADUE | 0xF1),
        (0x30A, 0x20, 0),  # CBIE has no mode 2
        (0x320, NONE, 5),
        (0x340, NONE, NONE),
        (0x341, NONE, NONE - 1),
        (0x344, NONE, 0x2222),
        (0x3A1 - 1, 0x0102_0304_0506_0718, 0x0100_0304_0500_0718),  # W without R permits nothing
        (0x3B1, NONE, (1 << 54) - 1),
        (0x106, NONE, 0xFFFFFFFF),
        (0x10A, NONE, 0xF1),
        (0x10A, 0x60, 0x40),
        (0x141, 3, 2),
        (0x180, NONE, 0),  # mode 15 is none: nothing is written
        (0x180, 8 << 60 | 0x7_FFFF << 40 | 0x123, 8 << 60 | 0x7_FFFF << 40 | 0x123),
        (0x180, 9 << 60 | 5, 9 << 60 | 5),
        (0x180, 10 << 60 | 5, 10 << 60 | 5),
        (0x180, 11 << 60 | 5, 0),
        (0x180, 1 << 60 | 5, 0),
        (0x323, NONE, 0),
        (0xB03, NONE, 0),
        (0xB1F, NONE, 0),
        (0x7A0, NONE, 0),
        (0x7A0, 3, 3),
        (0x7A1, NONE, 15 << 60),
    ],
)  # fmt: skip
def test_write_keeps_what_the_field_can_hold(cpu: OneStep, number: int, value: int, reads: int) -> None:
    assert cpu.write(number, value) == reads


def test_reserved_vector_mode_leaves_the_mode(cpu: OneStep) -> None:
    cpu.write(0x305, 0x80001001)
    assert cpu.write(0x305, 0x80002002) == 0x80002001


@pytest.mark.parametrize(
    "number",
    [0x000, 0x200, 0x3A1, 0x3A3, 0x3A4, 0x3C0, 0x3EF, 0x5A8, 0x757, 0x800, 0xB01, 0xC20, 0xF16, 0xFFF],
)
def test_absent_csr_is_illegal(cpu: OneStep, number: int) -> None:
    assert illegal(cpu, csr(RS, number, rs1=0))


@pytest.mark.parametrize("number", [0xF11, 0xF12, 0xF13, 0xF14, 0xF15, 0xC00, 0xC01, 0xC02, 0xC03, 0xC1F])
def test_read_only_csr_can_be_read_but_not_written(cpu: OneStep, number: int) -> None:
    assert not illegal(cpu, csr(RS, number, rs1=0))
    assert not illegal(cpu, csr(RSI, number, rs1=0))
    for op in (RW, RS, RC, RWI):
        cpu[A1] = 0
        assert illegal(cpu, csr(op, number)), "a register other than x0 is a write, whatever it holds"


@pytest.mark.parametrize(
    ("number", "lowest"), [(0x001, U), (0x100, S), (0x144, S), (0x300, M), (0xF14, M), (0x180, S)]
)
def test_lower_privilege_than_the_number_says_is_illegal(cpu: OneStep, number: int, lowest: int) -> None:
    cpu["mstatus"] = FS
    for priv in (U, S, M):
        cpu["priv"] = priv
        assert illegal(cpu, csr(RS, number, rs1=0)) == (priv < lowest)


def test_set_and_clear_use_register_or_immediate(cpu: OneStep) -> None:
    assert cpu.write(0x340, 0xF0) == 0xF0
    assert cpu.csr(RS, 0x340, 0x0F) == 0xF0
    assert cpu.csr(RC, 0x340, 0x3C) == 0xFF
    assert cpu.csr(RSI, 0x340, rs1=0x1F) == 0xC3
    assert cpu.csr(RWI, 0x340, rs1=0x11) == 0xDF
    assert cpu.csr(RS, 0x340, rs1=0) == 0x11


def test_sstatus_is_a_view_of_mstatus(cpu: OneStep) -> None:
    cpu.write(0x300, MIE | MPP | TVM | TSR)
    assert cpu.write(0x100, NONE) == 1 << 63 | 2 << 32 | SIE | SPIE | SPP | FS | SUM | MXR
    assert cpu["mstatus"] & (MIE | MPIE | MPP | MPRV | TVM | TW | TSR) == MIE | MPP | TVM | TSR


def test_sip_and_sie_show_delegated_bits_alone(cpu: OneStep) -> None:
    cpu.write(0x304, 0xAAA)
    assert cpu.csr(RS, 0x104, rs1=0) == 0
    cpu.write(0x104, 0x222)
    cpu.write(0x303, 0x202)
    assert cpu.csr(RS, 0x104, rs1=0) == 0x202
    assert cpu.write(0x104, 0x222) == 0x202
    assert cpu["mie"] == 0xAAA
    cpu.write(0x344, 0x222)
    assert cpu.csr(RS, 0x144, rs1=0) == 0x202
    cpu.write(0x144, 0)
    assert cpu["mip"] == 0x220, "S-mode clears SSIP, and nothing else"


def test_setting_a_bit_of_mip_does_not_latch_the_external_line(cpu: OneStep) -> None:
    cpu.engine.irq_line(0, 9, True)
    assert cpu.csr(RS, 0x344, 0x2) == 0x200
    assert cpu.csr(RS, 0x344, rs1=0) == 0x202
    cpu.engine.irq_line(0, 9, False)
    assert cpu.csr(RS, 0x344, rs1=0) == 0x002
    cpu.csr(RS, 0x344, 0x200)
    cpu.engine.irq_line(0, 9, True)
    cpu.engine.irq_line(0, 9, False)
    assert cpu.csr(RS, 0x344, rs1=0) == 0x202


def test_fp_csrs_are_illegal_while_fs_is_off(cpu: OneStep) -> None:
    for number in (1, 2, 3):
        assert illegal(cpu, csr(RS, number, rs1=0))


def test_fcsr_is_frm_and_fflags(cpu: OneStep) -> None:
    cpu["mstatus"] = 1 << 13
    assert cpu.csr(RS, 0x003, rs1=0) == 0
    assert cpu["mstatus"] & FS == 1 << 13, "reading does not dirty"
    assert cpu.write(0x003, NONE) == 0xFF
    assert cpu["mstatus"] == XLEN | FS | 1 << 63
    assert cpu.write(0x001, 0x2A) == 0x0A
    assert cpu.write(0x002, 0x0D) == 5
    assert cpu.csr(RS, 0x003, rs1=0) == 0xAA


def test_tvm_keeps_supervisor_from_satp(cpu: OneStep) -> None:
    cpu["mstatus"] = TVM
    cpu["priv"] = S
    assert illegal(cpu, csr(RS, 0x180, rs1=0))
    cpu["priv"] = M
    assert not illegal(cpu, csr(RS, 0x180, rs1=0))


@pytest.mark.parametrize(
    ("number", "bit"), [(0xC00, 1), (0xC01, 2), (0xC02, 4), (0xC03, 8), (0xC1F, 1 << 31)]
)
def test_counters_ask_both_enables(cpu: OneStep, number: int, bit: int) -> None:
    for mc, sc, priv in [
        (m, s, p) for m in (0, bit, NONE ^ bit) for s in (0, bit, NONE ^ bit) for p in (U, S, M)
    ]:
        cpu["mcounteren"], cpu["scounteren"], cpu["priv"] = mc, sc, priv
        allowed = priv == M or (mc & bit and (priv == S or sc & bit))
        assert illegal(cpu, csr(RS, number, rs1=0)) == (not allowed)


def test_stimecmp_of_supervisor_asks_stce_and_tm(cpu: OneStep) -> None:
    for menvcfg, enable, priv in [(e, t, p) for e in (0, STCE) for t in (0, 2) for p in (U, S, M)]:
        cpu["menvcfg"], cpu["mcounteren"], cpu["priv"] = menvcfg, enable, priv
        allowed = priv == M or (priv == S and menvcfg and enable)
        assert illegal(cpu, csr(RS, 0x14D, rs1=0)) == (not allowed)


def test_instret_is_exact_and_leaves_traps_out(cpu: OneStep) -> None:
    read = csr(RS, 0xB02, rs1=0)
    cpu.step(csr(RW, 0xB02, rd=0, rs1=0), NOP, NOP, read)
    assert cpu[A0] == 2, "the write is not counted, the two after it are, the read itself not yet"
    cpu.step(csr(RW, 0xB02, rd=0, rs1=0), read)
    assert cpu[A0] == 0, "what was written is what the next instruction reads"
    assert illegal(cpu, 0)
    cpu.step(read, read)
    assert cpu[A0] == 2, "an instruction that trapped has not retired"


def test_inhibited_counters_stand_still(cpu: OneStep) -> None:
    cpu.write(0xB02, 100)
    cpu.write(0xB00, 200)
    cpu.write(0x320, 5)
    retired, cycles = cpu.csr(RS, 0xB02, rs1=0), cpu.csr(RS, 0xB00, rs1=0)
    cpu.step(NOP, NOP, NOP)
    assert (cpu.csr(RS, 0xB02, rs1=0), cpu.csr(RS, 0xB00, rs1=0)) == (retired, cycles)
    cpu.csr(RW, 0x320, 0, rd=0)
    assert cpu.csr(RS, 0xB02, rs1=0) == retired
    assert cpu.csr(RS, 0xB02, rs1=0) == retired + 1


def test_time_is_the_virtual_time_of_the_position(cpu: OneStep) -> None:
    for _ in range(40):
        at = cpu.engine.vtime_ns
        assert cpu.csr(RS, 0xC01, rs1=0) == at // 100


def test_every_csr_has_one_name_and_debuggers_read_it(cpu: OneStep) -> None:
    names = cpu.engine.reg_names
    assert len(set(names)) == len(names)
    for name in names:
        assert 0 <= cpu.engine.get_reg(0, name) <= NONE
    assert cpu["misa"] == 2 << 62 | 0x14112F


def test_disassembler_has_a_name_for_every_csr_there_is(cpu: OneStep) -> None:
    cpu["mstatus"] = FS
    there = [n for n in range(4096) if cpu.step(csr(RS, n, rs1=0)) is None]
    names = {}
    for number in there:
        _, text = cpu.engine.disasm(csr(RS, number, rs1=0).to_bytes(4, "little"), CODE)
        names[number] = text.split(", ")[1]
    assert not [hex(n) for n, name in names.items() if name.startswith("0x")]
    assert len(set(names.values())) == len(there)
    assert names[0x144] == "sip" and names[0x3A2] == "pmpcfg2" and names[0xDA0] == "scountovf"
    assert len(there) == 160

"""Traps and their return, interrupts, timers, WFI, the built-in SBI's way in. SPEC: privileged 1.12, 3 and 4."""

from __future__ import annotations

import pytest

from machine.tcg.engine import ExitReason
from tests.machine.tcg.riscv.onestep import (
    A0,
    A1,
    ADUE,
    CODE,
    DATA,
    EBREAK,
    ECALL,
    FS,
    LR,
    MIE,
    MPIE,
    MPP,
    MPRV,
    MRET,
    MTVEC,
    NONE,
    NOP,
    RS,
    RW,
    SC,
    SFENCE,
    SIE,
    SPIE,
    SPP,
    SRET,
    STCE,
    STVEC,
    TSR,
    TVM,
    TW,
    WFI,
    M,
    OneStep,
    S,
    U,
    amo,
    csr,
    load,
)

BACKENDS = ["jit", "interp"]
IRQ = 1 << 63
MPP_OF = {U: 0, S: 1 << 11, M: 3 << 11}


@pytest.fixture(params=BACKENDS)
def cpu(request: pytest.FixtureRequest) -> OneStep:
    return OneStep(request.param)


@pytest.mark.parametrize("priv", [U, S, M])
@pytest.mark.parametrize("enabled", [False, True])
def test_trap_to_machine_mode_saves_privilege_and_enable(cpu: OneStep, priv: int, enabled: bool) -> None:
    cpu["mstatus"] = (MIE if enabled else MPIE) | SIE | SPIE
    cpu["priv"] = priv
    assert cpu.step(NOP, ECALL) == 8 + priv
    assert (cpu["priv"], cpu["pc"], cpu["mepc"], cpu["mtval"]) == (M, MTVEC, CODE + 4, 0)
    status = cpu["mstatus"]
    assert status & (MPP | MIE | MPIE) == MPP_OF[priv] | (MPIE if enabled else 0)
    assert status & (SIE | SPIE) == SIE | SPIE


@pytest.mark.parametrize("priv", [U, S])
@pytest.mark.parametrize("enabled", [False, True])
def test_delegated_trap_goes_to_supervisor(cpu: OneStep, priv: int, enabled: bool) -> None:
    cpu["medeleg"] = 1 << 3
    cpu["mstatus"] = (SIE if enabled else SPIE) | MIE
    cpu["priv"] = priv
    assert cpu.step(EBREAK) == 3
    assert (cpu["priv"], cpu["pc"], cpu["sepc"], cpu["stval"]) == (S, STVEC, CODE, CODE)
    assert (
        cpu["mstatus"] & (SPP | SIE | SPIE | MIE)
        == (SPP if priv == S else 0) | (SPIE if enabled else 0) | MIE
    )
    assert cpu["mcause"] == cpu["mepc"] == 0


def test_nothing_is_delegated_out_of_machine_mode(cpu: OneStep) -> None:
    cpu["medeleg"] = NONE
    assert cpu.step(EBREAK) == 3
    assert (cpu["priv"], cpu["pc"], cpu["mtval"]) == (M, MTVEC, CODE)


@pytest.mark.parametrize("mpp", [U, S, M])
def test_mret_returns_to_mpp(cpu: OneStep, mpp: int) -> None:
    cpu["mstatus"] = MPP_OF[mpp] | MPIE | MPRV
    cpu["mepc"] = CODE + 0x102
    assert cpu.step(MRET) is None
    assert (cpu["priv"], cpu["pc"]) == (mpp, CODE + 0x102)
    assert cpu["mstatus"] & (MPP | MIE | MPIE | MPRV) == MIE | MPIE | (MPRV if mpp == M else 0)


@pytest.mark.parametrize("spp", [U, S])
@pytest.mark.parametrize("priv", [S, M])
def test_sret_returns_to_spp(cpu: OneStep, spp: int, priv: int) -> None:
    cpu["mstatus"] = (SPP if spp == S else 0) | SIE | MPRV
    cpu["sepc"] = CODE + 0x200
    cpu["priv"] = priv
    assert cpu.step(SRET) is None
    assert (cpu["priv"], cpu["pc"]) == (spp, CODE + 0x200)
    assert cpu["mstatus"] & (SPP | SIE | SPIE | MPRV) == SPIE


@pytest.mark.parametrize(
    ("insn", "status", "illegal_in"),
    [
        (MRET, 0, {U, S}),
        (SRET, 0, {U}),
        (SRET, TSR, {U, S}),
        (WFI, 0, {U}),
        (WFI, TW, {U, S}),
        (SFENCE, 0, {U}),
        (SFENCE, TVM, {U, S}),
    ],
)
@pytest.mark.parametrize("priv", [U, S, M])
def test_privileged_instructions(
    cpu: OneStep, insn: int, status: int, illegal_in: set[int], priv: int
) -> None:
    cpu["mstatus"] = status
    cpu["mie"] = cpu["mip"] = 2  # pending but masked: WFI goes on
    cpu["mideleg"] = 2
    cpu["priv"] = priv
    if priv == U:
        cpu["mie"] = 0
    traps = cpu.step(insn) is not None
    assert traps == (priv in illegal_in)
    if traps:
        assert (cpu["mcause"], cpu["mtval"], cpu["mepc"]) == (2, insn, CODE)


@pytest.mark.parametrize(("priv", "status", "taken"), [(U, 0, 1), (S, 0, 0), (S, SIE, 1), (M, SIE, 0)])
def test_delegated_interrupt_is_taken_below_or_at_supervisor(
    cpu: OneStep, priv: int, status: int, taken: int
) -> None:
    cpu["mideleg"] = cpu["mie"] = 0x222
    cpu["mstatus"] = status
    cpu["priv"] = priv
    cpu.engine.irq_line(0, 9, True)
    assert (cpu.step(NOP) is not None) == bool(taken)
    if taken:
        assert (cpu["scause"], cpu["sepc"], cpu["stval"], cpu["pc"]) == (IRQ | 9, CODE, 0, STVEC)


@pytest.mark.parametrize(
    ("priv", "status", "taken"), [(U, 0, 1), (S, 0, 1), (S, SIE, 1), (M, SIE, 0), (M, MIE, 1)]
)
def test_machine_interrupt_is_taken_below_machine_always(
    cpu: OneStep, priv: int, status: int, taken: int
) -> None:
    cpu["mie"] = 0xAAA
    cpu["mstatus"] = status
    cpu["priv"] = priv
    cpu.engine.irq_line(0, 3, True)
    assert (cpu.step(NOP) is not None) == bool(taken)
    if taken:
        assert (cpu["mcause"], cpu["mepc"], cpu["mtval"], cpu["pc"]) == (IRQ | 3, CODE, 0, MTVEC)


def test_interrupts_are_taken_in_the_order_of_the_specification(cpu: OneStep) -> None:
    cpu["mideleg"], cpu["mie"] = 0x222, 0xAAA
    pending = [11, 3, 7, 9, 1, 5]
    for number in pending:
        cpu.engine.irq_line(0, number, True)
    for number in pending:
        cpu["priv"] = U
        cpu.step(NOP)
        assert (cpu["mcause"] if cpu["priv"] == M else cpu["scause"]) == IRQ | number
        cpu.engine.irq_line(0, number, False)


def test_machine_interrupts_go_before_more_urgent_delegated_ones(cpu: OneStep) -> None:
    cpu["mideleg"], cpu["mie"], cpu["priv"] = 0x200, 0xAAA, S
    cpu["mstatus"] = SIE
    cpu["mip"] = 0x220  # SEI delegated, STI not
    assert cpu.step(NOP) == IRQ | 5
    assert cpu["priv"] == M


def test_vectored_mode_spreads_interrupts_alone(cpu: OneStep) -> None:
    cpu["mtvec"], cpu["mie"], cpu["mstatus"] = MTVEC | 1, 0x8, MIE
    cpu.put32(MTVEC + 12, NOP)
    cpu.engine.irq_line(0, 3, True)
    assert cpu.step(NOP) == IRQ | 3
    assert cpu["pc"] == MTVEC + 12
    cpu.engine.irq_line(0, 3, False)
    assert cpu.step(ECALL) == 11
    assert cpu["pc"] == MTVEC


@pytest.mark.parametrize("name", ["mtimecmp", "stimecmp"])
def test_timer_interrupt_comes_at_the_first_position_that_reaches_it(cpu: OneStep, name: str) -> None:
    number = 7 if name == "mtimecmp" else 5
    cpu["menvcfg"] = STCE
    cpu["mie"], cpu["mstatus"] = 1 << number, MIE
    cpu.put32(CODE, *[NOP] * 100, 0xE71FF06F)  # jal back by 400
    cpu["pc"] = CODE
    cpu[name] = 37
    assert cpu.engine.run(2000) is ExitReason.UNTIL
    # ten ns a step: time 37 is vtime 3700 is position 370; the trap entry is the step after it
    assert cpu["mcause"] == IRQ | number
    assert cpu["mepc"] == CODE + 4 * (370 % 101)
    other = OneStep("interp")
    other["menvcfg"] = STCE
    other["mie"], other["mstatus"], other[name] = 1 << number, MIE, 37
    other.put32(CODE, *[NOP] * 100, 0xE71FF06F)
    other.engine.run(370)
    assert other["traps"] == 0
    assert other["mip"] == 1 << number, "a read at the position sees it"
    other.engine.run(371)
    assert (other["traps"], other["pc"]) == (1, MTVEC)


@pytest.mark.parametrize("backend", BACKENDS)
def test_timer_set_in_the_middle_of_a_block_moves_the_deadline(backend: str) -> None:
    cpu = OneStep(backend)
    cpu["menvcfg"], cpu["mie"], cpu["mstatus"] = STCE, 0x20, MIE
    cpu[A1] = 3
    cpu.put32(CODE, NOP, csr(RW, 0x14D, rd=0), *[NOP] * 200)
    cpu["pc"] = CODE
    cpu.engine.run(150)
    assert (cpu["mcause"], cpu["mepc"]) == (IRQ | 5, CODE + 4 * 30)


@pytest.mark.parametrize(
    ("name", "before", "insn"),
    [
        ("mip", 0, csr(RS, 0x344, rd=0)),
        ("mie", 0, csr(RS, 0x304, rd=0)),
        ("mstatus", 0, csr(RS, 0x300, rd=0)),
    ],
)
def test_write_that_makes_an_interrupt_due_is_followed_by_it(
    cpu: OneStep, name: str, before: int, insn: int
) -> None:
    cpu["mip"] = cpu["mie"] = 2
    cpu["mstatus"] = MIE
    cpu[name] = before
    cpu[A1] = 8 if name == "mstatus" else 2
    cpu.put32(CODE, NOP, NOP, insn, *[NOP] * 20)
    cpu["pc"] = CODE
    cpu.engine.run(10)
    assert (cpu["mcause"], cpu["mepc"]) == (IRQ | 1, CODE + 12)


def test_wfi_waits_for_what_mie_enables_whatever_the_global_bit(cpu: OneStep) -> None:
    cpu["mie"] = 0x80
    cpu["mtimecmp"] = 1000
    cpu.put32(CODE, NOP, WFI, *[NOP] * 10)
    cpu["pc"] = CODE
    cpu.engine.run(5)
    assert cpu.engine.vtime_ns >= 100_000
    assert cpu.engine.vtime_ns < 100_000 + 100
    assert (cpu["pc"], cpu["traps"]) == (CODE + 20, 0)


def test_wfi_with_nothing_to_wake_it_halts(cpu: OneStep) -> None:
    cpu["mtimecmp"] = 1000  # not enabled
    cpu.put32(CODE, WFI, NOP)
    cpu["pc"] = CODE
    assert cpu.engine.run(100) is ExitReason.HALTED
    assert cpu.engine.icount == 1


def test_trap_ends_a_reservation(cpu: OneStep) -> None:
    cpu[A1] = DATA
    cpu["mepc"] = CODE + 8
    cpu.step(amo(LR, A0, A1), ECALL)
    assert cpu.step(amo(SC, A0, A1, 0)) is None
    assert cpu[A0] == 1


def test_fault_of_a_load_names_address_and_instruction(cpu: OneStep) -> None:
    cpu[A1] = 0x4000_0123
    cpu[A0] = 5
    assert cpu.step(NOP, NOP, load(A0, A1)) == 5
    assert (cpu["mepc"], cpu["mtval"], cpu[A0]) == (CODE + 8, 0x4000_0123, 5)


def test_built_in_sbi_enters_supervisor_with_everything_delegated() -> None:
    cpu = OneStep(builtin_sbi=True)
    assert cpu["priv"] == S
    assert (cpu["medeleg"], cpu["mideleg"], cpu["mcounteren"]) == (0xB1FF, 0x2222, 0xFFFFFFFF)
    assert cpu["menvcfg"] & (STCE | ADUE) == STCE | ADUE
    assert cpu["mstatus"] & FS


def test_built_in_sbi_lets_users_read_the_time() -> None:
    """Debian's systemd died of an illegal instruction in its vDSO: firmware opens scounteren, as OpenSBI does, since
    a kernel that finds no performance counters does not."""
    cpu = OneStep(builtin_sbi=True)
    cpu["priv"] = U
    for number in (0xC00, 0xC01, 0xC02):
        assert cpu.step(csr(RS, number, rs1=0)) is None
    assert cpu.step(csr(RS, 0xC03, rs1=0)) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_built_in_sbi_takes_calls_inside_the_step(backend: str) -> None:
    cpu = OneStep(backend, builtin_sbi=True)
    cpu[17] = 0x10
    assert cpu.step(NOP, ECALL, 0x00150513) is None  # addi a0, a0, 1
    assert cpu.calls == [(1, 0x10)]
    assert (cpu[A0], cpu["pc"], cpu["priv"], cpu.engine.icount) == (8, CODE + 12, S, 3)
    cpu["priv"] = U
    assert cpu.step(ECALL) == 8
    assert len(cpu.calls) == 1

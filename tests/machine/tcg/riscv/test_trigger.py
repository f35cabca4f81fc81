"""Debug triggers of the guest's own: what they match, when they fire, what they leave. SPEC: debug 1.0, chapter 5."""

from __future__ import annotations

import pytest

from machine.tcg.engine import Engine, ExitReason
from tests.differential.machines import BareHost
from tests.machine.tcg.riscv.onestep import (
    A0,
    A1,
    A2,
    CODE,
    DATA,
    LR,
    MRET,
    MTVEC,
    NONE,
    NOP,
    RS,
    RW,
    SC,
    M,
    OneStep,
    S,
    Tables,
    U,
    amo,
    csr,
    load,
    store,
)

BREAKPOINT, INSN_PAGE, LOAD_PAGE, LOAD_MISALIGNED, ILLEGAL = 3, 12, 13, 4, 2
LOAD, STORE, EXEC = 1, 2, 4
IN_U, IN_S, IN_M = 1 << 3, 1 << 4, 1 << 6
EQUAL, NAPOT, GE, LT = (n << 7 for n in range(4))
MTE, MPTE = 1 << 3, 1 << 7
TSELECT, TDATA1, TDATA2, TINFO, TCONTROL = 0x7A0, 0x7A1, 0x7A2, 0x7A4, 0x7A5
HIT = {2: 1 << 20, 6: 1 << 22}


@pytest.fixture(params=["jit", "interp"])
def cpu(request: pytest.FixtureRequest) -> OneStep:
    return OneStep(request.param)


def arm(cpu: OneStep, tdata1: int, tdata2: int, which: int = 0, kind: int = 6) -> None:
    """Set a trigger by the CSRs, in M-mode, as a guest does."""
    kept, cpu["priv"] = cpu[A1], M
    for number, value in ((TSELECT, which), (TDATA1, 0), (TDATA2, tdata2), (TDATA1, kind << 60 | tdata1)):
        cpu.csr(RW, number, value, rd=0)
    cpu[A1] = kept


def fires(cpu: OneStep, insn: int, priv: int = S) -> bool:
    """Run an instruction; did a trigger take it, and did it do nothing then?"""
    cpu["priv"], cpu[A0] = priv, 0x1234
    cause = cpu.step(insn)
    if cause != BREAKPOINT:
        assert cause is None
        return False
    assert cpu[A0] == 0x1234 and cpu["mepc"] == CODE and cpu["pc"] == MTVEC
    return True


def test_tselect_tells_how_many_there_are_and_tinfo_of_what_kind(cpu: OneStep) -> None:
    assert [cpu.write(TSELECT, n) for n in (0, 3, 4, NONE, 1)] == [0, 3, 3, 3, 1]
    assert cpu.csr(RS, TINFO, rs1=0) == 1 << 24 | 1 << 2 | 1 << 6 | 1 << 15
    assert cpu.csr(RS, TDATA1, rs1=0) == 15 << 60


def test_each_trigger_has_data_of_its_own(cpu: OneStep) -> None:
    for which in range(4):
        arm(cpu, LOAD | IN_S, 0x1000 * which, which)
    for which in range(4):
        cpu.write(TSELECT, which)
        assert cpu.csr(RS, TDATA2, rs1=0) == 0x1000 * which
        assert cpu.csr(RS, TDATA1, rs1=0) == 6 << 60 | LOAD | IN_S


@pytest.mark.parametrize("kind", [2, 6])
@pytest.mark.parametrize(
    ("kinds", "insn", "taken"),
    [
        (LOAD, load(A0, A1), True),
        (STORE, load(A0, A1), False),
        (STORE, store(A2, A1), True),
        (LOAD, store(A2, A1), False),
        (LOAD, amo(0, A0, A1, A2), True),
        (STORE, amo(0, A0, A1, A2), True),
        (LOAD, amo(LR, A0, A1), True),
        (STORE, amo(LR, A0, A1), False),
        (STORE, amo(SC, A0, A1, A2), True),
        (EXEC, load(A0, A1), False),
    ],
)
def test_trigger_takes_the_accesses_it_is_set_for(
    cpu: OneStep, kind: int, kinds: int, insn: int, taken: bool
) -> None:
    arm(cpu, kinds | IN_S, DATA, kind=kind)
    before = cpu.get64(DATA)
    cpu[A1], cpu[A2] = DATA, 99
    assert fires(cpu, insn) == taken
    if taken:
        assert cpu["mtval"] == DATA and cpu.get64(DATA) == before
        assert cpu["tdata1_0"] & HIT[kind]
        assert not fires(cpu, NOP)
    else:
        assert not cpu["tdata1_0"] & HIT[kind]


@pytest.mark.parametrize(
    ("match", "value", "first", "last"),
    [
        (EQUAL, DATA + 8, DATA + 8, DATA + 8),
        (NAPOT, DATA | 0x7, DATA, DATA + 15),
        (NAPOT, DATA + 0x10, DATA + 0x10, DATA + 0x11),
        (GE, DATA + 0x20, DATA + 0x20, NONE),
        (LT, DATA + 0x20, 0, DATA + 0x1F),
        (LT, 0, 1, 0),
    ],
)
def test_match_compares_every_address_of_the_access(
    cpu: OneStep, match: int, value: int, first: int, last: int
) -> None:
    arm(cpu, LOAD | IN_S | match, value)
    for at in range(DATA - 16, DATA + 64, 3):
        for size in range(4):
            cpu[A1] = at
            assert fires(cpu, load(A0, A1, size)) == (at <= last and at + (1 << size) > first), (
                hex(at),
                size,
            )


def test_size_is_that_of_the_access(cpu: OneStep) -> None:
    cpu[A1] = DATA
    for field, bits in ((1, 0), (2, 1), (3, 2), (5, 3)):
        arm(cpu, LOAD | IN_S | field << 16, DATA)
        assert [fires(cpu, load(A0, A1, size)) for size in range(4)] == [size == bits for size in range(4)]
        arm(cpu, LOAD | IN_S | (field & 3) << 16 | field >> 2 << 21, DATA, kind=2)
        assert [fires(cpu, load(A0, A1, size)) for size in range(4)] == [size == bits for size in range(4)]


def test_access_over_a_page_meets_a_trigger_on_the_second(cpu: OneStep) -> None:
    arm(cpu, STORE | IN_S, DATA + 0x1001)
    cpu[A1] = DATA + 0xFFC
    assert fires(cpu, store(A2, A1)) and cpu["mtval"] == DATA + 0xFFC


def test_modes_are_those_it_is_set_for(cpu: OneStep) -> None:
    cpu[A1] = DATA
    for mode, priv in ((IN_U, U), (IN_S, S)):
        arm(cpu, LOAD | mode, DATA)
        assert [fires(cpu, load(A0, A1), p) for p in (U, S)] == [p == priv for p in (U, S)]


def test_machine_mode_asks_tcontrol_which_traps_save(cpu: OneStep) -> None:
    """SPEC: 5.7.7"""
    arm(cpu, LOAD | IN_M, DATA)
    cpu[A1] = DATA
    assert not fires(cpu, load(A0, A1), M)
    assert cpu.write(TCONTROL, NONE) == MTE | MPTE
    cpu[A1] = DATA
    assert fires(cpu, load(A0, A1), M)
    assert cpu["tcontrol"] == MPTE, "the handler's own accesses pass"
    assert not fires(cpu, load(A0, A1), M)
    cpu["mepc"], cpu["mstatus"] = CODE + 0x40, 3 << 11
    assert cpu.step(MRET) is None
    assert cpu["tcontrol"] == MTE | MPTE


def test_instruction_trigger_comes_before_the_instruction(cpu: OneStep) -> None:
    arm(cpu, EXEC | IN_S, CODE + 8)
    cpu["priv"] = S
    retired = cpu["traps"]
    assert cpu.step(NOP, NOP, NOP) == BREAKPOINT
    assert (cpu["mepc"], cpu["mtval"], cpu["traps"]) == (CODE + 8, CODE + 8, retired + 1)


def test_code_that_is_translated_already_meets_a_new_trigger(cpu: OneStep) -> None:
    """And is free of it as soon as it is gone."""
    cpu["priv"] = S
    for _ in range(4):
        assert cpu.step(NOP, NOP, NOP) is None
    arm(cpu, EXEC | IN_S, CODE + 4)
    cpu["priv"] = S
    assert cpu.step(NOP, NOP) == BREAKPOINT
    arm(cpu, 0, 0)
    cpu["priv"] = S
    assert cpu.step(NOP, NOP, NOP) is None


def test_data_that_is_on_the_fast_path_meets_a_new_trigger(cpu: OneStep) -> None:
    cpu["priv"], cpu[A1] = S, DATA
    for _ in range(4):
        assert cpu.step(load(A0, A1), store(A2, A1)) is None
    arm(cpu, LOAD | IN_S, DATA)
    assert fires(cpu, load(A0, A1)) and not fires(cpu, store(A2, A1))
    arm(cpu, STORE | IN_S, DATA)
    assert not fires(cpu, load(A0, A1)) and fires(cpu, store(A2, A1))


def test_breakpoint_comes_before_the_faults_of_the_access(cpu: OneStep) -> None:
    """SPEC: privileged 1.12, table 3.7"""
    cpu["satp"] = Tables(cpu).satp  # nothing is mapped
    arm(cpu, LOAD | STORE | EXEC | IN_S, 0x4000_0000 | 0x7FFF, which=1)
    arm(cpu, LOAD | STORE | EXEC | IN_S | NAPOT, 0x4000_0000 | 0x7FFF, which=2)
    cpu["priv"], cpu["pc"] = S, 0x4000_0010
    assert cpu.engine.run(cpu.engine.icount + 1) is ExitReason.UNTIL
    assert (cpu["mcause"], cpu["mepc"], cpu["mtval"]) == (BREAKPOINT, 0x4000_0010, 0x4000_0010)
    cpu["satp"], cpu[A1] = 0, 0x4000_0001
    for insn in (load(A0, A1), store(A2, A1), amo(LR, A0, A1), amo(0, A0, A1, A2)):
        assert fires(cpu, insn), "also of one that is not aligned, or has no memory"


def test_zeroing_a_block_is_a_store_to_all_of_it(cpu: OneStep) -> None:
    arm(cpu, STORE | IN_M, DATA + 0x30)
    cpu.write(TCONTROL, MTE)
    cpu.put64(DATA, 7)
    cpu[A1] = DATA + 5
    assert fires(cpu, 4 << 20 | A1 << 15 | 2 << 12 | 0x0F, M) and cpu.get64(DATA) == 7


@pytest.mark.parametrize("backend", ["jit", "interp"])
def test_a_trigger_is_its_harts_alone(backend: str) -> None:
    """Harts share translated code, and a block with one hart's breakpoint runs through on the other."""
    loop = [NOP, NOP, NOP, 0xFF9F_F06F]  # the last jumps back by two
    with Engine(
        ram_base=CODE, ram_size=1 << 20, harts=2, quantum=50, host=BareHost(), builtin_sbi=False
    ) as engine:
        engine.translator.set_switch("jit", backend == "jit")
        engine.write_phys(CODE, b"".join(w.to_bytes(4, "little") for w in loop))
        engine.write_phys(MTVEC, (0x6F).to_bytes(4, "little"))
        for hart in range(2):
            engine.reset_hart(hart, CODE)
            engine.set_reg(hart, "mtvec", MTVEC)
        engine.run(1000)
        engine.set_reg(1, "tcontrol", MTE)
        engine.set_reg(1, "tdata2_0", CODE + 8)
        engine.set_reg(1, "tdata1_0", 6 << 60 | EXEC | IN_M)
        engine.run(2000)
        assert engine.get_reg(0, "traps") == 0 and engine.get_reg(1, "traps") == 1
        assert engine.get_reg(1, "mepc") == CODE + 8


def test_state_that_is_loaded_is_armed(cpu: OneStep) -> None:
    arm(cpu, LOAD | IN_S, DATA)
    state = cpu.engine.save_state(0)
    arm(cpu, 0, 0)
    cpu[A1] = DATA
    assert not fires(cpu, load(A0, A1))
    cpu.engine.load_state(0, state | {"tselect": NONE})
    cpu[A1] = DATA
    assert fires(cpu, load(A0, A1)) and cpu["tselect"] == 0


def test_nothing_below_machine_mode_reaches_the_triggers(cpu: OneStep) -> None:
    for number in (TSELECT, TDATA1, TDATA2, TINFO, TCONTROL):
        for priv in (U, S):
            cpu["priv"] = priv
            assert cpu.step(csr(RS, number, rs1=0)) == ILLEGAL

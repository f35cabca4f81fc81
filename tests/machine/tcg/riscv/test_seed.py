"""The seed CSR: every read is one input, at its exact position. SPEC: scalar cryptography 1.0, chapter 4."""

from __future__ import annotations

import itertools

import pytest

from machine.tcg.engine import Engine, ExitReason
from machine.tcg.probes import NEVER, Probe, ProbeAction, ProbeKind
from tests.machine.tcg.riscv.onestep import (
    A0,
    A1,
    CODE,
    NOP,
    RC,
    RCI,
    RS,
    RSI,
    RW,
    RWI,
    M,
    OneStep,
    S,
    U,
    csr,
)

SEED, ES16, DEAD, ILLEGAL = 0x015, 2 << 30, 3 << 30, 2


class Source(OneStep):
    """Its entropy counts up, and the positions of its reads are kept."""

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self.reads: list[tuple[int, int]] = []
        counter = itertools.count(0xABCD)

        def entropy(hart: int) -> int:
            self.reads.append((hart, self.engine.icount))
            return next(counter)

        self.engine.close()
        self.engine = Engine(ram_base=CODE, ram_size=4 << 20, host=self, builtin_sbi=False, entropy=entropy)
        self.engine.translator.set_switch("jit", backend == "jit")
        self.engine.translator.set_hot_runs(0)
        self.engine.reset_hart(0, CODE)
        self["pmpaddr0"], self["pmpcfg0"], self["mtvec"] = (1 << 54) - 1, 0x1F, CODE + 0x1000


@pytest.fixture(params=["jit", "interp"])
def cpu(request: pytest.FixtureRequest) -> Source:
    return Source(request.param)


def test_each_read_in_a_block_asks_once_at_its_own_position(cpu: Source) -> None:
    read = csr(RW, SEED, rs1=0)
    begin = cpu.engine.icount
    assert cpu.step(NOP, read, NOP, NOP, csr(RS, SEED, rd=12, rs1=A1), NOP) is None
    assert cpu.reads == [(0, begin + 1), (0, begin + 4)]
    assert (cpu[A0], cpu[12]) == (ES16 | 0xABCD, ES16 | 0xABCE)


@pytest.mark.parametrize("op", [RS, RC, RSI, RCI])
def test_access_that_does_not_write_is_illegal(cpu: Source, op: int) -> None:
    assert cpu.step(csr(op, SEED, rs1=0)) == ILLEGAL
    assert cpu.step(csr(op, SEED, rs1=1)) is None
    assert len(cpu.reads) == 1


def test_write_that_does_not_read_takes_nothing(cpu: Source) -> None:
    assert cpu.step(csr(RW, SEED, rd=0)) is None and cpu.step(csr(RWI, SEED, rd=0, rs1=3)) is None
    assert not cpu.reads
    assert cpu.step(csr(RS, SEED, rd=0)) is None
    assert len(cpu.reads) == 1, "CSRRS reads whatever rd is"


@pytest.mark.parametrize("mseccfg", [0, 0x100, 0x200, 0x300])
def test_mseccfg_lets_supervisor_and_user_read(cpu: Source, mseccfg: int) -> None:
    for priv, allowed in ((U, mseccfg & 0x100), (S, mseccfg & 0x200), (M, True)):
        cpu["mseccfg"], cpu["priv"] = mseccfg, priv
        assert (cpu.step(csr(RW, SEED)) is None) == bool(allowed)


def test_supervisor_may_read_after_reset(cpu: Source) -> None:
    """A kernel that finds Zkr in its device tree reads it, and old firmware does not set mseccfg."""
    assert cpu["mseccfg"] == 0x200


def test_a_probe_on_the_csr_asks_no_second_time(cpu: Source) -> None:
    cpu.engine.set_probes([Probe(ProbeKind.CSR, ProbeAction.STOP, 0, NEVER)])
    cpu.put32(CODE, NOP, csr(RW, SEED), NOP)
    cpu["pc"] = CODE
    assert cpu.engine.run(cpu.engine.icount + 3) is ExitReason.BREAKPOINT
    assert (cpu["pc"], len(cpu.reads), cpu[A0]) == (CODE + 8, 1, ES16 | 0xABCD)


def test_without_a_source_it_is_dead() -> None:
    cpu = OneStep()
    assert cpu.step(csr(RW, SEED)) is None and cpu[A0] == DEAD


def test_an_error_of_the_source_stops_the_machine(cpu: Source) -> None:
    def broken(hart: int) -> int:
        raise RuntimeError("no entropy")

    cpu.engine._callbacks.entropy = broken
    with pytest.raises(RuntimeError, match="no entropy"):
        cpu.step(csr(RW, SEED))

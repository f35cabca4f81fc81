"""The laws under attack by random programs: however one is run, it is the same run, with 1, 2 and 4 harts.

The programs are those of the differential tests: faults in the middle of blocks, code that is written over, page
tables that other harts change, traps, timers. Two runs that part are told with the first step that differs.
"""

from __future__ import annotations

import pytest

from machine.tcg.probes import NEVER, Probe, ProbeAction, ProbeKind
from tests.laws.regimes import Program, Regime, check, first_difference, run

REFERENCE = Regime("interp, blocks of one", backend="interp", tb_max=1)
EVERYTHING = (0, NEVER)
REGIMES = [
    Regime("jit"),
    Regime("jit, warm", hot_runs=2),
    Regime("interp", backend="interp"),
    Regime("blocks of 3", tb_max=3),
    Regime("stops", seed=1, longest=97),
    Regime("stops and drops", seed=2, longest=211, drops=True),
    Regime("stops and cuts", seed=3, longest=61, cuts=True, backend="interp"),
    Regime("jit, stops, cuts and drops", seed=4, longest=151, cuts=True, drops=True, hot_runs=1),
    Regime("other machines on the way", seed=5, longest=3000, restores=True),
    Regime("a small block cache", cache_bytes=64 << 10),
    Regime("probes of data", probes=(Probe(ProbeKind.WRITE, ProbeAction.LAST, *EVERYTHING),
                                     Probe(ProbeKind.READ, ProbeAction.LAST, *EVERYTHING))),
    Regime("probes of control", probes=tuple(
        Probe(kind, ProbeAction.LAST, *EVERYTHING)
        for kind in (ProbeKind.TRAP, ProbeKind.XRET, ProbeKind.CALL, ProbeKind.RET, ProbeKind.CSR, ProbeKind.MMIO,
                     ProbeKind.TURN))),
    Regime("every instruction counted", probes=(Probe(ProbeKind.EXEC, ProbeAction.COUNT, *EVERYTHING),),
           seed=6, longest=500, cuts=True),
    Regime("stopping probes", probes=(Probe(ProbeKind.TRAP, ProbeAction.STOP, *EVERYTHING),
                                      Probe(ProbeKind.CSR, ProbeAction.RECORD, *EVERYTHING))),
]  # fmt: skip
SEED = 40_000_000


def switches() -> list[str]:
    from tests.laws.regimes import Running

    running = Running(Program(0, sequences=1), Regime("any"))
    names = [name for name in running.engine.translator.switches() if name != "jit"]
    running.engine.close()
    return names


@pytest.mark.parametrize("harts", [1, 2, 4])
def test_a_random_program_is_one_run_in_every_regime(harts: int) -> None:
    steps = check(Program(SEED + 1000 * harts, harts, 12 // harts), REGIMES, REFERENCE)
    assert steps > 10_000


@pytest.mark.parametrize("harts", [1, 2])
def test_a_random_program_with_vectors_is_one_run_in_every_regime(harts: int) -> None:
    """Accesses that fault, meet code, page tables and probes in the middle of a vector among them."""
    check(Program(SEED + 50_000 + 1000 * harts, harts, 6 // harts, vlen=128), REGIMES, REFERENCE)


def test_no_switch_of_the_translator_changes_a_random_program() -> None:
    regimes = [Regime(f"without {name}", off=(name,)) for name in switches()]
    assert regimes
    check(Program(SEED + 9000, 2), regimes, REFERENCE)
    check(Program(SEED + 9500, 1, 4, vlen=128), regimes, REFERENCE)


def test_harts_of_a_random_program_meet_in_memory() -> None:
    """Otherwise the tests above would show less than they say: with one hart less, the others see other values."""
    two, four = (run(Program(SEED, harts, 6), REFERENCE) for harts in (2, 4))
    assert two["ram"] != four["ram"]


def test_a_divergence_is_told_with_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that changes a register at a known step is found out at that step."""
    from tests.laws import regimes

    where = 4321
    plain = regimes.Running.run_to

    def crooked(self: regimes.Running, until: int) -> None:
        if self.regime.name != "crooked" or until <= where:
            plain(self, until)
            return
        plain(self, where)
        pc = self.engine.get_reg(0, "pc")
        plain(self, where + 1)
        assert self.engine.get_reg(0, "pc") != pc
        self.engine.set_reg(0, "f7", 0xDEAD)
        plain(self, until)

    monkeypatch.setattr(regimes.Running, "run_to", crooked)
    text = first_difference(Program(SEED, sequences=2), Regime("straight"), Regime("crooked"))
    assert f"part at step {where}:" in text
    assert "hart 0 f7: " in text and str(0xDEAD) in text


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("harts", [1, 2, 4])
@pytest.mark.parametrize("seed", range(1))  # some minutes each; more by hand
def test_many_random_programs_are_one_run_each(harts: int, seed: int) -> None:
    check(Program(SEED + 100_000 * (seed + 1), harts, 20), REGIMES, REFERENCE)

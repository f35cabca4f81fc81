"""Instructions that are counted by blocks are counted as one by one, however a random program is run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from machine.tcg.probes import NEVER, Probe, ProbeAction, ProbeKind
from tests.laws.regimes import Program, Regime, Running

#: No program begins below 2: with this range each instruction is told to the probe by itself.
ONE_BY_ONE = (Probe(ProbeKind.EXEC, ProbeAction.COUNT, 2, NEVER),)
BY_BLOCK = (Probe(ProbeKind.EXEC, ProbeAction.COUNT, 0, NEVER),)
REGIMES = [
    Regime("jit"),
    Regime("interp", backend="interp"),
    Regime("stops, cuts and drops", seed=7, longest=151, cuts=True, drops=True, hot_runs=1),
    Regime("a small block cache", cache_bytes=64 << 10, hot_runs=2),
]


def counts(program: Program, regime: Regime, probes: tuple[Probe, ...]) -> dict[int, int]:
    running = Running(program, replace(regime, probes=probes))
    try:
        running.run_to(60_000_000)
        assert running.ended
        return running.engine.take_counts()
    finally:
        running.engine.close()


@pytest.mark.parametrize("harts", [1, 2, 4])
def test_counts_by_block_are_those_of_each_instruction(harts: int) -> None:
    """With faults in the middle of blocks and of fetches, interrupts, code that is written over, other harts' turns."""
    program = Program(41_000_000 + 1000 * harts, harts, 8 // harts)
    expected = counts(program, Regime("one by one", backend="interp", tb_max=1), ONE_BY_ONE)
    assert sum(expected.values()) > 10_000
    for regime in REGIMES:
        assert counts(program, regime, BY_BLOCK) == expected, regime.name


def test_counts_begin_anew_with_the_probes() -> None:
    running = Running(Program(41_500_000), Regime("jit", probes=BY_BLOCK))
    running.run_to(3000)
    running.engine.set_probes(BY_BLOCK)
    assert running.engine.take_counts() == {}
    running.run_to(5000)
    once = running.engine.take_counts()
    assert 0 < sum(once.values()) <= 2000
    assert running.engine.take_counts() == once
    running.engine.set_probes(ONE_BY_ONE)
    running.run_to(5001)
    assert sum(running.engine.take_counts().values()) <= 1
    running.engine.close()

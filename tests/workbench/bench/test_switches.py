"""What switches are worth: every one is measured on every kernel, and counts are the same in every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench.bench import count, switches
from workbench.bench.child import ALL_ON, run
from workbench.bench.kernels import KERNELS, kernel_path
from workbench.bench.measure import BenchError, KernelRun, environment, kernel_runs
from workbench.bench.tables import tables

WORKING = [name for name in KERNELS if name != "start"]


#: Enough to compile what a kernel runs often.
STEPS = 300_000


@pytest.mark.slow
@pytest.mark.requires("valgrind")
def test_counts_are_the_same_twice_and_tell_switches_apart(tmp_path: Path) -> None:
    """Slices once grew shorter with the clock, and blocks were cut there: all on counted 1 to 5 % less or more."""
    settings = (ALL_ON, "pin", "jit", ALL_ON)
    on, unpinned, interpreted, again = counts = count.count_each("fib", settings, str(tmp_path), STEPS)
    assert on < unpinned < interpreted
    assert again == on
    assert count.count_each("fib", settings, str(tmp_path), STEPS) == counts


@pytest.mark.slow
@pytest.mark.requires("valgrind")
def test_a_switch_that_a_kernel_does_not_use_changes_no_count(tmp_path: Path) -> None:
    """A switch flushed the machine's empty cache of blocks, a million instructions: vector_loops seemed worth 1.04."""
    on, scalar_off, *_ = count.count_each("mix", (ALL_ON, "vector_loops"), str(tmp_path), STEPS)
    assert scalar_off == on
    on, vector_off, *_ = count.count_each("vector", (ALL_ON, "vector_loops"), str(tmp_path), STEPS)
    assert vector_off > 1.1 * on


def test_a_switch_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no_such_switch"):
        kernel_runs("fib", 1000, [ALL_ON, "no_such_switch"], environment(str(tmp_path)))


def test_each_setting_runs_in_a_process_of_its_own_and_takes_the_same_steps(tmp_path: Path) -> None:
    runs = kernel_runs("fib", 5000, [ALL_ON, "jit", "pin"], environment(str(tmp_path)))
    assert [run.steps for run in runs] == [5000] * 3
    assert len({run.process for run in runs}) == 3


def test_a_kernel_that_ends_before_the_steps_is_done() -> None:
    steps, cpu_s = run("start", kernel_path("start").read_bytes(), 10**9, ALL_ON)
    assert 0 < steps < 10**6
    assert cpu_s > 0


def made_up(kernel: str, steps: int, settings: list[str], *_: object) -> list[KernelRun]:
    """All on takes 2 s, and the i-th switch off 2 + i."""
    order = [ALL_ON, *switches.switch_names()]
    return [KernelRun(1, steps, 2.0 + order.index(setting)) for setting in settings]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(switches, "kernel_runs", made_up)
    monkeypatch.setattr("shutil.which", lambda tool: None)
    return switches.run(WORKING, switches.switch_names(), 3, lambda text: None)


def test_each_switch_is_held_against_all_on(measured: dict[str, Any]) -> None:
    names = switches.switch_names()
    assert {"jit", "pin", "fp_plain", "bare_mem", "vector_loops", "loop_pins"} <= set(names)
    fib = measured["kernels"]["fib"]
    assert fib["cpu_s"] == 2.0 and fib["host_per_guest"] is None
    assert {k: v["cpu"] for k, v in fib["off"].items()} == {n: 1.5 + i / 2 for i, n in enumerate(names)}
    assert all(v["count"] is None for v in fib["off"].values())


def test_the_table_has_each_kernel_that_works_and_each_switch(measured: dict[str, Any]) -> None:
    [times] = tables(measured)
    assert times.columns == ("CPU time without", *WORKING)
    assert [row[0] for row in times.rows[:-1]] == switches.switch_names()
    assert all(len(row) == len(times.columns) for row in times.rows)

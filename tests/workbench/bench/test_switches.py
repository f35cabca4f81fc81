"""What switches are worth: every one is measured, and counts are of the same steps and the same in every run."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.bench import count, switches
from workbench.bench.measure import BenchError


@pytest.mark.slow
@pytest.mark.requires("valgrind")
def test_counts_of_switches_are_the_same_twice_and_tell_them_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count, "STEPS", 300_000)
    child = switches.kernel_child("fib")
    on, unpinned, interpreted = count.count_each(child, ("pin", "jit"), str(tmp_path))
    assert on < unpinned < interpreted
    again = count.count_each(child, ("pin", "jit"), str(tmp_path))
    assert again == pytest.approx(
        [on, unpinned, interpreted], rel=1e-3
    )  # where memory lies moves a few of them


@pytest.mark.slow
@pytest.mark.requires("valgrind")
def test_a_switch_that_does_not_exist_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count, "STEPS", 1000)
    with pytest.raises(BenchError, match="counting instructions failed"):
        count.count_each(switches.kernel_child("fib"), ("no_such_switch",), str(tmp_path))


def test_each_switch_is_held_against_all_on(monkeypatch: pytest.MonkeyPatch) -> None:
    names = switches.switch_names()
    assert {"jit", "pin", "fp_plain", "bare_mem", "vector_loops", "loop_pins"} <= set(names)
    seconds = {"all on": 2.0} | {name: 2.0 + i for i, name in enumerate(names)}
    monkeypatch.setattr(switches, "_times", lambda *args: seconds)
    monkeypatch.setattr("shutil.which", lambda tool: None)
    [fib] = switches.run(["fib"], names, 1, lambda text: None)["kernels"].values()
    assert fib["cpu_s"] == 2.0 and fib["host_per_guest"] is None
    assert {k: v["cpu"] for k, v in fib["off"].items()} == {n: 1 + i / 2 for i, n in enumerate(names)}
    assert all(v["count"] is None for v in fib["off"].values())

"""Measuring: interleaved rounds, medians, and no figure for a run that did not do its work."""

from __future__ import annotations

import sys

import pytest

from workbench.bench.bare import net_ratios
from workbench.bench.measure import BenchError, Contender, Figures, Sample, interleave, run_once


def python(name: str, code: str, expect: bytes = b"done") -> Contender:
    return Contender(name, (sys.executable, "-I", "-S", "-c", code), expect)


def test_rounds_are_interleaved_and_counted() -> None:
    seen: list[str] = []
    ways = [python("a", "print('done')"), python("b", "print('done 1_000 steps')")]
    figures = interleave(ways, 2, seen.append)
    assert [text.split()[2] for text in seen] == ["a", "b", "a", "b"]
    assert figures["a"].summary()["rounds"] == figures["b"].summary()["rounds"] == 2
    assert [s.steps for s in figures["b"].samples] == [1000, 1000]


def test_summary_takes_medians_and_the_spread_of_wall_times() -> None:
    figures = Figures([Sample(wall, wall / 2, 1 << 20, 3_000_000) for wall in (1.0, 3.0, 2.0, 4.0, 5.0)])
    found = figures.summary()
    assert (found["wall_s"], found["cpu_s"], found["peak_mib"], found["mips"]) == (3.0, 1.5, 1, 1)
    assert found["spread"] == 1.0


@pytest.mark.parametrize("code", ["print('other')", "print('done'); raise SystemExit(3)"])
def test_a_run_without_its_work_done_is_an_error(code: str) -> None:
    with pytest.raises(BenchError, match="broken ended with"):
        run_once(python("broken", code))


def test_cpu_time_is_the_childs_own() -> None:
    sample = run_once(python("busy", "sum(range(3_000_000)); print('done')"))
    assert 0 < sample.cpu_s <= sample.wall_s + 0.05
    assert sample.peak_bytes > 1 << 20


def test_net_ratios_leave_the_start_out() -> None:
    figures = {"ours": {"cpu_s": 0.5}, "qemu": {"cpu_s": 1.25}}
    start = {"ours": {"cpu_s": 0.25}, "qemu": {"cpu_s": 0.25}}
    assert net_ratios(figures, start) == {"qemu": 4.0}
    assert net_ratios(start, start) == {"qemu": None}
    assert net_ratios(figures, None) == {"qemu": None}

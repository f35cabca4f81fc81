"""What is wanted of each figure, and when it is met."""

from __future__ import annotations

from typing import Any

import pytest

from workbench.bench import limits
from workbench.bench.kernels import KERNELS


def kernels(wall: float, cpu: float) -> dict[str, Any]:
    found = {"ratios": {"qemu": wall, "qemu -icount": wall}, "cpu_ratios": {"qemu": cpu, "qemu -icount": cpu}}
    return {"benchmark": "kernels", "kernels": {"sieve": found, "start": found}}


def test_every_kernel_with_work_has_a_wanted_ratio_against_both_peers() -> None:
    assert set(limits.KERNELS) == set(KERNELS) - {"start", "smp", "vector"}
    assert all(set(peers) == {"qemu", "qemu -icount"} for peers in limits.KERNELS.values())


def test_ratios_are_judged_by_the_clock_and_by_cpu_time_at_the_limit_itself() -> None:
    plain, counted = limits.judge(kernels(1.1, 3.0))
    assert plain == {
        "figure": "sieve: qemu", "wanted": ">= 1.1", "wall": 1.1, "cpu": 3.0, "met": True, "met by cpu": True
    }  # fmt: skip
    assert (counted["met"], counted["met by cpu"]) == (False, True)


def test_what_was_not_measured_has_no_row() -> None:
    assert limits.judge({"benchmark": "kernels", "kernels": {"fib": {"ratios": {}, "cpu_ratios": {}}}}) == []


@pytest.mark.parametrize("peak, met", [(712, True), (713, False)])
def test_a_linux_boot_is_judged_by_ratios_and_memory(peak: int, met: bool) -> None:
    ratios = {"qemu / record": 1.29, "record / run": 1.1, "record / replay": 0.99}
    figures = {"record": {"peak_mib": peak}, "qemu": {"peak_mib": 9000}}
    rows = limits.judge({"benchmark": "boot", "ratios": ratios, "cpu_ratios": ratios, "figures": figures})
    assert {row["figure"]: row["met"] for row in rows} == {
        "boot: qemu / record": False,
        "boot: record / run": True,
        "boot: record / replay": False,
        "boot: peak memory": met,
    }


def test_figures_that_carry_their_limit_keep_it() -> None:
    figures = {
        "open": {"value": 2.0, "by_cpu": 0.5, "at_most": 1, "unit": "s", "met": False},
        "rows": {"value": 400_000, "at_most": 300_000, "unit": "rows/s, at least", "met": True},
        "raw": {"value": 0.9, "is to be": ">= 0.6", "unit": "ratio", "met": True},
    }
    rows = limits.judge({"benchmark": "any", "figures": figures})
    assert [row["wanted"] for row in rows] == ["<= 1 s", ">= 300000 rows/s", ">= 0.6"]
    assert [row["met"] for row in rows] == [False, True, True]
    assert [row["met by cpu"] for row in rows] == [True, None, None]

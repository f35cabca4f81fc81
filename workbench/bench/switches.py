"""What each switch of the translator is worth: CPU time and host instructions with it off, over those with all on."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from workbench.bench.child import ALL_ON
from workbench.bench.count import count_all
from workbench.bench.kernels import KERNELS
from workbench.bench.measure import environment, kernel_runs

#: Guest instructions that are timed of each kernel, start-up of the process left out; or all that it has.
STEPS_TIMED = 500_000_000


def switch_names() -> list[str]:
    """Return the translator's switches, in their order."""
    from machine.tcg._core import ffi, lib

    names: list[str] = []
    while (name := lib.wb_switch_name(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    return names


def run(
    names: Sequence[str], switches: Sequence[str], rounds: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Measure these kernels with each switch off in turn.

    Returns:
        by kernel: ``cpu_s`` and ``host_per_guest`` with all on, and for each switch, in ``off``, how many times
        more ``cpu`` time (the median of rounds) and host instructions (``count``) it takes without. The counts are
        callgrind's, of the first steps that the kernel's row says; None where there is no valgrind.

    Raises:
        BenchError: a run failed.
    """
    times = {name: _times(name, switches, rounds, progress) for name in names}
    counts = count_all(names, [ALL_ON, *switches], progress)
    table = {}
    for name in names:
        on, *off = counts.get(name, [None] * (1 + len(switches)))
        table[name] = {
            "cpu_s": round(times[name][ALL_ON], 3),
            "host_per_guest": on and round(on, 2),
            "steps_counted": KERNELS[name].counted,
            "off": {
                switch: {"cpu": round(times[name][switch], 2), "count": count and on and round(count / on, 2)}
                for switch, count in zip(switches, off, strict=True)
            },
        }
    return {"benchmark": "switches", "steps_timed": STEPS_TIMED, "kernels": table}


def _times(
    name: str, switches: Sequence[str], rounds: int, progress: Callable[[str], None]
) -> dict[str, float]:
    """Return the median of the CPU seconds with all on, and of each switch's multiple of them in its round."""
    half = len(switches) // 2
    order = [ALL_ON, *switches[:half], ALL_ON, *switches[half:], ALL_ON]
    seconds: list[float] = []
    multiples: dict[str, list[float]] = {switch: [] for switch in switches}
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as cache:
        for i in range(rounds):
            runs = kernel_runs(name, STEPS_TIMED, order, environment(cache))
            taken = list(zip(order, (run.cpu_s for run in runs), strict=True))
            on = statistics.median(cpu for setting, cpu in taken if setting == ALL_ON)
            progress(f"{name}: round {i + 1}/{rounds}: {on:.2f} s with all on, {len(switches)} switches")
            seconds.append(on)
            for switch, cpu in (t for t in taken if t[0] != ALL_ON):
                multiples[switch].append(cpu / on)
    return {ALL_ON: statistics.median(seconds)} | {s: statistics.median(m) for s, m in multiples.items()}

"""Host instructions a guest instruction, counted by callgrind: the same in every run, whatever else the host does."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from workbench.bench.child import ALL_ON
from workbench.bench.kernels import KERNELS
from workbench.bench.measure import BenchError, environment, kernel_runs

_TOTAL = re.compile(r"^totals: ([0-9]+)$", re.MULTILINE)


def count_each(name: str, settings: Sequence[str], cache: str, steps: int) -> list[float]:
    """Count what the C core and its generated code execute for a kernel's first steps, by step.

    Args:
        name: one of KERNELS.
        settings: of the switches, as ``workbench.bench.child`` has them.
        cache: a folder for Python's byte code.
        steps: how many; fewer where the kernel ends before.

    Returns:
        host instructions a guest instruction, for each setting.

    Raises:
        BenchError: a run failed, or they did not all take the same steps; callgrind must be installed (Debian: apt
        install valgrind).
    """
    with tempfile.TemporaryDirectory(prefix="workbench-count-") as folder:
        tool = ["valgrind", "-q", "--tool=callgrind", "--smc-check=all", "--toggle-collect=mach_run"]
        tool += [f"--callgrind-out-file={folder}/%p"]
        # Hashes and places of Python's objects are the same then; none of them is counted, but malloc is.
        fixed = environment(cache) | {"PYTHONHASHSEED": "0"}
        kernel_runs(name, 0, [ALL_ON], fixed)  # Python's byte code is there from now on
        runs = kernel_runs(name, steps, settings, fixed, tool)
        totals = [_TOTAL.search((Path(folder) / str(run.process)).read_text()) for run in runs]
    if len({run.steps for run in runs}) != 1 or not all(totals):
        raise BenchError(f"counting {name}: the runs took {[run.steps for run in runs]} steps")
    return [int(total[1]) / run.steps for run, total in zip(runs, totals, strict=True) if total]


def count_all(
    names: Sequence[str], settings: Sequence[str], progress: Callable[[str], None]
) -> dict[str, list[float]]:
    """Count for these kernels, as many at a time as the host has processors: counts do not mind.

    Returns:
        by kernel what ``count_each`` does; nothing where there is no valgrind.

    Raises:
        BenchError: a run failed.
    """
    if shutil.which("valgrind") is None:
        return {}
    with (
        tempfile.TemporaryDirectory(prefix="workbench-bench-") as cache,
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
    ):
        waiting = {
            name: pool.submit(count_each, name, settings, cache, KERNELS[name].counted) for name in names
        }
        found = {}
        for name, counting in waiting.items():
            found[name] = counting.result()
            progress(f"{name}: {found[name][0]:.2f} host instructions a guest instruction")
    return found


def run(names: Sequence[str], progress: Callable[[str], None]) -> dict[str, float]:
    """Count for these kernels with all switches on; nothing where there is no valgrind.

    Raises:
        BenchError: a run failed.
    """
    found = count_all([n for n in names if n != "start"], [ALL_ON], progress)
    return {name: round(count, 2) for name, [count] in found.items()}

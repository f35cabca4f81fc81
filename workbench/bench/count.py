"""Host instructions a guest instruction, counted by callgrind: the same in every run, whatever else the host does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from workbench.bench.kernels import kernel_path
from workbench.bench.measure import MEMORY, TIMEOUT_S, BenchError, environment

#: Guest instructions that are counted of each kernel: its beginning, translation included.
STEPS = 20_000_000
#: Every machine's creation ends the count of the one before.
_NEXT_MACHINE = "wb_create"
_TOTAL = re.compile(r"^totals: ([0-9]+)$", re.MULTILINE)
_RAN = re.compile(rb"\b([0-9][0-9_]*) steps")


def host_per_guest(name: str, cache: str) -> float:
    """Count what the C core and its generated code execute for a kernel's first STEPS, by step.

    Args:
        name: one of KERNELS.
        cache: a folder for Python's byte code.

    Raises:
        BenchError: the run failed; callgrind must be installed (Debian: apt install valgrind).
    """
    command = (sys.executable, "-m", "workbench", "run", "--bios", "none", "--kernel", str(kernel_path(name)))
    [(steps, total)] = _counted((*command, "-m", MEMORY, "--no-input", "--steps", str(STEPS)), cache)
    return total / steps


def count_each(child: Sequence[str], switches: Sequence[str], cache: str) -> list[int]:
    """Count what the C core and its generated code execute for a kernel's first STEPS, by the switch that is off.

    Args:
        child: the command of `workbench.bench.child` with its kernel.
        switches: to turn off, one after the other.
        cache: a folder for Python's byte code.

    Returns:
        host instructions with all switches on, then for each of ``switches``.

    Raises:
        BenchError: a run failed, or they did not all take the same steps.
    """
    counts = _counted((*child, "--each", str(STEPS), *switches), cache)
    if len(counts) != 1 + len(switches) or len({steps for steps, _ in counts}) != 1:
        raise BenchError(f"counting {child[-1]}: the runs took {[steps for steps, _ in counts]} steps")
    return [total for _, total in counts]


def _counted(command: Sequence[str], cache: str) -> list[tuple[int, int]]:
    """Run under callgrind; return steps and host instructions of each machine that ran."""
    with tempfile.TemporaryDirectory(prefix="workbench-count-") as folder:
        out = Path(folder) / "callgrind.out"
        tool = ["valgrind", "--tool=callgrind", "--smc-check=all", "--toggle-collect=mach_run"]
        tool += [f"--dump-before={_NEXT_MACHINE}", f"--callgrind-out-file={out}"]
        done = subprocess.run(
            [*tool, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment(cache),
            timeout=TIMEOUT_S,
            check=False,
        )
        steps = [int(n.replace(b"_", b"")) for n in _RAN.findall(done.stdout + done.stderr)]
        # out.1 is what was before the first machine, out itself what came after the last one was made
        parts = [out.with_name(f"{out.name}.{n + 2}") for n in range(len(steps) - 1)] + [out]
        totals = [_TOTAL.search(part.read_text()) if part.exists() else None for part in parts]
    if done.returncode or not steps or not all(steps) or not all(totals):
        tail = done.stderr[-200:].decode(errors="replace").replace("\n", " | ")
        raise BenchError(f"counting instructions failed with {done.returncode}: … {tail}")
    return [(n, int(total[1])) for n, total in zip(steps, totals, strict=True) if total]


def run(names: Sequence[str], progress: Callable[[str], None]) -> dict[str, float]:
    """Count for these kernels; return host instructions a guest instruction, nothing where there is no valgrind.

    Raises:
        BenchError: a run failed.
    """
    found: dict[str, float] = {}
    if shutil.which("valgrind"):
        with tempfile.TemporaryDirectory(prefix="workbench-bench-") as cache:
            for name in (n for n in names if n != "start"):
                found[name] = round(host_per_guest(name, cache), 2)
                progress(f"{name}: {found[name]} host instructions a guest instruction")
    return found

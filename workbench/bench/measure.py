"""Interleaved measurement of whole processes.

Every round runs each contender once, so a slow minute of the machine hurts all of them. Figures are
medians; the spread is the distance between the quartiles. Only ratios mean anything.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from workbench.errors import WorkbenchError

TIMEOUT_S = 600.0
#: Of the machines that run bare-metal kernels.
MEMORY = "128M"
_POLL_S = 0.001
_STEPS = re.compile(rb"\b([0-9][0-9_]*) steps")


class BenchError(WorkbenchError):
    """A contender did not do its work, so there is nothing to compare."""


@dataclass(frozen=True)
class Contender:
    """One way to do a benchmark's work.

    Args:
        name: what the table calls it.
        command: the process.
        expect: text that its output must hold, or the run did not do the work.
    """

    name: str
    command: tuple[str, ...]
    expect: bytes


@dataclass(frozen=True)
class Sample:
    """One run: seconds of wall clock and of CPU, bytes of peak memory, and the steps it says it took (or 0)."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    steps: int


@dataclass
class Figures:
    """The runs of one contender."""

    samples: list[Sample] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return medians, the wall times' spread (interquartile range over the median), MIPS by wall and CPU time."""
        walls = [s.wall_s for s in self.samples]
        wall = statistics.median(walls)
        cpu = statistics.median(s.cpu_s for s in self.samples)
        quartiles = statistics.quantiles(walls, n=4) if len(walls) > 1 else [wall, wall, wall]
        steps = statistics.median(s.steps for s in self.samples)
        return {
            "wall_s": round(wall, 3),
            "cpu_s": round(cpu, 3),
            "spread": round((quartiles[2] - quartiles[0]) / wall, 3) if wall else 0.0,
            "peak_mib": round(statistics.median(s.peak_bytes for s in self.samples) / (1 << 20)),
            "mips": round(steps / wall / 1e6) if wall else 0,
            "cpu_mips": round(steps / cpu / 1e6) if cpu else 0,
            "steps": round(steps),
            "rounds": len(walls),
        }


def environment(cache: str) -> dict[str, str]:
    """Return the contenders' environment: Python keeps its byte code, as an installed one does, in ``cache``."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": cache}


def run_once(contender: Contender, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Sample:
    """Run a contender.

    Raises:
        BenchError: it failed, did not print what it must, or took longer than ten minutes.
    """
    with tempfile.TemporaryFile() as out:
        start = time.monotonic()
        process = subprocess.Popen(
            contender.command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
        )
        pid = 0
        while not pid:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if not pid and time.monotonic() - start > TIMEOUT_S:
                process.kill()
                process.wait()
                raise BenchError(f"{contender.name} took longer than {TIMEOUT_S:.0f} s")
            if not pid:
                time.sleep(_POLL_S)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode or contender.expect not in text:
        tail = text[-200:].decode(errors="replace").replace("\n", " | ")
        raise BenchError(f"{contender.name} ended with {process.returncode} without its work done: … {tail}")
    steps = _STEPS.findall(text)
    return Sample(
        wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, int(steps[-1]) if steps else 0
    )


class KernelRun(NamedTuple):
    """One run of `workbench.bench.child`: the process that it was, steps it took, their CPU seconds."""

    process: int
    steps: int
    cpu_s: float


def kernel_runs(
    kernel: str, steps: int, settings: Sequence[str], env: Mapping[str, str], under: Sequence[str] = ()
) -> list[KernelRun]:
    """Run a kernel's first steps with each of these settings of the translator's switches, in one process' forks.

    Args:
        under: the tool that runs the process, and its options.

    Raises:
        BenchError: a run failed.
    """
    done = subprocess.run(
        [*under, sys.executable, "-m", "workbench.bench.child", kernel, str(steps), *settings],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=env,
        timeout=TIMEOUT_S,
        check=False,
    )
    runs = [KernelRun(int(p), int(n), float(s)) for p, n, s in map(str.split, done.stdout.splitlines())]
    if done.returncode or len(runs) != len(settings):
        tail = done.stderr[-300:].replace("\n", " | ")
        raise BenchError(f"kernel {kernel} ended with {done.returncode} without its work done: … {tail}")
    return runs


def interleave(
    contenders: Sequence[Contender], rounds: int, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Figures]:
    """Run every contender ``rounds`` times, in turn, after one run that does not count; return the figures."""
    figures = {c.name: Figures() for c in contenders}
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as cache:
        env = environment(cache)
        run_once(contenders[0], env)
        for i in range(rounds):
            for contender in contenders:
                sample = run_once(contender, env)
                progress(f"round {i + 1}/{rounds}: {contender.name} {sample.wall_s:.2f} s")
                figures[contender.name].samples.append(sample)
    return figures

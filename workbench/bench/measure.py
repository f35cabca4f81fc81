"""Interleaved measurement of whole processes.

Every round runs each contender once, so a slow minute of the machine hurts all of them. Figures are
medians; the spread is the distance between the quartiles. Only ratios mean anything.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import WorkbenchError

TIMEOUT_S = 600.0


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


@dataclass
class Figures:
    """What the runs of one contender took: seconds of wall clock and CPU, bytes of peak memory."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return medians and the spread (interquartile range over the median) of the wall times."""
        wall = statistics.median(self.wall_s)
        quartiles = statistics.quantiles(self.wall_s, n=4) if len(self.wall_s) > 1 else [wall, wall, wall]
        return {
            "wall_s": round(wall, 3),
            "cpu_s": round(statistics.median(self.cpu_s), 3),
            "spread": round((quartiles[2] - quartiles[0]) / wall, 3) if wall else 0.0,
            "peak_mib": round(statistics.median(self.peak_bytes) / (1 << 20)),
            "rounds": len(self.wall_s),
        }


def run_once(contender: Contender) -> tuple[float, float, int]:
    """Run a contender; return wall seconds, CPU seconds and peak memory in bytes.

    Raises:
        BenchError: it failed, did not print what it must, or took longer than ten minutes.
    """
    with tempfile.TemporaryFile() as out:
        start = time.monotonic()
        process = subprocess.Popen(
            contender.command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        pid = 0
        while not pid:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if not pid and time.monotonic() - start > TIMEOUT_S:
                process.kill()
                raise BenchError(f"{contender.name} took longer than {TIMEOUT_S:.0f} s")
            if not pid:
                time.sleep(0.005)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode or contender.expect not in text:
        tail = text[-200:].decode(errors="replace").replace("\n", " | ")
        raise BenchError(f"{contender.name} ended with {process.returncode} without its work done: … {tail}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def interleave(
    contenders: Sequence[Contender], rounds: int, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Figures]:
    """Run every contender ``rounds`` times, in turn; return the figures by name."""
    figures = {c.name: Figures() for c in contenders}
    for i in range(rounds):
        for contender in contenders:
            wall, cpu, peak = run_once(contender)
            progress(f"round {i + 1}/{rounds}: {contender.name} {wall:.2f} s")
            figures[contender.name].wall_s.append(wall)
            figures[contender.name].cpu_s.append(cpu)
            figures[contender.name].peak_bytes.append(peak)
    return figures

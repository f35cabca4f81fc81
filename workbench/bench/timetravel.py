"""Time travel on a Linux boot: the figures that a debugger's user waits for, against what each may cost."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from traces.reader import TraceReader
from workbench.bench.boot import BOOT, MEMORY
from workbench.bench.measure import BenchError
from workbench.replay.replayer import Replayer
from workbench.session import Session

_GOTOS = 60
_BACK = 100_000_000
#: Kernel variables that a boot writes once, the first that the kernel has is taken.
_ONCE = ("saved_command_line", "boot_command_line")
_SEED = 1


class Took(NamedTuple):
    """What something took: seconds of wall clock, and of CPU in all threads, which a busy host does not stretch."""

    wall: float
    cpu: float

    def per(self, other: Took) -> Took:
        """Return how many times the other's time this is."""
        return Took(self.wall / other.wall, self.cpu / other.cpu)


class Figure(NamedTuple):
    """A figure: its value by the clock, the same by CPU time where it is a time, what it may be at most, its unit."""

    value: float
    cpu: float | None
    at_most: float
    unit: str

    @classmethod
    def of(cls, took: Took, at_most: float, unit: str = "s") -> Figure:
        return cls(took.wall, took.cpu, at_most, unit)


Figures = dict[str, Figure]


def run(work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Record Debian's boot and measure moving in it.

    Returns:
        ``figures``: for each, its value, what it may be at most, and the unit.

    Raises:
        BenchError: the guest is not here.
    """
    trace = work / "timetravel.trace"
    progress("timetravel: recording")
    record_boot(trace)
    progress("timetravel: one full replay")
    full = min(_full_replay(trace) for _ in range(2))
    figures: Figures = {}
    with TraceReader.open(trace) as reader:
        steps = reader.final_icount
        payload = sum(len(row.payload) for row in reader.inputs())
        sizes = reader.sql("SELECT coalesce(sum(stored_bytes), 0) FROM checkpoint_list")[1]
        figures["checkpoints in the file, MiB"] = Figure(sizes[0][0] / (1 << 20), None, 256, "MiB")
        figures["inputs, bytes a 1,000 steps"] = Figure(payload * 1000 / steps, None, 2, "bytes")
    progress("timetravel: opening")
    began = _now()
    session = Session.open(trace)
    with session:
        session.goto("end")
        figures["open and stand at the end"] = Figure.of(_since(began), 1)
        figures |= _steps(session)
        progress("timetravel: goto")
        figures |= _gotos(session)
        progress("timetravel: searches")
        figures |= _searches(trace, session, full)
    shown = {
        name: {
            "value": round(f.value, 4),
            "by_cpu": None if f.cpu is None else round(f.cpu, 4),
            "at_most": f.at_most,
            "unit": f.unit,
            "met": f.value <= f.at_most,
        }
        for name, f in figures.items()
    }
    return {"benchmark": "timetravel", "steps": steps, "replay_s": round(full.wall, 3), "figures": shown}


def record_boot(trace: Path) -> None:
    """Record Debian's boot to poweroff. Raises BenchError: the guest is not here, or does not boot."""
    import subprocess

    from workbench.guests.fetch import cached

    guest = cached("debian-riscv64")
    if guest is None:
        raise BenchError("bench timetravel needs Debian's guest: workbench guest fetch debian-riscv64")
    files = ("--kernel", str(guest.folder / "Image"), "--initrd", str(guest.folder / "initrd.cpio.gz"))
    command = [sys.executable, "-m", "workbench", "record", "-o", str(trace), *files]
    done = subprocess.run(
        [*command, "--append", BOOT, "-m", MEMORY, "--no-input"], capture_output=True, check=False
    )
    if done.returncode:
        raise BenchError(f"the recording failed: {done.stderr.decode(errors='replace').splitlines()[-1:]}")


def _now() -> Took:
    return Took(time.perf_counter(), time.process_time())


def _since(began: Took) -> Took:
    now = _now()
    return Took(now.wall - began.wall, now.cpu - began.cpu)


def _timed(motion: Callable[[], object]) -> Took:
    began = _now()
    motion()
    return _since(began)


def _full_replay(trace: Path) -> Took:
    with TraceReader.open(trace) as reader, Replayer(reader) as replayer:
        return _timed(lambda: replayer.run_to(reader.final_icount))


def _steps(session: Session) -> Figures:
    session.goto(session.end * 7 // 10)
    first = _timed(session.reverse_stepi)
    again = sorted(_timed(session.reverse_stepi) for _ in range(100))
    whole = Took(sum(took.wall for took in again), sum(took.cpu for took in again))
    return {
        "rsi, first at a new place": Figure.of(first, 0.3),
        "rsi, repeated (median)": Figure.of(again[50], 0.01),
        "rsi, a hundred in a row": Figure.of(whole, 3),
    }


def _gotos(session: Session) -> Figures:
    choose = random.Random(_SEED)
    times = sorted(_timed(lambda: session.goto(choose.randrange(session.end))) for _ in range(_GOTOS))
    return {
        "goto anywhere, p50": Figure.of(times[len(times) // 2], 1),
        "goto anywhere, p99": Figure.of(times[-1], 1),
    }


def _plain_replay(trace: Path, low: int) -> Took:
    """Return what it takes to replay from a position to the end, the machine being there already."""
    with TraceReader.open(trace) as reader, Replayer(reader) as replayer:
        replayer.goto(low)
        return _timed(lambda: replayer.run_to(reader.final_icount))


def _searches(trace: Path, session: Session, full: Took) -> Figures:
    figures: Figures = {}
    # a function whose last call lies 10^8 steps back or more: found by where the guest was there
    session.goto(max(0, session.end - _BACK))
    pc = session.reg("pc")
    here = session.cursor
    point = session.add_breakpoint(pc, condition=f"$icount <= {here}")
    session.goto("end")
    took = _timed(session.reverse_cont)
    plain = _plain_replay(trace, session.cursor)
    figures["rc to a breakpoint 10^8 steps back, in replays of them"] = Figure.of(
        took.per(plain), 1.5, "times"
    )
    session.delete_stopper(point.number)
    address = next((a for name in _ONCE if (a := session.symbols.lookup(name)) is not None), None)
    if address is not None:
        watch = session.add_watchpoint(address, 8)
        session.goto("end")
        took = _timed(session.reverse_cont)
        figures["rc to the only write of a word, in full replays"] = Figure.of(took.per(full), 1.3, "times")
        session.goto("end")
        figures["the same once more"] = Figure.of(_timed(session.reverse_cont), 0.1)
        session.delete_stopper(watch.number)
    return figures

"""Time travel on a Linux boot: the figures that a debugger's user waits for, against what each may cost."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    replay_s = min(_full_replay(trace) for _ in range(2))
    figures: dict[str, tuple[float, float, str]] = {}
    with TraceReader.open(trace) as reader:
        steps = reader.final_icount
        payload = sum(len(row.payload) for row in reader.inputs())
        sizes = reader.sql("SELECT coalesce(sum(stored_bytes), 0) FROM checkpoint_list")[1]
        figures["checkpoints in the file, MiB"] = (sizes[0][0] / (1 << 20), 256, "MiB")
        figures["inputs, bytes a 1,000 steps"] = (payload * 1000 / steps, 2, "bytes")
    progress("timetravel: opening")
    began = time.perf_counter()
    session = Session.open(trace)
    with session:
        session.goto("end")
        figures["open and stand at the end"] = (time.perf_counter() - began, 1, "s")
        figures |= _steps(session)
        progress("timetravel: goto")
        figures |= _gotos(session)
        progress("timetravel: searches")
        figures |= _searches(trace, session, replay_s)
    shown = {
        name: {"value": round(value, 4), "at_most": limit, "unit": unit, "met": value <= limit}
        for name, (value, limit, unit) in figures.items()
    }
    return {"benchmark": "timetravel", "steps": steps, "replay_s": round(replay_s, 3), "figures": shown}


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


def _full_replay(trace: Path) -> float:
    with TraceReader.open(trace) as reader, Replayer(reader) as replayer:
        began = time.perf_counter()
        replayer.run_to(reader.final_icount)
        return time.perf_counter() - began


def _timed(motion: Callable[[], object]) -> float:
    began = time.perf_counter()
    motion()
    return time.perf_counter() - began


def _steps(session: Session) -> dict[str, tuple[float, float, str]]:
    session.goto(session.end * 7 // 10)
    first = _timed(session.reverse_stepi)
    again = sorted(_timed(session.reverse_stepi) for _ in range(100))
    return {
        "rsi, first at a new place": (first, 0.3, "s"),
        "rsi, repeated (median)": (again[50], 0.01, "s"),
        "rsi, a hundred in a row": (sum(again), 3, "s"),
    }


def _gotos(session: Session) -> dict[str, tuple[float, float, str]]:
    choose = random.Random(_SEED)
    times = sorted(_timed(lambda: session.goto(choose.randrange(session.end))) for _ in range(_GOTOS))
    return {
        "goto anywhere, p50": (times[len(times) // 2], 1, "s"),
        "goto anywhere, p99": (times[-1], 1, "s"),
    }


def _plain_replay(trace: Path, low: int) -> float:
    """Return what it takes to replay from a position to the end, the machine being there already."""
    with TraceReader.open(trace) as reader, Replayer(reader) as replayer:
        replayer.goto(low)
        return _timed(lambda: replayer.run_to(reader.final_icount))


def _searches(trace: Path, session: Session, replay_s: float) -> dict[str, tuple[float, float, str]]:
    figures: dict[str, tuple[float, float, str]] = {}
    # a function whose last call lies 10^8 steps back or more: found by where the guest was there
    session.goto(max(0, session.end - _BACK))
    pc = session.reg("pc")
    here = session.cursor
    point = session.add_breakpoint(pc, condition=f"$icount <= {here}")
    session.goto("end")
    took = _timed(session.reverse_cont)
    plain = _plain_replay(trace, session.cursor)
    figures["rc to a breakpoint 10^8 steps back, in replays of them"] = (took / plain, 1.5, "times")
    session.delete_stopper(point.number)
    address = next((a for name in _ONCE if (a := session.symbols.lookup(name)) is not None), None)
    if address is not None:
        watch = session.add_watchpoint(address, 8)
        session.goto("end")
        took = _timed(session.reverse_cont)
        figures["rc to the only write of a word, in full replays"] = (took / replay_s, 1.3, "times")
        session.goto("end")
        figures["the same once more"] = (_timed(session.reverse_cont), 0.1, "s")
        session.delete_stopper(watch.number)
    return figures

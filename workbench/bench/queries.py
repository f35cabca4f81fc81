"""What questions about a Linux boot cost, against a plain replay of it in the same run, in CPU time."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from traces.lazy import Want
from traces.queries.tasks import want_calls
from traces.reader import TraceReader
from workbench.bench.timetravel import record_boot
from workbench.kernel.symbols import symbols_in_memory
from workbench.query.api import Trace
from workbench.query.flamegraph import svg
from workbench.query.profile import folded
from workbench.query.report import html
from workbench.replay.replayer import Replayer

#: A variable that is written all along, and one that is written early only; a function that is called often.
_VARIABLE, _FUNCTION = "jiffies", "__kmalloc_cache_noprof"
_ROUNDS = 2

Figures = dict[str, tuple[float, float, str]]


def run(work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Record Debian's boot and ask questions about it, each of a trace that has not been asked anything before.

    Returns:
        ``figures``: for each, its value, what it may be at most, and the unit; ``rows``: of all calls, and each second.

    Raises:
        BenchError: the guest is not here.
    """
    trace = work / "queries.trace"
    progress("queries: recording")
    record_boot(trace)
    replays = [_cpu(lambda: _replay(trace)) for _ in range(_ROUNDS)]
    figures: Figures = {}
    for question in (_last_write, _calls_of_one, _traps_and_syscalls, _at_a_position):
        progress(f"queries: {question.__name__.strip('_').replace('_', ' ')}")
        with _fresh(trace) as t:
            figures |= question(t, min(replays))
    progress("queries: stacks and report")
    with _fresh(trace) as t:
        figures |= _whole_run(t, min(replays))
    # the least of each, as one sample of a ratio says as much of the host as of the query
    fills = []
    for number in range(_ROUNDS):
        progress(f"queries: all calls, {number + 1} of {_ROUNDS}")
        replays.append(_cpu(lambda: _replay(trace)))
        with _fresh(trace) as t:
            fills.append(_all_calls(t))
    took, rows = min(fills)
    figures["all calls, in replays"] = (took / min(replays), 4, "times")
    figures["rows of calls, each second"] = (rows / took, 300_000, "rows/s, at least")
    return {
        "benchmark": "queries",
        "replay_s": round(min(replays), 3),
        "rows": rows,
        "figures": {
            name: {
                "value": round(value, 4),
                "at_most": limit,
                "unit": unit,
                "met": value >= limit if "at least" in unit else value <= limit,
            }
            for name, (value, limit, unit) in figures.items()
        },
    }


def _cpu(work: Callable[[], object]) -> float:
    """Return the CPU seconds that something took, in this process and those that it waited for."""

    def spent() -> float:
        both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in both)

    began = spent()
    work()
    return spent() - began


def _replay(trace: Path) -> None:
    with TraceReader.open(trace) as reader, Replayer(reader) as replayer:
        replayer.run_to(reader.final_icount)


def _fresh(trace: Path) -> Trace:
    copy = trace.with_name("asked.trace")
    shutil.copy(trace, copy)
    return Trace.open(copy)


def _last_write(t: Trace, replay_s: float) -> Figures:
    t.goto("end")
    address = t.sym(_VARIABLE)
    first = _cpu(lambda: t.last_write(address))
    return {
        "last-write, first time, in replays": (first / replay_s, 1.3, "times"),
        "last-write, second time": (_cpu(lambda: t.last_write(address)), 0.05, "s"),
    }


def _calls_of_one(t: Trace, replay_s: float) -> Figures:
    t.sym(_FUNCTION)
    return {
        f"calls of one function ({_FUNCTION}), in replays": (
            _cpu(lambda: t.calls(_FUNCTION).count()) / replay_s, 1.5, "times",
        )
    }  # fmt: skip


def _traps_and_syscalls(t: Trace, replay_s: float) -> Figures:
    t.sym(_FUNCTION)

    def both() -> None:
        for table in ("syscalls", "traps"):
            t.filler.ensure(Want(table, follows=True))

    return {"all traps and system calls, in replays": (_cpu(both) / replay_s, 1.5, "times")}


def _all_calls(t: Trace) -> tuple[float, int]:
    """Return the CPU seconds that all calls took, and how many they are."""
    t.goto("end")
    rows = 0

    def fill() -> None:
        nonlocal rows
        rows = t.filler.ensure(want_calls()).rows

    return _cpu(fill), rows


def _whole_run(t: Trace, replay_s: float) -> Figures:
    t.sym(_FUNCTION)
    return {
        "stacks of a whole run, in replays": (
            _cpu(lambda: svg(folded(t, 0, t.end))) / replay_s, 3, "times",
        ),
        "report of a whole run": (_cpu(lambda: html(t)), 5, "s"),
    }  # fmt: skip


def _at_a_position(t: Trace, replay_s: float) -> Figures:
    moment = t.at("90%")
    found = _cpu(lambda: symbols_in_memory(t.board.engine))
    moment.ps()  # types are found once for a trace
    figures: Figures = {
        f"{name} at a position": (_cpu(getattr(t.at("95%"), name)), 0.2, "s")
        for name in ("dmesg", "ps", "bt")
    }
    return figures | {"symbol table found in memory": (found, 2, "s")}

"""Export to the JSON that Perfetto and Chrome's tracing page read: tasks, traps and system calls as tracks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .api import Trace

_TASKS, _TRAPS, _CONSOLE = 1, 2, 4
_SYSCALLS: Final = 3
_CAUSES: Final = {
    0: "fetch misaligned", 1: "fetch fault", 2: "illegal instruction", 3: "breakpoint", 4: "load misaligned",
    5: "load fault", 6: "store misaligned", 7: "store fault", 8: "ecall from U", 9: "ecall from S", 11: "ecall from M",
    12: "fetch page fault", 13: "load page fault", 15: "store page fault",
}  # fmt: skip
_INTERRUPTS: Final = {1: "software", 3: "software", 5: "timer", 7: "timer", 9: "external", 11: "external"}


def export(trace: Trace, low: int = 0, high: int | None = None) -> dict[str, Any]:
    """Return a document with the harts' tasks, traps, system calls and console of a stretch; times are virtual.

    Raises:
        Diverged, TraceError, QueryRefused.
    """
    end = trace.end if high is None else high
    events = [*_names(), *_tasks(trace, low, end), *_traps(trace, low, end), *_syscalls(trace, low, end)]
    for row in trace.trace.console(low, end):
        text = row.data.decode("utf-8", "replace").strip()
        events.append({**_event(trace, text, _CONSOLE, 0, row.icount), "ph": "i", "s": "p"})
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"positions": f"{low}..{end}"}}


def _names() -> Iterator[dict[str, Any]]:
    for pid, name in (
        (_TASKS, "tasks by hart"),
        (_TRAPS, "traps by hart"),
        (_SYSCALLS, "system calls"),
        (_CONSOLE, "console"),
    ):
        yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}


def _event(trace: Trace, name: str, pid: int, tid: int, begin: int, end: int | None = None) -> dict[str, Any]:
    start = trace.asker.vtime(begin) / 1000
    event: dict[str, Any] = {
        "name": name,
        "ph": "X",
        "pid": pid,
        "tid": tid,
        "ts": start,
        "args": {"position": begin},
    }
    if end is not None:
        event["dur"] = max(trace.asker.vtime(end) / 1000 - start, 0)
    return event


def _tasks(trace: Trace, low: int, high: int) -> Iterator[dict[str, Any]]:
    if trace.symbols.lookup("__switch_to") is None:
        return
    running: dict[int, tuple[int, str]] = {}
    for row in trace.switches.between(low, high):
        name = f"{row.prev_comm}/{row.prev_pid}"
        began = running.get(row.hart, (low, name))[0]
        yield _event(trace, name, _TASKS, row.hart, began, row.icount)
        running[row.hart] = (row.icount, f"{row.next_comm}/{row.next_pid}")
    for hart, (began, name) in running.items():
        yield _event(trace, name, _TASKS, hart, began, high)


def _traps(trace: Trace, low: int, high: int) -> Iterator[dict[str, Any]]:
    for row in trace.traps.between(low, high):
        known = _INTERRUPTS if row.is_interrupt else _CAUSES
        name = known.get(row.cause, f"cause {row.cause}") + (" interrupt" if row.is_interrupt else "")
        yield _event(
            trace, name, _TRAPS, row.hart, row.icount, high if row.ret_icount is None else row.ret_icount
        )


def _syscalls(trace: Trace, low: int, high: int) -> Iterator[dict[str, Any]]:
    for row in trace.syscalls.between(low, high):
        event = _event(
            trace,
            row.name,
            _SYSCALLS,
            row.pid,
            row.icount,
            high if row.ret_icount is None else row.ret_icount,
        )
        event["args"] |= {"comm": row.comm, "args": row.args, "ret": row.ret}
        yield event

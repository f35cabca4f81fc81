"""Tables of what programs did: calls, system calls, task switches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import TraceError
from ..lazy import Want
from .base import (
    A0,
    A7,
    CONTEXT,
    HART,
    ICOUNT,
    OP,
    PROBE,
    A,
    B,
    Names,
    ProbeNeed,
    Record,
    State,
    Stretch,
    call_query,
    query,
    signed,
)

_USER = 0
_ECALL_U = 8
_ECALL_BYTES = 4
#: Calls that do not go on behind themselves. Spec: Linux, include/uapi/asm-generic/unistd.h
_EXITS = (93, 94)
_ANYWHERE, _HANDLED = 1, 3  # no address of an instruction
_ELSEWHERE = {139: _HANDLED, 221: _ANYWHERE, 281: _ANYWHERE}  # rt_sigreturn, execve, execveat
#: Calls that a task may be in, each in a signal's handler that interrupted the one before.
_NESTED = 64


def _calls(limits: Mapping[str, Any]) -> list[ProbeNeed]:
    low, high = limits.get("target", (0, (1 << 64) - 1))
    return [ProbeNeed("CALL", low, high), ProbeNeed("RET", paired="target" in limits)]


@call_query(
    "calls",
    "icount hart depth pc target symbol ret_icount a0 a1 a2 a3 a4 a5 a6 a7 ret",
    _calls,
    complete="UPDATE calls SET ret_icount = ?, ret = ? WHERE icount = ?",
    per_step=0.01,
)
def calls() -> Mapping[str, str]:
    """Calls, each with its return where it came.

    A return belongs to the last open call with its target as return address and its stack pointer; in user mode, of
    its task. So switches of tasks and jumps out of many frames do no harm. ``depth`` counts the open calls of the
    same stack with higher stack pointers, of those that the fill records.
    """
    return {"symbol": "target"}


def want_calls(target: int | None = None) -> Want:
    """Return what stands for the calls of a function by its address, or for all calls."""
    if target is None:
        return Want("calls", follows=True)
    return Want("calls", (("target", [target, target]),), f"target = {signed(target)}", follows=True)


def _syscalls(limits: Mapping[str, Any]) -> list[ProbeNeed]:
    return [ProbeNeed("TRAP", _ECALL_U, _ECALL_U), ProbeNeed("XRET")]


@query(
    "syscalls",
    "icount hart pid comm nr name args ret ret_icount",
    _syscalls,
    complete="UPDATE syscalls SET ret = ?, ret_icount = ? WHERE icount = ?",
    per_step=1e-4,
    names="tasks texts",
)
def syscalls(records: Iterator[Record], state: State, names: Names) -> Stretch:
    """System calls of user mode, each with its result: a0 when the task goes on behind the call.

    Where a signal's handler comes first, that is when the handler has ended. A call that the kernel restarts has a row
    for each start, and a result in the last.
    """
    rows: dict[int, list[Any]] = {}
    late: list[tuple[int | None, int, int]] = []
    returns = _Returns(state)
    for r in records:
        key = str(r[CONTEXT])
        if r[PROBE] == 0:
            if r[A] != _ECALL_U:
                continue  # recorded for another table beside this one
            number = r[A7]
            args = names.syscall_args(r[ICOUNT], number, r[A0 : A0 + 6])
            pid, comm = names.task(r[CONTEXT], r[ICOUNT])
            rows[r[ICOUNT]] = [r[ICOUNT], r[HART], pid, comm, number, names.syscall(number), args, None, None]
            returns.begin(key, r[ICOUNT], number, r[B] + _ECALL_BYTES)
        elif r[OP] == _USER:
            for began, result in returns.end(key, r[A], r[A0]):
                if began in rows:
                    rows[began][7:] = [result, r[ICOUNT]]
                else:
                    late.append((result, r[ICOUNT], began))
    return Stretch([tuple(row) for row in rows.values()], late)


class _Returns:
    """Which calls a task has begun, in a state that is JSON: ``open`` has (position, where it goes on) by task.

    ``inside`` has the tasks whose next return to user mode ends a call; all other returns are of interrupts and faults.
    """

    def __init__(self, state: State) -> None:
        self._open: dict[str, list[list[int]]] = state.setdefault("open", {})
        self._inside: dict[str, int] = state.setdefault("inside", {})
        sound = isinstance(self._open, dict) and isinstance(self._inside, dict)
        if not sound or not all(map(_is_list_of_calls, self._open.values())):
            raise TraceError("lazy_state: damaged system calls; delete its rows and those of coverage")

    def begin(self, key: str, icount: int, number: int, behind: int) -> None:
        """Note that a call begins; ``behind`` is the address of the next instruction."""
        if number in _EXITS:
            self._open.pop(key, None)
            return
        self._inside[key] = 1
        calls = self._open.setdefault(key, [])
        calls.append([icount, _ELSEWHERE.get(number, behind)])
        del calls[:-_NESTED]

    def end(self, key: str, target: int, result: int) -> list[tuple[int, int | None]]:
        """Return the calls that end where a task goes on in user mode at ``target``: (position, result)."""
        if self._inside.pop(key, None) is None or key not in self._open:
            return []
        calls, out = self._open[key], list[tuple[int, int | None]]()
        if calls[-1][1] == _HANDLED:
            out.append((calls.pop()[0], None))
        for i in range(len(calls) - 1, -1, -1):
            icount, behind = calls[i]
            if behind in (target, _ANYWHERE):
                out.append((icount, result))
            if behind in (target, _ANYWHERE, target + _ECALL_BYTES):  # the last: it is started again
                del calls[i:]
                break
        if not calls:
            del self._open[key]
        return out


def _is_list_of_calls(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(call, list) and [type(word) for word in call] == [int, int] for call in value)
    )


def plain_args(args: Mapping[str, Any] | list[Any]) -> str:
    """Return arguments as the column has them: JSON."""
    return json.dumps(args, ensure_ascii=False)


def _switches(limits: Mapping[str, Any]) -> list[ProbeNeed]:
    return [ProbeNeed("EXEC", symbol="__switch_to")]


@query(
    "switches", "icount hart prev_pid prev_comm next_pid next_comm", _switches, per_step=1e-4, names="tasks"
)
def switches(records: Iterator[Record], state: State, names: Names) -> Stretch:
    """Switches from one task to another, at the first instruction of the kernel's ``__switch_to(prev, next)``."""
    return Stretch(
        [
            (r[ICOUNT], r[HART], *names.task(r[A0], r[ICOUNT]), *names.task(r[A0 + 1], r[ICOUNT]))
            for r in records
        ]
    )

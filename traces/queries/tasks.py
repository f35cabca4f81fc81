"""Tables of what programs did: calls, system calls, task switches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

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
    """System calls of user mode, each with its result: a0 at the task's next return to user mode."""
    rows: dict[int, list[Any]] = {}
    late: list[tuple[int, int, int]] = []
    open_calls: dict[str, int] = state.setdefault("open", {})
    for r in records:
        key = str(r[CONTEXT])
        if r[PROBE] == 0:
            if r[A] != _ECALL_U:
                continue  # recorded for another table beside this one
            number = r[A7]
            args = names.syscall_args(r[ICOUNT], number, r[A0 : A0 + 6])
            pid, comm = names.task(r[CONTEXT], r[ICOUNT])
            rows[r[ICOUNT]] = [r[ICOUNT], r[HART], pid, comm, number, names.syscall(number), args, None, None]
            open_calls[key] = r[ICOUNT]
        elif r[OP] == _USER and key in open_calls:
            began = open_calls.pop(key)
            if began in rows:
                rows[began][7:] = [r[A0], r[ICOUNT]]
            else:
                late.append((r[A0], r[ICOUNT], began))
    return Stretch([tuple(row) for row in rows.values()], late)


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

"""System calls and their results: whatever comes between a call and where its task goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from traces.errors import TraceError
from traces.queries.base import Record
from traces.queries.tasks import syscalls

TASK = -0x1000
READ, KILL, SIGRETURN, EXIT_GROUP, EXECVE = 63, 129, 139, 94, 221
USER, SUPERVISOR, ECALL, TIMER = 0, 1, 8, (1 << 63 | 5) - (1 << 64)


class Names:
    """Names of nothing."""

    def task(self, context: int, icount: int) -> tuple[int, str]:
        return 1, "init"

    def syscall(self, number: int) -> str:
        return str(number)

    def syscall_args(self, icount: int, number: int, args: Sequence[int]) -> str:
        return "[]"


def call(icount: int, number: int, pc: int) -> Record:
    return icount, pc, 0, 5, 0, 0, SUPERVISOR, USER, ECALL, pc, 0, USER, TASK, 9, 0, 0, 0, 0, 0, 0, number


def back(icount: int, pc: int, a0: int, mode: int = USER) -> Record:
    return icount, 0, 1, 6, 0, 0, mode, SUPERVISOR, pc, 0, 0, SUPERVISOR, TASK, a0, 0, 0, 0, 0, 0, 0, 0


def results(records: list[Record], cut: int) -> dict[int, tuple[Any, Any]]:
    """Return result and position of the return by position of the call, with the records in two stretches."""
    names: Any = Names()
    state: dict[str, Any] = {}
    out: dict[int, tuple[Any, Any]] = {}
    for part in (records[:cut], records[cut:]):
        found = syscalls(iter(part), state, names)
        out |= {row[0]: (row[7], row[8]) for row in found.rows}
        out |= {began: (result, icount) for result, icount, began in found.completions}
        state = json.loads(json.dumps(state))
    return out


CASES = {
    "a plain call": ([call(1, READ, 0x100), back(5, 0x104, 7)], {1: (7, 5)}),
    "an interrupt before the call is none of it": (
        [back(1, 0x104, 3), call(2, READ, 0x100), back(3, 0x500, 1, SUPERVISOR), back(5, 0x104, 7)],
        {2: (7, 5)},
    ),
    # a signal to oneself: the kernel enters the handler with the signal's number in a0
    "a signal": (
        [
            call(1, KILL, 0x100), back(3, 0x800, 10), back(4, 0x808, 10),
            call(5, READ, 0x810), back(6, 0x814, 2), call(7, SIGRETURN, 0x820), back(9, 0x104, 0),
        ],
        {1: (0, 9), 5: (2, 6), 7: (None, 9)},
    ),
    "an interrupt in a handler behind the same instruction": (
        [
            call(1, KILL, 0x100), back(3, 0x800, 10), call(4, KILL, 0x100), back(5, 0x104, -1),
            back(6, 0x104, 55), call(7, SIGRETURN, 0x820), back(9, 0x104, 0),
        ],
        {1: (0, 9), 4: (-1, 5), 7: (None, 9)},
    ),
    "a call that is started again": (
        [call(1, READ, 0x100), back(3, 0x100, 9), call(4, READ, 0x100), back(6, 0x104, 5)],
        {1: (None, None), 4: (5, 6)},
    ),
    "another program": ([call(1, EXECVE, 0x100), back(4, 0x10000, 0)], {1: (0, 4)}),
    "no program": ([call(1, EXECVE, 0x100), back(4, 0x104, -2)], {1: (-2, 4)}),
    "the last call": (
        [call(1, EXIT_GROUP, 0x100), call(5, READ, 0x300), back(8, 0x304, 1)],
        {1: (None, None), 5: (1, 8)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_result_is_what_the_task_goes_on_with(case: str) -> None:
    """A call that a signal interrupted had the signal's number as its result: strace under qemu says 0."""
    records, expected = CASES[case]
    for cut in range(len(records) + 1):
        assert results(records, cut) == expected


@pytest.mark.parametrize(
    "damage", [{"open": []}, {"open": {"1": 5}}, {"open": {"1": []}}, {"open": {"1": [[1]]}}, {"inside": 0}]
)
def test_a_state_that_is_none_is_refused(damage: dict[str, Any]) -> None:
    names: Any = Names()
    with pytest.raises(TraceError, match="damaged"):
        syscalls(iter([call(1, READ, 0x100)]), damage, names)

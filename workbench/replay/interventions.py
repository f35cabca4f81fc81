"""What a debugger changes: writes to a machine as inputs of a recording, and runs that leave another one.

A write to a live recording is an input of source ``debugger``, carried out by the gate at its position before
anything is delivered there. A write to the past makes a branch: its history begins with the changed state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, Final

from machine.inputs import Input
from machine.values import valueclass

from .errors import EvalError, MemoryAccessError

if TYPE_CHECKING:
    from traces.rows import InputRow

#: The source of writes by a debugger.
DEBUGGER: Final = "debugger"
_NAME_MAX: Final = 64


def reg_write(hart: int, name: str, value: int) -> Input:
    """Return the write of a register: its name, NUL, 8 bytes of value, or as many as a larger one needs."""
    size = 8 if value < 0 else max(8, (value.bit_length() + 7) // 8)
    data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    return Input(DEBUGGER, "reg", name.encode() + b"\0" + data, hart)


def ram_write(paddr: int, data: bytes) -> Input:
    """Return the write of RAM: 8 bytes of physical address, and the contents."""
    return Input(DEBUGGER, "ram", paddr.to_bytes(8, "little") + data)


def apply_write(board: Any, item: Input) -> None:
    """Carry out a write. Raises EvalError, MemoryAccessError: it can't be, and nothing has changed."""
    if item.kind == "reg":
        name, _, value = item.payload.partition(b"\0")
        text = name[:_NAME_MAX].decode("ascii", "replace")
        try:
            board.engine.set_reg(item.hart, text, int.from_bytes(value, "little"))
        except ValueError as e:
            raise EvalError(str(e)) from None
    elif item.kind == "ram":
        try:
            board.engine.write_phys(int.from_bytes(item.payload[:8], "little"), item.payload[8:])
        except (ValueError, OverflowError) as e:
            raise MemoryAccessError(str(e)) from None
    else:
        raise EvalError(f"a debugger's write of kind {item.kind!r} is not known")


@valueclass(frozen=True, slots=True)
class Scripted:
    """An input that a branch takes over from its parent, or was given instead."""

    icount: int
    vtime_ns: int
    input: Input
    id: int = 0


@valueclass(slots=True)
class Script:
    """What a branch's gate gives before it asks the host.

    Args:
        asked: answers, in order. given: what is delivered, by position.
    """

    asked: list[Input] = field(default_factory=list)
    given: list[Scripted] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Iterable[InputRow]) -> Script:
        """Return the script that the rows of a parent make; waits are not taken over, time is the branch's own."""
        made = cls()
        for row in rows:
            item = Input(row.source, row.kind, row.payload, row.hart)
            if not row.asked:
                made.given.append(Scripted(row.icount, row.vtime_ns, item, row.id))
            elif row.kind != "warp":
                made.asked.append(item)
        return made

    def answer(self, source: str, kind: str) -> bytes | None:
        """Take the next answer to a question, or None if there is none left."""
        for index, item in enumerate(self.asked):
            if (item.source, item.kind) == (source, kind):
                return self.asked.pop(index).payload
        return None

    def due(self, icount: int, vtime_ns: int | None = None) -> list[Input]:
        """Take what is due at a position, or by its virtual time."""
        late = [
            s for s in self.given if s.icount <= icount or (vtime_ns is not None and s.vtime_ns <= vtime_ns)
        ]
        self.given = [s for s in self.given if s not in late]
        return [s.input for s in late]

    def next(self) -> Scripted | None:
        """Return what is delivered next."""
        return min(self.given, key=lambda s: s.icount, default=None)


@valueclass(frozen=True, slots=True)
class Origin:
    """Where a branch begins.

    Args:
        state: of the machine there, less RAM. pages: what of RAM is not as after reset.
        meta: rows that name the parent. script: inputs that are taken over.
        fetch: returns the parent's blobs. change: does to the machine what the branch is made for.
    """

    state: dict[str, Any]
    pages: Mapping[int, bytes]
    meta: Mapping[str, str | int]
    script: Script
    fetch: Callable[[bytes], bytes]
    change: Callable[[Any], None] = lambda board: None

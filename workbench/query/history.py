"""All values of a variable over a run, each with who wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from typing import TYPE_CHECKING, Final

from traces.queries.base import NEVER
from workbench.kernel.cexpr import evaluate
from workbench.kernel.errors import KernelError
from workbench.replay.errors import EvalError

from .errors import QueryRefused
from .rows import Row

if TYPE_CHECKING:
    from .api import Trace

_PLAIN: Final = re.compile(r"[A-Za-z_.$][\w.$]*")
_MOST: Final = 4096
_DEFAULT: Final = 8


@dataclass(frozen=True, slots=True)
class Value:
    """A value that memory had from a write on, and who wrote it.

    Args:
        icount: the step that wrote. value: of all bytes, little-endian. pc, symbol: of the store; 0 and the
            device's name where a device wrote. task: ``pid/comm``, empty where there is no Linux.
    """

    icount: int
    value: int
    pc: int
    symbol: str
    task: str
    trace: Trace

    def stack(self) -> list[str]:
        """Return where the writer was, and the calls that led there; the cursor stays where it is."""
        cursor = self.trace.cursor
        try:
            return self.trace.at(self.icount).bt()
        finally:
            self.trace.goto(cursor)


def place_of(trace: Trace, what: str | int, size: int | None) -> tuple[int, int]:
    """Return address and size of an address, a symbol or a typed expression at the cursor; as ``Trace.history``."""
    if isinstance(what, int):
        address, known = what & NEVER, _DEFAULT
    else:
        address, known = _of_text(trace, what)
    size = known if size is None else size
    if not 1 <= size <= _MOST:
        raise ValueError(f"the history of {size} bytes: of 1 to {_MOST}")
    return address, size


def _of_text(trace: Trace, text: str) -> tuple[int, int]:
    found = trace.symbols.lookup(text) if _PLAIN.fullmatch(text) else None
    try:
        kernel = trace.kernel
        value = evaluate(kernel, text, kernel.current(trace.hart))
    except KernelError:
        if found is not None:
            return found, _DEFAULT
        if _PLAIN.fullmatch(text) and "." not in text:
            raise EvalError(f"no symbol {text!r}") from None
        raise
    if value.address is None:
        raise KernelError(f"{text!r} is nowhere in memory")
    return value.address, kernel.types.size(value.type) or _DEFAULT


def history(trace: Trace, what: str | int, size: int | None = None) -> Iterator[Value]:
    """Yield the values of a variable; as ``Trace.history``."""
    address, size = place_of(trace, what, size)
    paddr = trace.physical(address)
    held = bytearray(_first(trace, paddr, size))
    stores = iter(trace.mem.writes(address, size))
    writes = merge(trace.device_writes(address, size), stores, key=lambda row: row.icount)
    for row in writes:
        shift = row.paddr - paddr if paddr is not None else row.vaddr - address
        data = _written(trace, row)
        for i, byte in enumerate(data):
            if 0 <= shift + i < size:
                held[shift + i] = byte
        value = int.from_bytes(held, "little")
        if "device" in row.values:
            yield Value(row.icount, value, 0, row.device, "", trace)
        else:
            yield Value(row.icount, value, row.pc, row.symbol, _task(trace, row), trace)


def _first(trace: Trace, paddr: int | None, size: int) -> bytes:
    """Return what memory held at the trace's begin."""
    if paddr is None:
        return bytes(size)
    cursor = trace.cursor
    try:
        trace.goto(trace.start)
        return trace.read_phys(paddr, size)
    finally:
        trace.goto(cursor)


def _written(trace: Trace, row: Row) -> bytes:
    if row.size <= 8:
        return int(row.value & NEVER).to_bytes(8, "little")[: row.size]
    cursor = trace.cursor
    try:
        trace.goto(row.icount + 1)
        return trace.read_phys(row.paddr, row.size)
    finally:
        trace.goto(cursor)


def _task(trace: Trace, row: Row) -> str:
    if trace.symbols.lookup("__switch_to") is None:
        return ""
    try:
        return str(trace.sql("select task_at(?, ?) t", (row.icount, row.hart))[0]["t"])
    except QueryRefused:
        return ""

"""Pairs calls with returns, in C: from the records of CALL and RET probes to rows of calls (core/callpairs.h)."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from machine.tcg._core import ffi, lib
from machine.tcg.handle import Handle, whole_records

#: What a row's words are; ret_icount is -1 where no return came.
ROW: Final = tuple("icount hart depth pc target context ret_icount a0 a1 a2 a3 a4 a5 a6 a7 ret".split())
ROW_WORDS: Final = len(ROW)
#: Words of a return whose call's row was cleared before it came: ret_icount, ret, icount of the call.
RETURN_WORDS: Final = 3
_STATE_WORDS: Final = 5
#: Open calls at most; where a guest has more of them, all are forgotten, and have no return.
MAX_OPEN: Final = 1 << 20


class CallPairs(Handle):
    """Calls that wait for their returns, stack by stack. A context manager.

    Records are fed in the run's order, by whatever machines they were made. Words are signed, as SQLite has them.

    Raises:
        MemoryError: the host has none.
    """

    def __init__(self) -> None:
        super().__init__(lib.wb_callpairs_create(), lib.wb_callpairs_destroy)
        if not self._p:
            raise MemoryError("no memory for the calls that are open")

    def feed(self, records: bytes | memoryview) -> None:
        """Take records: of the calls in them come rows, and returns of calls whose rows were cleared.

        Raises:
            ValueError: the bytes are not whole records. MemoryError: the host has none; close this object then.
        """
        data, count = whole_records(records)
        if lib.wb_callpairs_feed(self._p, data, count):
            raise MemoryError("no memory for the calls of this stretch")

    def found(self) -> tuple[memoryview, memoryview]:
        """Return the rows and the returns since ``clear``.

        Returns:
            two views of words, ROW_WORDS and RETURN_WORDS for each; they are valid until the next ``feed``.
        """
        n = ffi.new("uint32_t *")
        rows = _words(lib.wb_callpairs_rows(self._p, n), n[0] * ROW_WORDS)
        return rows, _words(lib.wb_callpairs_returns(self._p, n), n[0] * RETURN_WORDS)

    def clear(self) -> None:
        """Forget the rows and returns that were found, not what is open."""
        lib.wb_callpairs_clear(self._p)

    def save(self) -> list[int]:
        """Return what is open, for ``load``."""
        out = ffi.new("uint64_t[]", max(1, lib.wb_callpairs_open(self._p) * _STATE_WORDS))
        lib.wb_callpairs_save(self._p, out)
        return list(_words(out, lib.wb_callpairs_open(self._p) * _STATE_WORDS))

    def load(self, state: Sequence[int]) -> None:
        """Set what is open. Raises ValueError: it is nothing that ``save`` returned."""
        try:
            words = array("q", state)
        except (TypeError, OverflowError):
            raise ValueError("not a state of open calls: a value is not a 64-bit number") from None
        count, odd = divmod(len(words), _STATE_WORDS)
        data = ffi.from_buffer("uint64_t[]", words) if words else ffi.NULL
        if odd or count > MAX_OPEN or lib.wb_callpairs_load(self._p, data, count):
            raise ValueError(f"not a state of open calls: {len(words)} words")


def _words(data: object, count: int) -> memoryview:
    return memoryview(ffi.buffer(data, count * 8) if count else b"").cast("q")

"""Pages of RAM as they were at a position, read while the guest runs on: a wrapper over ``core/snapshot.h``."""

from __future__ import annotations

from array import array
from typing import Any, Final

from machine.tcg._core import ffi, lib

from .pageset import PageSet, as_numbers

_PAGE_BYTES: Final = 4096


class PageSnapshot:
    """Some pages of a machine's RAM as they are when this is made; copied on write.

    It is made where the machine stands, and read once, by one thread, which may be another. The machine may be
    closed before that. A guest that changes more of it than is kept (32 MiB) waits until it is read or closed.

    Args:
        machine: of the C core.
        pages: of its RAM.

    Raises:
        MemoryError: the host has too little memory.

    Replay: the guest sees nothing of it.
    """

    def __init__(self, machine: Any, pages: PageSet) -> None:
        self._pages = pages.numbers()
        self._n_read = 0
        made = lib.wb_snapshot_create(machine, as_numbers(self._pages), len(self._pages))
        if made == ffi.NULL:
            raise MemoryError(f"no memory to keep {len(self._pages)} pages")
        self._snapshot = ffi.gc(made, lib.wb_snapshot_destroy)

    def read(self, out: memoryview) -> array[int]:
        """Return the next pages, ascending, as many as ``out`` has room for; their contents lie there in order."""
        n = lib.wb_snapshot_read(self._snapshot, len(out) // _PAGE_BYTES, ffi.from_buffer(out))
        first, self._n_read = self._n_read, self._n_read + n
        return self._pages[first : self._n_read]

    def hash(self) -> bytes:
        """Read what is left; return 16 bytes that depend on the pages' numbers and contents."""
        out = ffi.new("uint64_t[2]")
        lib.wb_snapshot_hash(self._snapshot, out)
        return bytes(ffi.buffer(out))

    def close(self) -> None:
        """Let go of what has not been read; nothing can be read afterwards."""
        ffi.release(self._snapshot)

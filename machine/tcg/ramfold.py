"""The digest of RAM as Python sees it: a typed wrapper over ``core/ramfold.h``."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from machine.tcg._core import ffi, lib
from machine.values import valueclass

from .engine import PAGE_SIZE
from .pageset import as_numbers

_NAME_BYTES = 32


@valueclass(frozen=True, slots=True)
class Taken:
    """The pages of a call whose contents are not what was taken last.

    Args:
        at: where they are in the pages of the call, ascending.
        names: BLAKE2b-256 of their contents, one behind the other in the same order.
    """

    at: array[int]
    names: bytes


def page_names(data: bytes | memoryview) -> bytes:
    """Return the BLAKE2b-256 of each whole page of some contents, one behind the other.

    Several pages at a time go through the host's vector unit, so it takes a third of what one hash of it all does.
    """
    n = len(data) // PAGE_SIZE
    names = ffi.new("uint8_t[]", n * _NAME_BYTES)
    lib.wb_name_pages(ffi.from_buffer(data), n, names)
    return bytes(ffi.buffer(names))


def checksum(data: bytes | memoryview) -> bytes:
    """Return 16 bytes that differ where whole pages of contents were damaged; a third of the time that names take.

    It finds accidents, not malice; what is left behind the last whole page is not looked at.
    """
    out = ffi.new("uint64_t[2]")
    lib.wb_checksum(ffi.from_buffer(data), len(data) // PAGE_SIZE, out)
    return bytes(ffi.buffer(out))


class RamFold:
    """A fold over RAM, kept from the pages that changed; what it is of: ``workbench/replay/digest.py``.

    One thread uses a fold at a time; the interpreter is free meanwhile.

    Args:
        pages: how many pages RAM has.

    Raises:
        MemoryError: the host has too little memory.
    """

    def __init__(self, pages: int) -> None:
        self.n_pages = pages
        made = lib.wb_fold_create(pages)
        if made == ffi.NULL:
            raise MemoryError(f"no memory for the digest of {pages} pages")
        self._fold = ffi.gc(made, lib.wb_fold_destroy)

    @property
    def value(self) -> int:
        """The sum."""
        out = ffi.new("uint8_t[32]")
        lib.wb_fold_value(self._fold, out)
        return int.from_bytes(ffi.buffer(out), "little")

    def take(self, pages: Sequence[int], ram: memoryview) -> Taken:
        """Take the present contents of pages of RAM.

        Args:
            pages: indexes, each once. ram: the whole of RAM.
        """
        if len(ram) != self.n_pages * PAGE_SIZE:
            raise ValueError(f"RAM of {len(ram)} bytes: expected {self.n_pages} pages")
        return self._take(pages, ram, in_place=True)

    def take_copies(self, pages: Sequence[int], copies: bytes | bytearray | memoryview) -> Taken:
        """Take contents of pages from copies that lie one behind the other in the order of ``pages``."""
        if len(copies) < len(pages) * PAGE_SIZE:
            raise ValueError(f"{len(copies)} bytes: expected {len(pages)} pages")
        return self._take(pages, copies, in_place=False)

    def take_names(self, first: int, names: bytes) -> None:
        """Take contents of pages from ``first`` on whose ``page_names`` are known."""
        n = len(names) // _NAME_BYTES
        if len(names) % _NAME_BYTES or not 0 <= first <= first + n <= self.n_pages:
            raise ValueError(f"{len(names)} bytes of names from page {first} on: there are {self.n_pages}")
        lib.wb_fold_take_names(self._fold, first, n, ffi.from_buffer(names))

    def name(self, page: int) -> bytes:
        """Return the BLAKE2b-256 of a page's contents as last taken."""
        out = ffi.new("uint8_t[32]")
        lib.wb_fold_name(self._fold, page, out)
        return bytes(ffi.buffer(out))

    def pages(self) -> list[int]:
        """Return the pages whose contents, as last taken, are not all zeros."""
        out = ffi.new("uint32_t[]", self.n_pages)
        return list(out[0 : lib.wb_fold_pages(self._fold, out)])

    def _take(self, pages: Sequence[int], data: bytes | bytearray | memoryview, in_place: bool) -> Taken:
        n = len(pages)
        if n and not 0 <= min(pages) <= max(pages) < self.n_pages:
            raise ValueError(f"pages {min(pages)}..{max(pages)}: there are {self.n_pages}")
        at, names = array("I", bytes(4 * n)), bytearray(n * _NAME_BYTES)
        changed = lib.wb_fold_take(
            self._fold,
            as_numbers(pages),
            n,
            ffi.from_buffer(data),
            in_place,
            ffi.from_buffer("uint32_t[]", at),
            ffi.from_buffer(names),
        )
        return Taken(at[:changed], bytes(names[: changed * _NAME_BYTES]))

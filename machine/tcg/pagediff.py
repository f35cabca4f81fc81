"""Pages of RAM as what differs from an image that was loaded: a typed wrapper over ``core/pagediff.c``."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from machine.tcg._core import ffi, lib

from .engine import PAGE_SIZE
from .pageset import as_numbers

#: The place of a page that is no difference, as traces have it: traces/pagesets.py.
NOWHERE: Final = (1 << 64) - 1


class LoadedImage:
    """An image as it lies in RAM after reset; most of its pages stay much as they were loaded.

    Args:
        data: the image.
        first_page: the page of RAM where it begins.
    """

    def __init__(self, data: bytes, first_page: int) -> None:
        self._data = data
        #: those of RAM that it fills
        self.pages = range(first_page, first_page + len(data) // PAGE_SIZE)

    def page(self, index: int) -> bytes:
        """Return what a page of ``pages`` holds as it was loaded."""
        at = (index - self.pages.start) * PAGE_SIZE
        return self._data[at : at + PAGE_SIZE]

    def subtract(self, pages: Sequence[int], at: Sequence[int], copies: memoryview) -> array[int]:
        """Make copies of pages into what differs from the image (XOR), where that is mostly zeros.

        Args:
            pages: of RAM, whose contents lie one behind the other in ``copies``.
            at: which of them are meant, by their place in ``pages``.
            copies: changed in place.

        Returns:
            for each of ``at`` the offset in the image that it differs from, NOWHERE where it is left as it was.
        """
        if at and (max(at) >= len(pages) or len(copies) < len(pages) * PAGE_SIZE):
            raise ValueError(f"{len(copies)} bytes for {len(pages)} pages: expected all of them")
        places = array("Q", bytes(8 * len(at)))
        lib.wb_diff_pages(
            ffi.from_buffer(copies),
            as_numbers(pages),
            as_numbers(at),
            len(at),
            ffi.from_buffer(self._data),
            self.pages.start,
            len(self.pages),
            ffi.from_buffer("uint64_t[]", places),
        )
        return places


def find_image(
    data: bytes, pages: Sequence[int], ram: memoryview, align: int = 2 << 20
) -> LoadedImage | None:
    """Find where an image lies in RAM as it is in its file, to the last byte; None if it does not.

    Args:
        data: the image; one of less than a page lies nowhere.
        pages: those of RAM that were loaded. ram: the whole of it.
        align: in bytes, what an image's place is a multiple of.
    """
    head = data[:PAGE_SIZE]
    for page in pages if len(head) == PAGE_SIZE else ():
        at = page * PAGE_SIZE
        if at % align or len(ram) < at + len(data) or ram[at : at + PAGE_SIZE] != head:
            continue
        if lib.wb_same_bytes(ffi.from_buffer(ram[at : at + len(data)]), ffi.from_buffer(data), len(data)):
            return LoadedImage(data, page)
    return None

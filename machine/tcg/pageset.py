"""Sets of RAM's pages: a typed wrapper over ``core/pageset.h``."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from machine.tcg._core import ffi, lib

_WORD_BITS = 64


def as_numbers(pages: Sequence[int]) -> Any:
    """Return numbers of pages as the core takes them. Raises OverflowError: a number of more than 32 bits."""
    return ffi.from_buffer("uint32_t[]", pages if isinstance(pages, array) else array("I", pages))


class PageSet:
    """Numbers of pages, one bit for each page of RAM; adding, removing and counting cost as many words, not objects.

    Args:
        n_pages: how many pages RAM has; both sets of an operation are of as many.
        pages: those of the set, in any order.

    Raises:
        ValueError, OverflowError: RAM has no such page.
    """

    __slots__ = ("_n_words", "n_pages", "words")

    def __init__(self, n_pages: int, pages: Iterable[int] = ()) -> None:
        self.n_pages = n_pages
        self._n_words = -(-n_pages // _WORD_BITS)
        #: the bitmap, as the core takes it
        self.words = ffi.new("uint64_t[]", self._n_words)
        if pages:
            self.update(pages)

    def __ior__(self, other: PageSet) -> PageSet:
        lib.wb_set_add(self.words, self._same(other), self._n_words)
        return self

    def __isub__(self, other: PageSet) -> PageSet:
        lib.wb_set_remove(self.words, self._same(other), self._n_words)
        return self

    def __len__(self) -> int:
        return int(lib.wb_set_count(self.words, self._n_words))

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers())

    def update(self, pages: Iterable[int]) -> None:
        """Add pages, in any order. Raises ValueError, OverflowError: RAM has no such page; none is added then."""
        numbers = pages if isinstance(pages, array) else array("I", pages)
        if numbers and max(numbers) >= self.n_pages:
            raise ValueError(f"page {max(numbers)}: there are {self.n_pages}")
        lib.wb_set_insert(self.words, as_numbers(numbers), len(numbers))

    def remove_range(self, pages: range) -> None:
        """Remove pages that lie one behind the other."""
        some = PageSet(self.n_pages)
        bits = ((1 << len(pages)) - 1) << pages.start
        ffi.memmove(some.words, bits.to_bytes(8 * self._n_words, "little"), 8 * self._n_words)
        self -= some

    def clear(self) -> None:
        """Remove all pages."""
        ffi.memmove(self.words, bytes(8 * self._n_words), 8 * self._n_words)

    def numbers(self) -> array[int]:
        """Return the pages as an array of unsigned 32-bit numbers, ascending."""
        out = array("I", bytes(4 * len(self)))
        lib.wb_set_pages(self.words, self._n_words, ffi.from_buffer("uint32_t[]", out))
        return out

    def _same(self, other: PageSet) -> Any:
        if other.n_pages != self.n_pages:
            raise ValueError(f"a set of {other.n_pages} pages, and one of {self.n_pages}")
        return other.words

"""Rows of words as pages of an SQLite table, made in C (core/rowimage.h): rows without a statement for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from machine.tcg._core import ffi, lib
from machine.tcg.handle import Handle

#: Bytes of a name at most.
NAME_MAX: Final = 1024
_WORD: Final = (1 << 64) - 1
_DONE, _UNNAMED, _DISORDER, _NO_MEMORY = range(4)


class Kind(IntEnum):
    """What a column holds: the key (the first column alone), a number, its name, or a number that may not be there."""

    KEY = 0
    INT = 1
    NAME = 2
    LATE = 3


class Column(NamedTuple):
    """A column, and what it is made of: a word of the row, or the unsigned number that some of its bytes are."""

    kind: Kind
    word: int
    first: int = 0
    bytes: int = 8


class RowImage(Handle):
    """Pages of one table, for one lot of rows after the other. A context manager.

    Args:
        declaration: an SQLite database (UTF-8) of two pages: nothing but the empty table.
        columns: of the table, in its order; the first is its INTEGER PRIMARY KEY, or it has none.
        row_words: of a row. gate: the word that is -1 where LATE columns are NULL.
        name: what a word is called, for NAME columns; asked once for each. It is cut to NAME_MAX bytes.

    Raises:
        ValueError: it is no such database, or there are no such columns. MemoryError: the host has none.
    """

    def __init__(
        self,
        declaration: bytes,
        columns: Sequence[Column],
        row_words: int,
        gate: int,
        name: Callable[[int], str],
    ) -> None:
        #: bytes of a page
        self.page_bytes = len(declaration) // 2
        #: whether rows have keys; the others are numbered from 1
        self.keyed = bool(columns) and columns[0].kind is Kind.KEY
        #: how many were written
        self.rows = 0
        self._name = name
        self._row_words = row_words
        made = lib.wb_rowimage_create(
            [tuple(column) for column in columns],
            len(columns),
            row_words,
            gate,
            declaration,
            self.page_bytes,
        )
        super().__init__(made, lib.wb_rowimage_destroy)
        if not self._p:
            raise ValueError("rows need up to 32 columns of their words, and pages that hold a row")

    def write(self, rows: memoryview) -> None:
        """Put rows in place of those before. Raises as ``append``."""
        self.clear()
        self.append(rows)

    def clear(self) -> None:
        """Forget the rows."""
        lib.wb_rowimage_clear(self._p)
        self.rows = 0

    def append(self, rows: memoryview) -> None:
        """Put rows of words behind those before, which must not have been asked for as pages.

        Raises:
            ValueError: the rows are not in the order of their keys. MemoryError: the host has none.
        """
        count, odd = divmod(len(rows), self._row_words)
        if odd:
            raise ValueError(f"{len(rows)} words are not whole rows of {self._row_words}")
        self.rows += count
        data = ffi.from_buffer("uint64_t[]", rows) if count else ffi.NULL
        taken, word = ffi.new("uint32_t *"), ffi.new("uint64_t *")
        at = 0
        while (
            end := lib.wb_rowimage_add(self._p, data + at * self._row_words, count - at, taken, word)
        ) != _DONE:
            at += taken[0]
            if end == _DISORDER:
                raise ValueError(f"the key of row {at} is not above that of the row before it")
            if end == _NO_MEMORY or not self._learn(word[0]):
                raise MemoryError("no memory for the image of this stretch's rows")

    @property
    def leaves(self) -> int:
        """How many pages the rows take."""
        return int(lib.wb_rowimage_leaves(self._p))

    def database(self) -> memoryview:
        """Return a database with the rows; it is valid until the next ``write``. Raises MemoryError."""
        size = ffi.new("uint64_t *")
        return self._pages(lib.wb_rowimage_database(self._p, size), size[0])

    def subtrees(
        self, number: int, before: tuple[int, int] | None = None
    ) -> tuple[memoryview, list[tuple[int, int]]]:
        """Return pages for a database that there is, and which of them have none above: (page, last key), in order.

        Args:
            number: what the first of the pages will be. before: a leaf that is there, and its last key, to come first.

        Raises:
            MemoryError: the host has none, or there are not two leaves.
        """
        size, tops, n = ffi.new("uint64_t *"), ffi.new("uint64_t **"), ffi.new("uint32_t *")
        page, last = before or (0, 0)
        pages = lib.wb_rowimage_subtrees(self._p, number, page, last & _WORD, size, tops, n)
        found = self._pages(pages, size[0])
        words = memoryview(ffi.buffer(tops[0], 16 * n[0])).cast("q").tolist()
        return found, list(zip(words[::2], words[1::2], strict=True))

    def _pages(self, data: object, size: int) -> memoryview:
        if not data:
            raise MemoryError("no memory for the pages of this stretch's rows")
        return memoryview(ffi.buffer(data, size))

    def _learn(self, word: int) -> bool:
        text = self._name(word).encode(errors="replace")
        if len(text) > NAME_MAX:
            text = text[:NAME_MAX].decode(errors="ignore").encode()
        return bool(lib.wb_rowimage_name(self._p, word, text, len(text)) == 0)

"""Source lines of addresses, from the DWARF line tables of an ELF file.

Spec: DWARF 5, section 6.2
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol

#: Most rows of line tables that are read.
MAX_ROWS = 20_000_000


class Row(NamedTuple):
    """Code from an address on belongs to a line; line 0 is the end of known code."""

    address: int
    file: str
    line: int
    is_stmt: bool


class Line(NamedTuple):
    """A stretch of code ``low..high-1`` that belongs to one line of a file."""

    file: str
    line: int
    low: int
    high: int

    def __str__(self) -> str:
        return f"{PurePosixPath(self.file).name}:{self.line}"


class LineSource(Protocol):
    """The line tables of a file; those of a large one are read a unit at a time, as they are asked for."""

    @property
    def large(self) -> bool:
        """Whether they are."""

    def rows(self) -> list[Row]:
        """Return all rows."""

    def rows_at(self, address: int) -> list[Row]:
        """Return the rows of the unit that an address lies in, once."""

    def rows_of(self, file: str) -> list[Row]:
        """Return the rows of the units that code of a file is in, once."""

    def source_files(self) -> list[str]:
        """Return the files that the units are made of."""


class Lines:
    """The lines of a program; empty where there is no debug information."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows: list[Row] = []
        self._starts: list[int] = []
        self._files: list[str] | None = None
        self._unread: list[LineSource] = []
        self.add(rows)

    def add_file(self, tables: LineSource) -> None:
        """Add the line tables of a file. Raises WorkbenchError: it is damaged."""
        if tables.large:
            self._unread.append(tables)
            self._files = None
        else:
            self.add(tables.rows())

    def _read_at(self, address: int) -> None:
        for tables in self._unread:
            rows = tables.rows_at(address)
            if rows:
                self.add(rows)

    def _read_of(self, file: str) -> None:
        for tables in self._unread:
            rows = tables.rows_of(file)
            if rows:
                self.add(rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows of another file or unit."""
        self._files = None
        overlapping = [row for part in _sequences(_settled(rows)) if not self._splice(part) for row in part]
        if overlapping:
            self._rows = _settled([*self._rows, *overlapping])
            self._starts = [row.address for row in self._rows]

    def drop(self, rows: Iterable[Row]) -> None:
        """Remove rows that were added."""
        gone = set(rows)
        self._files = None
        self._rows = [row for row in self._rows if row not in gone]
        self._starts = [row.address for row in self._rows]

    def _splice(self, new: list[Row]) -> bool:
        """Put rows where no others are, which takes no sorting; False, and nothing is done, if there are some."""
        rows, starts = self._rows, self._starts
        at = to = bisect_left(starts, new[0].address)
        if to < len(rows) and starts[to] == new[0].address and not rows[to].line:
            to += 1  # an end of code gives way to what begins there
        if to < len(rows) and starts[to] == new[-1].address and not new[-1].line:
            new = new[:-1]
        if (at and rows[at - 1].line) or (new and to < len(rows) and new[-1].address >= starts[to]):
            return False
        rows[at:to], starts[at:to] = new, [row.address for row in new]
        return True

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, address: int) -> Line | None:
        """Return the line that an address belongs to, with all the code around it of the same line, or None."""
        self._read_at(address)
        at = bisect_right(self._starts, address) - 1
        if at < 0 or not self._rows[at].line:
            return None
        here, first, last = self._rows[at], at, at + 1
        while first > 0 and self._same(self._rows[first - 1], here):
            first -= 1
        while last < len(self._rows) and self._same(self._rows[last], here):
            last += 1
        high = self._starts[last] if last < len(self._starts) else here.address + 1
        return Line(here.file, here.line, self._starts[first], high)

    def begins(self, address: int) -> bool:
        """Tell whether a line's code begins at an address, as a place to stop at."""
        self._read_at(address)
        at = bisect_right(self._starts, address) - 1
        return at >= 0 and self._starts[at] == address and self._rows[at].line != 0 and self._rows[at].is_stmt

    def after_prologue(self, low: int, high: int) -> int:
        """Return where the body of a function begins that has the code ``low..high-1``: at its second row."""
        self._read_at(low)
        at = bisect_right(self._starts, low)
        if at < len(self._rows) and self._starts[at] < high and self._rows[at].line:
            return self._starts[at]
        return low

    def addresses(self, file: str, line: int) -> list[int]:
        """Return where code of a line begins. ``file``: the last parts of a path are enough."""
        self._read_of(file)
        parts = PurePosixPath(file).parts
        found = [
            row.address
            for before, row in zip([None, *self._rows], self._rows, strict=False)
            if row.line == line
            and PurePosixPath(row.file).parts[-len(parts) :] == parts
            and not (before is not None and self._same(before, row))
        ]
        return sorted(found)

    def files(self) -> list[str]:
        """Return the names of the source files, in order."""
        if self._files is None:
            unread = {file for tables in self._unread for file in tables.source_files()}
            self._files = sorted({row.file for row in self._rows if row.line} | unread)
        return self._files

    def line_with_code(self, file: str, line: int) -> int | None:
        """Return a line of a file if code comes from it, else the next one that has some, or None."""
        self._read_of(file)
        later = {row.line for row in self._rows if row.file == file and row.line >= max(line, 1)}
        return min(later, default=None)

    @staticmethod
    def _same(a: Row, b: Row) -> bool:
        return a.line == b.line and a.file == b.file


def _sequences(rows: list[Row]) -> Iterator[list[Row]]:
    """Yield stretches of code, each with its end."""
    first = 0
    for at, row in enumerate(rows, 1):
        if not row.line:
            yield rows[first:at]
            first = at
    if first < len(rows):
        yield rows[first:]


def _settled(rows: Iterable[Row]) -> list[Row]:
    """Return rows by address, one for each.

    Of several the last one counts, but an end of code gives way to what begins there; a statement begins there if any
    of them begins one.
    """
    ordered = sorted(rows, key=lambda row: (row.address, row.line != 0))
    statements = {row.address for row in ordered if row.is_stmt and row.line}
    last = {row.address: row for row in ordered}
    return [
        row if row.is_stmt or at not in statements else row._replace(is_stmt=True) for at, row in last.items()
    ]

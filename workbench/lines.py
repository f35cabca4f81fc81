"""Source lines of addresses, from the DWARF line tables of an ELF file.

Spec: DWARF 5, section 6.2
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol

from workbench.errors import InputError

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


class Unread(Protocol):
    """Line tables that are read a unit at a time, as they are asked for: those of a large program."""

    def rows_at(self, address: int) -> list[Row]:
        """Return the rows of the unit that an address lies in, once."""

    def rows_of(self, file: str) -> list[Row]:
        """Return the rows of the units that are made of a file, once."""

    def source_files(self) -> list[str]:
        """Return the files that the units are made of."""


class Lines:
    """The lines of a program; empty where there is no debug information."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows: list[Row] = []
        self._starts: list[int] = []
        self._files: list[str] | None = None
        self._unread: list[Unread] = []
        self.add(rows)

    def add_unread(self, tables: Unread) -> None:
        """Take line tables that are read as they are asked for."""
        self._unread.append(tables)
        self._files = None

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
        """Add rows of another file."""
        self._files = None
        # of several rows at one address the last one counts, but an end of code gives way to what begins there;
        # a statement begins there if any of them begins one
        ordered = sorted([*self._rows, *rows], key=lambda row: (row.address, row.line != 0))
        statements = {row.address for row in ordered if row.is_stmt and row.line}
        last = {row.address: row for row in ordered}
        self._rows = [
            row if row.is_stmt or at not in statements else row._replace(is_stmt=True)
            for at, row in last.items()
        ]
        self._starts = [row.address for row in self._rows]

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

    @classmethod
    def from_elf(cls, data: bytes, where: str = "ELF file") -> Lines:
        """Return the lines of an ELF file, none where it has no line tables. Raises InputError: it is damaged."""
        return cls(elf_rows(data, where))


def elf_rows(data: bytes, where: str) -> list[Row]:
    """Return the rows of an ELF file's line tables. Raises InputError: it is damaged."""
    from elftools.common.exceptions import DWARFError, ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    out: list[Row] = []
    try:
        elf = ELFFile(io.BytesIO(data))
        if not elf.has_dwarf_info():
            return []
        dwarf = elf.get_dwarf_info()
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            if program is not None:
                out += rows_of_program(program)
            if len(out) > MAX_ROWS:
                raise InputError(f"{where}: more than {MAX_ROWS} rows of line tables")
    # pyelftools reports a damaged file by whatever it stumbles over
    except (
        DWARFError,
        ELFError,
        ConstructError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        AssertionError,
        TypeError,
        OverflowError,
    ) as error:
        raise InputError(f"{where}: damaged line tables: {error}") from None
    return out


def rows_of_program(program: object) -> Iterator[Row]:
    """Yield the rows of a unit's line-number program, as pyelftools has it."""
    header = program.header  # type: ignore[attr-defined]
    first = 0 if header["version"] >= 5 else 1
    names: dict[int, str] = {}
    for entry in program.get_entries():  # type: ignore[attr-defined]
        state = entry.state
        if state is None:
            continue
        if state.end_sequence:
            yield Row(state.address, "", 0, True)
            continue
        if state.file not in names:
            names[state.file] = _file_name(header, state.file - first)
        yield Row(state.address, names[state.file], state.line, bool(state.is_stmt))


def _file_name(header: object, index: int) -> str:
    entries = header["file_entry"]  # type: ignore[index]
    folders = header["include_directory"]  # type: ignore[index]
    if not 0 <= index < len(entries):
        return "?"
    entry = entries[index]
    folder = entry.dir_index if header["version"] >= 5 else entry.dir_index - 1  # type: ignore[index]
    parts = [folders[folder].decode("utf-8", "replace")] if 0 <= folder < len(folders) else []
    return str(PurePosixPath(*parts, entry.name.decode("utf-8", "replace")))

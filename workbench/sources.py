"""Source lines of addresses, from the DWARF line tables of a kernel's ELF; and the text of source files."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from workbench.errors import exit_code_of

MAX_ROWS = 4_000_000
MAX_FILE_BYTES = 16 << 20


class SourceLine(NamedTuple):
    """A line of a source file, as the compiler named it."""

    file: str
    line: int


class Sources:
    """The line table of one program; empty where it has none.

    Args:
        elf: the program's contents, or nothing.
        folders: where files are looked for besides the place the compiler had them at.
    """

    def __init__(self, elf: bytes = b"", folders: tuple[Path, ...] = ()) -> None:
        self.folders = list(folders)
        # at one address an end comes before a beginning; of several lines the last one counts
        found = _rows(elf) if elf[:4] == b"\x7fELF" else ()
        rows = sorted(found, key=lambda row: (row[0], row[1] is not None))
        self._starts = [row[0] for row in rows]
        self._rows = [row[1] for row in rows]
        self._texts: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, address: int) -> SourceLine | None:
        """Return the line that an address was compiled from, or None."""
        at = bisect_right(self._starts, address) - 1
        return self._rows[at] if at >= 0 else None

    def addresses(self, file: str, line: int) -> list[int]:
        """Return the first addresses of a line's code; of a file whose name ends with ``file``."""
        known = {row.line for row in self._rows if row and _same(row.file, file) and row.line >= line}
        if not known:
            return []
        nearest = min(known)
        before: SourceLine | None = None
        out = []
        for start, row in zip(self._starts, self._rows, strict=True):
            if row and row != before and row.line == nearest and _same(row.file, file):
                out.append(start)
            before = row
        return out

    def lines(self, file: str, first: int, last: int) -> list[tuple[int, str]]:
        """Return lines of a source file by number; none where the file is not found."""
        if file not in self._texts:
            self._texts[file] = self._read(file)
        text = self._texts[file]
        first = max(first, 1)
        return list(enumerate(text[first - 1 : max(last, 0)], first))

    def forget(self) -> None:
        """Look for the files anew: ``folders`` changed."""
        self._texts.clear()

    def _read(self, file: str) -> list[str]:
        """Read a file from where the compiler had it, or from a folder with ever less of its path."""
        path = Path(file)
        parts = [part for part in path.parts if part not in ("/", "..", ".")]
        found = [path] if path.is_absolute() else []
        found += [folder.joinpath(*parts[at:]) for folder in self.folders for at in range(len(parts))]
        for candidate in found:
            try:
                if candidate.is_file() and candidate.stat().st_size <= MAX_FILE_BYTES:
                    return candidate.read_text("utf-8", "replace").splitlines()
            except OSError:
                continue
        return []


def kernel_sources(trace: Any) -> Sources:
    """Return the source lines of a trace's kernel; the built-in guest's files are found in the package."""
    from machine.images import unpack
    from workbench.guests import builtin

    try:
        elf = unpack(trace.image("kernel") or b"", "kernel")
    # no image, or one that is damaged: its own errors carry an exit code
    except Exception as error:
        if exit_code_of(error) is None:
            raise
        elf = b""
    return Sources(elf, (Path.cwd(), Path(builtin.__file__).parent))


def _same(known: str, asked: str) -> bool:
    return known == asked or known.endswith("/" + asked)


def _rows(elf: bytes) -> Iterator[tuple[int, SourceLine | None]]:
    """Yield (first address, line) of every row, None behind the end of a sequence; nothing for damaged DWARF."""
    from elftools.common.exceptions import DWARFError, ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    count = 0
    try:
        file = ELFFile(io.BytesIO(elf))
        if not file.has_dwarf_info():
            return
        dwarf = file.get_dwarf_info()
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            if program is None:
                continue
            names = _file_names(program, unit)
            for entry in program.get_entries():
                state = entry.state
                if state is None:
                    continue
                count += 1
                if count > MAX_ROWS:
                    return
                name = names.get(state.file, "?")
                yield state.address, None if state.end_sequence else SourceLine(name, state.line)
    # pyelftools reports damage by whatever it stumbles over
    except (
        ELFError,
        DWARFError,
        ConstructError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
    ):
        return


def _file_names(program: Any, unit: Any) -> dict[int, str]:
    """Return the files of a line program by number, with their folders. Spec: DWARF 5, 6.2.4"""
    header = program.header
    first = 0 if header.version >= 5 else 1
    folders = [_text(folder) for folder in header["include_directory"]]
    top = unit.get_top_DIE().attributes.get("DW_AT_comp_dir")
    base = _text(top.value) if top is not None else ""
    out = {}
    for number, entry in enumerate(header["file_entry"], first):
        index = entry.dir_index - first
        folder = folders[index] if 0 <= index < len(folders) else base
        path = Path(folder) / _text(entry.name)
        out[number] = str(path if path.is_absolute() or not base else Path(base) / path)
    return out


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

"""Debug information of one ELF file, opened once and read as far as it is asked for.

Spec: DWARF 5, sections 2 and 3
"""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Container, Iterator
from functools import cached_property
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple, TypeVar

from workbench.damage import guarded
from workbench.lines import MAX_ROWS, Row

from .errors import DwarfError
from .linetables import LineProgram, LineTables

T = TypeVar("T")

#: Most functions, variables and units that are read.
MAX_ENTRIES: Final = 4_000_000
#: A file larger than this is read a unit at a time; for its global variables a kernel's BTF has the types.
LARGE_BYTES: Final = 64 << 20
#: Most bytes of line tables that are read for a file that units include.
MAX_INCLUDED_BYTES: Final = 4 << 20
#: Most units that are looked through for one name.
_MAX_SEARCHED: Final = 40
#: Most places of a name among the strings that are looked at.
_MAX_PLACES: Final = 8
_VARIABLE_TAGS: Final = ("DW_TAG_variable",)
_MAX_DEPTH: Final = 64
#: Of a unit whose entries are in another file; units that are looked at for it.
_SPLIT: Final = ("DW_AT_dwo_name", "DW_AT_GNU_dwo_name")
_FEW_UNITS: Final = 16
_NESTED: Final = ("DW_TAG_lexical_block", "DW_TAG_inlined_subroutine")


class Span(NamedTuple):
    """Code ``low..high-1`` of a unit or a function."""

    low: int
    high: int
    die: Any


class DebugFile:
    """The units, functions and variables of an ELF file.

    Args:
        data: the file. where: its name, for messages.

    Raises:
        InputError: it is no ELF file.
    """

    def __init__(self, data: bytes, where: str) -> None:
        from elftools.elf.elffile import ELFFile

        self.where = where
        elf = guarded(f"{where}: ELF file", lambda: ELFFile(io.BytesIO(data)))
        self.dwarf: Any = guarded(
            f"{where}: debug information", lambda: elf.get_dwarf_info() if elf.has_dwarf_info() else None
        )
        #: whether reading all of it would take minutes: then only the units that are asked for are read
        self.large = len(data) > LARGE_BYTES
        self._functions: dict[int, list[Span]] = {}
        self._lines_given: set[int] = set()
        self._programs_given: set[int] = set()

    @cached_property
    def split(self) -> str:
        """The first file (``.dwo``) that holds what is told of a unit here, which is not read; empty: there is none."""

        def read() -> str:
            for unit in islice(self.units(), _FEW_UNITS):
                attributes = unit.get_top_DIE().attributes
                for name in _SPLIT:
                    if name in attributes:
                        return str(attributes[name].value.decode("utf-8", "replace"))
            return ""

        return self.guard(read)

    @property
    def empty(self) -> bool:
        """Whether there is no debug information in it."""
        return self.dwarf is None

    def guard(self, read: Callable[[], T]) -> T:
        """Return what a reader of this file returns. Raises DwarfError: it stumbled over damage."""
        return guarded(f"{self.where}: debug information", read, DwarfError)

    def section(self, name: str) -> bytes:
        """Return a section of the debug information by pyelftools' name of it, empty where there is none."""
        found = getattr(self.dwarf, name, None)
        return b"" if found is None else bytes(found.stream.getvalue())

    def units(self) -> Iterator[Any]:
        """Yield the compilation units."""
        if self.dwarf is not None:
            yield from self.dwarf.iter_CUs()

    @cached_property
    def _unit_spans(self) -> list[Span]:
        def read() -> list[Span]:
            aranges = self.dwarf.get_aranges() if self.large else None
            if aranges is not None:
                units = {unit.cu_offset: unit for unit in self.units()}
                spans = [
                    Span(entry.begin_addr, entry.begin_addr + entry.length, units[entry.info_offset])
                    for entry in aranges.entries
                    if entry.info_offset in units
                ]
                return sorted(spans, key=lambda span: span.low)
            found = [
                Span(low, high, unit)
                for unit in self.units()
                for low, high in self.ranges(unit.get_top_DIE())
            ]
            return sorted(found, key=lambda span: span.low)

        return self.guard(read)

    def ranges(self, die: Any) -> list[tuple[int, int]]:
        """Return the code of an entry: pairs of first address and the one behind the last."""
        attributes = die.attributes
        if "DW_AT_ranges" in attributes:
            return self._range_list(die)
        low, high = attributes.get("DW_AT_low_pc"), attributes.get("DW_AT_high_pc")
        if low is None or high is None:
            return []
        end = high.value if high.form == "DW_FORM_addr" else low.value + high.value
        return [(low.value, end)] if low.value < end else []

    def _range_list(self, die: Any) -> list[tuple[int, int]]:
        unit = die.cu
        lists: Any = self.dwarf.range_lists()
        entries = lists.get_range_list_at_offset(die.attributes["DW_AT_ranges"].value, unit)
        base, out = base_of(unit), []
        for entry in entries:
            if hasattr(entry, "base_address"):
                base = entry.base_address
                continue
            more = 0 if getattr(entry, "is_absolute", False) else base
            if entry.begin_offset < entry.end_offset:
                out.append((entry.begin_offset + more, entry.end_offset + more))
        return out

    def unit_at(self, address: int) -> Any | None:
        """Return the compilation unit of the code at an address, or None. Raises DwarfError."""
        spans = self._unit_spans
        at = bisect_right(spans, address, key=lambda span: span.low) - 1
        return spans[at].die if at >= 0 and address < spans[at].high else None

    def function_at(self, address: int) -> Any | None:
        """Return the entry of the function that an address lies in, or None. Raises DwarfError."""
        unit = self.unit_at(address)
        if unit is None:
            return None
        if unit.cu_offset not in self._functions:
            self._functions[unit.cu_offset] = self.guard(lambda: self._functions_of(unit))
        return next((s.die for s in self._functions[unit.cu_offset] if s.low <= address < s.high), None)

    def _functions_of(self, unit: Any) -> list[Span]:
        return [
            Span(low, high, die)
            for die in children_of(unit.get_top_DIE())
            if die.tag == "DW_TAG_subprogram"
            for low, high in self.ranges(die)
        ]

    def scopes_at(self, address: int) -> list[Any]:
        """Return the function and the blocks and inlined functions in it that an address lies in, innermost first."""

        def read() -> list[Any]:
            scope = self.function_at(address)
            out: list[Any] = []
            while scope is not None and len(out) < _MAX_DEPTH:
                out.insert(0, scope)
                scope = next(
                    (
                        child
                        for child in children_of(scope)
                        if child.tag in _NESTED
                        and any(low <= address < high for low, high in self.ranges(child))
                    ),
                    None,
                )
            return out

        return self.guard(read)

    @cached_property
    def _lines(self) -> LineTables:
        names = ("debug_line_sec", "debug_line_str_sec", "debug_str_sec")
        return LineTables(*(self.section(name) for name in names))

    @cached_property
    def _programs(self) -> list[LineProgram]:
        return self.guard(lambda: list(self._lines.programs.values()))

    def rows(self) -> list[Row]:
        """Return the rows of all line tables. Raises DwarfError: damage, or more than are read."""
        out: list[Row] = []
        for program in self._programs:
            out += self._rows(program)
            if len(out) > MAX_ROWS:
                raise DwarfError(f"{self.where}: more than {MAX_ROWS} rows of line tables")
        return out

    def rows_at(self, address: int) -> list[Row]:
        """Return the rows of line tables of the unit that an address lies in, once. Raises DwarfError."""
        unit = self.unit_at(address)
        if unit is None or unit.cu_offset in self._lines_given:
            return []
        self._lines_given.add(unit.cu_offset)

        def read() -> LineProgram | None:
            at = unit.get_top_DIE().attributes.get("DW_AT_stmt_list")
            return None if at is None else self._lines.head(at.value)

        program = self.guard(read)
        return [] if program is None else self._rows(program)

    def rows_of(self, file: str) -> list[Row]:
        """Return the rows of line tables of the units that are made of a file, once; else of those that include it.

        Raises:
            DwarfError: damage, or too many units include it.
        """
        parts = PurePosixPath(file).parts
        wanted = [each for each in self._programs if _is_named(each.made_of, parts)]
        if not wanted:
            wanted = [each for each in self._programs if any(_is_named(name, parts) for name in each.files)]
            if sum(each.last - each.first for each in wanted) > MAX_INCLUDED_BYTES:
                raise DwarfError(f"{file}: {len(wanted)} units include it; name one of its functions instead")
        return [row for each in wanted for row in self._rows(each)]

    def source_files(self) -> list[str]:
        """Return the files that units are made of. Raises DwarfError."""
        return [each.made_of for each in self._programs]

    def _rows(self, program: LineProgram) -> list[Row]:
        if program.offset in self._programs_given:
            return []
        self._programs_given.add(program.offset)
        return self.guard(lambda: self._lines.rows(program))

    @cached_property
    def globals(self) -> dict[str, Any]:
        """The variables outside of functions that have a place, by name; none of a large file. Raises DwarfError."""
        if self.large:
            return {}

        def read() -> dict[str, Any]:
            out: dict[str, Any] = {}
            for unit in self.units():
                for die in children_of(unit.get_top_DIE()):
                    if die.tag != "DW_TAG_variable" or "DW_AT_location" not in die.attributes:
                        continue
                    name = name_of(die)
                    if name and len(out) < MAX_ENTRIES:
                        out.setdefault(name, die)
            return out

        return self.guard(read)

    def variable(self, name: str, address: int | None) -> Any | None:
        """Return the entry of a variable outside of functions, None if there is none.

        Args:
            address: where it is, by its symbol: of a large file, its entry is found by that.

        Raises:
            DwarfError: the file is damaged.
        """
        if not self.large or address is None:
            return self.globals.get(name)
        # its place is an expression of 9 bytes: DW_OP_addr, and the address
        place = b"\x09\x03" + address.to_bytes(8, "little")

        def read() -> Any | None:
            found = self._around(place, _VARIABLE_TAGS)
            return next((d for d in found if "DW_AT_location" in d.attributes and name_of(d) == name), None)

        return self.guard(read)

    def named(self, tags: Container[str], name: str) -> Any | None:
        """Return the first entry with one of some tags that defines a name, None where none does: of a large file.

        Raises:
            DwarfError: the file is damaged.
        """
        text = name.encode()

        def read() -> Any | None:
            # a name is told by its place among the strings, where it may be the end of a longer one, or stands there
            places = islice(re.finditer(re.escape(text) + b"\0", self._strings), _MAX_PLACES)
            marks = [*(each.start().to_bytes(4, "little") for each in places), text + b"\0"]
            found = (die for mark in marks for die in self._around(mark, tags))
            return next(
                (d for d in found if name_of(d) == name and "DW_AT_declaration" not in d.attributes), None
            )

        return self.guard(read)

    @cached_property
    def _strings(self) -> bytes:
        return self.section("debug_str_sec")

    @cached_property
    def _info(self) -> bytes:
        return self.section("debug_info_sec")

    def _around(self, mark: bytes, tags: Container[str]) -> Iterator[Any]:
        """Yield the outer entries of these tags of the units that some bytes lie in, of the first such units."""
        at = self._info.find(mark)
        for _ in range(_MAX_SEARCHED):
            if at < 0:
                return
            unit = self.dwarf.get_CU_containing(at)
            for die in children_of(unit.get_top_DIE()):
                if die.tag in tags:
                    yield die
            at = self._info.find(mark, unit.cu_offset + unit.size)


def _is_named(path: str, parts: tuple[str, ...]) -> bool:
    """Tell whether a path ends in these parts."""
    return path.endswith(parts[-1:]) and PurePosixPath(path).parts[-len(parts) :] == parts


def children_of(die: Any) -> Iterator[Any]:
    """Yield the entries below an entry. Raises ValueError: a damaged one is its own successor."""
    for child in die.iter_children():
        yield child
        if not child.has_children:
            continue
        link = child.attributes.get("DW_AT_sibling")
        if (
            link is None
        ):  # pyelftools is about to look for the end of these: so they are looked through with care first
            deque(children_of(child), maxlen=0)
        elif link.value + (0 if link.form == "DW_FORM_ref_addr" else child.cu.cu_offset) <= child.offset:
            raise ValueError(f"the entry at {child.offset:#x} is followed by one before it")


def base_of(unit: Any) -> int:
    """Return the address that a unit's offsets are counted from."""
    low = unit.get_top_DIE().attributes.get("DW_AT_low_pc")
    return 0 if low is None else int(low.value)


def origin_of(die: Any, attribute: str) -> Any | None:
    """Return the entry that has an attribute: this one, or what it is an instance or the definition of."""
    for _ in range(_MAX_DEPTH):
        if attribute in die.attributes:
            return die
        link = next(
            (a for a in ("DW_AT_abstract_origin", "DW_AT_specification") if a in die.attributes), None
        )
        if link is None:
            return None
        die = die.get_DIE_from_attribute(link)
    return None


def name_of(die: Any) -> str:
    """Return the name of an entry, empty where it has none."""
    named = origin_of(die, "DW_AT_name")
    return "" if named is None else named.attributes["DW_AT_name"].value.decode("utf-8", "replace")


def type_of(die: Any) -> Any | None:
    """Return the entry of an entry's type, None for void."""
    typed = origin_of(die, "DW_AT_type")
    return None if typed is None else typed.get_DIE_from_attribute("DW_AT_type")

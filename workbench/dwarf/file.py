"""Debug information of one ELF file, opened once and read as far as it is asked for.

Spec: DWARF 5, sections 2 and 3
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple, TypeVar

from workbench.errors import InputError
from workbench.lines import Row, rows_of_program

from .errors import DwarfError

T = TypeVar("T")

#: Most functions, variables and units that are read.
MAX_ENTRIES: Final = 4_000_000
#: A file larger than this is read a unit at a time; for its global variables a kernel's BTF has the types.
LARGE_BYTES: Final = 64 << 20
_MAX_DEPTH: Final = 64
_NESTED: Final = ("DW_TAG_lexical_block", "DW_TAG_inlined_subroutine")


class Span(NamedTuple):
    """Code ``low..high-1`` of a unit or a function."""

    low: int
    high: int
    die: Any


def guarded(where: str, read: Callable[[], T]) -> T:
    """Return what a reader of debug information returns. Raises DwarfError: it stumbled over damage."""
    from elftools.common.exceptions import DWARFError, ELFError
    from elftools.construct import ConstructError

    # pyelftools reports a damaged file by whatever it stumbles over
    try:
        return read()
    except (
        DWARFError,
        ELFError,
        ConstructError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
        OverflowError,
        AssertionError,
        NotImplementedError,
        RecursionError,
    ) as error:
        raise DwarfError(f"{where}: damaged debug information: {error}") from None


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
        try:
            elf = guarded(where, lambda: ELFFile(io.BytesIO(data)))
            self.dwarf: Any = guarded(where, lambda: elf.get_dwarf_info() if elf.has_dwarf_info() else None)
        except DwarfError as error:
            raise InputError(str(error)) from None
        #: whether reading all of it would take minutes: then only the units that are asked for are read
        self.large = len(data) > LARGE_BYTES
        self._functions: dict[int, list[Span]] = {}
        self._lines_given: set[int] = set()

    @property
    def empty(self) -> bool:
        """Whether there is no debug information in it."""
        return self.dwarf is None

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

        return guarded(self.where, read)

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
            self._functions[unit.cu_offset] = guarded(self.where, lambda: self._functions_of(unit))
        return next((s.die for s in self._functions[unit.cu_offset] if s.low <= address < s.high), None)

    def _functions_of(self, unit: Any) -> list[Span]:
        return [
            Span(low, high, die)
            for die in unit.get_top_DIE().iter_children()
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
                        for child in scope.iter_children()
                        if child.tag in _NESTED
                        and any(low <= address < high for low, high in self.ranges(child))
                    ),
                    None,
                )
            return out

        return guarded(self.where, read)

    def rows_at(self, address: int) -> list[Row]:
        """Return the rows of line tables of the unit that an address lies in, once. Raises DwarfError."""
        unit = self.unit_at(address)
        return [] if unit is None else self._rows(unit)

    def rows_of(self, file: str) -> list[Row]:
        """Return the rows of line tables of the units that are made of a file, once. Raises DwarfError."""
        parts = PurePosixPath(file).parts
        units = [u for name, u in self._named_units if PurePosixPath(name).parts[-len(parts) :] == parts]
        return [row for unit in units for row in self._rows(unit)]

    def source_files(self) -> list[str]:
        """Return the files that units are made of. Raises DwarfError."""
        return [name for name, _ in self._named_units]

    @cached_property
    def _named_units(self) -> list[tuple[str, Any]]:
        return guarded(self.where, lambda: [(_unit_file(unit.get_top_DIE()), unit) for unit in self.units()])

    def _rows(self, unit: Any) -> list[Row]:
        if unit.cu_offset in self._lines_given:
            return []
        self._lines_given.add(unit.cu_offset)

        def read() -> list[Row]:
            program = self.dwarf.line_program_for_CU(unit)
            return [] if program is None else list(rows_of_program(program))

        return guarded(self.where, read)

    @cached_property
    def globals(self) -> dict[str, Any]:
        """Return the variables outside of functions that have a place, by name; none of a large file.

        Raises:
            DwarfError: the file is damaged.
        """
        if self.large:
            return {}

        def read() -> dict[str, Any]:
            out: dict[str, Any] = {}
            for unit in self.units():
                for die in unit.get_top_DIE().iter_children():
                    if die.tag != "DW_TAG_variable" or "DW_AT_location" not in die.attributes:
                        continue
                    name = name_of(die)
                    if name and len(out) < MAX_ENTRIES:
                        out.setdefault(name, die)
            return out

        return guarded(self.where, read)


def _unit_file(die: Any) -> str:
    """Return the path of the file that a unit is made of."""
    folder = die.attributes.get("DW_AT_comp_dir")
    parts = [folder.value.decode("utf-8", "replace")] if folder is not None else []
    return str(PurePosixPath(*parts, name_of(die)))


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

"""Call frame information: where each description lies is found first, and only those that are asked for are read.

Spec: DWARF 5, section 6.4.1
"""

from __future__ import annotations

import io
import struct
from bisect import bisect_right
from functools import cached_property
from typing import Any, Final, NamedTuple

from .file import DebugFile

_LONG: Final = 0xFFFF_FFFF
_COMMON: Final = 0xFFFF_FFFF
_MASK: Final = (1 << 64) - 1
#: Descriptions that are kept once read.
_KEPT: Final = 4096


class _Extent(NamedTuple):
    """The code ``low..high-1`` that a description is of; where it and its common part lie, in bytes of the section."""

    low: int
    high: int
    at: int
    common: int


class FrameTable:
    """The call frame descriptions of one file.

    Args:
        file: which. Readers raise DwarfError over damage.
    """

    def __init__(self, file: DebugFile) -> None:
        self._file = file
        self._read: dict[int, Any] = {}

    @cached_property
    def _section(self) -> bytes:
        return self._file.section("debug_frame_sec")

    @cached_property
    def _extents(self) -> list[_Extent]:
        if not self._section:
            return self._file.guard(self._from_exception_frames)
        return self._file.guard(lambda: sorted(_extents(self._section)))

    def _from_exception_frames(self) -> list[_Extent]:
        """Return the extents of a program's own unwinding tables, which are small: all of them are read."""
        from elftools.dwarf.callframe import FDE

        dwarf: Any = self._file.dwarf
        out = []
        for entry in dwarf.EH_CFI_entries() if dwarf is not None and dwarf.has_EH_CFI() else ():
            if isinstance(entry, FDE):
                low = entry["initial_location"]
                out.append(_Extent(low, low + entry["address_range"], entry.offset, 0))
                self._read[entry.offset] = entry
        return sorted(out)

    def at(self, address: int) -> Any | None:
        """Return the description of the code at an address, as pyelftools has it, or None."""
        extents = self._extents
        found = bisect_right(extents, address, key=lambda extent: extent.low) - 1
        if found < 0 or address >= extents[found].high:
            return None
        extent = extents[found]
        if extent.at not in self._read:
            if len(self._read) >= _KEPT:
                self._read.clear()
            self._read[extent.at] = self._file.guard(lambda: self._description(extent))
        return self._read[extent.at]

    def _description(self, extent: _Extent) -> Any:
        """Read one description: with its common part it is a section of its own."""
        from elftools.dwarf.callframe import CallFrameInfo

        common, own = (_entry(self._section, at) for at in (extent.common, extent.at))
        section = common + own[:4] + bytes(4) + own[8:]
        structs = self._file.dwarf.structs
        return CallFrameInfo(io.BytesIO(section), len(section), 0, structs).get_entries()[1]


def _entry(section: bytes, at: int) -> bytes:
    size = int.from_bytes(section[at : at + 4], "little")
    return section[at : at + 4 + size]


def _extents(section: bytes) -> list[_Extent]:
    """Return what the descriptions of ``.debug_frame`` are of, for addresses of 8 bytes."""
    out: list[_Extent] = []
    at = 0
    while at + 8 <= len(section):
        size, common = struct.unpack_from("<II", section, at)
        if size == _LONG:
            raise ValueError("call frame information in the 64-bit format")
        if common != _COMMON and size:
            low, span = struct.unpack_from("<QQ", section, at + 8)
            out.append(_Extent(low, low + span & _MASK, at, common))
        at += 4 + size
    return out

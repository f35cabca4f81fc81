"""Object files at the addresses where a loader put their sections: what a kernel module's debug information needs.

A module is a relocatable file: its debug information has zeros where addresses belong, and tables that say what to
add there. Once that is done it is an ELF file like any other.

Spec: ELF, relocation; RISC-V ABIs, "Relocations", section 8.4
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from workbench.damage import guarded

from .errors import DwarfError

#: Where a section lies that the loader did not keep: no code is there.
NOWHERE: Final = (1 << 64) - (1 << 32)
MAX_RELOCATIONS: Final = 20_000_000
_MAX_BYTES: Final = 1 << 30
_RELA: Final = struct.Struct("<QQq")
_ET_REL, _ET_EXEC, _SHT_NULL, _SHF_COMPRESSED = 1, 2, 0, 1 << 11
_TYPE_AT: Final = 16  # in the file's head
_KEPT: Final = (".debug_", ".eh_frame")
_MASK: Final = (1 << 64) - 1

#: Of a relocation's type: bytes that it changes, and what of them and the value is there then.
_PLAIN: Final[dict[int, tuple[int, Callable[[int, int], int]]]] = {
    1: (4, lambda old, value: value),  # 32
    2: (8, lambda old, value: value),  # 64
    33: (1, lambda old, value: old + value),  # ADD8 to ADD64
    34: (2, lambda old, value: old + value),
    35: (4, lambda old, value: old + value),
    36: (8, lambda old, value: old + value),
    37: (1, lambda old, value: old - value),  # SUB8 to SUB64
    38: (2, lambda old, value: old - value),
    39: (4, lambda old, value: old - value),
    40: (8, lambda old, value: old - value),
    52: (1, lambda old, value: old & 0xC0 | (old - value) & 0x3F),  # SUB6
    53: (1, lambda old, value: old & 0xC0 | value & 0x3F),  # SET6
    54: (1, lambda old, value: value),  # SET8 to SET32
    55: (2, lambda old, value: value),
    56: (4, lambda old, value: value),
}
_NOTHING: Final = frozenset((0, 43, 51))  # NONE, ALIGN, RELAX: of code
_SET_ULEB128, _SUB_ULEB128 = 60, 61


def is_relocatable(data: bytes) -> bool:
    """Tell whether a file is an object file, whose sections have no addresses yet."""
    return data[:4] == b"\x7fELF" and data[_TYPE_AT : _TYPE_AT + 2] == _ET_REL.to_bytes(2, "little")


def placed(data: bytes, where: str, addresses: Mapping[str, int]) -> bytes:
    """Return an object file with its sections at addresses, and its debug information relocated.

    Args:
        data: the file, of RISC-V. where: its name, for messages.
        addresses: of sections by name; those that are not among them are at NOWHERE.

    Raises:
        InputError, DwarfError: it is damaged, or has a relocation of another kind.
    """
    return guarded(f"{where}: relocation", lambda: _Placing(data, where, addresses).result(), DwarfError)


class _Placing:
    def __init__(self, data: bytes, where: str, addresses: Mapping[str, int]) -> None:
        from elftools.elf.elffile import ELFFile

        self._elf = ELFFile(io.BytesIO(data))
        if self._elf["e_machine"] != "EM_RISCV" or self._elf.elfclass != 64:
            raise DwarfError(f"{where}: an object file of another machine than riscv64")
        self._where = where
        self._out = bytearray(data)
        self._sections: list[Any] = list(self._elf.iter_sections())
        #: by section number: the address, 0 of those that are not loaded
        self._base = [addresses.get(s.name, NOWHERE) if s["sh_flags"] & 2 else 0 for s in self._sections]

    def result(self) -> bytes:
        relocations = {s["sh_info"]: s for s in self._sections if s["sh_type"] == "SHT_RELA"}
        for number, section in enumerate(self._sections):
            if section["sh_flags"] & 2:
                self._set(number, 16, self._base[number])
            if not section.name.startswith(_KEPT):
                continue
            if section["sh_type"] == "SHT_NOBITS":
                self._set(number, 4, _SHT_NULL, 4)
                continue
            table = relocations.get(number)
            if table is not None:
                self._replace(number, section, self._relocated(section, table))
        for table in relocations.values():
            self._set(self._sections.index(table), 4, _SHT_NULL, 4)
        self._out[_TYPE_AT : _TYPE_AT + 2] = _ET_EXEC.to_bytes(2, "little")
        return bytes(self._out)

    def _set(self, number: int, at: int, value: int, size: int = 8) -> None:
        """Change a field of a section's header."""
        place = self._elf["e_shoff"] + number * self._elf["e_shentsize"] + at
        self._out[place : place + size] = value.to_bytes(size, "little")

    def _replace(self, number: int, section: Any, content: bytes) -> None:
        self._set(number, 8, section["sh_flags"] & ~_SHF_COMPRESSED)
        self._set(number, 24, len(self._out))
        self._set(number, 32, len(content))
        self._out += content

    def _content(self, section: Any) -> bytes:
        if section["sh_type"] == "SHT_NOBITS" or section.data_size > _MAX_BYTES:
            raise DwarfError(f"{self._where}: {section.name}: {section.data_size} bytes can't be there")
        return bytes(section.data())

    def _symbols(self, table: Any) -> list[int]:
        symbols = self._sections[table["sh_link"]]
        content = self._content(symbols)
        entries = struct.iter_unpack("<IBBHQQ", content[: len(content) - len(content) % 24])
        known = len(self._base)
        return [
            (self._base[section] if section < known else 0) + value if section else 0
            for _name, _info, _other, section, value, _size in entries
        ]

    def _relocated(self, section: Any, table: Any) -> bytes:
        content, entries = bytearray(self._content(section)), self._content(table)
        if len(entries) > MAX_RELOCATIONS * _RELA.size or len(entries) % _RELA.size:
            raise DwarfError(f"{self._where}: {section.name}: a table of {len(entries)} bytes of relocations")
        symbols = self._symbols(table)
        numbers: dict[int, int] = {}  # what SET_ULEB128 set, by place: SUB_ULEB128 follows it
        for at, info, addend in _RELA.iter_unpack(entries):
            kind = info & 0xFFFFFFFF
            if kind in _NOTHING:
                continue
            value = symbols[info >> 32] + addend
            plain = _PLAIN.get(kind)
            if plain is not None:
                size, change = plain
                if at + size > len(content):
                    raise DwarfError(f"{self._where}: {section.name}: a relocation behind its end")
                old = int.from_bytes(content[at : at + size], "little")
                new = change(old, value) & ((1 << 8 * size) - 1)
                content[at : at + size] = new.to_bytes(size, "little")
            elif kind == _SET_ULEB128:
                numbers[at] = value
            elif kind == _SUB_ULEB128 and at in numbers:
                _put_uleb(content, at, (numbers.pop(at) - value) & _MASK)
            else:
                raise DwarfError(f"{self._where}: {section.name}: a relocation of type {kind} is not known")
        return bytes(content)


def _put_uleb(content: bytearray, at: int, value: int) -> None:
    """Write a number in place of another one, in as many bytes."""
    while True:
        more = content[at] & 0x80
        content[at] = value & 0x7F | more
        value >>= 7
        at += 1
        if not more:
            break
    if value:
        raise DwarfError("a number has no room for what it is relocated to")

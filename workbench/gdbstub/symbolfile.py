"""The symbols that the session knows, as an ELF file that gdb reads through the connection.

gdb asks for the name of the executable and opens it on the target: so ``break *start_kernel`` works in a gdb that
was given no file, with a kernel that is stripped. The file has names and addresses and no contents.
"""

from __future__ import annotations

import struct

from workbench.gdbstub.packets import MAX_PAYLOAD
from workbench.symbols import Symbol, Symbols

#: The name under which gdb opens it.
PATH = "/workbench-symbols.elf"
_HEADER_BYTES = 64
_SECTION_BYTES = 64
#: Most bytes in one reply: half a packet, as each may need an escape.
_MAX_REPLY = MAX_PAYLOAD // 2 - 16
_TEXT, _DATA = 1, 2
_NAMES = b"\0.text\0.data\0.symtab\0.strtab\0"


def symbol_file(known: Symbols) -> bytes:
    """Return an ELF file of the symbols; empty where there are none.

    Functions, and what lies among them, are in a text section without contents, the others in a data section.
    """
    symbols = list(known)
    functions = [symbol.address for symbol in symbols if symbol.kind == "func"]
    if not functions:
        return b""
    low = functions[0]
    high = max(max(s.address + s.size for s in symbols if s.kind == "func"), functions[-1] + 2)
    last = max(high, symbols[-1].address + max(symbols[-1].size, 1))
    names = bytearray(_NAMES)
    table = bytearray(24)
    for symbol in symbols:
        if symbol.address >= low:
            table += _entry(symbol, len(names), _TEXT if symbol.address < high else _DATA)
            names += symbol.name.encode() + b"\0"
    at_table = _HEADER_BYTES
    at_names = at_table + len(table)
    at_sections = (at_names + len(names) + 7) & ~7
    header = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 243, 1, 0, 0, at_sections, 5, _HEADER_BYTES, 0, 0, _SECTION_BYTES, 5, 4
    )
    sections = bytes(_SECTION_BYTES)
    sections += _section(1, 8, 6, low, 0, high - low, 0, 0, 2, 0)  # .text, no contents, executable
    sections += _section(7, 8, 3, high, 0, last - high, 0, 0, 8, 0)  # .data, no contents, writable
    sections += _section(13, 2, 0, 0, at_table, len(table), 4, 1, 8, 24)
    sections += _section(21, 3, 0, 0, at_names, len(names), 0, 0, 1, 0)
    body = header + bytes(table) + bytes(names)
    return body.ljust(at_sections, b"\0") + sections


def _entry(symbol: Symbol, name: int, section: int) -> bytes:
    kind = {"func": 2, "object": 1}.get(symbol.kind, 0)
    return struct.pack("<IBBHQQ", name, 0x10 | kind, 0, section, symbol.address, symbol.size)


def _section(*fields: int) -> bytes:
    return struct.pack("<IIQQQQIIQQ", *fields)


class SymbolFileServer:
    """The ``vFile`` packets, for this one file and nothing of the host's.

    Args:
        known: what is known of addresses.
        program: the kernel's ELF where it has symbols of its own: then gdb gets it as it is, source lines included.
    """

    def __init__(self, known: Symbols, program: bytes = b"") -> None:
        self._known = known
        self._data: bytes | None = (
            program if program[:4] == b"\x7fELF" and Symbols.from_elf(program) else None
        )

    def data(self) -> bytes:
        """Return the file's contents, made when they are first asked for."""
        if self._data is None:
            self._data = symbol_file(self._known)
        return self._data

    def handle(self, text: str) -> bytes:
        """Return the reply to what follows ``vFile:``; ENOENT for every other file."""
        verb, _, rest = text.partition(":")
        if verb == "setfs":
            return b"F0"
        if verb == "open":
            name = bytes.fromhex(rest.partition(",")[0]).decode("utf-8", "replace")
            return b"F5" if name == PATH and self.data() else b"F-1,2"
        if verb == "close":
            return b"F0"
        if verb == "fstat":
            stat = self._stat()
            return b"F%x;" % len(stat) + stat
        if verb == "pread":
            _, count, offset = (int(part, 16) for part in rest.split(","))
            part = self.data()[offset : offset + min(count, _MAX_REPLY)]
            return b"F%x;" % len(part) + part
        return b""

    def _stat(self) -> bytes:
        """Return gdb's struct stat: big endian, a regular file that may be read."""
        size = len(self.data())
        return struct.pack(">IIIIIIIQQQIII", 0, 1, 0o100444, 1, 0, 0, 0, size, 512, -(-size // 512), 0, 0, 0)

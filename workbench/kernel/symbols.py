"""The symbols of a Linux kernel, found in a guest's memory without any file.

The kernel's image is found by the header that it begins with, its symbols by the table that it carries for its own
messages; where it was moved to by the address of its trap handler, which stvec holds.
Spec: Linux, Documentation/arch/riscv/boot-image-header.rst
"""

from __future__ import annotations

import zlib
from typing import Any, Final

from workbench.kallsyms import find_symbols
from workbench.symbols import Symbol, Symbols

_MAGIC: Final = b"RSC\x05"
_MAGIC_AT: Final = 56
#: The image begins on a multiple of this.
_ALIGN: Final = 2 << 20
_SIZE_AT: Final = 16
_MAX_IMAGE: Final = 256 << 20
_MAX_INFLATED: Final = 256 << 20
_KINDS: Final = ("func", "object", "other")


def symbols_in_memory(engine: Any) -> list[Symbol]:
    """Return the symbols of the kernel in a machine's memory; none where there is no kernel, or none that is known.

    Replay: reads the state only.
    """
    ram = engine.ram
    for at in range(0, len(ram) - _ALIGN + 1, _ALIGN):
        if bytes(ram[at + _MAGIC_AT : at + _MAGIC_AT + 4]) != _MAGIC:
            continue
        size = int.from_bytes(ram[at + _SIZE_AT : at + _SIZE_AT + 8], "little")
        found = find_symbols(bytes(ram[at : at + min(size, _MAX_IMAGE)]))
        if found:
            return _moved(found, engine)
    return []


def _moved(found: list[Symbol], engine: Any) -> list[Symbol]:
    """Return symbols where the kernel runs: as linked, unless its trap handler tells that it was moved."""
    handler = next((symbol.address for symbol in found if symbol.name == "handle_exception"), None)
    stvec = int(engine.get_reg(0, "stvec")) & ~3
    slide = stvec - handler if handler is not None and stvec >> 63 else 0
    if not slide or slide % _ALIGN:
        return found
    return [symbol._replace(address=symbol.address + slide) for symbol in found]


def inflate(data: bytes, most: int = _MAX_INFLATED) -> bytes:
    """Return what was compressed. Raises zlib.error: it is damaged, or more than ``most`` bytes."""
    out = zlib.decompressobj()
    found = out.decompress(data, most)
    if not out.eof:
        raise zlib.error(f"cut short, or more than {most} bytes")
    return found


def pack(symbols: Symbols) -> bytes:
    """Return symbols as bytes to be kept."""
    lines = (f"{s.address:x} {s.size:x} {_KINDS.index(s.kind)} {s.name}" for s in symbols)
    return zlib.compress("\n".join(lines).encode(), 1)


def unpack(data: bytes) -> list[Symbol]:
    """Return the symbols that ``pack`` packed; none where the bytes are damaged."""
    try:
        lines = inflate(data).decode().splitlines()
        parts = [line.split(" ", 3) for line in lines]
        return [Symbol(int(a, 16), int(s, 16), name, _KINDS[int(k)]) for a, s, k, name in parts]
    except (zlib.error, ValueError, IndexError):
        return []

"""The kernel's symbol table, read from images that are laid out as older and newer kernels have it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.guests.kallsyms import system_map

BASE = 0xFFFFFFFF80000000
WORDS = {1: b"init", 2: b"_lock"}


def tokens() -> list[bytes]:
    """Return 256 tokens: characters stand for themselves, two codes for words, the rest for nothing used."""
    return [WORDS.get(code, bytes([code]) if 33 <= code < 127 else b"?%d" % code) for code in range(256)]


def image_of(symbols: list[tuple[int, str]], newer: bool) -> bytes:
    """Return an image with this table, as scripts/kallsyms of a newer or older kernel writes it."""
    alignment = 4 if newer else 8
    image = bytearray(b"\x13\x05" * 100)

    def align(to: int = alignment) -> None:
        image.extend(bytes(-len(image) % to))

    align(8)
    image += struct.pack("<I", len(symbols))
    align()
    names_at, markers = len(image), []
    for number, (_, name) in enumerate(symbols):
        if number % 256 == 0:
            markers.append(len(image) - names_at)
        coded = name.encode().replace(b"init", b"\x01").replace(b"_lock", b"\x02")
        length = bytes([len(coded)]) if len(coded) < 128 else bytes([len(coded) & 127 | 128, len(coded) >> 7])
        image += length + coded
    align()
    image += struct.pack(f"<{len(markers)}I", *markers)
    align()
    table_at, index = len(image), []
    for token in tokens():
        index.append(len(image) - table_at)
        image += token + b"\0"
    align()
    image += struct.pack("<256H", *index)
    align()
    for address, _ in symbols:
        offset = address - BASE
        image += struct.pack("<i", offset - len(image)) if newer else struct.pack("<I", offset)
    align()
    image += b"" if newer else struct.pack("<Q", BASE)
    return bytes(image) + bytes(64)


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000])
def test_all_symbols_come_back(newer: bool, count: int) -> None:
    long_name = "t" + "_lock_init" * 30
    symbols = [(BASE + 16 * n, f"Tinit_{n}_lock" if n % 50 else long_name) for n in range(count)]
    lines = system_map(image_of(symbols, newer)).decode().splitlines()
    assert lines == [f"{address:016x} {name[0]} {name[1:]}" for address, name in symbols]


def test_an_image_without_a_table_has_no_symbols() -> None:
    digits = b"".join(b"%d\0" % digit for digit in range(10))
    assert system_map(b"") == b""
    assert system_map(bytes(1000) + digits + bytes(1000)) == b""
    assert system_map(digits) == b""


@given(st.data())
def test_damaged_tables_never_raise(data: st.DataObject) -> None:
    image = bytearray(image_of([(BASE + 8 * n, f"Tname{n}") for n in range(300)], data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 20))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    system_map(bytes(image[: data.draw(st.integers(0, len(image)))]))

"""Symbols out of a stripped kernel: tables built here in each of their shapes, and damage to them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.kallsyms import LINK_ADDRESS, find_symbols

#: (offset, letter, name); more than two markers' worth.
SYMBOLS = [(0, "T", "_start"), (0, "T", "_text"), (0x40, "t", "early"), (0x100, "D", "jiffies_64")] + [
    (0x200 + 16 * i, "T", f"function_{i}") for i in range(700)
]


def kernel_image(place_relative: bool, gap: int = 4, long_names: bool = False) -> bytes:
    """Return an image with kallsyms tables; single characters are tokens, ``function`` is one, too."""
    tokens = [bytes([i]) if 0x20 < i < 0x7F else b"x%03d" % i for i in range(256)]
    tokens[200] = b"function_"
    names, markers = b"", []
    for number, (_, letter, name) in enumerate(SYMBOLS):
        if number % 256 == 0:
            markers.append(len(names))
        text = name + ("_" * 200 if long_names and number == 300 else "")
        coded = (letter + text).encode().replace(b"function_", bytes([200]))
        size = bytes([len(coded)]) if len(coded) < 128 else bytes([len(coded) & 0x7F | 0x80, len(coded) >> 7])
        names += size + coded
    image = bytearray(b"\x13\x00\x00\x00" * 64)
    image += struct.pack("<I", len(SYMBOLS)) + bytes(gap) + names
    image += bytes(-len(image) % 8) + struct.pack(f"<{len(markers)}I", *markers)
    image += bytes(-len(image) % 8)
    index, table = [], b""
    for token in tokens:
        index.append(len(table))
        table += token + b"\0"
    image += table + bytes(-len(table) % 8) + struct.pack("<256H", *index)
    image += bytes(-len(image) % 4)
    base = -0x0100_0000
    for number, (offset, _, _) in enumerate(SYMBOLS):
        image += struct.pack("<i", base + offset - (4 * number if place_relative else 0))
    return bytes(image) + bytes(64)


@pytest.mark.parametrize("place_relative", [False, True])
@pytest.mark.parametrize("gap", [0, 4])
@pytest.mark.parametrize("long_names", [False, True])
def test_every_symbol_is_found_at_its_address(place_relative: bool, gap: int, long_names: bool) -> None:
    found = {s.name.rstrip("_"): s for s in find_symbols(kernel_image(place_relative, gap, long_names))}
    assert len(found) == len(SYMBOLS)
    for offset, letter, name in SYMBOLS:
        assert found[name].address == LINK_ADDRESS + offset
        assert found[name].kind == ("func" if letter in "tT" else "object")


def test_image_without_the_table_has_no_symbols() -> None:
    assert find_symbols(b"") == []
    assert find_symbols(bytes(100_000)) == []
    assert find_symbols(b"0\0001\0002\0003\0004\0005\0006\0007\0008\0009\0" * 50) == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_raises_nothing(data: st.DataObject) -> None:
    image = bytearray(kernel_image(True))
    for _ in range(data.draw(st.integers(1, 6))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(image)))
    find_symbols(bytes(image))
    find_symbols(bytes(image[:cut]))

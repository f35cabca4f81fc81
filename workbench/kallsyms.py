"""Symbols of a stripped Linux kernel, from the table that it carries for its own messages (kallsyms).

The tables lie one behind the other in read-only data, in this order (Linux 6.6 and later):

    num_symbols   u32
    names         for each symbol: a length (1 or 2 bytes, 7 bits each), then as many token numbers
    markers       u32 for every 256th symbol: its offset in names
    token_table   256 texts that end in NUL
    token_index   u16 for each token: its offset in token_table
    offsets       i32 for each symbol, by address

Names are found by the token table, which nearly always holds the digits as tokens of their own. Of the offsets
only differences count: the kernel's first byte is known to be ``_start``.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise

from workbench.symbols import MAX_SYMBOLS, Symbol

#: Where the first byte of a riscv64 kernel is linked to run.
LINK_ADDRESS = 0xFFFF_FFFF_8000_0000
_TOKENS = 256
_MARKER_EVERY = 256
_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_MAX_TOKEN = 64
_MAX_NAME = 1024
#: Of what looks like the begin of a table at first, so much is looked into; a kernel needs one or two.
_MAX_PLACES = 1000
_MAX_TABLES = 8
_MAX_STARTS = 64
_MAX_PADDING = 2
_FIRST_SYMBOLS = ("_start", "_text")
_FUNCTION_LETTERS = "tTwW"


def find_symbols(image: bytes) -> list[Symbol]:
    """Return the symbols of a kernel's flat image, none where it carries no table of a known shape.

    Args:
        image: an unpacked Image: its first byte is the kernel's first.
    """
    at = image.find(_DIGITS)
    tables = places = 0
    while at >= 0 and tables < _MAX_TABLES and places < _MAX_PLACES:
        places += 1
        tokens = _token_table(image, at)
        if tokens is not None:
            tables += 1
            found = _symbols_at(image, *tokens)
            if found:
                return found
        at = image.find(_DIGITS, at + 1)
    return []


def _token_table(image: bytes, digits: int) -> tuple[int, int, list[bytes]] | None:
    """Return where the token table begins, where its index ends, and the tokens; at ``digits`` is '0'."""
    start = digits
    for _ in range(ord("0")):
        before = image.rfind(b"\0", max(0, start - _MAX_TOKEN), start - 1)
        if before < 0:
            return None
        start = before + 1
    # the first token has no NUL of its own table before it; the index says where the table begins
    tokens, offsets, at = [], [], start
    for _ in range(_TOKENS):
        end = image.find(b"\0", at, at + _MAX_TOKEN)
        if end < 0:
            return None
        tokens.append(image[at:end])
        offsets.append(at - start)
        at = end + 1
    index = struct.pack("<256H", *offsets) if offsets[-1] < 1 << 16 else b""
    for place in range(at, at + 8):
        if index and image.startswith(index, place):
            return start, place + len(index), tokens
    return None


def _symbols_at(image: bytes, tokens_at: int, after: int, tokens: list[bytes]) -> list[Symbol]:
    for markers_at in _marker_starts(image, tokens_at):
        end = tokens_at - (tokens_at - markers_at) % 4
        markers = [row[0] for row in struct.iter_unpack("<I", image[markers_at:end])]
        while markers and markers[-1] == 0:
            markers.pop()  # what aligns the token table
        if len(markers) < 2:
            continue  # no kernel has so few symbols
        found = _with_addresses(image, after, _names_before(image, markers_at, markers, tokens))
        if found:
            return found
    return []


def _marker_starts(image: bytes, tokens_at: int) -> Iterator[int]:
    """Yield where the markers may begin: a zero that growing numbers up to the token table follow."""
    at = tokens_at & ~3
    lowest = max(4, at - 4 * (MAX_SYMBOLS // _MARKER_EVERY + _MAX_PADDING + 1))
    later, padding = 1 << 32, 0
    while at >= lowest:
        at -= 4
        value = int.from_bytes(image[at : at + 4], "little")
        if value == 0:
            yield at
            padding += 1
            if later != 1 << 32 or padding > _MAX_PADDING:
                return
        elif value >= later:
            return
        else:
            later = value


def _names_before(image: bytes, markers_at: int, markers: list[int], tokens: list[bytes]) -> list[str]:
    """Return the names that end before the markers, checked against every marker."""
    lowest = max(0, markers_at - markers[-1] - _MARKER_EVERY * _MAX_NAME)
    starts = 0
    for at in range((markers_at - markers[-1]) & ~3, lowest, -4):
        count = int.from_bytes(image[at - 4 : at], "little")
        for gap in (0, 4):  # the names begin on a multiple of 8
            if gap:
                count = int.from_bytes(image[at - 8 : at - 4], "little")
            if 0 < count <= MAX_SYMBOLS and -(-count // _MARKER_EVERY) == len(markers):
                names = _expand(image, at, markers_at, count, markers, tokens)
                starts += 1
                if names or starts == _MAX_STARTS:
                    return names
    return []


def _expand(
    image: bytes, at: int, end: int, count: int, markers: list[int], tokens: list[bytes]
) -> list[str]:
    """Return the names that begin here, none where one marker does not fit."""
    start, names = at, []
    for number in range(count):
        if number % _MARKER_EVERY == 0 and at - start != markers[number // _MARKER_EVERY]:
            return []
        size = image[at]
        at += 1
        if size & 0x80:
            size = size & 0x7F | image[at] << 7
            at += 1
        if not 0 < size <= _MAX_NAME or at + size > end:
            return []
        names.append(b"".join([tokens[token] for token in image[at : at + size]]).decode("utf-8", "replace"))
        at += size
    return names


def _with_addresses(image: bytes, after: int, names: list[str]) -> list[Symbol]:
    """Return symbols of names, each with its type's letter in front, and the offsets behind the index."""
    count = len(names)
    if not count:
        return []
    for at in range(-(-after // 4) * 4, after + 16, 4):
        raw = image[at : at + 4 * count]
        if len(raw) < 4 * count:
            return []
        for place_relative in (False, True):
            offsets = [row[0] for row in struct.iter_unpack("<i", raw)]
            if place_relative:
                offsets = [offset + 4 * i for i, offset in enumerate(offsets)]
            if offsets[0] != offsets[-1] and all(a <= b for a, b in pairwise(offsets)):
                return _placed(names, offsets)
    return []


def _placed(names: list[str], offsets: list[int]) -> list[Symbol]:
    plain = [name[1:] for name in names]
    first = next((offsets[plain.index(name)] for name in _FIRST_SYMBOLS if name in plain), None)
    if first is None:
        return []
    begin = bisect_left(offsets, first)
    out = []
    for number in range(begin, len(names)):
        kind = "func" if names[number][0] in _FUNCTION_LETTERS else "object"
        out.append(Symbol(LINK_ADDRESS + offsets[number] - first, 0, plain[number], kind))
    return out

"""Read a Linux kernel's symbols out of its image: the table that the kernel prints as /proc/kallsyms.

Debian's kernel packages carry no System.map of use. The image has the names compressed: each is a run of
tokens out of a table of 256, found by the tokens of the digits, which stand for themselves.

    num_syms u32 | names | markers u32[] | token_table | token_index u16[256] | offsets u32[] | base u64

The parts are aligned to 8 bytes in older kernels (6.12 is one), and the offsets count from ``base``; in newer
ones to 4 bytes, and each offset counts from its own place. Spec: Linux, scripts/kallsyms.c.
"""

from __future__ import annotations

import struct
from itertools import pairwise

_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_MAX_SYMBOLS = 4_000_000
_MAX_NAME_TOKENS = 1 << 14
_PER_MARKER = 256
#: Where riscv64 Linux is linked, and its image's first byte lies.
_LINK_BASE = 0xFFFFFFFF80000000


def system_map(image: bytes) -> bytes:
    """Return a kernel's symbols in the format of System.map, by address; empty if it has no table we can read.

    Args:
        image: an uncompressed kernel image.
    """
    at = image.find(_DIGITS)
    while at >= 0:
        tokens = _token_table(image, at)
        if tokens is not None:
            start, index, table = tokens
            found = _names(image, start, table)
            if found is not None:
                return _render(found, _addresses(image, index + 512, len(found)))
        at = image.find(_DIGITS, at + 1)
    return b""


def _token_table(image: bytes, zero: int) -> tuple[int, int, list[bytes]] | None:
    """Return where the token table begins, where its index does, and the tokens, if ``zero`` is its token "0"."""
    end = zero
    for _ in range(ord("0"), 256):
        end = image.find(b"\0", end, end + 256) + 1
        if end == 0:
            return None
    for index in (_align(end, 4), _align(end, 8)):
        if index + 512 > len(image):
            return None
        offsets = struct.unpack_from("<256H", image, index)
        start = zero - offsets[ord("0")]
        if start >= 0 and offsets[0] == 0 and all(a < b for a, b in pairwise(offsets)):
            return start, index, [image[start + at : image.index(b"\0", start + at)] for at in offsets]
    return None


def _names(image: bytes, markers_end: int, tokens: list[bytes]) -> list[bytes] | None:
    """Return the symbols' types and names, from the parts before the token table."""
    for last_marker in (markers_end - 4 & ~3, markers_end - 8 & ~3):  # the second: behind it is padding
        markers = _markers(image, last_marker)
        if markers is None:
            continue
        first_marker, count = markers
        latest = (first_marker - _u32(image, last_marker)) & ~3
        for start in range(latest, max(8, latest - _PER_MARKER * 512), -4):
            for before in (4, 8):
                symbols = _u32(image, start - before)
                if (count - 1) * _PER_MARKER < symbols <= min(count * _PER_MARKER, _MAX_SYMBOLS):
                    found = _expand(image, start, first_marker, symbols, tokens)
                    if found is not None:
                        return found
    return None


def _markers(image: bytes, at: int) -> tuple[int, int] | None:
    """Return where the markers that end with that at ``at`` begin, and how many there are: they fall to 0."""
    count, above = 0, 1 << 32
    while at > 0 and _u32(image, at) < above:
        above = _u32(image, at)
        count += 1
        if above == 0:
            return at, count
        at -= 4
    return None


def _expand(image: bytes, start: int, end: int, count: int, tokens: list[bytes]) -> list[bytes] | None:
    """Return ``count`` names, or None unless they fill [start, end) and agree with the markers at ``end``."""
    names: list[bytes] = []
    at = start
    for number in range(count):
        if number % _PER_MARKER == 0 and _u32(image, end + number // _PER_MARKER * 4) != at - start:
            return None
        if at + 2 > end:
            return None
        length = image[at]
        at += 1
        if length & 0x80:
            length = length & 0x7F | image[at] << 7
            at += 1
        if not 0 < length <= _MAX_NAME_TOKENS or at + length > end:
            return None
        names.append(b"".join([tokens[token] for token in image[at : at + length]]))
        at += length
    return names if end in (_align(at, 4), _align(at, 8)) else None


def _addresses(image: bytes, at: int, count: int) -> list[int]:
    """Return the symbols' addresses, from the parts behind the token index."""
    if _align(at, 8) + 4 * count + 8 > len(image):
        return []
    offsets = struct.unpack_from(f"<{count}i", image, at)
    if offsets[0] < 0:  # the first symbol lies before the table: the offset counts from its place
        return [_LINK_BASE + at + 4 * number + offset for number, offset in enumerate(offsets)]
    at = _align(at, 8)
    base = int.from_bytes(image[_align(at + 4 * count, 8) :][:8], "little")
    return [base + offset & (1 << 64) - 1 for offset in struct.unpack_from(f"<{count}I", image, at)]


def _render(names: list[bytes], addresses: list[int]) -> bytes:
    rows = sorted(zip(addresses, names, strict=False), key=lambda row: row[0])
    return b"".join(
        b"%016x %c %s\n" % (address, name[0], name[1:]) for address, name in rows if len(name) > 1
    )


def _u32(image: bytes, at: int) -> int:
    return int.from_bytes(image[at : at + 4], "little")


def _align(at: int, to: int) -> int:
    return at + to - 1 & -to

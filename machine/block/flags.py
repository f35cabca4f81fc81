"""Bits shared by the whole block layer: request flags, block status, permissions, child roles."""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from machine.block.node import Node

# Request flags: plain ints, because every request tests several of them.
COPY_ON_READ = 0x1
ZERO_WRITE = 0x2
MAY_UNMAP = 0x4
FUA = 0x10
COMPRESSED = 0x20
WRITE_UNCHANGED = 0x40
SERIALISING = 0x80
NO_FALLBACK = 0x100
PREFETCH = 0x200
#: Don't wait for serialising requests and don't copy on read: for reads issued inside a before-write hook.
NO_SERIALISING = 0x400

# Block status.
ST_DATA = 0x1
ST_ZERO = 0x2
ST_OFFSET = 0x4
ST_ALLOCATED = 0x10
ST_EOF = 0x20
ST_COMPRESSED = 0x80


class Status(NamedTuple):
    """What a range is: flags that hold for ``length`` bytes, and where it lies in ``node`` with ST_OFFSET."""

    flags: int
    length: int
    offset: int = 0
    node: Node | None = None


class Perm(IntFlag):
    """What a user of a node does (takes) or lets others do (shares)."""

    NONE = 0
    CONSISTENT_READ = 1
    WRITE = 2
    WRITE_UNCHANGED = 4
    RESIZE = 8
    ALL = 15


class Role(IntFlag):
    """What a child is to its parent."""

    NONE = 0
    DATA = 1
    METADATA = 2
    FILTERED = 4
    COW = 8
    PRIMARY = 16


#: No driver handles more than this at once; larger offsets or sizes are refused.
MAX_SIZE = (1 << 63) - (1 << 30)
ZEROES = bytes(1 << 16)


def is_zero(data: bytes | bytearray | memoryview) -> bool:
    """Whether every byte is zero, at memcmp's speed."""
    n = len(data)
    step = len(ZEROES)
    if n <= step:
        return data == (ZEROES if n == step else ZEROES[:n])
    view = memoryview(data)
    return all(view[i : i + step] == ZEROES[: min(step, n - i)] for i in range(0, n, step))

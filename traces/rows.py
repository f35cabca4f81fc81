"""The rows of a trace as Python values: one class a table.

Named tuples: what every command needs must be quick to make, and a dataclass takes a millisecond.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple


class InputRow(NamedTuple):
    """One input. ``asked`` is 1 for an answer that a device asked for, 0 for what was delivered to it."""

    id: int
    icount: int
    vtime_ns: int
    hart: int
    source: str
    kind: str
    payload: bytes
    asked: int

    def crc(self) -> int:
        """Return the checksum that is stored beside the row, so that a flipped bit is found before it replays."""
        head = struct.pack("<QQqqQ", self.id, self.icount, self.vtime_ns, self.hart, self.asked)
        return zlib.crc32(
            self.payload, zlib.crc32(f"{self.source}\0{self.kind}\0".encode(), zlib.crc32(head))
        )


class ImageRow(NamedTuple):
    """A file that was loaded, by content hash; ``embedded`` says whether the trace holds its contents."""

    name: str
    role: str
    hash: bytes
    path: str
    embedded: bool
    size: int


class CheckpointRow(NamedTuple):
    """A checkpoint without its contents. ``next_input`` is the id of the first input not yet taken there."""

    id: int
    icount: int
    vtime_ns: int
    parent_id: int | None
    digest: bytes
    next_input: int


class DigestRow(NamedTuple):
    """A rolling digest; ``detail`` is a JSON document of what went into it (harts' registers), for reports."""

    icount: int
    digest: bytes
    detail: bytes


class ConsoleRow(NamedTuple):
    """Console output; ``icount`` is the position of its last byte."""

    icount: int
    vtime_ns: int
    port: str
    data: bytes


class BookmarkRow(NamedTuple):
    """A named place."""

    name: str
    icount: int
    note: str

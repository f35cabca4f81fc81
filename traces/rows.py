"""The rows of a trace as Python values: one frozen class a table."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InputRow:
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


@dataclass(frozen=True, slots=True)
class ImageRow:
    """A file that was loaded, by content hash; ``embedded`` says whether the trace holds its contents."""

    name: str
    role: str
    hash: bytes
    path: str
    embedded: bool
    size: int


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint without its contents. ``next_input`` is the id of the first input not yet taken there."""

    id: int
    icount: int
    vtime_ns: int
    parent_id: int | None
    digest: bytes
    next_input: int


@dataclass(frozen=True, slots=True)
class DigestRow:
    """A rolling digest; ``detail`` is a JSON document of what went into it (harts' registers), for reports."""

    icount: int
    digest: bytes
    detail: bytes


@dataclass(frozen=True, slots=True)
class ConsoleRow:
    """Console output; ``icount`` is the position of its last byte."""

    icount: int
    vtime_ns: int
    port: str
    data: bytes


@dataclass(frozen=True, slots=True)
class BookmarkRow:
    """A named place."""

    name: str
    icount: int
    note: str

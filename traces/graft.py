"""Puts finished pages behind a table's rows: many rows become part of a database without a statement for each.

Done as SQLite itself would: under its exclusive lock, with a rollback journal of the two pages that change (the first
and the table's root), so that whoever opens the file after a crash finds it as it was before. New pages go behind the
file's end, where nobody sees them until those two are written.

Spec: SQLite file format, 1.3 (header), 1.6 (b-tree pages), 3 (rollback journal).
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

_JOURNAL_MAGIC: Final = bytes.fromhex("d9d505f920a163d7")
_SECTOR: Final = 512
_LOCK_BYTE: Final = 1 << 30
_LEAF, _INTERIOR = 0x0D, 0x05
_INTERIOR_HEAD: Final = 12
_INTERIOR_CELL: Final = 2 + 4 + 9  # with its offset, at most
_ROLLBACK_MODE: Final = b"\x01\x01"
#: Of a table that has been grafted on more than once: root, pages of a stretch, leaves.
_LEVELS: Final = 3

Top = tuple[int, int]


class Pages(Protocol):
    """Rows as pages of a table, in the order of their keys (machine.tcg.rowimage)."""

    @property
    def page_bytes(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def keyed(self) -> bool: ...
    @property
    def leaves(self) -> int: ...
    def database(self) -> memoryview: ...
    def subtrees(self, number: int, before: Top | None = None) -> tuple[memoryview, list[Top]]: ...


@dataclass(frozen=True, slots=True)
class _Place:
    """Where new pages go.

    Args:
        first: the first page, with the header. root: the table's. root_page: its number.
        count: pages of the database. depth: levels of the table, 0 where it is empty. last: its largest key.
        children: what the root holds, where there are three levels.
    """

    first: bytes
    root: bytes
    root_page: int
    count: int
    depth: int
    last: int
    children: list[Top]


def graft(db: sqlite3.Connection, path: Path, table: str, pages: Pages, low: int, sync: bool = True) -> bool:
    """Put rows behind those of a table; return False, with nothing changed, where they must be inserted.

    That is so where they are few, the table has later rows, indexes or a root that is full, or the database is of
    another page size, in another journal mode, or has pages for other uses between (auto-vacuum, the lock's).

    Args:
        db: a connection in autocommit mode, which has no statement open. path: its database's file.
        pages: rows with keys from ``low`` on, those without keys are not put. sync: whether it is to outlast a
            failure of the host too.

    Raises:
        OSError, sqlite3.Error: it can't be written (disk full, in use); the next who opens it finds it unchanged.
    """
    if not pages.keyed:
        return False
    fd = os.open(path, os.O_RDWR)
    try:
        db.execute("BEGIN EXCLUSIVE")
        try:
            place = _find(db, fd, table, pages.page_bytes)
            fits = place is not None and (not place.depth or place.last < low)
            done = place is not None and fits and _write(fd, path, place, pages, sync)
        finally:
            # nothing was written by this connection: this only unlocks
            db.execute("ROLLBACK")
        return done
    finally:
        os.close(fd)


def _find(db: sqlite3.Connection, fd: int, table: str, size: int) -> _Place | None:
    first = os.pread(fd, size, 0)
    if len(first) < size or first[18:20] != _ROLLBACK_MODE or first[20]:
        return None
    page_bytes, count, vacuum = (
        struct.unpack_from(f, first, at)[0] for f, at in ((">H", 16), (">I", 28), (">I", 52))
    )
    if page_bytes != size & 0xFFFF | size >> 16 or first[24:28] != first[92:96] or vacuum:
        return None
    found = db.execute("SELECT type, rootpage FROM sqlite_master WHERE tbl_name = ?", (table,)).fetchall()
    if len(found) != 1 or os.fstat(fd).st_size < count * size:
        return None
    root_page = int(found[0][1])
    depth = _depth(fd, size, root_page, count)
    if depth is None:
        return None
    root = _page(fd, size, root_page)
    last = db.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0]
    if last is None:
        return _Place(first, root, root_page, count, 0, 0, [])
    try:
        children = _children(root, last) if depth == _LEVELS else []
    except (struct.error, IndexError):
        return None  # a damaged page: SQLite says so
    return _Place(first, root, root_page, count, depth, last, children)


def _page(fd: int, size: int, number: int) -> bytes:
    return os.pread(fd, size, (number - 1) * size)


def _depth(fd: int, size: int, number: int, count: int) -> int | None:
    """Return how many levels a table has, down its last pages; None where it is none, or has more than three."""
    for depth in range(1, _LEVELS + 1):
        page = _page(fd, size, number) if 1 < number <= count else b""
        if len(page) < size:
            return None
        if page[0] == _LEAF:
            return depth
        if page[0] != _INTERIOR:
            return None
        (number,) = struct.unpack_from(">I", page, 8)
    return None


def _write(fd: int, path: Path, place: _Place, pages: Pages, sync: bool) -> bool:
    size, number = pages.page_bytes, place.count + 1
    moved = place.depth in (1, 2)  # the root's content gets a page of its own, in the level where it belongs
    before = (number, place.last) if place.depth == 1 else None
    if pages.leaves + (before is not None) < 2:
        return False
    if number * size <= _LOCK_BYTE < (number + 2 * pages.leaves + 8) * size:
        return False
    most = (size - _INTERIOR_HEAD) // _INTERIOR_CELL
    if len(place.children) + 2 + pages.leaves // (most - 1) + 1 > most:
        return False
    body, tops = pages.subtrees(number + moved, before)
    tops = place.children + [(number, place.last)] * (place.depth == 2) + tops
    if len(tops) == 1:  # it is the last of the pages; a root must hold two
        root, body = bytes(body[-size:]), body[:-size]
    else:
        root = _interior(tops, size)
    journal = path.with_name(path.name + "-journal")
    _journal(journal, place, size, sync)
    behind = place.count * size
    if moved:
        os.pwrite(fd, place.root, behind)
        behind += size
    _pwrite(fd, body, behind)
    os.pwrite(fd, root, (place.root_page - 1) * size)
    os.pwrite(fd, _header(place, (behind + len(body)) // size), 0)
    if sync:
        os.fsync(fd)
    journal.unlink()
    return True


def _pwrite(fd: int, data: memoryview, at: int) -> None:
    while data:
        done = os.pwrite(fd, data[: 1 << 24], at)
        data, at = data[done:], at + done


def _header(place: _Place, count: int) -> bytes:
    """Return the first page with another count of pages, as changed by a transaction."""
    first = bytearray(place.first)
    change = (struct.unpack_from(">I", first, 24)[0] + 1) & 0xFFFFFFFF
    struct.pack_into(">II", first, 24, change, count)
    struct.pack_into(">I", first, 92, change)
    return bytes(first)


def _journal(path: Path, place: _Place, size: int, sync: bool) -> None:
    """Write a rollback journal that brings back both pages and the file's size."""
    records = b"".join(
        struct.pack(">I", number) + page + struct.pack(">I", sum(page[i] for i in range(size - 200, 0, -200)))
        for number, page in ((1, place.first), (place.root_page, place.root))
    )
    head = _JOURNAL_MAGIC + struct.pack(">IIIII", 2, 0, place.count, _SECTOR, size)
    # under the exclusive lock, what may lie there is a journal that nobody needs any more
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        _pwrite(fd, memoryview(head.ljust(_SECTOR, b"\0") + records), 0)
        if sync:
            os.fsync(fd)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(fd)
    if not sync:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# pages between the root and leaves


def _children(page: bytes, last: int) -> list[Top]:
    """Return the pages that a page holds, with their largest keys; ``last`` is the last one's."""
    count, right = struct.unpack_from(">H", page, 3)[0], struct.unpack_from(">I", page, 8)[0]
    out = []
    for i in range(count):
        (at,) = struct.unpack_from(">H", page, _INTERIOR_HEAD + 2 * i)
        key, at = 0, at + 4
        for byte in range(9):
            bits = 8 if byte == 8 else 7
            key = key << bits | (page[at + byte] & (1 << bits) - 1)
            if page[at + byte] < 0x80:
                break
        out.append((struct.unpack_from(">I", page, at - 4)[0], key - (1 << 64) if key >> 63 else key))
    return [*out, (right, last)]


def _interior(tops: Sequence[Top], size: int) -> bytes:
    """Return a page that holds these pages."""
    page = bytearray(size)
    low, head = size, _INTERIOR_HEAD
    for i, (number, key) in enumerate(tops[:-1]):
        cell = struct.pack(">I", number) + _varint(key)
        low -= len(cell)
        page[low : low + len(cell)] = cell
        struct.pack_into(">H", page, head + 2 * i, low)
    struct.pack_into(">BHHHBI", page, 0, _INTERIOR, 0, len(tops) - 1, low & 0xFFFF, 0, tops[-1][0])
    return bytes(page)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    if value >> 56:
        out = [value & 0xFF]
        value >>= 8
        out += [(value >> 7 * i) & 0x7F | 0x80 for i in range(8)]
    else:
        out = [value & 0x7F]
        while value := value >> 7:
            out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))

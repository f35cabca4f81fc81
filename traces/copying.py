"""Traces made from traces: a part of a run, or a whole one that needs nothing beside it.

The new file is written like a recording: under another name first, then put in place in one step. The old one is
only read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from . import blobs
from .errors import PositionError, TraceError
from .pagesets import NOWHERE, PAGE_BYTES, Based, PageList, xor
from .reader import TraceReader
from .rows import CheckpointRow
from .writer import TraceWriter

#: Rows of the old ``meta`` that say nothing about the new trace.
_OWN_META: Final = frozenset(("format", "clean", "final_icount", "start_icount"))
#: What a state names blobs by.
_HASH: Final = re.compile(rb"\b[0-9a-f]{64}\b")


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds: from where to where, and how many checkpoints and blobs."""

    start_icount: int
    final_icount: int
    checkpoints: int
    blobs: int


class _Copy:
    def __init__(self, old: TraceReader, new: TraceWriter) -> None:
        self.old, self.new = old, new
        self.blobs: set[bytes] = set()
        self.checkpoints = 0
        self._known: set[bytes] | None = None
        self._based: dict[bytes, bytes] = {}  # images that pages are stored as the difference from

    def head(self) -> None:
        """Copy what is known before the first step."""
        for key, value in self.old.meta.items():
            if key not in _OWN_META:
                self.new.set_meta(key, value)
        for name, setting in self.old.config.items():
            self.new.set_config(name, setting)
        for row in self.old.images():
            if row.embedded:
                self.blob(row.hash)
            self.new.add_image_hash(row.name, row.role, row.hash, row.size, row.path, row.embedded)
        for drive, cluster, name in self.old.sql("SELECT drive, cluster, hash FROM disk_reads")[1]:
            self.new.add_disk_read(drive, cluster, self.old.blob(name))

    def blob(self, name: bytes) -> None:
        """Copy a blob, and those that it names if it is a map."""
        names = [name]
        while names:
            name = names.pop()
            if name not in self.blobs:
                self.blobs.add(name)
                data = self.old.blob(name)
                self.new.add_blob(data)
                names += self._known_blobs().intersection(blobs.named_by(data))

    def inputs(self, reset: int, first: int, end: int) -> int:
        """Copy the inputs of the reset, and those from one on up to a position; returns what ids went down by."""
        for row in self.old.inputs():
            if row.id < reset or (row.id >= first and row.icount <= end):
                values = (row.icount, row.vtime_ns, row.hart, row.source, row.kind, row.payload)
                self.new.add_input(*values, asked=bool(row.asked))
        return first - reset

    def checkpoint(self, row: CheckpointRow, parent: int | None, names: dict[int, bytes], less: int) -> int:
        """Copy a checkpoint as these pages' difference from a parent."""
        state = self.old.checkpoint_state(row.id)
        document = json.dumps(state, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        held = {bytes.fromhex(found.decode()) for found in _HASH.findall(document)}
        for name in held & self._known_blobs():
            self.blob(name)
        contents = self.old.blobs(list(set(names.values())))
        if any(len(data) != PAGE_BYTES for data in contents.values()):
            raise TraceError(f"{self.old.path}: damaged: a page of checkpoint {row.id} is of another size")
        self._pages(contents)
        self.checkpoints += 1
        self.blobs |= set(contents)
        place = (row.icount, row.vtime_ns, parent, document, row.digest)
        return self.new.add_checkpoint(*place, PageList.of(names.items()), row.next_input - less)

    def _pages(self, contents: dict[bytes, bytes]) -> None:
        """Copy pages; what was stored as the difference from an image is so again."""
        stored: dict[bytes | None, list[tuple[bytes, bytes, int]]] = {}
        for name, data in contents.items():
            image, place = self.old.page_based(name) or (None, NOWHERE)
            if image is not None and image in self.blobs:
                if image not in self._based:
                    self._based[image] = self.old.blob(image)
                data = xor(data, self._based[image][place : place + PAGE_BYTES])
            else:
                image, place = None, NOWHERE
            stored.setdefault(image, []).append((name, data, place))
        for image, pages in stored.items():
            based = None if image is None else Based(image, [place for _, _, place in pages])
            data = b"".join([data for _, data, _ in pages])
            self.new.add_pages(b"".join([name for name, _, _ in pages]), data, range(len(pages)), based)

    def _known_blobs(self) -> set[bytes]:
        if self._known is None:
            self._known = {row[0] for row in self.old.sql("SELECT hash FROM blobs")[1]}
        return self._known

    def known(self, low: int, high: int) -> None:
        """Copy digests, console and bookmarks of a stretch."""
        for digest in self.old.digests():
            if low <= digest.icount <= high:
                detail = self.old.digest_detail(digest)
                text = (
                    b""
                    if detail is None
                    else json.dumps(detail, sort_keys=True, separators=(",", ":")).encode()
                )
                self.new.add_digest(digest.icount, digest.digest, text)
        for line in self.old.console(low, high + 1):
            self.new.add_console(line.icount, line.vtime_ns, line.port, line.data)
        for mark in self.old.bookmarks():
            if low <= mark.icount <= high:
                self.new.bookmark(mark.name, mark.icount, mark.note)


def trim_trace(old: TraceReader, path: str | Path, low: int, high: int) -> Copied:
    """Write the part of a trace that holds the positions ``low..high``.

    Args:
        old: the whole run. path: of the new trace, see ``TraceWriter.create``.
        low, high: positions; the part begins at the last checkpoint at or before ``low``.

    Raises:
        PositionError: no such part. TraceError: the trace is damaged. TraceWriteError.
    """
    if not old.start_icount <= low <= high <= old.final_icount:
        raise PositionError(
            f"positions {low}..{high}: expected within {old.start_icount}..{old.final_icount}"
        )
    rows = old.checkpoints()
    base = next((row for row in rows if row.icount == 0), None)
    begin = next((row for row in reversed(rows) if old.start_icount <= row.icount <= low), None)
    if base is None or begin is None:
        raise TraceError(f"{old.path}: damaged: there is no checkpoint to begin at")
    with TraceWriter.create(_elsewhere(path, old)) as new:
        copy = _Copy(old, new)
        copy.head()
        if high < old.final_icount:
            for key in ("end_digest", "end_reason", "end_code", "end_settled"):
                new.drop_meta(key)
            new.set_meta("end_reason", "trimmed")
        less = copy.inputs(base.next_input, begin.next_input, high)
        ids = {base.id: copy.checkpoint(base, None, {}, 0)}
        if begin.icount:
            ids[begin.id] = copy.checkpoint(begin, ids[base.id], old.checkpoint_pages(begin.id), less)
            new.set_meta("start_icount", begin.icount)
        last = begin
        for row in rows:
            if begin.icount < row.icount <= high:
                names = _changed(old, last, row)
                ids[row.id] = copy.checkpoint(row, ids[last.id], names, less)
                last = row
        copy.known(begin.icount, high)
        new.close(high)
        return Copied(begin.icount, high, copy.checkpoints, len(copy.blobs))


def pack_trace(old: TraceReader, path: str | Path) -> Copied:
    """Write a trace that replays without any other file: of disks it keeps the clusters that the run read.

    Raises:
        TraceError: a part is missing or damaged. TraceWriteError.
    """
    drives = [row for row in old.images() if row.role == "drive" and not row.embedded]
    bare = [row for row in old.images() if row.role != "drive" and not row.embedded]
    if bare:
        raise TraceError(f"{old.path}: holds only the hash of {bare[0].name}; it can't be packed without it")
    copied = trim_trace(old, path, old.start_icount, old.final_icount)
    with TraceWriter.amend(path) as new:
        for row in drives:
            new.set_meta(f"packed:{row.name}", row.size)
        new.set_meta("packed", 1)
        new.finish()
    return copied


def _changed(old: TraceReader, a: CheckpointRow, b: CheckpointRow) -> dict[int, bytes]:
    """Return the pages that differ between two checkpoints, as the later one has them."""
    if b.parent_id == a.id:
        return old.checkpoint_diff(b.id)
    before, after = old.checkpoint_pages(a.id), old.checkpoint_pages(b.id)
    return {page: name for page, name in after.items() if before.get(page) != name}


def _elsewhere(path: str | Path, old: TraceReader) -> Path:
    path = Path(path)
    if path.exists() and path.samefile(old.path):
        raise PositionError(f"{path}: is the trace itself; give another file to write to")
    return path


#: Tables that ``export`` writes, and what they are ordered by.
_EXPORTED: Final = (
    ("meta", "key"),
    ("config", "key"),
    ("images", "id"),
    ("inputs", "id"),
    ("console", "id"),
    ("bookmarks", "icount"),
    ("checkpoints", "icount"),
    ("digests", "icount"),
)
_BULK: Final = frozenset(("state", "detail"))


def export_rows(trace: TraceReader) -> Iterator[dict[str, Any]]:
    """Yield what makes a run as plain values: ``{"table": name, column: value}``; bytes are text or hex."""
    for table, order in _EXPORTED:
        columns, rows = trace.sql(f"SELECT * FROM {table} ORDER BY {order}")
        for row in rows:
            pairs = zip(columns, row, strict=True)
            yield {"table": table} | {c: _plain(c, v) for c, v in pairs if c not in _BULK}


def _plain(column: str, value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    return value.decode("utf-8", "replace") if column == "data" else value.hex()


def export_text(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield rows as lines for a person: the table, then ``column=value``."""
    for row in rows:
        yield f"{row['table']}: " + " ".join(f"{c}={_quoted(v)}" for c, v in row.items() if c != "table")


def _quoted(value: Any) -> str:
    return (
        json.dumps(value) if isinstance(value, str) and not re.fullmatch(r"[\w./:+-]+", value) else str(value)
    )

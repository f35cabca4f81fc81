"""Reading a trace: read-only, every value checked, every error one clear line.

A trace may come from a stranger. Nothing in it runs code: rows are parsed with bounds checks, blobs are held
against their hashes, SQL runs on a connection that can neither write nor attach another file.
"""

from __future__ import annotations

import json
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from . import blobs, files
from .ahead import ImagesAhead
from .errors import TraceError
from .pagesets import PageReader, read_list
from .rows import BookmarkRow, CheckpointRow, ConsoleRow, DigestRow, ImageRow, InputRow
from .schema import FORMAT, REQUIRED_TABLES

#: Longest payload of one input, in bytes.
MAX_PAYLOAD_BYTES: Final = 16 << 20
#: Blobs that are read by one query.
_BATCH: Final = 500


class TraceReader:
    """An open trace. Make one with ``open``; a context manager."""

    def __init__(self, db: sqlite3.Connection, path: Path, cleanup: Callable[[], None]) -> None:
        self.path = path
        self._db = db
        self._cleanup = cleanup
        self._lock = threading.Lock()
        sets = self._rows("SELECT 1 FROM sqlite_master WHERE name = 'page_sets'")  # not in an older trace
        self._ahead = ImagesAhead(self._large, lambda data, name: blobs.check(data, name, str(path)))
        self._pages = PageReader(self._rows, self._ahead.contents, str(path)) if sets else None
        self.meta: dict[str, str] = dict(self._rows("SELECT key, value FROM meta"))
        self.config: dict[str, Any] = {k: self._json(v, f"config {k!r}") for k, v in self._config_rows()}
        self.clean = self.meta.get("clean") == "1"
        self.final_icount = self._meta_int("final_icount")
        #: where the history begins: not at reset for a branch or a part of a run
        self.start_icount = self._meta_int("start_icount") if "start_icount" in self.meta else 0
        if self.start_icount > self.final_icount:
            raise TraceError(f"{path}: damaged: it begins at {self.start_icount}, behind its end")

    def refresh(self) -> None:
        """Take notice of what a recording has committed since."""
        self.meta = dict(self._rows("SELECT key, value FROM meta"))
        self.clean = self.meta.get("clean") == "1"
        self.final_icount = self._meta_int("final_icount")

    @classmethod
    def open(cls, path: str | Path, semantics: int | None = None) -> TraceReader:
        """Open a trace; nothing is written, into it or beside it.

        Args:
            path: the trace.
            semantics: the number of the machine that is to replay it, or None if none is.

        Raises:
            TraceError: the file can't be used; the one-line message says why.
        """
        path = Path(path)
        header = files.check_file(path)
        if header.user_version > FORMAT:
            raise TraceError(
                f"{path}: was written by a newer workbench (format {header.user_version}, this one reads up to"
                f" {FORMAT}); update workbench"
            )
        with files.sqlite_errors(path):
            db, cleanup = files.open_readonly(path, header)
            try:
                _check_tables(db, path)
                reader = cls(db, path, cleanup)
                reader._check_versions(semantics)
            except BaseException:
                db.close()
                cleanup()
                raise
        return reader

    def close(self) -> None:
        """Let go of the file."""
        self._ahead.close()
        with suppress(sqlite3.Error):
            self._db.close()
        self._cleanup()

    def __enter__(self) -> TraceReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # what makes a run

    def images(self) -> list[ImageRow]:
        """Return the files that were loaded."""
        rows = self._rows("SELECT name, role, hash, path, embedded, size FROM images ORDER BY id")
        return [ImageRow(n, r, h, p, bool(e), s) for n, r, h, p, e, s in rows]

    def image(self, role: str, *, checked: bool = True) -> bytes | None:
        """Return an image's contents by role, None if there is none.

        Args:
            role: as ``images`` has it.
            checked: False: it may still be on its way through ``check_images``, which must be called before anything
                is shown or decided that depends on it.

        Raises:
            TraceError: it is damaged, or not embedded.
        """
        for row in self.images():
            if row.role == role:
                if not row.embedded:
                    raise TraceError(
                        f"{self.path}: holds only the hash of {row.name}; it can't be replayed without it"
                    )
                return self._ahead.contents(row.hash) if checked else self._ahead.unchecked(row.hash)
        return None

    def prefetch_images(self) -> None:
        """Begin to read and check the images in a thread: whoever asks for one waits for it, and is told of damage."""
        self._ahead.prefetch([row.hash for row in self.images() if row.embedded])

    def check_images(self) -> None:
        """Wait until every image that was read is checked. Raises TraceError: one is damaged."""
        self._ahead.check()

    def _large(self, name: bytes) -> bytes:
        """Return a blob of many megabytes, unchecked: it is read into one place, where a query copies it twice."""
        where = str(self.path)
        row = self._one("SELECT rowid, codec, size FROM blobs WHERE hash = ?", (name,))
        if row is None:
            raise self._missing(name)
        with (
            files.sqlite_errors(self.path),
            self._lock,
            self._db.blobopen("blobs", "data", row[0], readonly=True) as blob,
        ):
            stored = blob.read()
        return blobs.unpack(row[1], stored, row[2], where)

    def blob(self, name: bytes) -> bytes:
        """Return a blob's contents, held against its hash. Raises TraceError if missing or damaged."""
        return self.blobs([name])[name]

    def blobs(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the contents of many blobs by hash, read in a few queries. Raises TraceError as ``blob`` does."""
        found = self._pages.find(names) if self._pages is not None else {}
        return found | self._unpacked([name for name in names if name not in found])

    def page_based(self, name: bytes) -> tuple[bytes, int] | None:
        """Return ``(image's hash, offset)`` of what a RAM page is stored as the difference from, None for nothing."""
        return None if self._pages is None else self._pages.based(name)

    def _unpacked(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        out: dict[bytes, bytes] = {}
        where = str(self.path)
        for at in range(0, len(names), _BATCH):
            batch = names[at : at + _BATCH]
            marks = ",".join("?" * len(batch))
            for name, codec, stored, size in self._rows(
                f"SELECT hash, codec, data, size FROM blobs WHERE hash IN ({marks})", tuple(batch)
            ):
                out[name] = blobs.check(blobs.unpack(codec, stored, size, where), name, where)
        for name in names:
            if name not in out:
                raise self._missing(name)
        return out

    def _missing(self, name: bytes) -> TraceError:
        return TraceError(f"{self.path}: damaged: blob {name.hex()[:16]}… is missing")

    def inputs(self, from_id: int = 0, count: int | None = None) -> Iterator[InputRow]:
        """Yield inputs in order, from an id on, at most ``count``; each is held against its checksum."""
        last_icount = 0
        while count is None or count > 0:
            chunk = min(4096, count) if count is not None else 4096
            rows = self._rows(
                "SELECT id, icount, vtime_ns, hart, source, kind, payload, asked, crc FROM inputs"
                " WHERE id >= ? ORDER BY id LIMIT ?",
                (from_id, chunk),
            )
            for *values, crc in rows:
                row = InputRow(*values)
                self._check_input(row, crc, last_icount)
                last_icount = row.icount
                yield row
            if len(rows) < chunk:
                return
            from_id = rows[-1][0] + 1
            count = None if count is None else count - len(rows)

    def delivered_positions(self, after_id: int = 0) -> list[tuple[int, int]]:
        """Return ``(id, icount)`` of the inputs that were delivered, not asked for, in order."""
        return list(
            self._rows("SELECT id, icount FROM inputs WHERE asked = 0 AND id > ? ORDER BY id", (after_id,))
        )

    def input_count(self) -> int:
        """Return how many inputs there are."""
        return int(self._rows("SELECT coalesce(max(id), 0) FROM inputs")[0][0])

    def checkpoints(self) -> list[CheckpointRow]:
        """Return the checkpoints by position, without their contents."""
        rows = self._rows(
            "SELECT id, icount, vtime_ns, parent_id, digest, next_input FROM checkpoints ORDER BY icount"
        )
        return [CheckpointRow(*row) for row in rows]

    def checkpoint_state(self, checkpoint_id: int) -> dict[str, Any]:
        """Return a checkpoint's state, all but RAM, as the JSON document it is. Raises TraceError if damaged."""
        row = self._one("SELECT state FROM checkpoints WHERE id = ?", (checkpoint_id,))
        if row is None:
            raise TraceError(f"{self.path}: has no checkpoint {checkpoint_id}")
        state = self._json(blobs.unpack_state(row[0], str(self.path)), f"checkpoint {checkpoint_id}")
        if not isinstance(state, dict):
            raise TraceError(f"{self.path}: damaged: checkpoint {checkpoint_id} holds no state")
        return state

    def checkpoint_diff(self, checkpoint_id: int) -> dict[int, bytes]:
        """Return ``{page: blob hash}`` of the pages that differ from the parent's."""
        if self._pages is None:
            sql = "SELECT page, hash FROM checkpoint_pages WHERE checkpoint_id = ?"
            return dict(self._rows(sql, (checkpoint_id,)))
        return read_list(self._rows, checkpoint_id, str(self.path))

    def checkpoint_pages(self, checkpoint_id: int) -> dict[int, bytes]:
        """Return ``{page: blob hash}`` of all pages that differ from RAM after reset, folded over the parents."""
        parents = {c.id: c.parent_id for c in self.checkpoints()}
        chain: list[int] = []
        at: int | None = checkpoint_id
        while at is not None:
            if at not in parents or at in chain:
                raise TraceError(
                    f"{self.path}: damaged: the parents of checkpoint {checkpoint_id} lead nowhere"
                )
            chain.append(at)
            at = parents[at]
        pages: dict[int, bytes] = {}
        for each in reversed(chain):
            pages.update(self.checkpoint_diff(each))
        return pages

    def digests(self) -> list[DigestRow]:
        """Return the rolling digests by position."""
        return [
            DigestRow(*row)
            for row in self._rows("SELECT icount, digest, detail FROM digests ORDER BY icount")
        ]

    def digest_detail(self, row: DigestRow) -> Any:
        """Return what went into a rolling digest (the harts' registers), or None if it was not kept."""
        if not row.detail:
            return None
        return self._json(blobs.unpack_state(row.detail, str(self.path)), f"the digest at {row.icount}")

    def console(self, from_icount: int = 0, to_icount: int | None = None) -> Iterator[ConsoleRow]:
        """Yield console output with ``from_icount <= icount < to_icount``, in order."""
        rows = self._rows(
            "SELECT icount, vtime_ns, port, data FROM console WHERE icount >= ? AND icount < ? ORDER BY id",
            (from_icount, (1 << 63) - 1 if to_icount is None else to_icount),
        )
        for row in rows:
            yield ConsoleRow(*row)

    def bookmarks(self) -> list[BookmarkRow]:
        """Return the named places by position."""
        return [
            BookmarkRow(*r)
            for r in self._rows("SELECT name, icount, note FROM bookmarks ORDER BY icount, name")
        ]

    def disk_reads(self, drive: str) -> dict[int, bytes]:
        """Return ``{cluster: blob hash}`` of what a run read of a drive's base image."""
        return dict(self._rows("SELECT cluster, hash FROM disk_reads WHERE drive = ?", (drive,)))

    def vtime_anchors(self, vtime_ns: int) -> tuple[tuple[int, int], tuple[int, int] | None]:
        """Return the known ``(icount, vtime_ns)`` at or before a virtual time, and the next one after it."""
        known = (
            "SELECT icount, vtime_ns FROM {} WHERE vtime_ns {} ? AND icount <= ?"
            " ORDER BY vtime_ns {}, icount {} LIMIT 1"
        )
        tables = ("checkpoints", "inputs", "console")
        args = (vtime_ns, self.final_icount)
        before = [r for t in tables for r in self._rows(known.format(t, "<=", "DESC", "DESC"), args)]
        after = [r for t in tables for r in self._rows(known.format(t, ">", "ASC", "ASC"), args)]
        return max(before, default=(0, 0)), min(after, default=None)

    # what is asked of it

    def sql(self, text: str, params: Sequence[Any] = ()) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run one SQL statement that only reads. Returns ``(column names, rows)``.

        Raises:
            TraceError: it is wrong SQL, writes, attaches a file, or the trace is damaged.
        """
        with self._lock:
            self._db.set_authorizer(_authorise)
            try:
                cursor = self._db.execute(text, params)
                rows = cursor.fetchall()
            except (sqlite3.Error, sqlite3.Warning) as e:
                raise QueryError(f"sql: {e}") from None
            finally:
                self._db.set_authorizer(None)
        return [d[0] for d in cursor.description or ()], rows

    def verify(self) -> int:
        """Check the whole file: SQLite's structure, references, every checksum and every blob.

        Returns:
            how many blobs were checked.

        Raises:
            TraceError: the first damage found.
        """
        for pragma in ("integrity_check(1)", "foreign_key_check"):
            for row in self._rows(f"PRAGMA {pragma}"):
                if row[0] != "ok":
                    raise TraceError(f"{self.path}: damaged: {str(row[0]).splitlines()[-1]}")
        for _ in self.inputs():
            pass
        names = [row[0] for row in self._rows("SELECT hash FROM blobs")]
        held = set(names) | (self._pages.names() if self._pages is not None else set())
        for checkpoint in self.checkpoints():
            self.checkpoint_state(checkpoint.id)
            for page, name in self.checkpoint_diff(checkpoint.id).items():
                if name not in held:
                    raise TraceError(
                        f"{self.path}: damaged: page {page} of checkpoint {checkpoint.id} is missing"
                    )
        for name in names:
            self.blob(name)
        return len(names) + (self._pages.verify() if self._pages is not None else 0)

    def _check_versions(self, semantics: int | None) -> None:
        have = self.meta.get("semantics", "")
        if semantics is not None and have != str(semantics):
            raise TraceError(
                f"{self.path}: was recorded by a machine of semantics {have or 'unknown'}, this one has {semantics};"
                " replay it with the workbench that recorded it"
            )

    def _check_input(self, row: InputRow, crc: int, last_icount: int) -> None:
        try:
            good = row.crc() == crc and row.icount >= last_icount and len(row.payload) <= MAX_PAYLOAD_BYTES
        except (struct.error, AttributeError, TypeError):
            good = False
        if not good:
            raise TraceError(f"{self.path}: damaged: input {row.id} does not match its checksum or its place")

    def _config_rows(self) -> list[tuple[str, str]]:
        return [(k, v) for k, v in self._rows("SELECT key, value FROM config")]

    def _json(self, text: str | bytes, what: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise TraceError(f"{self.path}: damaged: {what} is not JSON") from None

    def _meta_int(self, key: str) -> int:
        try:
            value = int(self.meta[key])
        except (KeyError, ValueError):
            value = -1
        if not 0 <= value < 1 << 63:
            raise TraceError(f"{self.path}: damaged: meta {key!r} is no position")
        return value

    def _one(self, sql: str, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        rows = self._rows(sql, args)
        return rows[0] if rows else None

    def _rows(self, sql: str, args: tuple[Any, ...] = ()) -> list[Any]:
        with files.sqlite_errors(self.path), self._lock:
            return self._db.execute(sql, args).fetchall()


class QueryError(TraceError):
    """A SQL text that can't be run; the trace itself is fine."""

    exit_code = 2


def _authorise(action: int, *_: str | None) -> int:
    return (
        sqlite3.SQLITE_DENY if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH) else sqlite3.SQLITE_OK
    )


def _check_tables(db: sqlite3.Connection, path: Path) -> None:
    have = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
    missing = sorted(REQUIRED_TABLES - have)
    if missing:
        raise TraceError(f"{path}: is not a whole trace: the table {missing[0]!r} is missing")

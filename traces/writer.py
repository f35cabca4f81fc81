"""Writing a trace: rows in, commits often, one file at the end.

A writer belongs to one thread at a time. What is known before the first step goes into a file without a name of
its own, which the first ``commit`` puts in place: so a file with a trace's name can always be replayed, however
short, and images are written once instead of first to a log. From then on one open transaction is committed at
least every ``COMMIT_S`` seconds (if ``tick`` is called) and at every checkpoint; ``final_icount`` is kept at the
last position to which a replay of what is committed can go, so a recorder killed at any moment leaves a good
trace.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from . import files
from .blobs import BlobPacker, Packed, blob_hash, pack_state
from .errors import TraceError, TraceWriteError
from .newfile import new_path, prepare_replacing, write_errors
from .pagesets import Based, PageList, PageWriter
from .rows import InputRow
from .schema import FORMAT, migrate

#: Time between commits, in seconds of host time; whoever calls ``tick`` adds what lies between two calls.
COMMIT_S: Final = 0.15
#: Of the database: blobs are large, and a write costs by the page.
_DB_PAGE_BYTES: Final = 16384
#: Of memory for the database's pages: what one checkpoint changes is written once, at its commit.
_CACHE_KIB: Final = 16384
#: Of the write-ahead log, before it is moved into the database: what is left of it has to be moved at the end.
_LOG_PAGES: Final = 512


class TraceWriter:
    """A trace that is being recorded. Make one with ``create``; a context manager that leaves an unclean trace."""

    def __init__(
        self, db: sqlite3.Connection | None, path: Path, clock: Callable[[], float], new: Path | None = None
    ) -> None:
        self.path = path
        self._new = new
        self._made = db
        self._clock = clock
        self._packer = BlobPacker()
        self._committed_at = clock()
        self._next_input = 1
        self._open = True
        self._known: set[bytes] = set()
        self._pages = PageWriter(self._run, str(path))
        self._counted_bytes = 0

    @classmethod
    def create(
        cls, path: str | Path, clock: Callable[[], float] = time.monotonic, *, begin: bool = True
    ) -> TraceWriter:
        """Make a new trace, which the first ``commit`` puts at its path in one step, in place of an old one.

        Args:
            path: where. An existing trace (or empty file) is replaced; any other file is refused.
            clock: seconds, for the commits' rhythm.
            begin: make its tables; where not, ``begin`` is to be called before anything is added.

        Raises:
            TraceWriteError: the path can't be written, holds something else, or is in use.
        """
        path = Path(path)
        with write_errors(path):
            prepare_replacing(path)
            new = new_path(path)
            new.touch()
        writer = cls(None, path, clock, new)
        if begin:
            try:
                writer.begin()
            except BaseException:
                writer.abandon()
                raise
        return writer

    def begin(
        self,
        blobs: Sequence[Packed] = (),
        like: bytes | memoryview | None = None,
        keep: Callable[[bytes], None] | None = None,
    ) -> None:
        """Make the file's tables, with blobs in them that are known before all else.

        Args:
            blobs: their names and contents.
            like: a file of tables with the same blobs, of which this one becomes a copy; no contents are looked at.
            keep: takes the file as it is then, for other traces that begin so.
        """
        new = self._new
        assert new is not None and self._made is None
        with write_errors(self.path):
            if like is not None:
                new.write_bytes(like)
            self._made = db = sqlite3.connect(new, isolation_level=None, check_same_thread=False)
            db.execute(f"PRAGMA page_size = {_DB_PAGE_BYTES}")
            db.execute("PRAGMA journal_mode = OFF").fetchone()  # what is cut off here gets no name
            db.execute("PRAGMA synchronous = OFF")
            migrate(db)
            db.execute("BEGIN IMMEDIATE")
            if like is not None:
                self._known.update(packed.name for packed in blobs)
            for packed in blobs:
                self._insert(packed)
            if keep is not None:
                db.execute("COMMIT")
                keep(new.read_bytes())
                db.execute("BEGIN IMMEDIATE")
        self._run("INSERT INTO meta VALUES ('format', ?), ('clean', '0'), ('final_icount', '0')", (FORMAT,))

    def _publish(self) -> None:
        """Put a file that holds all that is known before the first step at its path, and log from here on."""
        new, path = self._new, self.path
        assert new is not None
        with write_errors(path):
            self._db.execute("COMMIT")
            self._db.close()
            self._made = None
            with new.open("rb") as file:
                os.fsync(file.fileno())  # of what has the name nothing is missing, whenever the power is lost
            prepare_replacing(path)
            for old in (files.wal_path(path), files.shm_path(path)):
                old.unlink(missing_ok=True)
            new.replace(path)
            self._new = None
            self._made = db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL").fetchone()
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA foreign_keys = OFF")  # they hold by construction; verify() checks them
            db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            db.execute("PRAGMA journal_size_limit = 67108864")
            db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            db.execute("BEGIN IMMEDIATE")

    @classmethod
    def amend(cls, path: str | Path, clock: Callable[[], float] = time.monotonic) -> TraceWriter:
        """Open a trace that is there, to add bookmarks or ``meta`` rows to it.

        Raises:
            TraceWriteError: it can't be written, or is in use.
        """
        path = Path(path)
        with write_errors(path):
            if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
                raise TraceWriteError(f"{path}: can't be written: it is read-only")
            db = sqlite3.connect(path, isolation_level=None, timeout=0.2, check_same_thread=False)
            try:
                db.execute("BEGIN IMMEDIATE")
            except BaseException:
                db.close()
                raise
        return cls(db, path, clock)

    def finish(self) -> None:
        """Commit what was added to a trace that was there, and let go of it."""
        with write_errors(self.path):
            self._db.execute("COMMIT")
        self.abandon()

    # what makes a run

    def drop_meta(self, key: str) -> None:
        """Remove one ``meta`` row, if it is there."""
        self._run("DELETE FROM meta WHERE key = ?", (key,))

    def set_meta(self, key: str, value: str | int) -> None:
        """Set one ``meta`` row."""
        self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, str(value)))

    def set_config(self, key: str, value: Any) -> None:
        """Set one ``config`` row to a JSON-able value."""
        self._run("INSERT OR REPLACE INTO config VALUES (?, ?)", (key, json.dumps(value, sort_keys=True)))

    def add_image(self, name: str, role: str, data: bytes, path: str = "", embed: bool = True) -> bytes:
        """Add a loaded file; with ``embed`` its contents too. Returns its hash."""
        if embed:
            return self.add_packed_image(name, role, self._packer.pack(data), path)
        name_hash = blob_hash(data)
        self.add_image_hash(name, role, name_hash, len(data), path)
        return name_hash

    def add_packed_image(self, name: str, role: str, packed: Packed, path: str = "") -> bytes:
        """Add a loaded file whose contents have been hashed and compressed before. Returns its hash."""
        self._insert(packed)
        self.add_image_hash(name, role, packed.name, packed.size, path, embedded=True)
        return packed.name

    def add_image_hash(
        self, name: str, role: str, digest: bytes, size: int, path: str, embedded: bool = False
    ) -> None:
        """Add a loaded file by its hash alone."""
        self._run(
            "INSERT OR REPLACE INTO images (name, role, hash, path, embedded, size) VALUES (?, ?, ?, ?, ?, ?)",
            (name, role, digest, path, int(embedded), size),
        )

    def add_blob(self, data: bytes) -> bytes:
        """Store contents once; returns their hash."""
        name = blob_hash(data)
        if name not in self._known:
            self._insert(self._packer.pack(data, name))
        return name

    def add_input(
        self,
        icount: int,
        vtime_ns: int,
        hart: int,
        source: str,
        kind: str,
        payload: bytes,
        asked: bool = False,
    ) -> int:
        """Log one input; ids count from 1 in the order of the calls. Returns the id."""
        row = InputRow(self._next_input, icount, vtime_ns, hart, source, kind, payload, int(asked))
        self._run(
            "INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row.id, icount, vtime_ns, hart, source, kind, payload, row.asked, row.crc()),
        )
        self._next_input += 1
        return row.id

    def add_console(self, icount: int, vtime_ns: int, port: str, data: bytes) -> None:
        """Add console output; ``icount`` is the position of its last byte."""
        self._run(
            "INSERT INTO console (icount, vtime_ns, port, data) VALUES (?, ?, ?, ?)",
            (icount, vtime_ns, port, data),
        )

    def add_disk_read(self, drive: str, cluster: int, data: bytes) -> None:
        """Keep a base image's cluster that the run touched."""
        self._run("INSERT OR IGNORE INTO disk_reads VALUES (?, ?, ?)", (drive, cluster, self.add_blob(data)))

    def add_pages(
        self,
        names: bytes,
        data: bytes | bytearray | memoryview,
        at: Sequence[int],
        based: Based | None = None,
    ) -> None:
        """Store contents of RAM pages, each once, for a checkpoint that is to come.

        Args:
            names: their hashes, one behind the other.
            data: pages one behind the other; it may be changed after the call.
            at: where in ``data`` each of them is, in pages.
            based: what is in ``data`` instead of some of them; the image has been added.
        """
        self._pages.add(names, data, at, based)

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes that RAM pages of checkpoints take in the file."""
        return self._pages.stored_bytes

    def add_checkpoint(
        self,
        icount: int,
        vtime_ns: int,
        parent_id: int | None,
        state: bytes,
        digest: bytes,
        pages: PageList,
        next_input: int = 1,
    ) -> int:
        """Add a full state; commits, once the trace has its name.

        Args:
            icount: its position. vtime_ns: virtual time there.
            parent_id: the checkpoint that ``pages`` differ from; None for RAM as it is after reset.
            state: the JSON document of everything but RAM.
            digest: 32 bytes of the whole state.
            pages: of RAM that differ from the parent's; ``add_pages`` has stored them.
            next_input: id of the first input not taken yet.

        Returns:
            the checkpoint's id.
        """
        cursor = self._run(
            "INSERT INTO checkpoints (icount, vtime_ns, parent_id, state, digest, next_input, page_bytes)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (icount, vtime_ns, parent_id, pack_state(state), digest, next_input, self._new_bytes()),
        )
        checkpoint_id = int(cursor.lastrowid or 0)
        self._pages.add_list(checkpoint_id, pages)
        self.progress(icount)
        if self._new is None:
            self.commit()
        return checkpoint_id

    def drop_checkpoint(self, checkpoint_id: int) -> None:
        """Remove a checkpoint that is not the first; its children take over its differences and its parent."""
        row = self._run("SELECT parent_id FROM checkpoints WHERE id = ?", (checkpoint_id,)).fetchone()
        if row is None or row[0] is None:
            raise TraceError(
                f"checkpoint {checkpoint_id} is the first one or does not exist: it can't be dropped"
            )
        children = [
            child
            for (child,) in self._run("SELECT id FROM checkpoints WHERE parent_id = ?", (checkpoint_id,))
        ]
        self._pages.drop_list(checkpoint_id, children)
        self._run("UPDATE checkpoints SET parent_id = ? WHERE parent_id = ?", (row[0], checkpoint_id))
        heir = max(children, default=row[0])
        self._run(
            "UPDATE checkpoints SET page_bytes = page_bytes + ?"
            " + (SELECT page_bytes FROM checkpoints WHERE id = ?) WHERE id = ?",
            (self._new_bytes(), checkpoint_id, heir),
        )
        self._run("DELETE FROM checkpoints WHERE id = ?", (checkpoint_id,))

    def add_digest(self, icount: int, digest: bytes, detail: bytes = b"") -> None:
        """Add a rolling digest; ``detail`` is the JSON document of the harts' registers, for reports."""
        self._run(
            "INSERT OR REPLACE INTO digests VALUES (?, ?, ?)",
            (icount, digest, pack_state(detail) if detail else b""),
        )
        self.progress(icount)

    def bookmark(self, name: str, icount: int, note: str = "") -> None:
        """Name a position; a name that is taken moves there."""
        self._run("INSERT OR REPLACE INTO bookmarks VALUES (?, ?, ?)", (name, icount, note))

    # commits

    def progress(self, icount: int) -> None:
        """Say that a replay of what has been added can go up to this position."""
        self._run("UPDATE meta SET value = ? WHERE key = 'final_icount'", (str(icount),))

    def tick(self) -> bool:
        """Commit if the last commit is ``COMMIT_S`` ago and the trace has its name; True if it did."""
        if self._new is not None or self._clock() - self._committed_at < COMMIT_S:
            return False
        self.commit()
        return True

    def commit(self) -> None:
        """Make everything added so far safe from a killed process; the first time, give the trace its name."""
        if self._new is not None:
            self._publish()
        else:
            with write_errors(self.path):
                self._db.execute("COMMIT")
                self._db.execute("BEGIN IMMEDIATE")
        self._committed_at = self._clock()

    def close(self, final_icount: int) -> None:
        """End the recording: set the final position and ``clean``, and leave one file.

        Raises:
            TraceWriteError: it could not be written; the trace stays unclean and replays to its last commit.
        """
        if not self._open:
            return
        try:
            if self._new is not None:
                self.commit()
            self.progress(final_icount)
            self.set_meta("clean", 1)
            with write_errors(self.path):
                self._db.execute("COMMIT")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                with suppress(
                    sqlite3.OperationalError
                ):  # a reader has it open: the log stays until it is gone
                    self._db.execute("PRAGMA journal_mode = DELETE").fetchone()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it was committed last, unclean if ``close`` was not reached.

        What was never committed has no name and is removed.
        """
        if self._open:
            self._open = False
            if self._made is not None:
                with suppress(sqlite3.Error):
                    self._made.rollback()
                with suppress(sqlite3.Error):
                    self._made.close()
            if self._new is not None:
                with suppress(OSError):
                    self._new.unlink()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.abandon()

    @property
    def _db(self) -> sqlite3.Connection:
        if self._made is None:
            raise TraceWriteError(f"{self.path}: has not begun, or could not be put in place")
        return self._made

    def _run(self, sql: str, args: tuple[Any, ...]) -> sqlite3.Cursor:
        with write_errors(self.path):
            return self._db.execute(sql, args)

    def _insert(self, packed: Packed) -> None:
        """Store a blob unless it is there."""
        if packed.name not in self._known:
            row = (packed.name, packed.size, packed.codec, packed.stored)
            self._run("INSERT INTO blobs VALUES (?, ?, ?, ?)", row)
            self._known.add(packed.name)

    def _new_bytes(self) -> int:
        """Return by how much the stored pages have grown since the last call."""
        grown = self._pages.stored_bytes - self._counted_bytes
        self._counted_bytes += grown
        return grown

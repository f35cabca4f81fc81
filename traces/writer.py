"""Writing a trace: rows in, commits often, one file at the end.

A writer belongs to one thread at a time. It writes in one open transaction that is committed at least every
``COMMIT_S`` seconds (if ``tick`` is called) and at every checkpoint; ``final_icount`` is kept at the last
position to which a replay of what is committed can go, so a recorder killed at any moment leaves a good trace.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from . import files
from .blobs import BlobPacker, blob_hash, pack_state
from .errors import TraceError, TraceWriteError
from .rows import InputRow
from .schema import APPLICATION_ID, FORMAT, migrate

#: Longest time between commits, in seconds of host time.
COMMIT_S: Final = 0.2
#: Of the database: blobs are large, and a write costs by the page.
_DB_PAGE_BYTES: Final = 16384


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as e:
        text = str(e)
        if "full" in text:
            raise TraceWriteError(
                f"{path}: the disk is full; what was committed is kept and replays"
            ) from None
        if "locked" in text:
            raise TraceWriteError(f"{path}: is in use by another program; choose another -o") from None
        raise TraceWriteError(f"{path}: can't be written: {text}") from None
    except sqlite3.Error as e:
        raise TraceWriteError(f"{path}: can't be written: {e}") from None
    except OSError as e:
        raise TraceWriteError(f"{path}: can't be written: {(e.strerror or str(e)).lower()}") from None


def _prepare_replacing(path: Path) -> None:
    """Make sure that what is at ``path`` may be replaced: nothing, an empty file, or a trace nobody is using."""
    if not path.parent.is_dir():
        raise TraceWriteError(f"{path}: can't be written: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise TraceWriteError(
            f"{path}: can't be written: the folder {path.parent} is read-only; choose another -o"
        )
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise TraceWriteError(f"{path}: exists and is not a file; choose another -o")
    if path.stat().st_size == 0:
        return
    header = files.read_header(path)
    if header is None or header.application_id != APPLICATION_ID:
        raise TraceWriteError(f"{path}: exists and is not a trace, so it is not replaced; choose another -o")
    with sqlite3.connect(path, isolation_level=None, timeout=0) as db:
        try:
            db.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.DatabaseError as e:
            if "locked" in str(e):
                raise TraceWriteError(f"{path}: is in use by another program; choose another -o") from None
    db.close()


class TraceWriter:
    """A trace that is being recorded. Make one with ``create``; a context manager that leaves an unclean trace."""

    def __init__(self, db: sqlite3.Connection, path: Path, clock: Callable[[], float]) -> None:
        self.path = path
        self._db = db
        self._clock = clock
        self._packer = BlobPacker()
        self._committed_at = clock()
        self._next_input = 1
        self._open = True
        self._known: set[bytes] = set()
        #: bytes of RAM pages that checkpoints hold in the file
        self.checkpoint_bytes = 0

    @classmethod
    def create(cls, path: str | Path, clock: Callable[[], float] = time.monotonic) -> TraceWriter:
        """Make a new trace, replacing an old one at that path in one step.

        Args:
            path: where. An existing trace (or empty file) is replaced; any other file is refused.
            clock: seconds, for the commits' rhythm.

        Raises:
            TraceWriteError: the path can't be written, holds something else, or is in use.
        """
        path = Path(path)
        new = path.with_name(f".{path.name}.{os.getpid()}.new")
        with _write_errors(path):
            _prepare_replacing(path)
            try:
                db = sqlite3.connect(new, isolation_level=None)
                try:
                    db.execute(f"PRAGMA page_size = {_DB_PAGE_BYTES}")
                    migrate(db)
                    db.execute(
                        "INSERT INTO meta VALUES ('format', ?), ('clean', '0'), ('final_icount', '0')",
                        (FORMAT,),
                    )
                finally:
                    db.close()
                for old in (files.wal_path(path), files.shm_path(path)):
                    with suppress(FileNotFoundError):
                        old.unlink()
                new.replace(path)
            finally:
                with suppress(FileNotFoundError):
                    new.unlink()
            db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL").fetchone()
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA foreign_keys = OFF")  # they hold by construction; verify() checks them
            db.execute("PRAGMA wal_autocheckpoint = 2048")
            db.execute("PRAGMA journal_size_limit = 67108864")
            db.execute("BEGIN IMMEDIATE")
        return cls(db, path, clock)

    @classmethod
    def amend(cls, path: str | Path, clock: Callable[[], float] = time.monotonic) -> TraceWriter:
        """Open a trace that is there, to add bookmarks or ``meta`` rows to it.

        Raises:
            TraceWriteError: it can't be written, or is in use.
        """
        path = Path(path)
        with _write_errors(path):
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
        with _write_errors(self.path):
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
        name_hash = self.add_blob(data) if embed else blob_hash(data)
        self.add_image_hash(name, role, name_hash, len(data), path, embed)
        return name_hash

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
        self._store(name, data)
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

    def add_checkpoint(
        self,
        icount: int,
        vtime_ns: int,
        parent_id: int | None,
        state: bytes,
        digest: bytes,
        pages: Iterable[tuple[int, bytes | memoryview]],
        next_input: int = 1,
        names: Sequence[bytes] | None = None,
    ) -> int:
        """Add a full state; commits.

        Args:
            icount: its position. vtime_ns: virtual time there.
            parent_id: the checkpoint that ``pages`` differ from; None for RAM as it is after reset.
            state: the JSON document of everything but RAM.
            digest: 32 bytes of the whole state.
            pages: ``(index, contents)`` of RAM pages that differ from the parent's.
            next_input: id of the first input not taken yet.
            names: the pages' hashes in the same order, where the caller knows them already.

        Returns:
            the checkpoint's id.
        """
        cursor = self._run(
            "INSERT INTO checkpoints (icount, vtime_ns, parent_id, state, digest, next_input)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (icount, vtime_ns, parent_id, pack_state(state), digest, next_input),
        )
        checkpoint_id = int(cursor.lastrowid or 0)
        held = list(pages)
        if names is None:
            names = [blob_hash(data) for _, data in held]
        new = {name: data for name, (_, data) in zip(names, held, strict=True) if name not in self._known}
        self._store_pages(new)
        rows = [(checkpoint_id, page, name) for name, (page, _) in zip(names, held, strict=True)]
        with _write_errors(self.path):
            self._db.executemany("INSERT INTO checkpoint_pages VALUES (?, ?, ?)", rows)
        self.progress(icount)
        self.commit()
        return checkpoint_id

    def drop_checkpoint(self, checkpoint_id: int) -> None:
        """Remove a checkpoint that is not the first; its children take over its differences and its parent."""
        row = self._run("SELECT parent_id FROM checkpoints WHERE id = ?", (checkpoint_id,)).fetchone()
        if row is None or row[0] is None:
            raise TraceError(
                f"checkpoint {checkpoint_id} is the first one or does not exist: it can't be dropped"
            )
        self._run("CREATE INDEX IF NOT EXISTS checkpoint_pages_hash ON checkpoint_pages (hash)", ())
        children = self._run("SELECT id FROM checkpoints WHERE parent_id = ?", (checkpoint_id,)).fetchall()
        hashes = self._run(
            "SELECT DISTINCT hash FROM checkpoint_pages WHERE checkpoint_id = ?", (checkpoint_id,)
        ).fetchall()
        for (child,) in children:
            self._run(
                "INSERT OR IGNORE INTO checkpoint_pages"
                " SELECT ?, page, hash FROM checkpoint_pages WHERE checkpoint_id = ?",
                (child, checkpoint_id),
            )
            self._run("UPDATE checkpoints SET parent_id = ? WHERE id = ?", (row[0], child))
        self._run("DELETE FROM checkpoint_pages WHERE checkpoint_id = ?", (checkpoint_id,))
        self._run("DELETE FROM checkpoints WHERE id = ?", (checkpoint_id,))
        for (name,) in hashes:
            self._drop_unused_blob(name)

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
        """Commit if the last commit is ``COMMIT_S`` ago; True if it did."""
        if self._clock() - self._committed_at < COMMIT_S:
            return False
        self.commit()
        return True

    def commit(self) -> None:
        """Make everything added so far safe from a killed process."""
        with _write_errors(self.path):
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
            self.progress(final_icount)
            self.set_meta("clean", 1)
            with _write_errors(self.path):
                self._db.execute("COMMIT")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                with suppress(
                    sqlite3.OperationalError
                ):  # a reader has it open: the log stays until it is gone
                    self._db.execute("PRAGMA journal_mode = DELETE").fetchone()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it was committed last, unclean if ``close`` was not reached."""
        if self._open:
            self._open = False
            with suppress(sqlite3.Error):
                self._db.rollback()
            with suppress(sqlite3.Error):
                self._db.close()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.abandon()

    def _run(self, sql: str, args: tuple[Any, ...]) -> sqlite3.Cursor:
        with _write_errors(self.path):
            return self._db.execute(sql, args)

    def _store(self, name: bytes, data: bytes) -> None:
        """Store a blob unless it is there."""
        if name not in self._known:
            codec, stored = self._packer.pack(data)
            self._run("INSERT INTO blobs VALUES (?, ?, ?, ?)", (name, len(data), codec, stored))
            self._known.add(name)

    def _store_pages(self, new: dict[bytes, bytes | memoryview]) -> None:
        packed = self._packer.pack_pages([memoryview(data) for data in new.values()])
        rows = [(name, len(new[name]), *pair) for name, pair in zip(new, packed, strict=True)]
        with _write_errors(self.path):
            self._db.executemany("INSERT INTO blobs VALUES (?, ?, ?, ?)", rows)
        self._known.update(new)
        self.checkpoint_bytes += sum(len(stored) for _, _, _, stored in rows)

    def _drop_unused_blob(self, name: bytes) -> None:
        row = self._run(
            "SELECT length(data) FROM blobs b WHERE hash = ?1"
            " AND NOT EXISTS (SELECT 1 FROM checkpoint_pages WHERE hash = ?1)"
            " AND NOT EXISTS (SELECT 1 FROM images WHERE hash = ?1)"
            " AND NOT EXISTS (SELECT 1 FROM disk_reads WHERE hash = ?1)",
            (name,),
        ).fetchone()
        if row is not None:
            self._run("DELETE FROM blobs WHERE hash = ?", (name,))
            self.checkpoint_bytes -= row[0]
            self._known.discard(name)

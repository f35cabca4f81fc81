"""Lazy tables: which intervals of which query are filled, and the database that holds their rows.

Rows and their coverage are written in one transaction, so what ``coverage`` says is there, is there: a fill that was
cancelled keeps its finished stretches. Where the trace itself can't be written (read-only, or being recorded), the
rows go to a side database: ``TRACE.q`` beside it, or one in the user's cache folder where the folder can't be
written either. Queries see either of them under the same table names.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from .errors import TraceWriteError
from .files import check_file, sqlite_errors
from .graft import Pages, graft
from .schema import FORMAT, migrate
from .stretch import replace_rows

#: The lazy tables, and how their rows are told to be the same for a fill that comes again.
LAZY_TABLES: Final = ("insns", "mem", "calls", "traps", "syscalls", "mmio", "csr", "switches", "dma")

#: The index by content of the tables that may have millions of rows: (name, columns).
CONTENT_INDEXES: Final = {
    "mem": ("mem_paddr", "(paddr, icount)"),
    "calls": ("calls_symbol", "(symbol, icount)"),
}
_BUSY_S: Final = 30.0
_CACHE_KIB: Final = 65536
#: Of rows that are made as pages: they need no overflow pages then.
_LEAST_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Want:
    """What rows are wanted: a table, and a filter; ``filter`` is JSON-able and part of the coverage's name.

    Args:
        table: one of LAZY_TABLES, or one that ``make_table`` made.
        filter: what the rows are limited to, empty for all of them.
        where, args: the same limit as SQL on the table, so that rows of another fill can be replaced.
        follows: rows of a stretch may be completed by what comes later (returns).
    """

    table: str
    filter: tuple[tuple[str, Any], ...] = ()
    where: str = "1"
    args: tuple[Any, ...] = ()
    follows: bool = False

    @property
    def params(self) -> str:
        """Return the filter as canonical JSON, as ``coverage.params`` has it."""
        return json.dumps(dict(self.filter), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one table for a stretch.

    Args:
        columns, rows: what is inserted. updates: SQL and arguments that complete earlier rows.
        state: JSON-able: what a fill that continues where the stretch ends needs.
        pages: in place of ``rows``: the rows as pages of the table, made for ``LazyStore.declaration``.
    """

    want: Want
    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]
    updates: tuple[str, Iterable[Sequence[Any]]] | None = None
    state: Any = None
    pages: Pages | None = None


def subtract(low: int, high: int, covered: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts of ``low..high`` (end exclusive) that no covered interval holds, in order."""
    out = []
    at = low
    for start, end in sorted(covered):
        if end <= at or start >= high:
            continue
        if start > at:
            out.append((at, start))
        at = max(at, end)
    if at < high:
        out.append((at, high))
    return out


class LazyStore:
    """The database of a trace's lazy rows. Make one with ``open``; a context manager; one thread at a time."""

    def __init__(self, trace: Path, path: Path, side: bool) -> None:
        self.trace = trace
        self.path = path
        #: whether the rows are beside the trace
        self.side = side
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._made: set[str] = set()

    @classmethod
    def open(cls, trace: str | Path, identity: str, writable: bool = True) -> LazyStore:
        """Return the store of a trace; nothing is written yet.

        Args:
            trace: the trace's file.
            identity: what tells this run from others; a side database of another one is begun anew.
            writable: False keeps the trace itself untouched.

        Raises:
            TraceError: the trace can't be used.
        """
        path = Path(trace)
        header = check_file(path)
        if writable and not header.wal and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
            return cls(path, path, False)
        store = cls(path, _side_path(path), True)
        store._check_side(identity)
        return store

    def close(self) -> None:
        """Let go of the files."""
        for db in (self._writer, self._reader):
            if db is not None:
                with suppress(sqlite3.Error):
                    db.close()
        self._writer = self._reader = None

    def __enter__(self) -> LazyStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # coverage

    def covered(self, want: Want) -> list[tuple[int, int]]:
        """Return the intervals (end exclusive) of which all wanted rows are there, in order."""
        rows = self.read(
            "SELECT icount_from, icount_to FROM coverage WHERE probe = ? AND params IN (?, '{}') ORDER BY 1",
            (want.table, want.params),
        )
        return [(int(a), int(b)) for a, b in rows]

    def missing(self, want: Want, low: int, high: int) -> list[tuple[int, int]]:
        """Return the intervals that must be filled so that ``low..high`` is whole.

        Where rows of a stretch may be completed by a later one (calls by returns), a stretch that was filled before
        and lies behind a missing one is filled again.
        """
        if want.follows and want.filter:
            return self._whole(want, low, high)
        covered = self.covered(want)
        gaps = subtract(low, high, covered)
        if not want.follows:
            return gaps
        out: list[tuple[int, int]] = []
        for start, end in gaps:
            while (follower := next((b for a, b in covered if a <= end < b), None)) is not None:
                end = follower
            if out and out[-1][1] >= start:
                out[-1] = (out[-1][0], max(end, out[-1][1]))
            else:
                out.append((start, end))
        return out

    def _whole(self, want: Want, low: int, high: int) -> list[tuple[int, int]]:
        """Return one interval or none: what ends a filtered call is only seen by the replay that saw it begin."""
        everything = Want(want.table, follows=True)
        if any(a <= low and high <= b for a, b in self.covered(everything) + self.covered(want)):
            return []
        for start, end in self.covered(want):
            if start <= high and low <= end:
                low, high = min(low, start), max(high, end)
        return [(low, high)]

    def state_at(self, want: Want, icount: int) -> Any:
        """Return what a fill that ended here left for one that begins here, or None."""
        rows = self.read(
            "SELECT state FROM lazy_state WHERE probe = ? AND params = ? AND icount = ?",
            (want.table, want.params, icount),
        )
        return json.loads(rows[0][0]) if rows else None

    # reading

    def read(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query of this package's own."""
        with sqlite_errors(self.trace):
            try:
                return self.reader().execute(sql, args).fetchall()
            except sqlite3.OperationalError as e:
                if "no such table: lazy_" in str(e):
                    return []
                raise

    def reader(self) -> sqlite3.Connection:
        """Return the connection that reads: the trace, with the side database's tables in place of its own."""
        if self._reader is None:
            db = sqlite3.connect(
                f"file:{quote(os.fsencode(self.trace.absolute()))}?mode=ro",
                uri=True,
                isolation_level=None,
                timeout=_BUSY_S,
                check_same_thread=False,
            )
            try:
                if self.side and self.path.exists():
                    db.execute(
                        "ATTACH ? AS side", (f"file:{quote(os.fsencode(self.path.absolute()))}?mode=ro",)
                    )
                    for name in (*LAZY_TABLES, *sorted(self._made), "coverage", "lazy_state", "lazy_cache"):
                        db.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM side.{name}")
                db.execute("PRAGMA trusted_schema = OFF")
                db.execute("PRAGMA query_only = ON")
            except BaseException:
                db.close()
                raise
            self._reader = db
        return self._reader

    def bring_up(self) -> None:
        """Give a trace of an older format the tables that it has not, so that questions can name them."""
        if self.read("PRAGMA user_version")[0][0] < FORMAT and not (self.side and self.path.exists()):
            with self._transaction():
                pass

    # writing

    def write_stretch(self, low: int, high: int, parts: Sequence[Part]) -> int:
        """Store all wanted rows of ``low..high`` and say so, in one transaction; return how many the first part's are.

        Args:
            parts: of the table that was asked for, then of others whose rows were found on the way; one may be pages.

        Raises:
            TraceWriteError: the database can't be written (disk full, in use).
        """
        grafted = 0
        for part in parts:
            if part.pages is not None:
                grafted = self._graft(part.want.table, part.pages, low)
                if not grafted:
                    self._lend(part.pages)
        with self._transaction() as db:
            counts = [replace_rows(db, part, low, high, grafted if part.pages else 0) for part in parts]
            return counts[0]

    def declaration(self, table: str) -> bytes:
        """Return an SQLite database of two pages that holds nothing but a table as it is declared here, empty.

        Raises:
            TraceWriteError: the database can't be written.
        """
        with self._writing() as db:
            (declared,) = db.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
            page_bytes = max(_LEAST_PAGE, *db.execute("PRAGMA page_size").fetchone())
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as empty:
            empty.execute(f"PRAGMA page_size = {page_bytes}")
            empty.execute(declared)
            return empty.serialize()

    def is_keyed(self, table: str) -> bool:
        """Tell whether a table's rows have a key of their own, ``icount``. Raises TraceWriteError."""
        with self._writing() as db:
            return any(key for *_, key in db.execute(f'PRAGMA table_info("{table}")'))

    def _graft(self, table: str, pages: Pages, low: int) -> int:
        """Put pages behind a table's rows; return how many rows they are, 0 where they must be inserted."""
        with self._writing() as db:
            return pages.rows if graft(db, self.path, table, pages, low, sync=not self.side) else 0

    def _lend(self, pages: Pages) -> None:
        """Put rows where the writer can read them, as the database ``image``.

        SQLite copies a table's rows from one database to another as they are, where both declare it alike.
        """
        with self._writing() as db:
            if not any(name == "image" for _, name, _ in db.execute("PRAGMA database_list")):
                db.execute("ATTACH ':memory:' AS image")
            db.deserialize(pages.database(), name="image")

    def make_table(self, name: str, columns: Sequence[str]) -> None:
        """Make the table of a query that the schema does not know, where it is not there yet; ``icount`` is its first.

        Raises:
            TraceWriteError: the database can't be written.
        """
        if name in self._made or name in LAZY_TABLES:
            return
        rest = "".join(f', "{column}" ANY' for column in columns if column != "icount")
        with self._transaction() as db:
            db.execute(f'CREATE TABLE IF NOT EXISTS "{name}" (icount INTEGER NOT NULL{rest}) STRICT')
            db.execute(f'CREATE INDEX IF NOT EXISTS "{name}_icount" ON "{name}" (icount)')
        self._made.add(name)
        if self.side and self._reader is not None:
            self._reader.close()
            self._reader = None

    def drop_indexes(self, table: str) -> None:
        """Drop a table's indexes, before very many rows."""
        with self._transaction() as db:
            found = db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL",
                (table,),
            )
            for (name,) in found.fetchall():
                db.execute(f'DROP INDEX "{name}"')

    def make_index(self, table: str, where: str) -> None:
        """Make an index for rows that are looked for, where ``drop_indexes`` left none.

        Args:
            where: the condition, as literally as the question has it. Of calls only those rows are indexed: all of them
                would take seconds; of accesses to memory all, as ranges of addresses overlap.
        """
        name, columns = CONTENT_INDEXES[table]
        if self._has_index(name):
            return
        statement = f"{name} ON {table} {columns}"
        if table == "calls":
            name = f"{table}_{hashlib.blake2b(where.encode(), digest_size=6).hexdigest()}"
            statement = f"{name} ON {table} (icount) WHERE {where}"
        if not self._has_index(name):
            with self._transaction() as db:
                db.execute(f"CREATE INDEX IF NOT EXISTS {statement}")

    def _has_index(self, name: str) -> bool:
        return bool(self.read(f"SELECT 1 FROM {self._schema} WHERE type = 'index' AND name = ?", (name,)))

    @property
    def _schema(self) -> str:
        self.reader()
        return "side.sqlite_master" if self.side and self.path.exists() else "sqlite_master"

    def put_cache(self, key: str, data: bytes) -> None:
        """Keep something that was found out about the run (symbols, types)."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO lazy_cache VALUES (?, ?)", (key, data))

    def get_cache(self, key: str) -> bytes | None:
        """Return what ``put_cache`` kept, or None."""
        rows = self.read("SELECT data FROM lazy_cache WHERE key = ?", (key,))
        return bytes(rows[0][0]) if rows else None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._open_writer()
        except (sqlite3.Error, OSError) as e:
            raise TraceWriteError(
                f"{self.path}: rows can't be stored: {e}; free some space, or close other users"
            ) from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            db = sqlite3.connect(self.path, isolation_level=None, timeout=_BUSY_S, check_same_thread=False)
            try:
                # what is not yet committed stays out of the file, so that readers are never shut out for long
                db.execute("PRAGMA cache_spill = OFF")
                db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                db.execute("PRAGMA synchronous = OFF" if self.side else "PRAGMA synchronous = NORMAL")
                migrate(db)
                if self.side:
                    db.execute("INSERT OR REPLACE INTO meta VALUES ('side_of', ?)", (self._identity,))
            except BaseException:
                db.close()
                raise
            self._writer = db
            if self.side and self._reader is not None:
                self._reader.close()
                self._reader = None
        return self._writer

    _identity = ""

    def _check_side(self, identity: str) -> None:
        """Begin anew where the side database is damaged, or of another run: all that it holds can be found again."""
        self._identity = identity
        if not self.path.exists():
            return
        try:
            with sqlite3.connect(f"file:{quote(os.fsencode(self.path.absolute()))}?mode=ro", uri=True) as db:
                row = db.execute("SELECT value FROM meta WHERE key = 'side_of'").fetchone()
                if db.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
                    row = None
            db.close()
        except sqlite3.Error:
            row = None
        if row is None or row[0] != identity:
            self.path.unlink()


def _side_path(trace: Path) -> Path:
    beside = trace.with_name(trace.name + ".q")
    if os.access(beside if beside.exists() else trace.parent, os.W_OK):
        return beside
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workbench" / "queries"
    root.mkdir(parents=True, exist_ok=True)
    return root / (hashlib.blake2b(str(trace.absolute()).encode(), digest_size=12).hexdigest() + ".q")


#: Shows how far a fill has come: (steps done, steps in all).
Progress = Callable[[int, int], None]

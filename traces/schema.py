"""The tables of a trace, as migrations that are applied once, in order; ``user_version`` counts them.

Two groups: what makes a run (written by a recording) and what is known about it (lazy tables, filled by
queries). All tables are STRICT; foreign keys hold; the views at the end read well in any SQLite shell.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from .pagesets import PageList, list_rows

#: ``application_id`` of a trace: "WBTR".
APPLICATION_ID: Final = 0x57425452

_RUN_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE config (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE blobs (
    hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
    size INTEGER NOT NULL CHECK (size >= 0),
    codec TEXT NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    path TEXT NOT NULL DEFAULT '',
    embedded INTEGER NOT NULL CHECK (embedded IN (0, 1)),
    size INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE inputs (
    id INTEGER PRIMARY KEY,
    icount INTEGER NOT NULL CHECK (icount >= 0),
    vtime_ns INTEGER NOT NULL,
    hart INTEGER NOT NULL DEFAULT 0,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    payload BLOB NOT NULL,
    asked INTEGER NOT NULL DEFAULT 0 CHECK (asked IN (0, 1)),
    crc INTEGER NOT NULL
) STRICT;
CREATE INDEX inputs_icount ON inputs (icount);
CREATE TABLE disk_reads (
    drive TEXT NOT NULL,
    cluster INTEGER NOT NULL,
    hash BLOB NOT NULL REFERENCES blobs (hash),
    PRIMARY KEY (drive, cluster)
) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoints (
    id INTEGER PRIMARY KEY,
    icount INTEGER NOT NULL UNIQUE CHECK (icount >= 0),
    vtime_ns INTEGER NOT NULL,
    parent_id INTEGER REFERENCES checkpoints (id),
    state BLOB NOT NULL,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    next_input INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE INDEX checkpoints_parent ON checkpoints (parent_id);
CREATE TABLE checkpoint_pages (
    checkpoint_id INTEGER NOT NULL REFERENCES checkpoints (id),
    page INTEGER NOT NULL CHECK (page >= 0),
    hash BLOB NOT NULL REFERENCES blobs (hash),
    PRIMARY KEY (checkpoint_id, page)
) STRICT, WITHOUT ROWID;
CREATE TABLE digests (
    icount INTEGER PRIMARY KEY CHECK (icount >= 0),
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    detail BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE TABLE console (
    id INTEGER PRIMARY KEY,
    icount INTEGER NOT NULL,
    vtime_ns INTEGER NOT NULL,
    port TEXT NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX console_icount ON console (icount);
CREATE TABLE bookmarks (
    name TEXT PRIMARY KEY,
    icount INTEGER NOT NULL CHECK (icount >= 0),
    note TEXT NOT NULL DEFAULT ''
) STRICT;
"""

_KNOWN_TABLES = """
CREATE TABLE coverage (
    probe TEXT NOT NULL,
    params TEXT NOT NULL DEFAULT '{}',
    icount_from INTEGER NOT NULL,
    icount_to INTEGER NOT NULL CHECK (icount_to > icount_from),
    PRIMARY KEY (probe, params, icount_from)
) STRICT, WITHOUT ROWID;
CREATE TABLE insns (
    icount INTEGER PRIMARY KEY, hart INTEGER NOT NULL, pc INTEGER NOT NULL, priv INTEGER NOT NULL
) STRICT;
CREATE TABLE mem (
    icount INTEGER NOT NULL, hart INTEGER NOT NULL, pc INTEGER NOT NULL,
    op TEXT NOT NULL CHECK (op IN ('r', 'w', 'atomic')),
    vaddr INTEGER NOT NULL, paddr INTEGER NOT NULL, size INTEGER NOT NULL, value INTEGER NOT NULL
) STRICT;
CREATE INDEX mem_icount ON mem (icount);
CREATE INDEX mem_paddr ON mem (paddr, icount);
CREATE TABLE calls (
    icount INTEGER NOT NULL, hart INTEGER NOT NULL, depth INTEGER NOT NULL, pc INTEGER NOT NULL,
    target INTEGER NOT NULL, symbol TEXT NOT NULL DEFAULT '', ret_icount INTEGER,
    a0 INTEGER, a1 INTEGER, a2 INTEGER, a3 INTEGER, a4 INTEGER, a5 INTEGER, a6 INTEGER, a7 INTEGER,
    ret INTEGER
) STRICT;
CREATE INDEX calls_icount ON calls (icount);
CREATE INDEX calls_symbol ON calls (symbol, icount);
CREATE TABLE traps (
    icount INTEGER PRIMARY KEY, hart INTEGER NOT NULL, cause INTEGER NOT NULL,
    is_interrupt INTEGER NOT NULL CHECK (is_interrupt IN (0, 1)), epc INTEGER NOT NULL,
    tval INTEGER NOT NULL, from_priv INTEGER NOT NULL, to_priv INTEGER NOT NULL, ret_icount INTEGER
) STRICT;
CREATE INDEX traps_cause ON traps (is_interrupt, cause, icount);
CREATE TABLE syscalls (
    icount INTEGER PRIMARY KEY, hart INTEGER NOT NULL, pid INTEGER NOT NULL, comm TEXT NOT NULL,
    nr INTEGER NOT NULL, name TEXT NOT NULL, args TEXT NOT NULL, ret INTEGER, ret_icount INTEGER
) STRICT;
CREATE INDEX syscalls_name ON syscalls (name, icount);
CREATE TABLE mmio (
    icount INTEGER NOT NULL, hart INTEGER NOT NULL, pc INTEGER NOT NULL, device TEXT NOT NULL,
    "offset" INTEGER NOT NULL, op TEXT NOT NULL CHECK (op IN ('r', 'w')), size INTEGER NOT NULL,
    value INTEGER NOT NULL
) STRICT;
CREATE INDEX mmio_icount ON mmio (icount);
CREATE INDEX mmio_device ON mmio (device, icount);
CREATE TABLE csr (
    icount INTEGER NOT NULL, hart INTEGER NOT NULL, pc INTEGER NOT NULL, csr TEXT NOT NULL,
    old INTEGER NOT NULL, new INTEGER NOT NULL
) STRICT;
CREATE INDEX csr_icount ON csr (icount);
CREATE TABLE switches (
    icount INTEGER PRIMARY KEY, hart INTEGER NOT NULL, prev_pid INTEGER NOT NULL, prev_comm TEXT NOT NULL,
    next_pid INTEGER NOT NULL, next_comm TEXT NOT NULL
) STRICT;
"""

_VIEWS = """
CREATE VIEW console_text AS
    SELECT icount, vtime_ns / 1e9 AS vtime_s, port, CAST(data AS TEXT) AS text FROM console;
CREATE VIEW input_list AS
    SELECT id, icount, vtime_ns / 1e9 AS vtime_s, hart, source, kind, length(payload) AS bytes,
        CASE WHEN kind = 'rx' THEN CAST(payload AS TEXT) ELSE hex(substr(payload, 1, 32)) END AS payload
    FROM inputs;
CREATE VIEW input_summary AS
    SELECT source, kind, count(*) AS n, sum(length(payload)) AS bytes,
        min(icount) AS first_icount, max(icount) AS last_icount
    FROM inputs GROUP BY source, kind;
CREATE VIEW checkpoint_list AS
    SELECT c.id, c.icount, c.vtime_ns / 1e9 AS vtime_s, c.parent_id, lower(hex(c.digest)) AS digest,
        (SELECT count(*) FROM checkpoint_pages p WHERE p.checkpoint_id = c.id) AS pages,
        (SELECT coalesce(sum(length(b.data)), 0) FROM checkpoint_pages p JOIN blobs b USING (hash)
            WHERE p.checkpoint_id = c.id) AS stored_bytes
    FROM checkpoints c;
CREATE VIEW image_list AS
    SELECT name, role, lower(hex(hash)) AS hash, path, embedded, size FROM images;
CREATE VIEW digest_list AS
    SELECT icount, lower(hex(digest)) AS digest FROM digests;
"""


def _create_tables(db: sqlite3.Connection) -> None:
    for script in (_RUN_TABLES, _KNOWN_TABLES, _VIEWS):
        _execute(db, script)


def _execute(db: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            db.execute(statement)


_CALLS_BY_POSITION = """
DROP TABLE calls;
CREATE TABLE calls (
    icount INTEGER PRIMARY KEY, hart INTEGER NOT NULL, depth INTEGER NOT NULL, pc INTEGER NOT NULL,
    target INTEGER NOT NULL, symbol TEXT NOT NULL DEFAULT '', ret_icount INTEGER,
    a0 INTEGER, a1 INTEGER, a2 INTEGER, a3 INTEGER, a4 INTEGER, a5 INTEGER, a6 INTEGER, a7 INTEGER,
    ret INTEGER
) STRICT;
CREATE INDEX calls_symbol ON calls (symbol, icount);
DELETE FROM coverage WHERE probe = 'calls';
CREATE TABLE IF NOT EXISTS lazy_state (
    probe TEXT NOT NULL, params TEXT NOT NULL, icount INTEGER NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (probe, params, icount)
) STRICT, WITHOUT ROWID;
DELETE FROM lazy_state WHERE probe = 'calls';
CREATE TABLE IF NOT EXISTS lazy_cache (key TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""


def _calls_by_position(db: sqlite3.Connection) -> None:
    """A step makes one call at most, so its position is its key. Rows that were found before are found again.

    ``lazy_state`` is what a fill that continues needs; both tables were made by the first fill before.
    """
    _execute(db, _CALLS_BY_POSITION)


_DEVICE_WRITES = """
CREATE TABLE dma (
    icount INTEGER NOT NULL, device TEXT NOT NULL, paddr INTEGER NOT NULL, size INTEGER NOT NULL,
    value INTEGER NOT NULL
) STRICT;
CREATE INDEX dma_icount ON dma (icount);
"""

_QUERY_VIEWS = """
CREATE VIEW call_list AS
    SELECT icount, hart, depth, symbol, ret_icount - icount AS steps, printf('%#x', a0) AS a0,
        printf('%#x', a1) AS a1, printf('%#x', a2) AS a2, ret
    FROM calls;
CREATE VIEW call_cost AS
    SELECT symbol, count(*) AS calls, sum(ret_icount - icount) AS steps, max(ret_icount - icount) AS longest
    FROM calls GROUP BY symbol;
CREATE VIEW trap_list AS
    SELECT icount, hart,
        CASE WHEN is_interrupt THEN
            CASE cause WHEN 1 THEN 'software interrupt' WHEN 5 THEN 'timer interrupt' WHEN 9 THEN 'external interrupt'
                ELSE 'interrupt ' || cause END
        ELSE
            CASE cause WHEN 0 THEN 'fetch misaligned' WHEN 1 THEN 'fetch fault' WHEN 2 THEN 'illegal instruction'
                WHEN 3 THEN 'breakpoint' WHEN 4 THEN 'load misaligned' WHEN 5 THEN 'load fault'
                WHEN 6 THEN 'store misaligned' WHEN 7 THEN 'store fault' WHEN 8 THEN 'ecall from U'
                WHEN 9 THEN 'ecall from S' WHEN 12 THEN 'fetch page fault' WHEN 13 THEN 'load page fault'
                WHEN 15 THEN 'store page fault' ELSE 'exception ' || cause END
        END AS what,
        printf('%#x', epc) AS epc, printf('%#x', tval) AS tval, substr('US?M', from_priv + 1, 1) AS from_mode,
        ret_icount - icount AS steps
    FROM traps;
CREATE VIEW syscall_list AS
    SELECT icount, comm || '/' || pid AS task, name || '(' || substr(args, 2, length(args) - 2) || ')' AS call, ret,
        ret_icount - icount AS steps
    FROM syscalls;
CREATE VIEW mmio_list AS
    SELECT icount, hart, device || '+' || printf('%#x', "offset") AS place,
        CASE op WHEN 'r' THEN 'read' ELSE 'write' END AS op, size, printf('%#x', value) AS value
    FROM mmio;
CREATE VIEW write_list AS
    SELECT icount, CASE op WHEN 'atomic' THEN 'atomic' ELSE 'store' END AS by, printf('%#x', pc) AS pc,
        printf('%#x', paddr) AS paddr, size, printf('%#x', value) AS value
    FROM mem WHERE op != 'r'
    UNION ALL
    SELECT icount, device, '', printf('%#x', paddr), size, printf('%#x', value) FROM dma;
CREATE VIEW turns AS
    SELECT hart, next_pid AS pid, next_comm AS comm, icount AS begins,
        lead(icount) OVER (PARTITION BY hart ORDER BY icount) AS ends
    FROM switches;
"""


def _device_writes(db: sqlite3.Connection) -> None:
    for script in (_DEVICE_WRITES, _QUERY_VIEWS):
        _execute(db, script)


_PAGE_SETS = """
CREATE TABLE page_sets (
    id INTEGER PRIMARY KEY,
    hashes BLOB NOT NULL CHECK (length(hashes) % 32 = 0),
    codec TEXT NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE page_lists (
    checkpoint_id INTEGER NOT NULL REFERENCES checkpoints (id),
    part INTEGER NOT NULL,
    pages TEXT NOT NULL,
    hashes BLOB NOT NULL CHECK (length(hashes) % 32 = 0),
    crc INTEGER NOT NULL,
    PRIMARY KEY (checkpoint_id, part)
) STRICT;
ALTER TABLE checkpoints ADD COLUMN page_bytes INTEGER NOT NULL DEFAULT 0;
DROP VIEW checkpoint_list;
"""

_PAGE_VIEWS = """
DROP TABLE checkpoint_pages;
CREATE VIEW checkpoint_pages AS
    SELECT l.checkpoint_id, p.value AS page, substr(l.hashes, 32 * p.key + 1, 32) AS hash
    FROM page_lists l, json_each(l.pages) p;
CREATE VIEW checkpoint_list AS
    SELECT c.id, c.icount, c.vtime_ns / 1e9 AS vtime_s, c.parent_id, lower(hex(c.digest)) AS digest,
        (SELECT coalesce(sum(length(l.hashes) / 32), 0) FROM page_lists l WHERE l.checkpoint_id = c.id) AS pages,
        c.page_bytes AS stored_bytes
    FROM checkpoints c;
"""


def _page_sets(db: sqlite3.Connection) -> None:
    """Pages of RAM are many to a row. Those of an older trace stay in ``blobs``; their lists change."""
    _execute(db, _PAGE_SETS)
    for (checkpoint_id,) in db.execute("SELECT DISTINCT checkpoint_id FROM checkpoint_pages").fetchall():
        pages = db.execute(
            "SELECT page, hash FROM checkpoint_pages WHERE checkpoint_id = ?", (checkpoint_id,)
        ).fetchall()
        db.executemany(
            "INSERT INTO page_lists VALUES (?, ?, ?, ?, ?)", list_rows(checkpoint_id, PageList.of(pages))
        )
        db.execute(
            "UPDATE checkpoints SET page_bytes = (SELECT sum(length(b.data)) FROM checkpoint_pages p"
            " JOIN blobs b USING (hash) WHERE p.checkpoint_id = ?1) WHERE id = ?1",
            (checkpoint_id,),
        )
    _execute(db, _PAGE_VIEWS)


_PAGE_BASES = """
ALTER TABLE page_sets ADD COLUMN base BLOB;
ALTER TABLE page_sets ADD COLUMN places TEXT NOT NULL DEFAULT '';
"""


def _page_bases(db: sqlite3.Connection) -> None:
    """Pages of a loaded image are kept as what differs from it."""
    _execute(db, _PAGE_BASES)


#: Applied in order, each once. A change of the tables is a new function at the end, never an edit of an old one.
MIGRATIONS: Final[tuple[Callable[[sqlite3.Connection], None], ...]] = (
    _create_tables,
    _calls_by_position,
    _device_writes,
    _page_sets,
    _page_bases,
)

#: ``user_version`` of a trace that this code writes.
FORMAT: Final = len(MIGRATIONS)

#: Tables and views without which a file is no trace.
REQUIRED_TABLES: Final = frozenset(
    "meta config blobs images inputs disk_reads checkpoints checkpoint_pages digests console bookmarks".split()
)


def migrate(db: sqlite3.Connection) -> None:
    """Bring a database to ``FORMAT``, in one transaction; a database of this format is left alone.

    Args:
        db: an open connection in autocommit mode (``isolation_level=None``), empty or of an older format.

    Raises:
        sqlite3.Error: the database can't be written; nothing has changed then.
    """
    have = int(db.execute("PRAGMA user_version").fetchone()[0])
    if have >= FORMAT:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for migration in MIGRATIONS[have:]:
            migration(db)
        db.execute(f"PRAGMA user_version = {FORMAT}")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has ended it already
            db.execute("ROLLBACK")
        raise

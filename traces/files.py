"""The file under a trace: what its first bytes say, how to open it without writing, what is wrong with a bad one."""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from .errors import TraceError
from .schema import APPLICATION_ID

_MAGIC: Final = b"SQLite format 3\0"
_HEADER_BYTES: Final = 100


class Header(NamedTuple):
    """What a SQLite file's first 100 bytes say. Spec: SQLite file format, section 1.3."""

    page_bytes: int
    pages: int
    wal: bool
    user_version: int
    application_id: int


def _parse_header(head: bytes) -> Header | None:
    if len(head) < _HEADER_BYTES or not head.startswith(_MAGIC):
        return None
    page_bytes = struct.unpack_from(">H", head, 16)[0]
    pages, user_version, application_id = (struct.unpack_from(">I", head, at)[0] for at in (28, 60, 68))
    return Header(
        65536 if page_bytes == 1 else page_bytes, pages, head[18] == 2, user_version, application_id
    )


def read_header(path: Path) -> Header | None:
    """Return the header of a SQLite file, or None for another file (or an empty one). Raises OSError."""
    with path.open("rb") as f:
        return _parse_header(f.read(_HEADER_BYTES))


def check_file(path: Path) -> Header:
    """Return the header of a trace that looks whole from outside.

    Raises:
        TraceError: missing, a directory, unreadable, empty, not SQLite, not a trace, or cut short.
    """
    try:
        if path.is_dir():
            raise TraceError(f"{path}: is a directory, not a trace")
        header = read_header(path)
        size = path.stat().st_size
    except OSError as e:
        if e.errno == errno.ENOENT:
            raise TraceError(f"{path}: no such trace; make one with 'workbench record -o {path} …'") from None
        raise TraceError(f"{path}: can't be read: {(e.strerror or str(e)).lower()}") from None
    if size == 0:
        raise TraceError(f"{path}: is empty, not a trace")
    if header is None:
        raise TraceError(f"{path}: is not a trace: it is not an SQLite file")
    if header.application_id != APPLICATION_ID:
        raise TraceError(f"{path}: is an SQLite file, but not a trace")
    page = header.page_bytes
    if page < 512 or page & (page - 1):
        raise TraceError(f"{path}: damaged: its header claims pages of {page} bytes")
    logged = _size(wal_path(path)) if header.wal else _size(journal_path(path))
    if size < header.pages * page and not logged:
        raise TraceError(f"{path}: cut short: it has {size} of {header.pages * page} bytes; copy it again")
    return header


def journal_path(path: Path) -> Path:
    """Return where SQLite keeps the rollback journal of a database: what a transaction that is under way undoes."""
    return path.with_name(path.name + "-journal")


def wal_path(path: Path) -> Path:
    """Return where SQLite keeps the write-ahead log of a database."""
    return path.with_name(path.name + "-wal")


def shm_path(path: Path) -> Path:
    """Return where SQLite keeps the write-ahead log's index of a database."""
    return path.with_name(path.name + "-shm")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _uri(path: Path, options: str) -> str:
    return f"file:{quote(os.fsencode(path.absolute()))}?{options}"


def _connect(path: Path, options: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        _uri(path, options), uri=True, isolation_level=None, timeout=5, check_same_thread=False
    )
    try:
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        db.execute("PRAGMA query_only = ON")
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def open_readonly(path: Path, header: Header) -> tuple[sqlite3.Connection, Callable[[], None]]:
    """Open a trace so that nothing at all is written beside or into it.

    A closed trace is one file in rollback mode; whoever was killed while changing it left a journal beside it, which
    has to be undone first: that is done to copies of the two files, in a temporary folder. A trace that is being
    recorded, or was cut off, has a write-ahead log beside it: with its index there it is read in place, without it
    the two files are copied too (SQLite would make a new index beside the trace). Without a log, the file is complete
    in itself and is opened as immutable, which read-only media allow.

    Args:
        path: the trace. header: of ``check_file``.

    Returns:
        the connection, and a function that removes what was copied, to be called after closing it.

    Raises:
        sqlite3.Error or OSError: it can't be opened.
    """
    wal = wal_path(path)
    if not header.wal:
        try:
            return _connect(path, "mode=ro"), lambda: None
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
        return _connect_copy(path, journal_path, "mode=rw")
    if shm_path(path).exists():
        try:
            return _connect(path, "mode=ro&readonly_shm=1"), lambda: None
        except sqlite3.OperationalError:
            if os.access(path.parent, os.W_OK) and _size(wal) == 0:
                raise
    if _size(wal) == 0:
        return _connect(path, "mode=ro&immutable=1"), lambda: None
    return _connect_copy(path, wal_path, "mode=ro")


def _connect_copy(
    path: Path, beside: Callable[[Path], Path], options: str
) -> tuple[sqlite3.Connection, Callable[[], None]]:
    """Open a copy of a trace and of a file beside it, as ``open_readonly`` does."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="workbench-trace-"))
    try:
        copy = folder / "copy.trace"
        shutil.copyfile(path, copy)
        shutil.copyfile(beside(path), beside(copy))
        return _connect(copy, options), lambda: shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors while reading a trace into one clear line."""
    try:
        yield
    except sqlite3.OperationalError as e:
        text = str(e)
        if "locked" in text:
            raise TraceError(f"{path}: is in use by another program; try again when it is done") from None
        if "unable to open" in text or "readonly" in text:
            raise TraceError(
                f"{path}: can't be opened ({text}); copy it, with its -wal file, and open that"
            ) from None
        raise TraceError(f"{path}: damaged: {text}") from None
    except (sqlite3.DatabaseError, UnicodeDecodeError, OverflowError) as e:
        raise TraceError(f"{path}: damaged: {str(e).splitlines()[0]}") from None
    except OSError as e:
        raise TraceError(f"{path}: can't be read: {(e.strerror or str(e)).lower()}") from None

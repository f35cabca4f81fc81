"""Where a new trace is written: beside its path, under a name that nobody takes for a trace, until it is put there."""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from . import files
from .errors import TraceWriteError
from .schema import APPLICATION_ID

#: Tells apart the files without a name yet that one process writes.
_NUMBERS: Final = itertools.count()


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn errors while writing a trace into one clear line."""
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


def prepare_replacing(path: Path) -> None:
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
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as db:
        try:
            db.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.DatabaseError as e:
            if "locked" in str(e):
                raise TraceWriteError(f"{path}: is in use by another program; choose another -o") from None


def new_path(path: Path) -> Path:
    """Return where a trace is written before it gets its name; what killed recorders left there goes."""
    _sweep(path)
    return path.with_name(f".{path.name}.{os.getpid()}.{next(_NUMBERS)}.new")


def remove_trace(path: Path) -> None:
    """Remove a trace that nobody records any more, and what its recorder left beside it, if it was killed."""
    for each in (path, files.journal_path(path), files.wal_path(path), files.shm_path(path)):
        each.unlink(missing_ok=True)
    _sweep(path)


def _sweep(path: Path) -> None:
    mine = re.compile(re.escape(f".{path.name}.") + r"(\d+)\.\d+\.new(-journal)?")
    for each in path.parent.iterdir():
        left = mine.fullmatch(each.name)
        if left is not None and not _is_running(int(left[1])):
            with suppress(OSError):
                each.unlink()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True

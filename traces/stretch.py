"""A stretch of a lazy table in an open transaction: its rows, what continues behind it, and that it is filled."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .lazy import Part, Want


def replace_rows(db: sqlite3.Connection, part: Part, low: int, high: int, grafted: int = 0) -> int:
    """Put all wanted rows of a stretch in place of those that are there, and say so; return how many they are.

    Args:
        grafted: how many of them are in the table already, and nothing else in its stretch.
    """
    want = part.want
    count = grafted or _insert(db, part, low, high)
    if part.updates is not None:
        db.executemany(*part.updates)
    _cover(db, want, low, high)
    key = (want.table, want.params)
    db.execute(
        "DELETE FROM lazy_state WHERE probe = ? AND params = ? AND icount >= ? AND icount <= ?",
        (*key, low, high),
    )
    if part.state is not None:
        db.execute("INSERT INTO lazy_state VALUES (?, ?, ?, ?)", (*key, high, json.dumps(part.state)))
    return max(count, 0)


def _insert(db: sqlite3.Connection, part: Part, low: int, high: int) -> int:
    want = part.want
    db.execute(
        f"DELETE FROM {want.table} WHERE icount >= ? AND icount < ? AND ({want.where})",
        (low, high, *want.args),
    )
    if part.pages is not None:
        return db.execute(f"INSERT INTO main.{want.table} SELECT * FROM image.{want.table}").rowcount
    names = ", ".join(f'"{c}"' for c in part.columns)
    insert = f"INSERT INTO {want.table} ({names}) VALUES ({', '.join('?' * len(part.columns))})"
    return db.executemany(insert, part.rows).rowcount


def _cover(db: sqlite3.Connection, want: Want, low: int, high: int) -> None:
    """Say that a stretch is filled: neighbours become one interval; all rows there make filters needless."""
    key = (want.table, want.params)
    touching = db.execute(
        "SELECT icount_from, icount_to FROM coverage WHERE probe = ? AND params = ?"
        " AND icount_from <= ? AND icount_to >= ?",
        (*key, high, low),
    ).fetchall()
    start = min([low, *(a for a, _ in touching)])
    end = max([high, *(b for _, b in touching)])
    db.executemany(
        "DELETE FROM coverage WHERE probe = ? AND params = ? AND icount_from = ?",
        [(*key, a) for a, _ in touching],
    )
    db.execute("INSERT INTO coverage VALUES (?, ?, ?, ?)", (*key, start, end))

"""Rows as pages of an SQLite table: SQLite reads the rows that were put in, whatever their words and however many."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Sequence
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.tcg.rowimage import NAME_MAX, Column, Kind, RowImage

TABLE = "CREATE TABLE t (k INTEGER PRIMARY KEY, a INTEGER, n TEXT NOT NULL, z INTEGER, y INTEGER) STRICT"
COLUMNS = [
    Column(Kind.KEY, 0),
    Column(Kind.INT, 1),
    Column(Kind.NAME, 2),
    Column(Kind.LATE, 3),
    Column(Kind.LATE, 4),
]
WORDS = 5
Row = tuple[int, int, int, int, int]

edges = [
    x
    for bits in (0, 1, 7, 8, 15, 16, 23, 24, 31, 32, 47, 48, 55, 56, 62)
    for x in ((1 << bits) - 1, 1 << bits)
]
words = st.sampled_from([s * e for e in edges for s in (1, -1)] + [-(1 << 63), (1 << 63) - 1]) | st.integers(
    -(1 << 63), (1 << 63) - 1
)


def declaration(page_bytes: int = 4096) -> bytes:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size = {page_bytes}")
        db.execute(TABLE)
        return db.serialize()


def called(word: int) -> str:
    return f"näme {word & 0xFF}" * (word & 3)


def image(page_bytes: int = 4096, name: Callable[[int], str] = called) -> RowImage:
    return RowImage(declaration(page_bytes), COLUMNS, WORDS, 3, name)


def flat(rows: Sequence[Row]) -> memoryview:
    return memoryview(array("q", [word for row in rows for word in row]))


def expected(rows: Sequence[Row]) -> list[tuple[object, ...]]:
    return [(k, a, called(n), *((None, None) if z == -1 else (z, y))) for k, a, n, z, y in rows]


def read(database: memoryview) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(database)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return db.execute("SELECT * FROM t ORDER BY k").fetchall()


@given(
    st.lists(
        st.tuples(words, words, words, words | st.just(-1), words), unique_by=lambda row: row[0], max_size=60
    )
)
def test_every_number_is_read_as_it_was(rows: list[Row]) -> None:
    rows.sort()
    with image() as pages:
        pages.write(flat(rows))
        assert read(pages.database()) == expected(rows)


@given(st.sampled_from([2048, 4096, 16384, 65536]), st.integers(0, 30_000))
@settings(max_examples=20, deadline=None)
def test_any_number_of_rows_makes_a_sound_tree(page_bytes: int, count: int) -> None:
    rows = [(3 * i - 1000, i * i, i % 50, i - 1, -i) for i in range(count)]
    with image(page_bytes) as pages:
        pages.write(flat([(1, 1, 1, 1, 1)]))  # what was there before does not show
        pages.write(flat(rows))
        assert pages.rows == count
        assert read(pages.database()) == expected(rows)


def test_names_are_asked_for_once_and_cut_where_they_are_long() -> None:
    asked = []

    def name(word: int) -> str:
        asked.append(word)
        return "ü" * NAME_MAX

    with image(name=name) as pages:
        pages.write(flat([(i, 0, i % 2, 0, 0) for i in range(100)]))
        found = read(pages.database())
        pages.write(flat([(1, 0, 1, 0, 0)]))
    assert asked == [0, 1]
    assert {row[2] for row in found} == {"ü" * (NAME_MAX // 2)}


def test_rows_that_are_not_in_order_are_refused() -> None:
    with image() as pages:
        with pytest.raises(ValueError, match="key of row 1"):
            pages.write(flat([(5, 0, 0, 0, 0), (5, 0, 0, 0, 0)]))
        with pytest.raises(ValueError, match="whole rows"):
            pages.write(memoryview(array("q", [1, 2])))


def test_what_no_page_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="hold a row"):
        image(1024)
    with pytest.raises(ValueError, match="hold a row"):
        RowImage(declaration(), COLUMNS, WORDS, WORDS, called)
    with pytest.raises(ValueError, match="hold a row"):
        RowImage(declaration(), [], WORDS, 3, called)


def test_rows_without_a_key_are_numbered_and_columns_are_parts_of_words() -> None:
    table = "CREATE TABLE t (a INTEGER NOT NULL, b INTEGER NOT NULL, n TEXT NOT NULL) STRICT"
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute("PRAGMA page_size = 4096")
        db.execute(table)
        empty = db.serialize()
    columns = [Column(Kind.INT, 1), Column(Kind.INT, 0, 2, 3), Column(Kind.NAME, 0, 7, 1)]
    rows = [(n << 56 | (n * 77_777 % 0xFFFFFF) << 16 | 0xFFFF, -n) for n in range(127)] * 9
    with RowImage(empty, columns, 2, 0, lambda n: f"<{n}>") as made:
        assert not made.keyed
        words = memoryview(array("Q", [word & (1 << 64) - 1 for row in rows for word in row]))
        for at in range(0, len(words), 200):
            made.append(words[at : at + 200])
        assert made.rows == len(rows)
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            db.deserialize(made.database())
            found = db.execute("SELECT rowid, * FROM t ORDER BY rowid").fetchall()
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    wanted = [(n, (n * 77_777 % 0xFFFFFF)) for n in range(127)] * 9
    assert found == [(i + 1, -n, part, f"<{n}>") for i, (n, part) in enumerate(wanted)]


@pytest.mark.parametrize(
    "column", [Column(Kind.INT, 0, 0, 0), Column(Kind.INT, 0, 7, 2), Column(Kind.KEY, 1)]
)
def test_columns_outside_of_words_and_second_keys_are_refused(column: Column) -> None:
    with pytest.raises(ValueError, match="columns of their words"):
        RowImage(declaration(), [Column(Kind.KEY, 0), column], 2, 0, called)

"""Pages put behind a table's rows: the database is sound, and as it was wherever the process that does it dies."""

from __future__ import annotations

import os
import random
import sqlite3
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.tcg.rowimage import Column, Kind, RowImage
from traces.graft import graft

PAGE = 4096
TABLE = "CREATE TABLE rows (k INTEGER PRIMARY KEY, a INTEGER, n TEXT NOT NULL) STRICT"
Lot = list[tuple[int, int, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path / "run.trace")


def make(path: Path, *pragmas: str) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for pragma in (f"page_size = {PAGE}", *pragmas):
            db.execute(f"PRAGMA {pragma}")
        db.execute(TABLE)
        db.execute("CREATE TABLE others (x TEXT)")
        db.execute("INSERT INTO others VALUES ('kept')")
    return path


@pytest.fixture(scope="module")
def pages() -> Iterator[RowImage]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size = {PAGE}")
        db.execute(TABLE)
        declaration = db.serialize()
    columns = [Column(Kind.KEY, 0), Column(Kind.INT, 1), Column(Kind.NAME, 1)]
    with RowImage(declaration, columns, 2, 0, lambda word: f"name {word}") as made:
        yield made


def lot(low: int, count: int) -> Lot:
    return [(low + 2 * i, i % 97, f"name {i % 97}") for i in range(count)]


def write(pages: RowImage, rows: Lot) -> None:
    pages.write(memoryview(array("q", [word for k, a, _ in rows for word in (k, a)])))


def put(path: Path, pages: RowImage, rows: Lot) -> bool:
    write(pages, rows)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return graft(db, path, "rows", pages, rows[0][0])


def read(path: Path) -> Lot:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT * FROM others").fetchall() == [("kept",)]
        return db.execute("SELECT * FROM rows ORDER BY k").fetchall()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3000)), max_size=8), st.integers(0, 9999))
@settings(max_examples=10, deadline=None)
def test_lots_that_are_grafted_and_inserted_are_all_there(
    tmp_path_factory: pytest.TempPathFactory, pages: RowImage, lots: list[tuple[bool, int]], seed: int
) -> None:
    path = make(tmp_path_factory.mktemp("graft") / "run.trace")
    held: Lot = []
    chance = random.Random(seed)
    for grafted, count in lots:
        rows = lot(held[-1][0] + 1 if held else 0, count)
        if not grafted or not put(path, pages, rows):
            with sqlite3.connect(path) as db:
                db.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
            db.close()
        held += rows
        if chance.random() < 0.3:  # what is deleted leaves pages free, and trees of another shape
            gone = {k for k, _, _ in held if chance.random() < 0.7}
            with sqlite3.connect(path) as db:
                db.executemany("DELETE FROM rows WHERE k = ?", [(k,) for k in gone])
            db.close()
            held = [row for row in held if row[0] not in gone]
    assert read(path) == held


def test_lots_go_behind_each_other(path: Path, pages: RowImage) -> None:
    held: Lot = []
    for count in (1000, 5000, 500, 40_000, 999):
        rows = lot(len(held) * 2, count)
        assert put(path, pages, rows)
        held += rows
    assert read(path) == held
    with sqlite3.connect(path) as db:  # and SQLite goes on with what it finds
        db.execute("DELETE FROM rows WHERE k % 10 != 0")
        db.execute("INSERT INTO rows SELECT k + 1, a, n FROM rows")
    db.close()
    assert len(read(path)) == 2 * len([row for row in held if row[0] % 10 == 0])


def test_a_connection_that_is_open_sees_the_rows(path: Path, pages: RowImage) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        assert other.execute("SELECT count(*) FROM rows").fetchone() == (0,)
        assert put(path, pages, lot(0, 1000))
        assert other.execute("SELECT count(*), max(k) FROM rows").fetchone() == (1000, 1998)
        other.execute("INSERT INTO others VALUES ('more')")
        assert put(path, pages, lot(2000, 1000))
        assert other.execute("SELECT count(*), max(k) FROM rows").fetchone() == (2000, 3998)


def test_a_reader_in_the_middle_keeps_it_waiting(path: Path, pages: RowImage) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM rows").fetchone()
        write(pages, lot(0, 1000))
        with (
            closing(sqlite3.connect(path, isolation_level=None, timeout=0.05)) as db,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            graft(db, path, "rows", pages, 0)
    assert read(path) == []


def refused(path: Path, pages: RowImage, rows: Lot) -> None:
    before = path.read_bytes()
    assert not put(path, pages, rows)
    assert path.read_bytes() == before
    write(pages, rows)  # and the pages can be lent instead
    with closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(pages.database())
        assert db.execute("SELECT * FROM rows").fetchall() == rows


def test_rows_among_those_that_are_there_are_left_to_be_inserted(path: Path, pages: RowImage) -> None:
    assert put(path, pages, lot(1000, 1000))
    refused(path, pages, lot(0, 1000))


def test_a_table_with_an_index_is_left_alone(path: Path, pages: RowImage) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE INDEX by_a ON rows (a)")
    db.close()
    refused(path, pages, lot(0, 1000))


@pytest.mark.parametrize("pragma", ["journal_mode = WAL", "auto_vacuum = FULL", "page_size = 8192"])
def test_another_kind_of_database_is_left_alone(tmp_path: Path, pages: RowImage, pragma: str) -> None:
    path = make(tmp_path / "other.trace", pragma)
    refused(path, pages, lot(0, 1000))


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, pages: RowImage) -> bytes:
    path = make(tmp_path_factory.mktemp("grown") / "run.trace")
    for number in range(3):
        assert put(path, pages, lot(100_000 * number, 3000))
    return path.read_bytes()


@given(
    st.lists(
        st.tuples(st.integers(PAGE, 2 * PAGE - 1) | st.integers(16, 99), st.integers(0, 255)), min_size=1
    )
)
@settings(max_examples=40, deadline=None)
def test_a_damaged_table_is_no_crash(
    tmp_path_factory: pytest.TempPathFactory, pages: RowImage, grown: bytes, damage: list[tuple[int, int]]
) -> None:
    """A root whose cells point outside of the page ended with a traceback."""
    path = tmp_path_factory.mktemp("damaged") / "run.trace"
    content = bytearray(grown)
    for at, byte in damage:
        content[at] = byte
    path.write_bytes(content)
    write(pages, lot(1 << 40, 1000))
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            graft(db, path, "rows", pages, 1 << 40, sync=False)
    except sqlite3.Error:
        return


# a process that dies


def steps(path: Path, pages: RowImage, rows: Lot, dies_at: int, how: Callable[[], None]) -> int:
    """Graft, and die before one of the calls that change the disk; return how many there were."""
    count = 0
    real = {name: getattr(os, name) for name in ("pwrite", "fsync", "unlink")}

    def counted(name: str) -> Callable[..., object]:
        def call(*args: object) -> object:
            nonlocal count
            count += 1
            if count == dies_at:
                how()
            return real[name](*args)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in real:
            patch.setattr(os, name, counted(name))
        put(path, pages, rows)
    return count


def test_a_process_that_dies_anywhere_leaves_all_or_nothing(tmp_path: Path, pages: RowImage) -> None:
    first, second = lot(0, 5000), lot(20_000, 9000)
    total = steps(make(tmp_path / "whole.trace"), pages, first, 0, lambda: None)
    assert total >= 7  # journal, its two syncs, pages, root, header, sync, unlink
    seen = set()
    for dies_at in range(1, total + 3):
        path = make(tmp_path / f"{dies_at}.trace")
        assert put(path, pages, first)
        child = os.fork()
        if child == 0:
            try:
                steps(path, pages, second, dies_at, lambda: os._exit(0))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        found = read(path)
        assert found in (first, first + second), f"step {dies_at}"
        seen.add(len(found))
        if found == first:
            assert put(path, pages, second)
        assert read(path) == first + second
        assert not path.with_name(path.name + "-journal").exists()
    assert seen == {len(first), len(first) + len(second)}


@pytest.mark.parametrize("dies_at", range(1, 9))
def test_a_full_disk_changes_nothing(path: Path, pages: RowImage, dies_at: int) -> None:
    first, second = lot(0, 5000), lot(20_000, 9000)
    assert put(path, pages, first)

    def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        steps(path, pages, second, dies_at, full)
    assert read(path) == first
    assert put(path, pages, second)
    assert read(path) == first + second

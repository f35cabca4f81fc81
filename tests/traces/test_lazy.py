"""Lazy tables' bookkeeping: intervals, coverage and rows in one transaction, side databases."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.errors import TraceWriteError
from traces.lazy import LazyStore, Part, Want, subtract
from traces.queries.memory import want_mem
from traces.queries.tasks import want_calls
from traces.schema import APPLICATION_ID, MIGRATIONS, migrate

COLUMNS = ("icount", "hart", "pc", "priv")
INSNS = Want("insns")
TRAPS = Want("traps", follows=True)
INTERVALS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda p: (p[0], p[0] + p[1])), max_size=6
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "run.trace"
    with sqlite3.connect(path, isolation_level=None) as db:
        migrate(db)
    db.close()
    return path


def fill(store: LazyStore, want: Want, low: int, high: int) -> None:
    store.write_stretch(low, high, [Part(want, COLUMNS, [(i, 0, 4 * i, 1) for i in range(low, high)])])


@given(st.integers(0, 40), st.integers(1, 40), INTERVALS)
def test_what_is_missing_is_what_no_interval_holds(
    low: int, size: int, covered: list[tuple[int, int]]
) -> None:
    gaps = subtract(low, low + size, covered)
    held = {i for a, b in covered for i in range(a, b)}
    assert [i for a, b in gaps for i in range(a, b)] == [i for i in range(low, low + size) if i not in held]


@given(INTERVALS)
def test_coverage_is_the_union_of_what_was_filled(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("lazy") / "run.trace"
    with sqlite3.connect(path, isolation_level=None) as db:
        migrate(db)
    db.close()
    with LazyStore.open(path, "a") as store:
        for low, high in parts:
            fill(store, INSNS, low, high)
        held = sorted({i for a, b in parts for i in range(a, b)})
        assert [i for a, b in store.covered(INSNS) for i in range(a, b)] == held
        assert [row[0] for row in store.read("SELECT icount FROM insns ORDER BY 1")] == held
        assert len(store.covered(INSNS)) == sum(i - 1 not in held for i in held)


def test_a_stretch_that_fails_leaves_neither_rows_nor_coverage(trace: Path) -> None:
    with LazyStore.open(trace, "a") as store:
        with pytest.raises(TraceWriteError, match="can't be stored"):
            store.write_stretch(0, 10, [Part(INSNS, COLUMNS, [(1, 0, 0, 1), (1, 0, 0, 1)])])
        assert store.covered(INSNS) == []
        assert store.read("SELECT count(*) FROM insns") == [(0,)]


def test_rows_of_all_replace_rows_of_some(trace: Path) -> None:
    columns = ("icount", "hart", "pc", "op", "vaddr", "paddr", "size", "value")
    row = (5, 0, 0, "w", 0x100, 0x100, 8, 7)
    some = want_mem("w", vaddr=(0x104, 0x104))
    with LazyStore.open(trace, "a") as store:
        store.write_stretch(0, 10, [Part(some, columns, [row])])
        assert store.missing(some, 0, 20) == [(10, 20)]
        assert store.missing(want_mem(), 0, 20) == [(0, 20)]
        store.write_stretch(0, 10, [Part(want_mem(), columns, [row, (6, *row[1:])])])
        assert store.read("SELECT icount FROM mem ORDER BY 1") == [(5,), (6,)]
        # what holds everything holds every filter
        assert store.missing(want_mem("r", paddr=(0, 7)), 0, 10) == []


def test_what_later_steps_complete_is_filled_up_to_its_old_end(trace: Path) -> None:
    with LazyStore.open(trace, "a") as store:
        store.write_stretch(50, 80, [Part(TRAPS, ("icount",), [])])
        assert store.missing(TRAPS, 50, 80) == []
        assert store.missing(TRAPS, 60, 90) == [(80, 90)]
        # a return in 50..80 may be of a trap in 40..50
        assert store.missing(TRAPS, 40, 55) == [(40, 80)]


def test_state_is_found_where_a_fill_continues(trace: Path) -> None:
    with LazyStore.open(trace, "a") as store:
        store.write_stretch(0, 10, [Part(TRAPS, ("icount",), [], state={"open": {"1": [3]}})])
        assert store.state_at(TRAPS, 10) == {"open": {"1": [3]}}
        assert store.state_at(TRAPS, 9) is None
        store.write_stretch(5, 20, [Part(TRAPS, ("icount",), [], state={})])
        assert store.state_at(TRAPS, 10) is None


def test_a_trace_that_is_not_to_be_written_gets_a_side_database(trace: Path) -> None:
    before = trace.read_bytes()
    with LazyStore.open(trace, "run 1", writable=False) as store:
        fill(store, INSNS, 0, 10)
        assert store.read("SELECT count(*) FROM insns") == [(10,)]
    assert trace.read_bytes() == before
    side = trace.with_name("run.trace.q")
    with LazyStore.open(trace, "run 1", writable=False) as store:
        assert store.covered(INSNS) == [(0, 10)]
    # rows of another run under the same name are not this one's
    with LazyStore.open(trace, "run 2", writable=False) as store:
        assert not side.exists()
        assert store.covered(INSNS) == []


def test_a_damaged_side_database_is_begun_anew(trace: Path) -> None:
    trace.with_name("run.trace.q").write_bytes(b"not a database at all" * 100)
    with LazyStore.open(trace, "run 1", writable=False) as store:
        fill(store, INSNS, 0, 3)
        assert store.covered(INSNS) == [(0, 3)]


def test_the_cache_gives_back_what_it_was_given(trace: Path) -> None:
    with LazyStore.open(trace, "a") as store:
        assert store.get_cache("btf") is None
        store.put_cache("btf", b"\0\1")
        assert store.get_cache("btf") == b"\0\1"
    copy = trace.with_name("copy.trace")
    shutil.copy(trace, copy)
    with LazyStore.open(copy, "a") as store:
        assert store.get_cache("btf") == b"\0\1"


def test_an_index_by_content_comes_back_when_it_is_asked_for(trace: Path) -> None:
    """It was made again at the end of the fill only, so a fill that was killed left the table without it for ever."""

    def indexes(store: LazyStore) -> set[str]:
        return {row[0] for row in store.read("SELECT name FROM sqlite_master WHERE type = 'index'")}

    with LazyStore.open(trace, "a") as store:
        store.drop_indexes("mem")
        assert "mem_paddr" not in indexes(store)
        store.make_index("mem", "paddr = 5")
        store.make_index("mem", "paddr = 6")
        assert "mem_paddr" in indexes(store)


def test_of_very_many_calls_only_those_that_are_looked_for_are_indexed(trace: Path) -> None:
    """Looking for one function's calls after all calls had been filled read the whole table each time."""
    columns = ("icount", "hart", "depth", "pc", "target", "symbol")
    with LazyStore.open(trace, "a") as store:
        store.drop_indexes("calls")
        rows = [(i, 0, 0, 4, i % 7, f"f{i % 7}") for i in range(100)]
        store.write_stretch(0, 100, [Part(want_calls(), columns, rows)])
        for where in (want_calls(3).where, "symbol = 'f3'"):
            question = f"SELECT count(*) FROM calls WHERE icount >= 0 AND icount < 90 AND {where}"
            store.make_index("calls", where)
            store.make_index("calls", where)
            assert "USING INDEX calls_" in str(store.read(f"EXPLAIN QUERY PLAN {question}"))
            assert store.read(question) == [(13,)]
        # where the index of all symbols is there, no other is needed
        store.drop_indexes("calls")
        assert store.read("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'calls'") == []


def test_a_trace_of_the_first_format_keeps_what_is_known_but_calls(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    with sqlite3.connect(path, isolation_level=None) as db:
        MIGRATIONS[0](db)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO calls (icount, hart, depth, pc, target) VALUES (3, 0, 0, 4, 5)")
        db.executemany("INSERT INTO coverage VALUES (?, '{}', 0, 10)", [("calls",), ("insns",)])
    db.close()
    with LazyStore.open(path, "a") as store:
        store.bring_up()
        assert store.read("SELECT count(*) FROM dma") == [(0,)]
        assert store.covered(Want("calls")) == []
        assert store.covered(INSNS) == [(0, 10)]
        assert store.read("SELECT count(*) FROM calls") == [(0,)]

"""Lazy tables on the built-in guest: the same rows however they are replayed, and answers that are right."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import traces.graft
from machine.config import Images, MachineConfig
from traces.errors import PositionError
from traces.lazy import Want
from traces.queries.memory import want_mem
from traces.queries.tasks import want_calls
from traces.reader import QueryError
from workbench import Trace
from workbench.guests import builtin
from workbench.query.errors import QueryRefused
from workbench.query.fill import Filler
from workbench.repl.shell import Shell
from workbench.replay.recorder import Recorder, RecordLimits

TABLES = ("calls", "traps", "csr", "mmio", "syscalls", "dma")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, backend: str) -> Path:
    path = tmp_path_factory.mktemp("query") / "boot.trace"
    config = MachineConfig(memory_bytes=32 << 20, append="safe", seed=1, options={"entropy": "seed"})
    limits = RecordLimits(rolling_steps=1 << 15, checkpoint_every=3)
    recorder = Recorder(config, Images(kernel=builtin.read_image()), path, backend=backend, limits=limits)
    assert recorder.run(timeout_s=60).reason == "poweroff"
    recorder.board.engine.close()
    return path


@pytest.fixture
def trace(recorded: Path, tmp_path: Path) -> Iterator[Trace]:
    path = tmp_path / "boot.trace"
    shutil.copy(recorded, path)
    with Trace.open(path) as opened:
        assert isinstance(opened, Trace)
        yield opened


def wanted(table: str) -> Want:
    return Want(table, follows=table in ("calls", "traps", "syscalls"))


def rows(filler: Filler, table: str) -> list[tuple[Any, ...]]:
    return filler.store.read(f"SELECT * FROM {table} ORDER BY icount, rowid")


@pytest.fixture(scope="module")
def reference(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Any, ...]]]:
    path = tmp_path_factory.mktemp("reference") / "boot.trace"
    shutil.copy(recorded, path)
    out = {}
    with Trace.open(path) as opened:
        filler = Filler.of(opened, jobs=1)
        for table in sorted(TABLES, reverse=True):  # traps before system calls, which would bring them along
            filler.ensure(wanted(table))
            out[table] = rows(filler, table)
        filler.close()
    return out


# Processes take a second to start: two tables show that they change nothing.
@pytest.mark.parametrize(
    ("table", "replays_on", "jobs"),
    [*((table, "interp", 1) for table in TABLES), ("calls", "jit", 2), ("traps", "jit", 2)],
)
def test_rows_do_not_depend_on_back_end_or_processes(
    trace: Trace, reference: dict[str, list[tuple[Any, ...]]], table: str, replays_on: str, jobs: int
) -> None:
    filler = Filler.of(trace, backend=replays_on, jobs=jobs)
    filler.ensure(wanted(table))
    assert rows(filler, table) == reference[table]
    assert reference[table] or table == "dma"
    filler.close()


@pytest.mark.parametrize("writable", [True, False])
def test_very_many_rows_become_pages_of_the_file(
    trace: Trace,
    reference: dict[str, list[tuple[Any, ...]]],
    monkeypatch: pytest.MonkeyPatch,
    writable: bool,
) -> None:
    """All calls of a boot took twelve times its replay: ten of them were inserts."""
    monkeypatch.setattr("workbench.query.fill._MANY_ROWS", 0)
    monkeypatch.setattr("workbench.query.fill._STRETCH_ROWS", len(reference["calls"]) // 4)
    grafted = []

    def graft(*args: Any, **options: Any) -> bool:
        grafted.append(really(*args, **options))
        return grafted[-1]

    really = traces.graft.graft
    monkeypatch.setattr("traces.lazy.graft", graft)
    filler = Filler.of(trace, jobs=1, writable=writable)
    filler.ensure(wanted("calls"))
    assert rows(filler, "calls") == reference["calls"]
    assert sum(grafted) >= 2
    filler.close()
    with closing(sqlite3.connect(filler.store.path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("table", ["calls", "traps", "csr"])
def test_rows_do_not_depend_on_the_order_of_questions(
    trace: Trace, reference: dict[str, list[tuple[Any, ...]]], table: str
) -> None:
    end = trace.end
    trace.filler.ensure(wanted(table), 0, end // 3)
    trace.filler.ensure(wanted(table), end // 2, end)
    trace.filler.ensure(wanted(table))
    found = trace.filler.store.read(f"SELECT * FROM {table} ORDER BY icount")
    assert found == sorted(reference[table], key=lambda row: row[0])


def test_traps_come_with_system_calls(trace: Trace, reference: dict[str, list[tuple[Any, ...]]]) -> None:
    """Each of the two was a replay of its own."""
    assert trace.filler.ensure(wanted("syscalls")).steps == trace.end
    assert trace.filler.ensure(wanted("traps")).steps == 0
    assert rows(trace.filler, "traps") == reference["traps"]
    assert rows(trace.filler, "syscalls") == reference["syscalls"]


def test_a_second_question_replays_nothing(trace: Trace) -> None:
    assert trace.filler.ensure(wanted("traps")).steps == trace.end
    assert trace.filler.ensure(wanted("traps")).steps == 0


def test_instructions_of_an_interval_are_each_there_once(trace: Trace) -> None:
    low = trace.end // 2
    found = trace.sql("select icount, pc, priv from insns where icount between ? and ?", (low, low + 999))
    assert trace.filler.store.covered(Want("insns")) == [(low, low + 1000)]
    assert found == trace.sql(
        f"select icount, pc, priv from insns where icount between {low} and {low + 999}"
    )
    assert 900 < len(found) <= 1000
    assert [row["icount"] for row in found] == sorted({row["icount"] for row in found})
    for row in found[::97]:
        trace.goto(row["icount"])
        assert trace.reg("pc") == row["pc"] & (1 << 64) - 1
        assert trace.reg("priv") == row["priv"]


def test_a_write_is_where_the_memory_changes(trace: Trace) -> None:
    trace.goto("60%")
    address = trace.reg("sp") & ~7
    store = trace.last_write(address)
    assert store is not None
    trace.goto(store.icount + 1)
    held = trace.read_phys(store.paddr, store.size)
    assert int.from_bytes(held, "little") == store.value & (1 << 8 * store.size) - 1
    trace.goto(store.icount)
    assert trace.reg("pc") == store.pc
    after = trace.next_write(address)
    assert after is not None
    assert after.icount == store.icount


def test_calls_of_one_function_are_those_among_all_calls(
    trace: Trace, reference: dict[str, list[tuple[Any, ...]]]
) -> None:
    of_all = reference["calls"]
    target = max({row[4] for row in of_all}, key=lambda t: sum(row[4] == t for row in of_all))
    trace.filler.ensure(want_calls(target & (1 << 64) - 1))
    # all but the depth, which counts the calls that were recorded
    found = [(r[:2], r[3:]) for r in trace.filler.store.read("SELECT * FROM calls ORDER BY icount")]
    assert found == sorted((r[:2], r[3:]) for r in of_all if r[4] == target)
    assert sum(row[1][3] is not None for row in found) > len(found) // 2


def test_rows_compose(trace: Trace) -> None:
    traps = trace.traps
    all_rows = list(traps)
    assert len(all_rows) == traps.count() > 10
    assert [r.icount for r in traps.last(3)] == [r.icount for r in all_rows[-3:]]
    assert traps.first().icount == all_rows[0].icount
    cause = all_rows[0].cause
    some = traps.where(cause=cause).between("10%", "90%").where("ret_icount is not null")
    low, high = trace.parse_position("10%"), trace.parse_position("90%")
    expected = [
        r.icount for r in all_rows if r.cause == cause and low <= r.icount < high and r.ret_icount is not None
    ]
    assert [r.icount for r in some] == expected


def test_history_follows_parts_of_a_variable(trace: Trace) -> None:
    trace.goto("60%")
    address = trace.reg("sp") & ~7
    values = list(trace.history(address))
    assert values
    last = [v for v in values if v.icount < trace.cursor][-1]
    assert last.value == int.from_bytes(trace.read_mem(address, 8), "little")


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("insert into meta values ('a', 'b')", "readonly"),
        ("attach 'x' as y", "not authorized"),
        ("pragma query_only = off", "not authorized"),
        ("select * from nowhere", "no such table"),
        ("select nowhere from traps", "no such column"),
        ("select 1; select 2", "one statement"),
    ],
)
def test_sql_only_reads(trace: Trace, sql: str, error: str) -> None:
    with pytest.raises(QueryError, match=error):
        trace.sql(sql)


def test_symbols_and_numbers_in_sql(trace: Trace) -> None:
    name = next(
        s.name for s in trace.symbols if s.kind == "func" and trace.symbols.format(s.address) == s.name
    )
    address = trace.sym(name)
    row = trace.sql(
        f"select addr('{name}+4') - addr('{name}') d, sym(addr('{name}')) s, hex(addr('{name}')) h, hex(x'0aff') b"
    )
    assert row == [{"d": 4, "s": name, "h": f"{address:#x}", "b": "0AFF"}]
    with pytest.raises(QueryError):
        trace.sql("select addr('no such symbol')")


def test_source_lines_in_sql(trace: Trace) -> None:
    pc = trace.sym("kmain")
    found = trace.sql("select line(?) l, line(0) n", (pc,))[0]
    expected = trace.lines.at(pc)
    assert found["n"] is None
    assert expected is not None
    assert found["l"] == f"{expected.file}:{expected.line}"
    assert found["l"].rpartition(":")[0].endswith(".c")


def test_rows_of_an_answer_are_places_to_go(trace: Trace) -> None:
    shell = Shell(trace)
    shell.execute("sql select icount, cause from traps order by icount limit 3")
    third = trace.sql("select icount from traps order by icount limit 1 offset 2")[0]["icount"]
    shell.execute("goto row:3")
    assert trace.cursor == third
    for text in ("row:0", "row:4", "row:x", "row:"):
        with pytest.raises(PositionError, match="the last answer has 3 rows"):
            trace.parse_position(text)


def test_absurd_questions_are_refused(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.query.fill.MAX_ROWS", 1000)
    with pytest.raises(QueryRefused, match="bound it"):
        trace.sql("select count(*) from insns")
    with pytest.raises(QueryRefused, match="bound it"):
        trace.filler.ensure(want_mem())


def test_the_trace_replays_the_same_after_questions(trace: Trace) -> None:
    trace.filler.ensure(wanted("traps"))
    with sqlite3.connect(trace.trace.path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    trace.goto("end")
    assert trace.cursor == trace.end
    assert trace.trace.verify() > 0

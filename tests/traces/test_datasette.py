"""What a trace looks like to others' tools: sqlite-utils, pandas, Datasette with the metadata made for it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlite_utils

from traces.datasette import metadata
from traces.queries import QUERIES
from traces.schema import migrate


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "boot.trace"
    with sqlite3.connect(path, isolation_level=None) as db:
        migrate(db)
        db.execute("INSERT INTO calls VALUES (5, 0, 0, 1, 2, 'f', 9, 0, 0, 0, 0, 0, 0, 0, 0, 0)")
        db.execute("INSERT INTO traps VALUES (7, 0, 5, 1, 0, 0, 1, 1, 11)")
        db.execute("INSERT INTO syscalls VALUES (20, 0, 1, 'init', 64, 'write', '[1, 2, 3]', 3, 40)")
        db.execute("INSERT INTO switches VALUES (30, 0, 1, 'init', 2, 'sh')")
    db.close()
    return path


def test_every_table_is_described(trace: Path) -> None:
    known = metadata(trace, "a boot")["databases"]["boot"]["tables"]
    with sqlite3.connect(trace) as db:
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = {t: {row[1] for row in db.execute(f'PRAGMA table_info("{t}")')} for t in tables}
    db.close()
    assert {t for t in tables if not t.startswith(("sqlite_", "lazy_"))} == set(known)
    assert set(QUERIES) <= set(known)
    for name, table in known.items():
        assert table["description"], name
        assert set(table.get("columns", {})) <= columns[name]


def test_questions_and_views_run_in_any_sqlite(trace: Path) -> None:
    db = sqlite_utils.Database(trace)
    questions = metadata(trace)["databases"]["boot"]["queries"]
    assert list(db.query(questions["hot_functions"]["sql"])) == [
        {"symbol": "f", "calls": 1, "steps": 4, "longest": 4}
    ]
    for question in questions.values():
        list(db.query(question["sql"]))
    assert [row["what"] for row in db["trap_list"].rows] == ["timer interrupt"]
    assert [(row["task"], row["call"], row["steps"]) for row in db["syscall_list"].rows] == [
        ("init/1", "write(1, 2, 3)", 20)
    ]
    for view in db.views:
        list(view.rows)


@pytest.mark.requires("python:pandas")
def test_rows_are_a_frame_in_pandas(trace: Path) -> None:
    import pandas

    with closing(sqlite3.connect(trace)) as db:
        cost = pandas.read_sql("select * from call_cost", db)
        calls = pandas.read_sql("select * from calls", db, index_col="icount")
    assert cost.to_dict("records") == [{"symbol": "f", "calls": 1, "steps": 4, "longest": 4}]
    assert calls.loc[5, "ret_icount"] == 9 and calls.dtypes["pc"] == "int64"


@pytest.mark.slow
@pytest.mark.requires("python:datasette")
def test_datasette_shows_tables_views_and_questions(trace: Path) -> None:
    from datasette.app import Datasette

    site = Datasette([str(trace)], metadata=json.loads(json.dumps(metadata(trace, "a boot"))))

    async def get(path: str) -> tuple[int, str]:
        answer = await site.client.get(path)
        return answer.status_code, answer.text

    for path, text in (
        ("/boot", "Functions by the steps from call to return"),
        ("/boot/calls", "Calls, each with its return where it came."),
        ("/boot/trap_list.json", "timer interrupt"),
        ("/boot/hot_functions.json", '"f"'),
    ):
        status, page = asyncio.run(get(path))
        assert status == 200
        assert text in page

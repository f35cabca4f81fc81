"""The one module that prints: text, JSON and CSV of every kind of result."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.output import MAX_CELL, Record, Table, Text, cell, printable, render

TABLE = Table(("name", "address"), [("a", 255), ("long\nname", None)], {"address": "hex"})


def test_table_reads_in_columns_without_control_characters() -> None:
    assert render(TABLE).splitlines() == [
        "name        address",
        "----------  -------",
        "a              0xff",
        "long\\nname        -",
    ]


def test_json_keeps_the_values() -> None:
    assert json.loads(render(TABLE, "json")) == [
        {"name": "a", "address": 255},
        {"name": "long\nname", "address": None},
    ]
    assert json.loads(render(Record({"a": b"\xff", "b": True}), "json")) == {"a": "ff", "b": True}
    assert json.loads(render(Text("shown", 5), "json")) == 5


def test_csv_keeps_the_values() -> None:
    rows = list(csv.reader(io.StringIO(render(TABLE, "csv"))))
    assert rows == [["name", "address"], ["a", "255"], ["long\nname", ""]]


def test_empty_table_says_so_as_text_and_is_a_list_as_json() -> None:
    empty = Table(("a",), [], empty="Nothing.")
    assert render(empty) == "Nothing.\n"
    assert json.loads(render(empty, "json")) == []
    assert render(empty, "csv") == "a\n"


@pytest.mark.parametrize(
    ("value", "text"), [(True, "yes"), (None, "-"), (1.5, "1.5"), (b"ab", "ab"), (b"\xff", "ff")]
)
def test_cells(value: object, text: str) -> None:
    assert cell(value) == text


def test_cells_are_of_bounded_length() -> None:
    assert len(cell("x" * 10_000)) == MAX_CELL


@given(st.text())
def test_guest_text_never_reaches_a_terminal_raw(text: str) -> None:
    assert all(c.isprintable() for c in printable(text))


@given(st.lists(st.tuples(st.text(), st.binary(), st.integers() | st.none()), max_size=5))
def test_any_row_renders_in_every_format(rows: list[tuple[str, bytes, int | None]]) -> None:
    table = Table(("a", "b", "c"), rows)
    assert len(json.loads(render(table, "json"))) == len(rows)
    assert render(table, "csv").startswith("a,b,c\n")
    assert len(render(table).splitlines()) == (len(rows) + 2 if rows else 0)


def test_json_has_no_number_that_json_lacks() -> None:
    """Infinity was written as it is, which no other program reads."""
    text = render(Table(("a", "b"), [(float("inf"), 1.5)]), "json")
    assert json.loads(text, parse_constant=pytest.fail) == [{"a": "inf", "b": 1.5}]

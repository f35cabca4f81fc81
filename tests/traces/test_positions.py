"""Positions as users write them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.errors import PositionError
from traces.position import parse_position


@dataclass
class Place:
    cursor: int = 500
    start: int = 0
    end: int = 2_000_000

    def bookmark_position(self, name: str) -> int | None:
        return {"panic": 1234, "far": 9_000_000}.get(name)

    def input_position(self, input_id: int) -> int | None:
        return {42: 77}.get(input_id)

    def vtime_position(self, vtime_ns: int) -> int:
        return min(vtime_ns // 1000, self.end)

    def console_position(self, text: str) -> int | None:
        return {"Unable to mount": 99}.get(text)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("0", 0),
        ("1234567", 1_234_567),
        ("1_234_567", 1_234_567),
        (" 12 ", 12),
        ("+100", 600),
        ("-1_00", 400),
        ('console:"Unable to mount"', 99),
        ("console:Unable to mount", 99),
        ("start", 0),
        ("end", 2_000_000),
        ("50%", 1_000_000),
        ("0.05%", 1000),
        ("1.25s", 1_250_000),
        ("3ms", 3000),
        ("@panic", 1234),
        ("input:42", 77),
    ],
)
def test_every_form_of_the_contract_is_understood(text: str, position: int) -> None:
    assert parse_position(text, Place()) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1__2",
        "_1",
        "1_",
        "0x10",
        "+",
        "--1",
        "-501",
        "2_000_001",
        "101%",
        "@",
        "@nowhere",
        "@far",
        "input:7",
        "input:",
        "input:-1",
        "1e3",
        "1.5",
        "%",
        "s",
        "9" * 500,
        "9" * 500 + "%",
        "٣",
        "1.2.3s",
    ],
)
def test_what_is_no_position_is_refused_with_exit_code_2(text: str) -> None:
    with pytest.raises(PositionError) as caught:
        parse_position(text, Place())
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_gives_a_position_in_the_history_or_an_error(text: str) -> None:
    try:
        position = parse_position(text, Place())
    except PositionError:
        return
    assert 0 <= position <= 2_000_000


@given(st.integers(0, 2_000_000))
def test_numbers_with_underscores_read_as_they_are_written(position: int) -> None:
    assert parse_position(f"{position:_}", Place()) == position
    assert parse_position(f"+{position}", Place(cursor=0)) == position

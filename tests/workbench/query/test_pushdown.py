"""Limits that are taken from a SELECT; and all the shapes from which none may be taken."""

from __future__ import annotations

import pytest

from workbench.query.pushdown import find_limits

BIG = 1 << 64


def address(text: str) -> int:
    return {"jiffies": 0x100, "fn+8": 0x208}[text]


@pytest.mark.parametrize(
    ("where", "column", "low", "high"),
    [
        ("icount between 5 and 9", "icount", 5, 9),
        ("icount >= 5 and icount < 9", "icount", 5, 8),
        ("icount > 5 AND icount <= 0x20", "icount", 6, 32),
        ("ICOUNT = 7", "icount", 7, 7),
        ("op = 'w' and vaddr = addr('jiffies') and value > 3", "vaddr", 0x100, 0x100),
        ("target = addr('fn+8')", "target", 0x208, 0x208),
        ("icount between 5 and 9 and icount between 7 and 20 limit 3", "icount", 7, 9),
        ("icount >= 5 -- or hart = 1\n and icount <= 6 order by pc", "icount", 5, 6),
    ],
)
def test_plain_conditions_are_limits(where: str, column: str, low: int, high: int) -> None:
    assert find_limits(f"select * from mem where {where}", address).ranges[column] == (low, high)


def test_one_sided_conditions_are_open() -> None:
    low, high = find_limits("select * from insns where icount >= 5", address).ranges["icount"]
    assert low == 5
    assert high >= BIG // 2


def test_texts_are_limits_too() -> None:
    limits = find_limits("select a0 from calls where symbol = 'printk and more' and icount < 9", address)
    assert limits.texts == {"symbol": "printk and more"}
    assert limits.ranges["icount"][1] == 8


@pytest.mark.parametrize(
    "sql",
    [
        "select * from mem where icount < 5 or hart = 1",
        "select * from mem where not icount < 5",
        "select * from mem, traps where icount < 5",
        "select * from mem m join traps t on m.icount = t.icount where icount < 5",
        "select * from mem where icount < 5 union select * from mem",
        "select (select count(*) from mem) from mem where icount < 5",
        "with x as (select * from mem where icount < 5) select * from mem",
        "select case when icount < 5 then 1 end from mem where icount < 5",
        "select * from (mem) where icount < 5",
        "select * from mem where icount + 1 < 5",
        "select * from mem where 'icount < 5'",
        "select * from mem",
    ],
)
def test_whatever_is_not_plain_limits_nothing(sql: str) -> None:
    limits = find_limits(sql, address)
    assert not limits.ranges
    assert not limits.texts


def test_bound_parameters_are_limits() -> None:
    limits = find_limits("select * from mem where icount between ? and ? and op = ?", address, (5, 9, "w"))
    assert (limits.ranges["icount"], limits.texts) == ((5, 9), {"op": "w"})
    assert find_limits("select * from mem where icount < ?2", address, (1, 7)).ranges["icount"][1] == 6
    by_name = find_limits("select * from mem where icount = :at and op = @op", address, {"at": 3, "op": "r"})
    assert (by_name.ranges["icount"], by_name.texts) == ((3, 3), {"op": "r"})


@pytest.mark.parametrize("args", [(), (None,), (1.5,), ("x' or '1",), (b"x",)])
def test_parameters_that_are_no_numbers_limit_nothing(args: tuple[object, ...]) -> None:
    limits = find_limits("select * from mem where '?' != '' and icount = ? and \"?\" = ''", address, args)
    assert not limits.ranges
    assert not limits.texts

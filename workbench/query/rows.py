"""Rows of a lazy table as Python: composable, filled when they are looked at.

t.calls("printk").between("10%", "50%").where("a0 != 0").last(5)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from traces.lazy import Want
from traces.queries.base import NEVER, signed

from .errors import QueryRefused
from .sql import ADDRESSES

if TYPE_CHECKING:
    from .api import Trace


class Row:
    """One row: columns as attributes, addresses unsigned; ``symbol`` names the pc where no column is called so."""

    __slots__ = ("_name", "values")

    def __init__(self, values: dict[str, Any], name: Callable[[int], str]) -> None:
        #: by column
        self.values = values
        self._name = name

    def __getattr__(self, name: str) -> Any:
        values = object.__getattribute__(self, "values")
        if name in values:
            return values[name]
        if name == "symbol":
            place = values.get("pc", values.get("epc"))
            return "" if place is None else self._name(place)
        raise AttributeError(f"no column {name!r}; there are {', '.join(values)}")

    def __repr__(self) -> str:
        parts = (
            f"{k}={v:#x}" if k in ADDRESSES and isinstance(v, int) else f"{k}={v!r}"
            for k, v in self.values.items()
        )
        return f"Row({', '.join(parts)})"


@dataclass(frozen=True)
class Rows:
    """Some rows of a lazy table. Nothing is replayed before they are iterated, counted or picked from.

    Args:
        trace: whose. want: which rows the table must have. conditions, args: SQL that they meet, beside ``want``'s own.
        low, high: positions, end exclusive.
    """

    trace: Trace
    want: Want
    conditions: tuple[str, ...] = ()
    args: tuple[Any, ...] = ()
    low: int | None = None
    high: int | None = None

    def between(self, low: int | str, high: int | str) -> Rows:
        """Return the rows from a position up to, not including, another one."""
        a, b = (self.trace.parse_position(p) if isinstance(p, str) else p for p in (low, high))
        return replace(self, low=max(a, self.low or 0), high=b if self.high is None else min(b, self.high))

    def before(self, position: int | str) -> Rows:
        """Return the rows before a position."""
        return self.between(0, position)

    def after(self, position: int | str) -> Rows:
        """Return the rows from a position on."""
        return self.between(position, self.trace.end + 1)

    def where(self, condition: str = "", *args: Any, **equal: Any) -> Rows:
        """Return the rows that meet a condition in SQL, and whose columns have the values given.

        ``.where("cause = ? and tval > ?", 13, 4096)``, ``.where(name="openat")``
        """
        found = list(self.conditions) + ([f"({condition})"] if condition else [])
        values = [*self.args, *args]
        for name, value in equal.items():
            if not name.isidentifier():
                raise QueryRefused(f"no column is called {name!r}")
            found.append(f'"{name}" = ?')
            values.append(value)
        return replace(
            self, conditions=tuple(found), args=tuple(signed(v) if isinstance(v, int) else v for v in values)
        )

    def first(self, count: int | None = None) -> Any:
        """Return the first row or None; with a count, a list of the first ones."""
        rows = self._select("*", f"ORDER BY icount LIMIT {1 if count is None else int(count)}")
        return (rows[0] if rows else None) if count is None else rows

    def last(self, count: int | None = None) -> Any:
        """Return the last row or None; with a count, a list of the last ones, in order."""
        rows = self._select("*", f"ORDER BY icount DESC LIMIT {1 if count is None else int(count)}")
        return (rows[0] if rows else None) if count is None else rows[::-1]

    def count(self) -> int:
        """Return how many there are."""
        return int(self._select("count(*) AS n", "")[0].n)

    __len__ = count

    def __bool__(self) -> bool:
        return self.first() is not None

    def __iter__(self) -> Iterator[Row]:
        return iter(self._select("*", "ORDER BY icount"))

    def _select(self, what: str, tail: str) -> list[Row]:
        trace, want = self.trace, self.want
        low, high = self.low or 0, trace.end + 1 if self.high is None else self.high
        trace.filler.ensure(want, low, high)
        conditions = " AND ".join(["icount >= ? AND icount < ?", f"({want.where})", *self.conditions])
        sql = f"SELECT {what} FROM {want.table} WHERE {conditions} {tail}"
        columns, rows = trace.asker.run_ready(sql, (low, high, *want.args, *self.args))
        name = trace.symbols.format
        return [Row({c: _shown(c, v) for c, v in zip(columns, row, strict=True)}, name) for row in rows]


def _shown(column: str, value: Any) -> Any:
    return value & NEVER if column in ADDRESSES and isinstance(value, int) else value

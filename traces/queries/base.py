"""What a query table is: which happenings it needs, and a function that turns their records into rows.

A query sees the run's records in order, a stretch at a time, with a state of its own between stretches. So its rows
do not depend on where stretches begin or on how many processes replayed them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from traces.errors import TraceError

NEVER: Final = (1 << 64) - 1
#: A record as the engine writes it, with signed words, as SQLite has them.
_CODES: Final = "qqHBBBBBxqqqqq" + 8 * "q"
RECORD: Final = struct.Struct("<" + _CODES)
#: Where a record's words are; A0 to A0 + 7 are the argument registers.
ICOUNT, PC, PROBE, KIND, HART, SIZE, OP, PRIV, A, B, VALUE, OLD, CONTEXT, A0 = range(14)
A7: Final = A0 + 7

Record = tuple[int, ...]


def place_in_record(item: int) -> tuple[int, int]:
    """Return the first byte of a record's item, and how many bytes it has."""
    sizes = [struct.calcsize("<" + code) for code in _CODES]
    place = [i for i, code in enumerate(_CODES) if code != "x"][item]
    return sum(sizes[:place]), sizes[place]


def signed(value: int) -> int:
    """Return a 64-bit number as SQLite's integers have it."""
    value &= NEVER
    return value - (1 << 64) if value >> 63 else value


@dataclass(frozen=True, slots=True)
class ProbeNeed:
    """A happening to be recorded: the name of an engine's probe kind, and what it must fall in.

    Args:
        symbol: the range is this function's first byte instead.
        paired: for returns: those that may end a call that was recorded.
    """

    kind: str
    low: int = 0
    high: int = NEVER
    physical: bool = False
    paired: bool = False
    symbol: str = ""


class Names(Protocol):
    """What a run's addresses and numbers are called. Addresses are signed, as in records."""

    def symbol(self, address: int) -> str: ...
    def task(self, context: int, icount: int) -> tuple[int, str]: ...
    def device(self, paddr: int) -> tuple[str, int]: ...
    def csr(self, number: int) -> str: ...
    def syscall(self, number: int) -> str: ...
    def device_writes(self) -> Sequence[tuple[Any, ...]]: ...
    def syscall_args(self, icount: int, number: int, args: Sequence[int]) -> str: ...


class Stretch(NamedTuple):
    """The rows of one stretch, and what completes rows of earlier ones: arguments of the query's ``complete``."""

    rows: Iterable[Sequence[Any]]
    completions: Iterable[Sequence[Any]] = ()


State = dict[str, Any]
Function = Callable[[Iterator[Record], State, Names], Stretch]
NamesFunction = Callable[[], Mapping[str, str]]


class Field(NamedTuple):
    """What a column is made of: the item of a record, or what its values are called, by value."""

    item: int
    names: tuple[str, ...] = ()


FieldsFunction = Callable[[], Sequence[Field]]


@dataclass(frozen=True)
class Query:
    """A lazy table.

    Args:
        name: the table. columns: of a row, in order.
        probes: given the filter, what is recorded.
        run: records of a stretch, state and names to a Stretch; the state is JSON-able and changed in place.
        fields: in place of ``run``, for a table whose rows are records: what each column is made of.
        pair: in place of ``run``, for a table of calls, which are paired with their returns: returns of each column
            that is a name what it names, another column. All other columns are called as a call's words are
            (machine.tcg.callpairs), and ``icount`` is the table's key.
        complete: SQL that completes an earlier row, for tables whose rows end later than they begin.
        per_step: how many rows a step makes at most usually; for the estimate before a fill.
        names: what of a run is needed beside records: ``tasks``, ``texts``.
    """

    name: str
    columns: tuple[str, ...]
    probes: Callable[[Mapping[str, Any]], list[ProbeNeed]]
    run: Function | None = None
    pair: NamesFunction | None = None
    fields: FieldsFunction | None = None
    complete: str = ""
    per_step: float = 0.01
    names: frozenset[str] = field(default_factory=frozenset)

    @property
    def function(self) -> Function | NamesFunction | FieldsFunction:
        """The function that makes the rows."""
        made = self.run or self.pair or self.fields
        assert made is not None
        return made


QUERIES: Final[dict[str, Query]] = {}


def query(
    name: str,
    columns: str,
    probes: Callable[[Mapping[str, Any]], list[ProbeNeed]],
    *,
    complete: str = "",
    per_step: float = 0.01,
    names: str = "",
) -> Callable[[Function], Function]:
    """Declare a function to be a query table; the arguments are those of ``Query``, lists as words in a text."""

    def declare(function: Function) -> Function:
        _declare(
            Query(
                name,
                tuple(columns.split()),
                probes,
                function,
                complete=complete,
                per_step=per_step,
                names=_words(names),
            )
        )
        return function

    return declare


def call_query(
    name: str,
    columns: str,
    probes: Callable[[Mapping[str, Any]], list[ProbeNeed]],
    *,
    complete: str = "",
    per_step: float = 0.01,
) -> Callable[[NamesFunction], NamesFunction]:
    """Declare a function to be the ``pair`` of a query table of calls; as ``query``."""

    def declare(function: NamesFunction) -> NamesFunction:
        _declare(
            Query(
                name,
                tuple(columns.split()),
                probes,
                pair=function,
                complete=complete,
                per_step=per_step,
            )
        )
        return function

    return declare


def record_query(
    name: str,
    columns: str,
    probes: Callable[[Mapping[str, Any]], list[ProbeNeed]],
    *,
    per_step: float = 0.01,
) -> Callable[[FieldsFunction], FieldsFunction]:
    """Declare a function to be the ``fields`` of a query table whose rows are records; as ``query``."""

    def declare(function: FieldsFunction) -> FieldsFunction:
        _declare(Query(name, tuple(columns.split()), probes, fields=function, per_step=per_step))
        return function

    return declare


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _declare(made: Query) -> None:
    assert made.name not in QUERIES, made.name
    QUERIES[made.name] = made


def declared() -> dict[str, Query]:
    """Return all queries by their tables' names: this package's, and those that plug-ins have declared."""
    from . import machine, memory, tasks  # noqa: F401 - they declare the queries

    return QUERIES


def find_query(name: str) -> Query:
    """Return a query by its table's name. Raises TraceError: there is none."""
    known = declared()
    if name not in known:
        raise TraceError(f"no lazy table {name!r}; there are {', '.join(sorted(known))}")
    return known[name]


def bounds(limits: Mapping[str, Any], name: str) -> tuple[int, int]:
    """Return the range that a filter gives to a name, everything where it gives none."""
    low, high = limits.get(name, (0, NEVER))
    return int(low), int(high)

"""From the records of a stretch to a table's rows, with what is open carried from one stretch to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from machine.tcg.callpairs import RETURN_WORDS, ROW, ROW_WORDS, CallPairs
from machine.tcg.probes import ProbeKind
from machine.tcg.rowimage import Column, Kind, RowImage
from traces.errors import TraceError
from traces.lazy import LazyStore, Part, Want
from traces.queries import Query, find_query
from traces.queries.base import KIND, RECORD, Field, Names, place_in_record, signed

#: Words of a call that are not there before its return.
_LATE: Final = ("ret_icount", "ret")


class RowMaker:
    """Makes the rows of a query, stretch by stretch in the run's order.

    Args:
        want: rows of a query that looks at records itself.
    """

    def __init__(self, want: Want) -> None:
        self.want = want
        self.query: Query = find_query(want.table)
        self._kinds = {ProbeKind[need.kind] for need in self.query.probes(dict(want.filter))}
        self._state: dict[str, Any] = {}
        self._taken: list[bytes] = []

    def begin(self, state: dict[str, Any]) -> None:
        """Begin where a fill ended that left ``state``. Raises TraceError: the trace's state is damaged."""
        self._state, self._taken = state, []

    def take(self, records: bytes | memoryview) -> None:
        """Take records of a stretch, in order; a view is valid for this call alone."""
        self._taken.append(bytes(records))

    def part(self, names: Names) -> Part:
        """Return the rows of the stretch whose records were taken, with all that is stored with them."""
        assert self.query.run is not None
        taken, self._taken = self._taken, []
        # of a replay for several tables, those that are for this one
        records = (r for data in taken for r in RECORD.iter_unpack(data) if r[KIND] in self._kinds)
        stretch = self.query.run(records, self._state, names)
        updates = (self.query.complete, stretch.completions) if self.query.complete else None
        return Part(self.want, self.query.columns, stretch.rows, updates, self.state)

    @property
    def state(self) -> dict[str, Any] | None:
        """What a fill needs that continues behind the last stretch, JSON-able; None: nothing."""
        return self._state if self.query.complete else None

    def close(self) -> None:
        """Free what it holds."""


class Pairing(RowMaker):
    """Makes the rows of a query of calls, as pages, of calls that are paired with their returns in C."""

    def __init__(self, want: Want, store: LazyStore, names: Names) -> None:
        super().__init__(want)
        assert self.query.pair is not None
        self._pairs = CallPairs()
        self._pages = RowImage(
            store.declaration(want.table),
            _columns(self.query.columns, self.query.pair()),
            ROW_WORDS,
            ROW.index("ret_icount"),
            lambda word: names.symbol(signed(word)),
        )

    def begin(self, state: dict[str, Any]) -> None:
        self._pairs.clear()
        try:
            self._pairs.load(state.get("open", []))
        except ValueError as error:
            raise TraceError(f"lazy_state: damaged: {error}; delete its rows and those of coverage") from None

    def take(self, records: bytes | memoryview) -> None:
        self._pairs.feed(records)

    def part(self, names: Names) -> Part:
        rows, returns = self._pairs.found()
        late = list(zip(*(returns[i::RETURN_WORDS] for i in range(RETURN_WORDS)), strict=True))
        self._pages.write(rows)
        self._pairs.clear()
        return Part(self.want, self.query.columns, (), (self.query.complete, late), self.state, self._pages)

    @property
    def state(self) -> dict[str, Any]:
        return {"open": self._pairs.save()}

    def close(self) -> None:
        self._pairs.close()
        self._pages.close()


class Copying(RowMaker):
    """Makes the rows of a query whose rows are records, as pages."""

    def __init__(self, want: Want, store: LazyStore) -> None:
        super().__init__(want)
        assert self.query.fields is not None
        fields = self.query.fields()
        keyed = store.is_keyed(want.table)
        self._pages = RowImage(
            store.declaration(want.table),
            [_column(field, keyed and i == 0) for i, field in enumerate(fields)],
            RECORD.size // 8,
            0,
            # one column has names at most: a number is what it is called in any of them
            next((field.names.__getitem__ for field in fields if field.names), str),
        )

        self._stored = False

    def begin(self, state: dict[str, Any]) -> None:
        self._stored = True

    def take(self, records: bytes | memoryview) -> None:
        self._anew()
        self._pages.append(memoryview(records).cast("B").cast("Q"))

    def part(self, names: Names) -> Part:
        self._anew()
        self._stored = True
        return Part(self.want, self.query.columns, (), pages=self._pages)

    def _anew(self) -> None:
        if self._stored:
            self._pages.clear()
        self._stored = False

    def close(self) -> None:
        self._pages.close()


def make_rows(want: Want, store: LazyStore, names: Names) -> RowMaker:
    """Return what makes the rows that are wanted, for a store."""
    query = find_query(want.table)
    if query.pair is not None:
        return Pairing(want, store, names)
    return RowMaker(want) if query.fields is None else Copying(want, store)


def _column(field: Field, is_key: bool) -> Column:
    first, size = place_in_record(field.item)
    kind = Kind.KEY if is_key else Kind.NAME if field.names else Kind.INT
    return Column(kind, first // 8, first % 8, size)


def _columns(columns: Sequence[str], named: Mapping[str, str]) -> list[Column]:
    """Return what the columns of a table of calls are made of."""
    kinds = {"icount": Kind.KEY, **dict.fromkeys(_LATE, Kind.LATE), **dict.fromkeys(named, Kind.NAME)}
    return [Column(kinds.get(name, Kind.INT), ROW.index(named.get(name, name))) for name in columns]

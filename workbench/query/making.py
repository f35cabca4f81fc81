"""From the records of a stretch to a table's rows, with what is open carried from one stretch to the next."""

from __future__ import annotations

from typing import Any

from machine.tcg.callpairs import RETURN_WORDS, ROW_WORDS, CallPairs
from traces.errors import TraceError
from traces.lazy import Part, Want
from traces.queries import Query, Stretch, find_query
from traces.queries.base import RECORD, Names, Paired

_RET_ICOUNT, _RET = 6, 15


class RowMaker:
    """Makes the rows of a query, stretch by stretch in the run's order.

    Args:
        want: rows of a query that looks at records itself.
    """

    def __init__(self, want: Want) -> None:
        self.want = want
        self.query: Query = find_query(want.table)
        self._state: dict[str, Any] = {}

    def begin(self, state: dict[str, Any]) -> None:
        """Begin where a fill ended that left ``state``. Raises TraceError: the trace's state is damaged."""
        self._state = state

    def rows(self, records: bytes, names: Names) -> Stretch:
        """Return the rows of a stretch."""
        assert self.query.run is not None
        return self.query.run(RECORD.iter_unpack(records), self._state, names)

    def part(self, records: bytes, names: Names) -> Part:
        """Return a stretch's rows with all that is stored with them."""
        stretch = self.rows(records, names)
        updates = (self.query.complete, stretch.completions) if self.query.complete else None
        return Part(self.want, self.query.columns, stretch.rows, updates, self.state)

    @property
    def state(self) -> dict[str, Any] | None:
        """What a fill needs that continues behind the last stretch, JSON-able; None: nothing."""
        return self._state if self.query.complete else None

    def close(self) -> None:
        """Free what it holds."""


class Pairing(RowMaker):
    """Makes the rows of a query of calls, which the engine's side pairs with their returns."""

    def __init__(self, want: Want) -> None:
        super().__init__(want)
        self._pairs = CallPairs()

    def begin(self, state: dict[str, Any]) -> None:
        try:
            self._pairs.load(state.get("open", []))
        except ValueError as error:
            raise TraceError(f"lazy_state: damaged: {error}; delete its rows and those of coverage") from None

    def rows(self, records: bytes, names: Names) -> Stretch:
        assert self.query.pair is not None
        rows, returns = self._pairs.feed(records)
        columns: list[Any] = [rows[i::ROW_WORDS] for i in range(ROW_WORDS)]
        columns[_RET_ICOUNT], columns[_RET] = columns[_RET_ICOUNT].tolist(), columns[_RET].tolist()
        _blank(columns[_RET_ICOUNT], columns[_RET])
        late = zip(*(returns[i::RETURN_WORDS] for i in range(RETURN_WORDS)), strict=True)
        return self.query.pair(Paired(columns, late), names)

    @property
    def state(self) -> dict[str, Any]:
        return {"open": self._pairs.save()}

    def close(self) -> None:
        self._pairs.close()


def make_rows(want: Want) -> RowMaker:
    """Return what makes the rows that are wanted."""
    return RowMaker(want) if find_query(want.table).pair is None else Pairing(want)


def _blank(ends: list[Any], results: list[Any]) -> None:
    """Put None where no return came."""
    at = -1
    try:
        while True:
            at = ends.index(-1, at + 1)
            ends[at] = results[at] = None
    except ValueError:
        return

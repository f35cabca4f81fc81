"""Where the guest printed a text: found in the trace's rows, so that no replay is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from traces.reader import TraceReader

from .stoppers import Stopper


class Printed(NamedTuple):
    """A position at which texts were complete, and the stoppers that wait for them."""

    icount: int
    stoppers: tuple[Stopper, ...]


class ConsoleSearch:
    """Finds texts on the console.

    Args:
        trace: the trace; what it holds by the time of a search is searched.
    """

    def __init__(self, trace: TraceReader) -> None:
        self._trace = trace

    def positions(self, text: bytes) -> list[int]:
        """Return the positions at which a text was complete: of the last byte of each row in which it ends."""
        held: dict[str, bytes] = {}
        found: list[int] = []
        for row in self._trace.console():
            before = held.get(row.port, b"")
            data = before + row.data
            if text in data[max(0, len(before) - len(text) + 1) :]:
                found.append(row.icount)
            held[row.port] = data[-max(len(text) - 1, 1) :] if len(text) > 1 else b""
        return found

    def next(self, stoppers: Sequence[Stopper], cursor: int, limit: int) -> Printed | None:
        """Return the first text after the cursor, at most at the limit."""
        return self._pick(stoppers, lambda at: cursor < at <= limit, min)

    def previous(self, stoppers: Sequence[Stopper], cursor: int, limit: int) -> Printed | None:
        """Return the last text before the cursor, at the earliest at the limit."""
        return self._pick(stoppers, lambda at: limit <= at < cursor, max)

    def _pick(
        self,
        stoppers: Sequence[Stopper],
        fits: Callable[[int], bool],
        choose: Callable[[list[int]], int],
    ) -> Printed | None:
        waiting = [(s, [at for at in self.positions(s.console) if fits(at)]) for s in stoppers if s.console]
        best = [choose(found) for _, found in waiting if found]
        if not best:
            return None
        at = choose(best)
        return Printed(at, tuple(s for s, found in waiting if at in found))

"""A query without a session: opens the trace, and a machine only where one is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from traces.reader import TraceReader
from workbench.output import Table, progress_printer
from workbench.symbolcache import trace_symbols
from workbench.symbols import Symbols

from .fill import Filler, Progress
from .sql import Sql


def shown_progress() -> Progress | None:
    """Return what shows a fill's progress on stderr, None where that is no terminal."""
    show = progress_printer()
    if show is None:
        return None

    def tell(table: str, done: int, total: int) -> None:
        show("" if done >= total else f"{table}: {done * 100 // max(total, 1)}% of {total:_} steps replayed")

    return tell


def run_query(path: str | Path, text: str, *, jobs: int | None = None, writable: bool = True) -> Table:
    """Return the rows of a statement.

    Args:
        path: the trace. text: the SQL. jobs: processes that replay, None for as many as pay.
        writable: False keeps the trace untouched.

    Raises:
        TraceError, QueryRefused, Diverged.
    """
    machine: list[Any] = []

    def symbols() -> Symbols:
        return trace_symbols(trace)

    def engine() -> Any:
        from workbench.replay.playback import Playback

        if not machine:
            playback = Playback(trace)
            machine.append(playback)
            playback.restore(playback.tree.nearest(playback.end))
        return machine[0].board.engine

    with TraceReader.open(path) as trace:
        filler = Filler(trace, symbols, jobs=jobs, progress=shown_progress(), writable=writable)
        try:
            return Sql(filler, engine).table(text)
        finally:
            filler.close()
            for each in machine:
                each.close()

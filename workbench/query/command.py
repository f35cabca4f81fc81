"""A query without a session: opens the trace, and a machine only where one is needed."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Any

from traces.reader import TraceReader
from workbench.dwarf.file import DebugFile
from workbench.lines import Lines
from workbench.output import Table, progress_printer
from workbench.session import trace_lines
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


def run_query(
    path: str | Path,
    text: str,
    *,
    jobs: int | None = None,
    writable: bool = True,
    debug_file: Path | None = None,
    cluster: str | None = None,
) -> Table:
    """Return the rows of a statement.

    Args:
        path: the trace. text: the SQL. jobs: processes that replay, None for as many as pay.
        writable: False keeps the trace untouched. debug_file: an ELF file with more symbols and source lines.
        cluster: address of a dask scheduler whose workers replay.

    Raises:
        InputError: the debug file can't be used. TraceError, QueryRefused, Diverged.
    """
    machine: list[Any] = []

    @cache
    def symbols() -> Symbols:
        found = trace_symbols(trace)
        if debug_file is not None:
            found.add(Symbols.from_file(debug_file))
        return found

    @cache
    def lines() -> Lines:
        found = trace_lines(trace)
        if debug_file is not None:
            found.add_file(DebugFile(debug_file.read_bytes(), str(debug_file)))
        return found

    def engine() -> Any:
        from workbench.replay.playback import Playback

        if not machine:
            playback = Playback(trace)
            machine.append(playback)
            playback.restore(playback.tree.nearest(playback.end))
        return machine[0].board.engine

    with ExitStack() as stack, TraceReader.open(path) as trace:
        executor = None if cluster is None else stack.enter_context(closing(_cluster(cluster)))
        filler = Filler(
            trace, symbols, jobs=jobs, progress=shown_progress(), writable=writable, executor=executor
        )
        try:
            return Sql(filler, engine, lines).table(text)
        finally:
            filler.close()
            for each in machine:
                each.close()


def _cluster(address: str) -> Any:
    from .cluster import Cluster

    return Cluster(address)

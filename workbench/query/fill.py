"""Fills lazy tables: finds what is missing, has it replayed, stores rows and coverage."""

from __future__ import annotations

import gc
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from traces.lazy import CONTENT_INDEXES, LazyStore, Part, Want
from traces.queries import ProbeNeed, Query, find_query
from traces.reader import TraceReader
from workbench.kernel.btf import Btf
from workbench.kernel.errors import KernelError
from workbench.kernel.linux import Kernel
from workbench.kernel.symbols import inflate
from workbench.symbols import Symbols

from .errors import QueryRefused
from .harvest import Harvest, Harvester, Job
from .making import RowMaker, make_rows
from .names import RunNames
from .shards import Executor, choose

if TYPE_CHECKING:
    from workbench.session import Session

#: A stretch that is stored by one transaction holds about this many rows.
_STRETCH_ROWS: Final = 300_000
_MAX_STRETCH: Final = 1 << 26
#: More rows than this are not filled unless bounds or filters are given.
MAX_ROWS: Final = 30_000_000
_ROW_BYTES: Final = 60
#: From so many rows on it is quicker to make an index when it is asked for than to keep it.
_MANY_ROWS: Final = 1_000_000
_SYMBOLS: Final = (
    "init_task",
    "__start_BTF",
    "__stop_BTF",
    "wake_up_new_task",
    "__set_task_comm",
    "__switch_to",
)

_DMA: Final = Want("dma")
#: Tables that are filled on the way: the first needs all that the table needs, and none of them costs anything.
_BESIDE: Final = {"syscalls": (Want("traps", follows=True), Want("switches"))}

#: Told how far a fill is: (table, steps done, steps in all).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Filled:
    """What a fill did: how many steps were replayed, and how many rows stored."""

    steps: int
    rows: int


class Filler:
    """The lazy tables of one trace.

    Args:
        trace: an open trace. symbols: gives the run's symbols when they are needed.
        backend: replays on ``jit`` or ``interp``; the rows are the same.
        jobs: processes that replay; None for as many as pay.
        progress: is told how far a fill is.
        writable: False keeps the trace untouched; rows go to a side database.
        executor: replays; None for processes of this host.

    Raises:
        TraceError: the trace can't be used.
    """

    def __init__(
        self,
        trace: TraceReader,
        symbols: Callable[[], Symbols],
        *,
        backend: str = "jit",
        jobs: int | None = None,
        progress: Progress | None = None,
        writable: bool = True,
        executor: Executor | None = None,
    ) -> None:
        self.trace = trace
        self.backend = backend
        self.jobs = jobs
        self.progress = progress
        self.executor = executor
        identity = f"{trace.meta.get('created', '')} {trace.meta.get('parent', '')} {trace.config}"
        self.store = LazyStore.open(trace.path, identity, writable)
        self._symbols = symbols
        self._types: Btf | None = None

    @classmethod
    def of(cls, session: Session, **options: Any) -> Filler:
        """Return the lazy tables of a session's trace."""
        return cls(session.trace, lambda: session.symbols, **options)

    def close(self) -> None:
        """Let go of the files."""
        self.store.close()

    @cached_property
    def symbols(self) -> Symbols:
        return self._symbols()

    def types(self, kernel: Kernel) -> Btf:
        """Return the kernel's types: those that the trace keeps, else from memory; then it keeps them."""
        if self._types is not None:
            return self._types
        kept = self.store.get_cache("btf")
        if kept is not None:
            try:
                self._types = Btf(inflate(kept))
                return self._types
            except (zlib.error, KernelError):
                pass  # a damaged copy is found again in memory
        data = kernel.btf_bytes()
        self._types = Btf(data)
        self.store.put_cache("btf", zlib.compress(data, 1))
        return self._types

    def ensure(
        self, want: Want, low: int | None = None, high: int | None = None, seek: str | None = None
    ) -> Filled:
        """Make sure that all wanted rows of an interval are there.

        Args:
            want: the rows. low, high: the interval, end exclusive; None for the run's start and end.
            seek: the condition in SQL by which they will be looked for; None: the one that is ``want``'s.

        Raises:
            QueryRefused: it would be absurdly many rows. Diverged: the replay is another run.
            TraceError: rows can't be stored.
        """
        end = self.trace.final_icount
        low, high = max(0, low or 0), end if high is None else min(high, end)
        gaps = self.store.missing(want, low, high) if low < high else []
        if not gaps:
            self._index(want, seek)
            return Filled(0, 0)
        query = find_query(want.table)
        self.store.make_table(query.name, query.columns)
        total = sum(b - a for a, b in gaps)
        self._refuse(query, want, total)
        stretches = [s for gap in gaps for s in self._cut(query, want, *gap)]
        # what other tables need beside is asked for where they lack the same
        beside = [each for each in _BESIDE.get(want.table, ()) if self.store.missing(each, low, high) == gaps]
        filled = self._fill(query, want, stretches, total, beside)
        self._index(want, seek)
        return filled

    def _index(self, want: Want, seek: str | None) -> None:
        if want.filter and want.table in CONTENT_INDEXES:
            self.store.make_index(want.table, want.where if seek is None else seek)

    def _refuse(self, query: Query, want: Want, steps: int) -> None:
        rows = int(steps * query.per_step)
        if rows > MAX_ROWS and not want.filter:
            raise QueryRefused(
                f"{query.name} of {steps:_} steps would be about {rows:_} rows, {rows * _ROW_BYTES >> 30} GiB;"
                f" bound it, as in 'where icount between A and B', or ask for one address"
            )

    def _cut(self, query: Query, want: Want, low: int, high: int) -> list[tuple[int, int]]:
        """Cut an interval where checkpoints are, at most as far apart as fills one transaction."""
        density = query.per_step / (1 if not want.filter else 100)
        longest = max(10_000, min(_MAX_STRETCH, int(_STRETCH_ROWS / density)))
        marks = [c.icount for c in self.trace.checkpoints() if low < c.icount < high]
        out, at = [], low
        for mark in [*marks, high]:
            while mark - at > longest:
                out.append((at, at + longest))
                at += longest
            if mark == high or mark - at >= longest // 2:
                out.append((at, mark))
                at = mark
        return [(a, b) for a, b in out if a < b]

    def _fill(
        self, query: Query, want: Want, stretches: list[tuple[int, int]], total: int, beside: list[Want]
    ) -> Filled:
        job = self._job(query, want, beside)
        # what ends a call is seen by the replay that saw it begin
        paired = any(need.paired for need in job.needs)
        executor = (
            self.executor if self.executor and not paired else choose(total, 1 if paired else self.jobs)
        )
        names = RunNames(self._symbols() if query.name == "calls" else Symbols(), self._devices(job, query))
        done = rows = 0
        at: int | None = None
        if query.name in CONTENT_INDEXES and total * query.per_step > _MANY_ROWS and not want.filter:
            self.store.drop_indexes(query.name)
        # millions of rows are made and none of them is in a cycle: looking for cycles would cost a third of the time
        collecting = gc.isenabled()
        gc.disable()
        makers = [make_rows(each, self.store, names) for each in (want, *beside)]

        def begin(low: int) -> None:
            nonlocal at
            if at != low:
                for maker in makers:
                    maker.begin(self.store.state_at(maker.want, low) or {})
                at = low

        def take(low: int, records: bytes | memoryview) -> None:
            begin(low)
            for maker in makers:
                maker.take(records)

        try:
            for harvest in executor.run(job, stretches, take):
                begin(harvest.low)
                rows += self._keep(harvest, names, makers)
                at = harvest.high
                done += harvest.high - harvest.low
                if self.progress is not None:
                    self.progress(query.name, done, total)
        finally:
            for maker in makers:
                maker.close()
            if collecting:
                gc.enable()
        return Filled(done, rows)

    def _keep(self, harvest: Harvest, names: RunNames, makers: list[RowMaker]) -> int:
        names.learn(harvest)
        parts = [maker.part(names) for maker in makers]
        if parts[0].want.table != "dma":  # what devices wrote is seen by every replay
            parts.append(Part(_DMA, find_query("dma").columns, harvest.dma))
        return self.store.write_stretch(harvest.low, harvest.high, parts)

    def _job(self, query: Query, want: Want, beside: list[Want]) -> Job:
        """Return what is to be brought home; tables that it can't be brought for are taken out of ``beside``."""
        needs = _needs(want)
        addresses = {}
        if query.names or any(need.symbol for need in needs):
            for name in _SYMBOLS:
                found = self.symbols.lookup(name)
                if found is not None:
                    addresses[name] = found
        beside[:] = [each for each in beside if all(need.symbol in ("", *addresses) for need in _needs(each))]
        for each in beside:
            more = _needs(each)
            needs = more if {need.kind for need in needs} <= {need.kind for need in more} else needs + more
        return Job(str(self.trace.path), self.backend, needs, query.names, addresses)

    def _devices(self, job: Job, query: Query) -> list[tuple[int, int, str]]:
        if query.name != "mmio":
            return []
        with Harvester(job) as harvester:
            return harvester.devices


def _needs(want: Want) -> tuple[ProbeNeed, ...]:
    return tuple(find_query(want.table).probes(dict(want.filter)))

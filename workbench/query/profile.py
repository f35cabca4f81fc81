"""What a stretch of the run cost: exact steps, by function and by stack; not samples."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from machine.tcg import stacktree
from machine.tcg.probes import COUNT, NEVER, Probe, ProbeAction, ProbeKind
from traces.errors import TraceError
from traces.queries.base import ProbeNeed
from workbench.replay.playback import Playback

from . import stacks
from .errors import QueryRefused
from .harvest import Harvester, Job
from .stacks import Stacks

if TYPE_CHECKING:
    from .api import Trace

#: Longest stretch whose stacks are followed, in steps.
MAX_STACK_STEPS: Final = 2_000_000_000
#: What runs with no call open, and what there was no room to tell apart (machine.tcg.stacktree).
_USER: Final = "[user]"
_KERNEL: Final = "[kernel]"
_MORE: Final = "[other calls]"
_DEEPER: Final = "[deeper calls]"
_ROOTS: Final = (_KERNEL, _USER, _MORE)
#: Where the kernel's half of the addresses begins.
_HALF: Final = 1 << 63


class Cost(NamedTuple):
    """The steps that ran in a function itself, not in those it called; and their share of the stretch."""

    symbol: str
    steps: int
    share: float


def profile(trace: Trace, low: int, high: int) -> list[Cost]:
    """Return what the functions cost between two positions, the dearest first.

    Every instruction is counted at its pc, then pcs are put together by symbol; user code without symbols is
    ``[user]``. What is found is kept with the trace.

    Raises:
        Diverged, TraceError.
    """
    if low >= high:
        raise QueryRefused(f"no steps lie between {low} and {high}")
    steps: Counter[str] = Counter()
    name, end = "", 0
    for pc, count in _counts(trace, low, high):
        if pc >= end:
            symbol, end = trace.symbols.stretch_at(pc)
            name = _nameless(pc) if symbol is None else symbol.name
            if pc < _HALF:
                end = min(end, _HALF)
        steps[name] += count
    total = sum(steps.values()) or 1
    return [
        Cost(name, n, n / total) for name, n in sorted(steps.items(), key=lambda item: (-item[1], item[0]))
    ]


def _counts(trace: Trace, low: int, high: int) -> Iterator[tuple[int, ...]]:
    """Return each pc that was met, in order, and how often: what the trace keeps, else what a replay counts."""
    key = f"counts {low} {high}"
    kept = trace.filler.store.get_cache(key)
    if kept is None:
        counts = _count(trace, low, high)
        trace.filler.store.put_cache(key, zlib.compress(counts, 1))
        return COUNT.iter_unpack(counts)
    try:
        return COUNT.iter_unpack(zlib.decompress(kept))
    except (zlib.error, struct.error) as error:
        raise TraceError(f"lazy_cache: {key}: damaged: {error}; delete its row") from None


def _count(trace: Trace, low: int, high: int) -> bytes:
    playback = Playback(trace.trace)
    try:
        playback.restore(playback.tree.nearest(low))
        playback.run_to(low)
        engine = playback.board.engine
        engine.set_probes([Probe(ProbeKind.EXEC, ProbeAction.COUNT, 0, NEVER)])
        playback.run_to(high)
        return bytes(engine.view_counts())
    finally:
        playback.close()


def _name(trace: Trace, pc: int) -> str:
    found = trace.symbols.find(pc)
    if found is not None:
        return found[0]
    return _nameless(pc)


def _nameless(pc: int) -> str:
    return _USER if pc < _HALF else _KERNEL


def folded(trace: Trace, low: int, high: int) -> Stacks:
    """Return the steps of a stretch by stack.

    Stacks are followed by calls and returns from ``low`` on, so a function that was called before that is not in
    them. User mode begins with ``[user]``; ``[kernel]`` is what runs there with no call open.

    Raises:
        QueryRefused: the stretch is empty or too long. Diverged, TraceError.
    """
    if not 0 < high - low <= MAX_STACK_STEPS:
        raise QueryRefused(
            f"stacks of {high - low:_} steps: between 1 and {MAX_STACK_STEPS:_} can be followed"
        )
    needs = tuple(ProbeNeed(kind) for kind in stacktree.PROBES)
    job = Job(str(trace.trace.path), trace.filler.backend, needs)
    tree: stacktree.StackTree | None = None

    def take(_: int, records: bytes | memoryview) -> None:
        assert tree is not None
        tree.feed(records)

    with Harvester(job, take=take) as harvester:
        hart, user = harvester.begin(low)
        with stacktree.StackTree(low, hart, user) as tree:
            for _ in harvester.harvest(low, high):
                pass
            nodes = tree.nodes(high)
            forgotten = tree.forgotten
    return _named(nodes, forgotten, trace)


def _named(nodes: stacktree.Nodes, forgotten: int, trace: Trace) -> Stacks:
    """Return the stacks of a tree's nodes."""
    targets = nodes.targets[stacktree.ROOTS :]
    name = {target: _name(trace, target) for target in set(targets)}
    name[stacktree.DEEPER] = _DEEPER
    below = [stacks.OUTSIDE if under == stacktree.KERNEL else under for under in nodes.below]
    below[: stacktree.ROOTS] = [stacks.OUTSIDE] * stacktree.ROOTS
    notes = []
    if deeper := sum(s for t, s in zip(nodes.targets, nodes.steps, strict=True) if t == stacktree.DEEPER):
        notes.append(f"{deeper:_} steps are in calls deeper than {stacktree.MAX_DEPTH}: {_DEEPER}")
    if more := nodes.steps[stacktree.MORE]:
        notes.append(
            f"{more:_} steps are in calls for which {stacktree.MAX_NODES:_} stacks were too few: {_MORE}"
        )
    if forgotten:
        notes.append(f"{forgotten:_} calls were open at once and forgotten: later stacks begin without them")
    return Stacks([*_ROOTS, *map(name.__getitem__, targets)], below, nodes.steps, notes)

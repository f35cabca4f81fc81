"""What a stretch of the run cost: exact steps, by function and by stack; not samples."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from machine.tcg.engine import NEVER, Probe, ProbeAction, ProbeKind
from traces.queries.base import (
    CONTEXT,
    HART,
    ICOUNT,
    KIND,
    OLD,
    OP,
    PRIV,
    RECORD,
    VALUE,
    A,
    B,
    ProbeNeed,
    Record,
)
from workbench.replay.playback import Playback

from .errors import QueryRefused
from .harvest import Job, harvest_here

if TYPE_CHECKING:
    from .api import Trace

#: Longest stretch whose stacks are followed, in steps.
MAX_STACK_STEPS: Final = 2_000_000_000
_CUT: Final = 1 << 25
_USER: Final = 0
_DEEPEST: Final = 200


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
    key = f"profile {low} {high}"
    kept = trace.filler.store.get_cache(key)
    if kept is None:
        counts = _count(trace, low, high)
        trace.filler.store.put_cache(key, zlib.compress(json.dumps(sorted(counts.items())).encode()))
    else:
        counts = dict(json.loads(zlib.decompress(kept)))
    steps: Counter[str] = Counter()
    for pc, count in counts.items():
        steps[_name(trace, pc)] += count
    total = sum(steps.values()) or 1
    return [
        Cost(name, n, n / total) for name, n in sorted(steps.items(), key=lambda item: (-item[1], item[0]))
    ]


def _count(trace: Trace, low: int, high: int) -> dict[int, int]:
    playback = Playback(trace.trace)
    try:
        playback.restore(playback.tree.nearest(low))
        playback.run_to(low)
        engine = playback.board.engine
        engine.set_probes([Probe(ProbeKind.EXEC, ProbeAction.COUNT, 0, NEVER)])
        playback.run_to(high)
        found: dict[int, int] = engine.take_counts()
        return found
    finally:
        playback.close()


def _name(trace: Trace, pc: int) -> str:
    found = trace.symbols.find(pc)
    if found is not None:
        return found[0]
    return "[user]" if pc < 1 << 63 else "[kernel]"


def folded(trace: Trace, low: int, high: int) -> dict[str, int]:
    """Return steps by stack, as flame graphs want it: ``outermost;…;innermost``.

    Stacks are followed by calls and returns from ``low`` on, so a function that was called before that is not in
    them. Steps between two events belong to the stack between them; user mode is ``[user]``.
    """
    if not 0 < high - low <= MAX_STACK_STEPS:
        raise QueryRefused(
            f"stacks of {high - low:_} steps: between 1 and {MAX_STACK_STEPS:_} can be followed"
        )
    needs = tuple(ProbeNeed(kind) for kind in ("CALL", "RET", "TRAP", "XRET"))
    job = Job(str(trace.trace.path), trace.filler.backend, needs)
    stretches = [(at, min(at + _CUT, high)) for at in range(low, high, _CUT)]
    records = (r for h in harvest_here(job, stretches) for r in RECORD.iter_unpack(h.records))
    steps: Counter[tuple[int, ...]] = Counter()
    for stack, count in _stacks(records, low, high):
        steps[stack] += count
    names: dict[int, str] = {0: "[user]", -1: "[kernel]"}

    def name(target: int) -> str:
        if target not in names:
            names[target] = _name(trace, target & NEVER)
        return names[target]

    out: Counter[str] = Counter()
    for stack, count in steps.items():
        out[";".join(name(target) for target in stack)] += count
    return dict(out)


def _stacks(records: Iterable[Record], low: int, high: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield (targets of the open calls, steps) between events."""
    frames: dict[str, list[tuple[int, int, int]]] = {}
    current: tuple[int, ...] = (-1,)
    at, hart_at = low, 0
    of_hart: dict[int, tuple[int, ...]] = {}
    for r in records:
        if r[ICOUNT] + 1 > at:
            yield current, r[ICOUNT] + 1 - at
            at = r[ICOUNT] + 1
        if r[HART] != hart_at:
            of_hart[hart_at] = current
            hart_at = r[HART]
            current = of_hart.get(hart_at, (-1,))
        kind = r[KIND]
        if kind in (ProbeKind.TRAP, ProbeKind.XRET):
            if r[OP] == _USER:
                current = (0,)
            elif r[OLD] == _USER:
                current = (-1,)
            continue
        key = str((r[VALUE] - 1) >> 14) if r[VALUE] < 0 else f"{r[CONTEXT]}/{r[PRIV]}"
        stack = frames.setdefault(key, [])
        while stack and stack[-1][0] < r[VALUE]:
            stack.pop()
        if kind == ProbeKind.CALL:
            stack.append((r[VALUE], r[B], r[A]))
        else:
            for index in range(len(stack) - 1, -1, -1):
                if stack[index][1] == r[A]:
                    del stack[index:]
                    break
        base = (0,) if r[PRIV] == _USER else ()
        current = base + tuple(frame[2] for frame in stack[-_DEEPEST:]) or (-1,)
    if high > at:
        yield current, high - at

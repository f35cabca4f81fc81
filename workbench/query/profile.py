"""What a stretch of the run cost: exact steps, by function and by stack; not samples."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from machine.tcg.engine import NEVER, Probe, ProbeAction, ProbeKind
from traces.queries.base import RECORD, ProbeNeed, Record
from workbench.replay.playback import Playback

from .errors import QueryRefused
from .harvest import Job, harvest_here

if TYPE_CHECKING:
    from .api import Trace

#: Longest stretch whose stacks are followed, in steps.
MAX_STACK_STEPS: Final = 2_000_000_000
_CUT: Final = 1 << 25
_USER: Final = 0
_KERNEL: Final = -1
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
    tree = _Tree()
    steps: Counter[tuple[int, bool]] = Counter()
    for node, user, count in _stacks(records, low, high, tree):
        steps[node, user] += count
    names: dict[int, str] = {_USER: "[user]", _KERNEL: "[kernel]"}

    def name(target: int) -> str:
        if target not in names:
            names[target] = _name(trace, target & NEVER)
        return names[target]

    out: Counter[str] = Counter()
    for (node, user), count in steps.items():
        stack = [_USER] * user + tree.stack(node) or [_KERNEL]
        out[";".join(name(target) for target in stack)] += count
    return dict(out)


class _Tree:
    """Stacks that were seen: a node is a call's target on top of another node; 0 is no call."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, int], int] = {}
        self._places: list[tuple[int, int]] = [(0, 0)]

    def on(self, below: int, target: int) -> int:
        """Return the node of a call on top of a node."""
        place = below, target
        node = self._nodes.get(place)
        if node is None:
            node = self._nodes[place] = len(self._places)
            self._places.append(place)
        return node

    def stack(self, node: int) -> list[int]:
        """Return the targets down to a node, the innermost ones where they are very many."""
        out: list[int] = []
        while node and len(out) < _DEEPEST:
            node, target = self._places[node]
            out.append(target)
        return out[::-1]


def _stacks(records: Iterable[Record], low: int, high: int, tree: _Tree) -> Iterator[tuple[int, bool, int]]:
    """Yield (node of the open calls, whether user mode, steps) between events."""
    frames: dict[object, list[tuple[int, int, int]]] = {}
    current = 0, False
    at, hart_at = low, 0
    of_hart: dict[int, tuple[int, bool]] = {}
    call, trap, xret = (int(kind) for kind in (ProbeKind.CALL, ProbeKind.TRAP, ProbeKind.XRET))
    for icount, _, _, kind, hart, _, mode, priv, a, b, sp, old, context, *_ in records:
        if icount >= at:
            yield *current, icount + 1 - at
            at = icount + 1
        if hart != hart_at:
            of_hart[hart_at] = current
            hart_at = hart
            current = of_hart.get(hart, (0, False))
        if kind in (trap, xret):
            if mode == _USER:
                current = 0, True
            elif old == _USER:
                current = 0, False
            continue
        key = (sp - 1) >> 14 if sp < 0 else (context, priv)
        stack = frames.setdefault(key, [])
        while stack and stack[-1][0] < sp:
            stack.pop()
        if kind == call:
            stack.append((sp, b, tree.on(stack[-1][2] if stack else 0, a)))
        else:
            for index in range(len(stack) - 1, -1, -1):
                if stack[index][1] == a:
                    del stack[index:]
                    break
        current = stack[-1][2] if stack else 0, priv == _USER
    if high > at:
        yield *current, high - at

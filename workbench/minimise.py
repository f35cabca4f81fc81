"""Minimising: which of a failing run's chaos choices its failure needs, found by leaving others out.

A strike of chaos makes up to three choices (machine/hw/chaos.py). They are left out one group after the other, and what
still fails goes on, until each one that is left is needed: delta debugging (Zeller and Hildebrandt,
"Simplifying and isolating failure-inducing input", 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from machine.hw.chaos import LATENCY_QUIET, pack_strike, unpack_strike

T = TypeVar("T")
#: Tells which is the first of some sets with which a run fails, or None.
FirstFailing = Callable[[Sequence[Sequence[T]]], int | None]


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of chaos.

    Args:
        strike: which strike made it, from 0.
        what: ``stall`` (virtual time passes with no step), ``turn`` (the length of harts' turns) or ``latency``.
        amount: ns, steps, or per cent of the usual latency.
    """

    strike: int
    what: str
    amount: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A choice, and the position and virtual time at which a recording took it."""

    icount: int
    vtime_ns: int
    choice: Choice


def strikes_of(trace: Path) -> list[bytes]:
    """Return the strikes of a recording, in order, as the input gate gave them."""
    from traces.reader import TraceReader

    with TraceReader.open(trace) as reader:
        return [row.payload for row in reader.inputs() if (row.source, row.kind) == ("chaos", "strike")]


def choices_of(strikes: Iterable[bytes], harts: int) -> list[Choice]:
    """Return the choices that may matter on a machine with this many harts, in order."""
    found = []
    for index, payload in enumerate(strikes):
        _, stall_ns, quantum_steps, latency_percent = unpack_strike(payload)
        if stall_ns:
            found.append(Choice(index, "stall", stall_ns))
        if quantum_steps and harts > 1:
            found.append(Choice(index, "turn", quantum_steps))
        found.append(Choice(index, "latency", latency_percent))
    return found


def placed(trace: Path, kept: Iterable[Choice]) -> list[Placed]:
    """Return where a recording that was made with these choices took them."""
    from traces.reader import TraceReader

    with TraceReader.open(trace) as reader:
        rows = [row for row in reader.inputs() if (row.source, row.kind) == ("chaos", "strike")]
    return [Placed(rows[c.strike].icount, rows[c.strike].vtime_ns, c) for c in kept if c.strike < len(rows)]


class StrikePlan:
    """A recording's strikes, given anew with only some of their choices; for ``RecordGate.edit_strike``.

    Strikes keep their virtual times, also behind a stall that is left out. After the last one nothing is chosen.
    """

    def __init__(self, strikes: Sequence[bytes], kept: Iterable[Choice]) -> None:
        self._strikes = strikes
        self._kept = {(choice.strike, choice.what) for choice in kept}
        self._index = 0
        self._latency = LATENCY_QUIET

    def __call__(self, drawn: bytes) -> bytes:
        """Return the next strike; ``drawn`` is what chance would make it."""
        index, self._index = self._index, self._index + 1
        if index >= len(self._strikes):
            return pack_strike(unpack_strike(drawn)[0], 0, 0, self._latency)
        next_ns, stall_ns, quantum_steps, latency_percent = unpack_strike(self._strikes[index])
        if (index, "latency") in self._kept:
            self._latency = latency_percent
        if (index, "stall") not in self._kept:
            next_ns, stall_ns = next_ns + stall_ns, 0
        if (index, "turn") not in self._kept:
            quantum_steps = 0
        return pack_strike(next_ns, stall_ns, quantum_steps, self._latency)


def minimise(items: Sequence[T], first_failing: FirstFailing[T]) -> list[T]:
    """Return some of the items with which a run still fails, and no longer without any one of them.

    Args:
        items: with all of them it fails.
        first_failing: judges sets of items, a few at once; the answer must be the first set's that fails, so that
            the result hangs on nothing but the runs.
    """
    if first_failing([[]]) is not None:
        return []
    kept, parts = list(items), 2
    while len(kept) > 1:
        cut = [kept[len(kept) * i // parts : len(kept) * (i + 1) // parts] for i in range(parts)]
        rest = [[item for j, part in enumerate(cut) if j != i for item in part] for i in range(parts)]
        candidates = cut + rest if parts > 2 else cut  # of two parts each is the rest of the other
        found = first_failing(candidates)
        if found is not None:
            kept = candidates[found]
            parts = 2 if found < parts else max(parts - 1, 2)
        elif parts < len(kept):
            parts = min(2 * parts, len(kept))
        else:
            break
    return kept

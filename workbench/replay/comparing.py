"""Where two runs of one configuration part.

States are compared by the digests of both traces, which say in which interval they part, and then by halving it.
Runs whose states differ from the start, because their entropy does, are compared by the way they go: the traps
that they take, and between the last one in common and the first that is not, the instruction that is next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from machine.arch.riscv64 import cause_name
from machine.tcg.probes import NEVER, RECORD, Probe, ProbeAction, ProbeKind
from traces.reader import TraceReader
from traces.rows import InputRow
from workbench.errors import UsageError
from workbench.session import Session
from workbench.unwind import backtrace

#: Steps that are replayed at once while traps are compared.
_STRIDE: Final = 1 << 24
_INPUTS_AROUND: Final = 3
#: What may differ between two runs of one configuration.
_FREE: Final = frozenset(("seed",))

Trap = tuple[int, int, int, int]  # icount, cause, epc, hart


@dataclass(frozen=True, slots=True)
class Side:
    """One of the runs where they part: what it does next, its stack, the inputs around."""

    does: str
    stack: tuple[str, ...]
    before: tuple[InputRow, ...]
    after: tuple[InputRow, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """How two runs compare over ``start..end``.

    Args:
        state: the first position at which their states differ, None if they never do.
        path: the position at which they take different steps, None if they never do.
        sides: both runs there.
        traps: the first trap that is not the same in both, as each has it: ``position: cause at place``; empty for
            a run that has no more.
    """

    start: int
    end: int
    state: int | None
    path: int | None
    sides: tuple[Side, Side] | None
    traps: tuple[str, str] | None = None


def compare(a: Session, b: Session, progress: Callable[[str], None] | None = None) -> Difference:
    """Find where two runs part. The cursors end up there.

    Raises:
        UsageError: they are not of one configuration, or have no position in common.
    """
    _check_machines(a.trace, b.trace)
    start, end = max(a.start, b.start), min(a.end, b.end)
    if start > end:
        raise UsageError(f"no position is in both traces: {a.start}..{a.end} and {b.start}..{b.end}")
    both = (a, b)
    state = _first_state(both, start, end)
    if state is None and a.end == b.end:
        return Difference(start, end, None, None, None)
    low = start if state is None else max(start, state - 1)
    common, first = _first_trap(both, low, end, progress)
    path = _first_step(both, common, first, end)
    at = path if path is not None else state
    sides = None if at is None else (_side(a, at), _side(b, at))
    traps = None if first is None else (_trap_text(a, first[0]), _trap_text(b, first[1]))
    return Difference(start, end, state, path, sides, traps)


def _check_machines(a: TraceReader, b: TraceReader) -> None:
    for name in sorted((a.config.keys() | b.config.keys()) - _FREE):
        if a.config.get(name) != b.config.get(name):
            raise UsageError(
                f"the runs are of two configurations: {name} differs, so there is no place where they part"
            )
    images = [{row.role: row.hash for row in trace.images()} for trace in (a, b)]
    for role in images[0].keys() | images[1].keys():
        if images[0].get(role) != images[1].get(role):
            raise UsageError(
                f"the runs are of two configurations: the {role} differs, so there is no place where they part"
            )


def _first_state(both: tuple[Session, Session], start: int, end: int) -> int | None:
    """Return the first position at which the states differ, or None."""

    def differ(at: int) -> bool:
        for session in both:
            session.timeline.goto(at)
        return both[0].playback.digest() != both[1].playback.digest()

    if differ(start):
        return start
    ours = {row.icount: row.digest for row in both[0].trace.digests()}
    low, high = start, end
    for row in both[1].trace.digests():
        if start < row.icount <= end and row.icount in ours:
            if ours[row.icount] != row.digest:
                high = row.icount
                break
            low = row.icount
    if not differ(high):
        return None
    while low + 1 < high:
        middle = (low + high) // 2
        if differ(middle):
            high = middle
        else:
            low = middle
            for session in both:
                session.playback.keep()
    return high


def _first_step(
    both: tuple[Session, Session], low: int, first: tuple[Trap | None, Trap | None] | None, end: int
) -> int | None:
    """Return the position at which the runs take different steps, or None."""
    if first is None:
        return None if _same_step(both, end) else _halve(both, low, end)
    high = min(trap[0] for trap in first if trap is not None)
    return high if _same_step(both, high) else _halve(both, low, high)


def _halve(both: tuple[Session, Session], low: int, high: int) -> int:
    """Return the first position in ``low..high`` at which another step is next, given that one is at ``high``."""
    while low + 1 < high:
        middle = (low + high) // 2
        if _same_step(both, middle):
            low = middle
        else:
            high = middle
    return high if _same_step(both, low) else low


def _same_step(both: tuple[Session, Session], at: int) -> bool:
    """Tell whether both runs stand before the same instruction of the same hart, with the same stack."""
    seen = []
    for session in both:
        session.timeline.goto(at)
        engine = session.board.engine
        hart = engine.current_hart
        seen.append((hart, *(engine.get_reg(hart, name) for name in ("pc", "priv", "x2"))))
    return seen[0] == seen[1]


def _first_trap(
    both: tuple[Session, Session], start: int, end: int, progress: Callable[[str], None] | None
) -> tuple[int, tuple[Trap | None, Trap | None] | None]:
    """Return the position behind the last common trap, and the first that is not the same, as each run has it."""
    streams = [_traps(session, start, end) for session in both]
    low = start
    waiting: tuple[list[Trap], list[Trap]] = ([], [])
    for (upto, ours), (_, theirs) in zip(*streams, strict=False):
        waiting[0].extend(ours)
        waiting[1].extend(theirs)
        while waiting[0] and waiting[1]:
            if waiting[0][0] != waiting[1][0]:
                return low, (waiting[0][0], waiting[1][0])
            low = waiting[0].pop(0)[0] + 1
            waiting[1].pop(0)
        if progress is not None:
            progress(f"compared up to {upto:_}")
    if waiting[0] or waiting[1]:
        return low, (next(iter(waiting[0]), None), next(iter(waiting[1]), None))
    return low, None


def _trap_text(session: Session, trap: Trap | None) -> str:
    if trap is None:
        return ""
    icount, cause, pc, hart = trap
    place = f"{pc:#x} {session.symbols.format(pc)}".strip()
    return f"{icount:_}: {cause_name(cause)} on hart {hart} at {place}"


def _traps(session: Session, start: int, end: int) -> Iterator[tuple[int, list[Trap]]]:
    """Yield the traps of stretches of a run, one after the other."""
    probe = Probe(ProbeKind.TRAP, ProbeAction.RECORD, 0, NEVER)
    board: Any = session.board
    at = start
    while at < end:
        session.timeline.goto(at)
        upto = min(end, at + _STRIDE)
        found = bytearray()
        board.on_records = lambda held=found: held.extend(board.engine.take_records())
        board.engine.set_probes([probe])
        try:
            session.playback.run_to(upto)
            found += board.engine.take_records()
        finally:
            board.engine.set_probes(())
            board.on_records = None
        session.playback.keep()
        yield upto, [(row[0], row[8], row[9], row[4]) for row in RECORD.iter_unpack(bytes(found))]
        at = upto


def _side(session: Session, at: int) -> Side:
    session.goto(at)
    stack = tuple(f"{f.pc:#x} {f.symbol(session.symbols)}".strip() for f in backtrace(session, 16))
    rows = list(session.trace.inputs())
    before = [row for row in rows if row.icount < at][-_INPUTS_AROUND:]
    after = [row for row in rows if row.icount >= at][:_INPUTS_AROUND]
    return Side(_next_step(session), stack, tuple(before), tuple(after))


def _next_step(session: Session) -> str:
    """Return what the next step is: a trap by its cause, or the instruction."""
    here, hart = session.cursor, session.hart
    pc = session.reg("pc")
    place = f"{pc:#x} {session.symbols.format(pc)}".strip()
    if here >= session.end:
        return f"ends, hart {hart} at {place}"
    traps = session.reg("traps")
    session.timeline.goto(here + 1)
    taken = session.reg("traps", hart) != traps
    cause = session.reg("mcause" if session.reg("priv", hart) == 3 else "scause", hart)
    session.timeline.goto(here)
    if taken:
        return f"takes {cause_name(cause)} on hart {hart} at {place}"
    return f"runs on hart {hart} at {place}"

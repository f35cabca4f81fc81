"""Motions of a session: to positions, by steps, to what stops them; in history, and on with a live recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from machine.tcg.probes import Probe

from .consolesearch import ConsoleSearch
from .details import Found, describe, found_by
from .live import Live
from .looking import Looking
from .motions import Stepper
from .probing import Met
from .stoppers import Detail, Stopper, Stoppers
from .timeline import Timeline

if TYPE_CHECKING:
    from workbench.session import Session


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a motion ended, and why.

    Args:
        reason: ``breakpoint``, ``watchpoint``, ``catch``, ``step``, ``goto``, ``start``, ``end`` or ``interrupted``.
        icount: the position. hart: the one that takes the next step. pc: its program counter.
        detail: what the stopper met; its text is for a person.
        stopper: number of what stopped the motion.
    """

    reason: str
    icount: int
    hart: int
    pc: int
    detail: Detail | None = None
    stopper: int | None = None


class Moving(Looking):
    """The motions. A part of ``Session``."""

    timeline: Timeline
    _stoppers: Stoppers
    _console: ConsoleSearch
    _live: Live | None

    @property
    def start(self) -> int:
        """The first position."""
        return self.timeline.start

    @property
    def end(self) -> int:
        """The last position; of a live recording, now."""
        return self.timeline.end

    @property
    def live(self) -> bool:
        """Whether a recording goes on where this history ends."""
        return self._live is not None

    @property
    def at_end(self) -> bool:
        """Whether there is no way forward from here."""
        return self.cursor >= self.end and not self.live

    @property
    def stoppers(self) -> list[Stopper]:
        """All that stops motions, by number."""
        return list(self._stoppers)

    def parse_position(self, text: str) -> int:
        """Return the position that a text names. Raises PositionError."""
        raise NotImplementedError

    def goto(self, pos: int | str) -> Stop:
        """Go to a position. Raises PositionError: there is no such place."""
        target = self.parse_position(pos) if isinstance(pos, str) else pos
        return self._stop(self.timeline.goto(target))

    def stepi(self, n: int = 1) -> Stop:
        """Go ``n`` steps of the machine forward; a stopper on the way stops there. The step itself may be watched."""
        if self.at_end:
            return self._stop("end")
        limit = self.cursor + n if self.live else min(self.cursor + n, self.end)
        return self._run(limit, "step" if limit == self.cursor + n else "end", self._of_steps(n))

    def reverse_stepi(self, n: int = 1) -> Stop:
        """Go ``n`` steps of the machine back; a stopper on the way stops there. The step itself may be watched."""
        if self.cursor <= self.start:
            return self._stop("start")
        limit = self.cursor - n
        whole = "step" if limit >= self.start else "start"
        return self._run_back(max(limit, self.start), whole, self._of_steps(n))

    def _of_steps(self, n: int) -> list[Stopper]:
        """Return what may stop so many steps: one step ends where a breakpoint would be met anyway."""
        return [s for s in self._stoppers if s.enabled and (n > 1 or s.kind != "breakpoint")]

    def cont(self) -> Stop:
        """Run forward to a stopper or the end, a live recording until it ends; one at the cursor is left behind."""
        return self._stop("end") if self.at_end else self._run(None if self.live else self.end, "end")

    def reverse_cont(self) -> Stop:
        """Run backwards to the last stopper before the cursor, or to the start.

        Of what happens in a step (a store, a trap), the position before that step is gone to.
        """
        return self._stop("start") if self.cursor <= self.start else self._run_back(self.start, "start")

    reverse_continue = reverse_cont

    def step(self, n: int = 1, by: str = "insn", into_traps: bool = False) -> Stop:
        """Step forward in the task (or hart) of the selected hart, past interrupts and other tasks.

        Args:
            n: how often. by: ``insn``, or ``line`` (into functions that have line tables, past the others).
            into_traps: step into the handlers of interrupts and exceptions.

        Returns:
            ``step``, or the stopper or end of history that came first.
        """
        return Stepper(self._session(), into_traps).step(n, by, over=False, back=False)

    def next(self, n: int = 1, by: str = "insn", into_traps: bool = False) -> Stop:
        """As ``step``, but a call is one step."""
        return Stepper(self._session(), into_traps).step(n, by, over=True, back=False)

    def finish(self) -> Stop:
        """Run until the function at the cursor has returned. Raises CommandError: its frame is not known."""
        return Stepper(self._session()).finish(back=False)

    def until(self, addr: int) -> Stop:
        """Run forward to an address in this task (or hart)."""
        return Stepper(self._session()).until(addr, back=False)

    def reverse_step(self, n: int = 1, by: str = "insn", into_traps: bool = False) -> Stop:
        """Step backwards; by ``line``, to where the code of the last line began."""
        return Stepper(self._session(), into_traps).step(n, by, over=False, back=True)

    def reverse_next(self, n: int = 1, by: str = "insn", into_traps: bool = False) -> Stop:
        """As ``reverse_step``, but a call is one step."""
        return Stepper(self._session(), into_traps).step(n, by, over=True, back=True)

    def reverse_finish(self) -> Stop:
        """Go back to the call of the function at the cursor. Raises CommandError: its frame is not known."""
        return Stepper(self._session()).finish(back=True)

    def reverse_until(self, addr: int) -> Stop:
        """Go back to an address in this task (or hart)."""
        return Stepper(self._session()).until(addr, back=True)

    def _session(self) -> Session:
        return cast("Session", self)

    def interrupt(self) -> None:
        """Stop a motion soon; from a signal handler or another thread."""
        if self._live is not None:
            self._live.interrupt()
        self.timeline.interrupt()

    def _run(self, limit: int | None, whole: str, stoppers: list[Stopper] | None = None) -> Stop:
        """Run forward to a limit, or to what stops; ``whole`` is the reason at the limit."""
        while True:
            found = self._seek(limit, stoppers)
            if found.reason != "hit":
                whole = whole if limit is None or self.cursor == limit else "end"
                return self._stop(whole if found.reason == "limit" else found.reason)
            stop = self._stopped(found)
            if stop is not None:
                return stop

    def _run_back(self, limit: int, whole: str, stoppers: list[Stopper] | None = None) -> Stop:
        while True:
            found = self._seek_back(limit, stoppers)
            if found.reason != "hit":
                return self._stop(whole if found.reason == "limit" else found.reason)
            stop = self._stopped(found)
            if stop is not None:
                return stop

    def _seek(
        self, limit: int | None, stoppers: list[Stopper] | None = None, extra: Sequence[Probe] = ()
    ) -> Found:
        """Go forward to the first of: a stopper (``hit``), one of the extra probes (``own``), the limit or the end.

        Args:
            stoppers: those that stop, None for all that are enabled.

        Without a limit, a live recording goes on until it ends.
        """
        stoppers = self._stoppers.enabled() if stoppers is None else stoppers
        probes = [p for s in stoppers for p in s.probes] + list(extra)
        known = self.end if limit is None else min(limit, self.end)
        arrives = self.cursor < known
        if arrives:
            printed = self._console.next(stoppers, self.cursor, known)
            met = self.timeline.forward(probes, known if printed is None else printed.icount)
            found = found_by(met, stoppers, printed)
            if found.reason != "limit" or self._live is None or known == limit:
                return found
        return self._record_on(limit, stoppers, probes, arrives)

    def _record_on(
        self, limit: int | None, stoppers: list[Stopper], probes: list[Probe], arrives: bool
    ) -> Found:
        """From now on, record; stop at a stopper, one of the motion's own probes, the limit or the machine's end.

        A breakpoint at now itself stops a motion that arrives here, and is left behind by one that begins here.
        """
        live, began = self._live, self.cursor
        if live is None:
            return Found("limit")
        texts = [s.console for s in stoppers if s.console]
        met = live.advance(self.timeline, probes, limit, texts, arrives)
        if live.result is not None:
            self._live = None
        printed = self._console.next(stoppers, began, self.end)
        if printed is not None and (met.reason != "hit" or printed.icount <= met.step):
            self.timeline.goto(printed.icount)
            return found_by(Met("limit"), stoppers, printed)
        return Found("limit") if met.reason == "end" else found_by(met, stoppers, None)

    def _seek_back(
        self, limit: int, stoppers: list[Stopper] | None = None, extra: Sequence[Probe] = ()
    ) -> Found:
        """Go back to the last of: a stopper (None: all that are enabled), one of the extra probes, the limit."""
        stoppers = self._stoppers.enabled() if stoppers is None else stoppers
        printed = self._console.previous(stoppers, self.cursor, limit)
        probes = [p for s in stoppers for p in s.probes] + list(extra)
        met = self.timeline.backward(probes, limit if printed is None else printed.icount)
        return found_by(met, stoppers, printed)

    def _stopped(self, found: Found) -> Stop | None:
        """Count the hits; return the stop, or None where all that were met are to be ignored this time."""
        first: Stopper | None = None
        for stopper in found.stoppers:
            stopper.hits += 1
            if stopper.hits_ignored:
                stopper.hits_ignored -= 1
            else:
                first = first or stopper
                if stopper.temporary:
                    self._stoppers.delete(stopper.number)
        if first is None:
            return None
        reason = first.kind
        return self._stop(reason, first.number, describe(first, found.step, found.records))

    def _stop(self, reason: str, stopper: int | None = None, detail: Detail | None = None) -> Stop:
        engine = self.board.engine
        hart = engine.current_hart
        self.hart = hart
        return Stop(reason, self.cursor, hart, engine.get_reg(hart, "pc"), detail, stopper)

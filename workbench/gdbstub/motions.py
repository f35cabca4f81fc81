"""Motions and why they end: ``c s bc bs vCont`` and the stop replies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from workbench.errors import exit_code_of, one_line
from workbench.gdbstub.link import ERROR_ARGUMENT, BadPacket, Link, Meaning, number_of, pair_of
from workbench.gdbstub.points import Points

SIGINT, SIGTRAP, SIGABRT = 2, 5, 6
#: A stop for one of these reasons ends a range step; an ordinary step goes on in it.
_STEP = "step"
#: ``sret`` and ``mret``, as they lie in memory.
_TRAP_RETURNS = (b"\x73\x00\x20\x10", b"\x73\x00\x20\x30")
_MACHINE = 3


class Action(NamedTuple):
    """One action of ``vCont``: its letter, what follows it, and the hart it is for (None for all)."""

    letter: str
    argument: str
    hart: int | None


class Motions:
    """The cursor's motions.

    Args:
        link: the connection.
        points: names the point that was hit.
    """

    def __init__(self, link: Link, points: Points) -> None:
        self._link = link
        self._points = points
        self._last_stop = b"T%02xthread:%x;" % (SIGTRAP, link.hart + 1)

    def packets(self) -> dict[str, Meaning]:
        """Return the meanings by the packet's letter or name."""
        return {
            "?": lambda text: self._last_stop,
            "c": self.continue_,
            "C": lambda text: self.continue_(text.partition(";")[2]),
            "s": self.step,
            "S": lambda text: self.step(text.partition(";")[2]),
            "bs": lambda text: self._move(self._step_back, back=True),
            "bc": lambda text: self._move(lambda: self._link.session.reverse_cont(), back=True),
            "vCont?": lambda text: b"vCont;c;C;s;S;t;r",
            "vCont;": self.vcont,
        }

    def continue_(self, text: str) -> bytes:
        """``c [address]``: forwards to a stop or to the end of history."""
        self._jump(text)
        return self._move(lambda: self._link.session.cont())

    def step(self, text: str) -> bytes:
        """``s [address]``: one step forwards, of the selected hart."""
        self._jump(text)
        return self._move(self._step)

    def _jump(self, text: str) -> None:
        """Go on at an address, which is a write to pc."""
        if text:
            self._link.session.hart = self._link.hart
            self._link.tell(str(self._link.session.write_reg("pc", number_of(text))))

    def vcont(self, text: str) -> bytes:
        """``vCont;action[:thread]…``: a step wins over a continue, as one machine moves as a whole."""
        actions = [self._action(part) for part in text.split(";") if part]
        if not actions:
            return ERROR_ARGUMENT
        for action in actions:
            if action.letter in "sSr":
                if action.hart is not None:
                    self._link.hart = action.hart
                if action.letter != "r":
                    return self._move(self._step)
                low, high = pair_of(action.argument)
                return self._move(partial(self._step_range, low, high))
        return b"OK" if all(action.letter == "t" for action in actions) else self.continue_("")

    def _action(self, text: str) -> Action:
        what, _, thread = text.partition(":")
        letter, argument = what[0] if what else "", what[1:]
        if letter not in tuple("cCsStr") or (argument and letter in "cst"):
            raise BadPacket
        if letter in "CS":
            number_of(argument)
        return Action(letter, argument, self._link.thread(thread) if thread else None)

    def _step(self) -> Any:
        """Step the selected hart; an interrupt that it takes here is passed over, an exception is stepped into."""
        session, hart = self._link.session, self._link.hart
        engine = session.board.engine
        session.hart = hart
        if engine.current_hart != hart:
            return session.step(1)
        traps = engine.get_reg(hart, "traps")
        stop = session.stepi(1)
        if stop.reason != _STEP or engine.get_reg(hart, "traps") == traps or not self._interrupted():
            return stop
        session.goto(session.cursor - 1)
        session.hart = hart
        return session.step(1)

    def _step_back(self) -> Any:
        """Step the selected hart backwards; an interrupt that it has returned from is passed over."""
        session, hart = self._link.session, self._link.hart
        session.hart = hart
        stop = session.reverse_stepi(1)
        code = self._link.peek.read(stop.pc, 4)
        if stop.reason != _STEP or (
            stop.hart == hart and not (code in _TRAP_RETURNS and self._interrupted())
        ):
            return stop
        session.goto(session.cursor + 1)
        session.hart = hart
        return session.reverse_step(1)

    def _interrupted(self) -> bool:
        """Tell whether the last trap of the selected hart, into the mode that it is in, was an interrupt."""
        engine, hart = self._link.session.board.engine, self._link.hart
        cause = "mcause" if engine.get_reg(hart, "priv") == _MACHINE else "scause"
        return bool(engine.get_reg(hart, cause) >> 63)

    def _step_range(self, low: int, high: int) -> Any:
        """Step until pc leaves a range; at least once."""
        while True:
            stop = self._step()
            if stop.reason != _STEP or not low <= stop.pc < high or stop.hart != self._link.hart:
                return stop
            if self._link.broken():
                return None

    def _move(self, motion: Callable[[], Any], back: bool = False) -> bytes:
        link = self._link
        link.flush_console()
        try:
            self._last_stop = self._stop_reply(self._aside(link.run_motion(motion), back))
        # a divergence or a damaged trace: gdb stops where it is and its console has the reason
        except Exception as error:
            if exit_code_of(error) is None:
                raise
            link.tell(one_line(error))
            link.flush_console()
            self._last_stop = b"T%02xthread:%x;" % (SIGABRT, link.hart + 1)
        return self._last_stop

    def _aside(self, stop: Any, back: bool) -> Any:
        """Step back from an access that gdb watches to where the motion came from.

        A RISC-V trigger fires before its access, in either direction: gdb and lldb take the step over it themselves,
        and look at the value then. SPEC: debug 1.0, 5.5.4 (mcontrol6, timing 0)
        """
        if stop is None or not self._points.is_watch(stop):
            return stop
        session = self._link.session
        there = session.goto(session.cursor + (1 if back else -1))
        return replace(stop, icount=there.icount, pc=there.pc, hart=stop.hart if back else there.hart)

    def _stop_reply(self, stop: Any) -> bytes:
        link = self._link
        if stop is None:
            return b"T%02xthread:%x;" % (SIGINT, link.hart + 1)
        announcement = self._points.announcement(stop)
        if announcement:
            link.print(announcement)
        link.hart = int(stop.hart)
        signal = SIGINT if stop.reason == "interrupted" else SIGTRAP
        reply = b"T%02xthread:%x;" % (signal, link.hart + 1)
        if stop.reason == "end":
            return reply + b"replaylog:end;"
        if stop.reason == "start":
            return reply + b"replaylog:begin;"
        return reply + self._points.reason(stop)

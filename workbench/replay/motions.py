"""Stepping in a context: by instructions and by source lines, over calls and out of functions, both ways.

A context is a task, or where the guest has none, a hart. While others run, and while an interrupt or an
exception of the context itself is handled, stepping goes on until the context is back, unless it is told to go
into traps. A stopper on the way stops every one of these motions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from machine.tcg.probes import NEVER, Probe, ProbeKind
from workbench.errors import CommandError
from workbench.unwind import backtrace, is_call

from .agent import compile_condition
from .details import Found
from .errors import MemoryAccessError
from .stoppers import INTERRUPT_BIT, stop_probe

if TYPE_CHECKING:
    from workbench.session import Session

    from .moving import Stop

#: The task of the context: Linux and its like have it in sscratch in user mode, and in tp in the kernel.
_TASK: Final = "($sscratch ? $sscratch : $tp)"
#: Instructions stepped one by one before a search for a line's end is worth its setting up.
_PATIENCE: Final = 64
_RETURNS: Final = (b"\x82\x80", b"\x67\x80\x00\x00")
_TRAP_RETURNS: Final = (b"\x73\x00\x20\x10", b"\x73\x00\x20\x30")
_MACHINE: Final = 3


@dataclass(frozen=True, slots=True)
class Context:
    """Whom stepping stays with: a task, or where there is none (0) a hart."""

    task: int
    hart: int

    @property
    def condition(self) -> str:
        """What holds, in the engine's conditions, while the context runs."""
        return f"{_TASK} == {self.task:#x}" if self.task else f"$mhartid == {self.hart}"


class _Stopped(Exception):
    """The motion is over: a stopper, an end of history, an interruption."""

    def __init__(self, stop: Stop) -> None:
        super().__init__()
        self.stop = stop


class Stepper:
    """One motion of a session, in the context of its selected hart.

    Args:
        session: what is moved. into_traps: whether interrupts and exceptions are stepped into.
    """

    def __init__(self, session: Session, into_traps: bool = False) -> None:
        self._session = session
        self._into_traps = into_traps
        self._context = self._now(session.hart)

    # the motions

    def step(self, n: int, by: str, over: bool, back: bool) -> Stop:
        """Step ``n`` times by ``insn`` or ``line``; ``over`` calls or into them."""
        one = {
            ("insn", False): self._insn,
            ("insn", True): self._insn_back,
            ("line", False): self._line,
            ("line", True): self._line_back,
        }.get((by, back))
        if one is None:
            raise CommandError(f"can't step by {by!r}: expected insn or line")

        def motion() -> None:
            for _ in range(n):
                one(over)

        return self._do(motion)

    def finish(self, back: bool) -> Stop:
        """Run until the function at the cursor has returned, or back to its call."""
        return self._do(self._finish_back if back else self._finish)

    def until(self, address: int, back: bool) -> Stop:
        """Run to an address in this context, forwards or backwards."""
        probe = self._at(address)
        return self._do(lambda: self._back_to([probe]) if back else self._run_to([probe]))

    def _do(self, motion: Callable[[], object]) -> Stop:
        try:
            motion()
        except _Stopped as stopped:
            return stopped.stop
        return self._session._stop("step")

    # instructions

    def _insn(self, over: bool) -> None:
        session = self._session
        if over:
            code = self._code()
            if is_call(code):
                pc, sp = self._reg("pc"), self._reg("sp")
                self._run_to([self._at(pc + len(code), f"$sp >= {sp:#x}")])
                return
        for _ in range(_PATIENCE):
            pc, sp, user = self._reg("pc"), self._reg("sp"), self._reg("priv") == 0
            traps = self._reg("traps")
            self._to(session.cursor + 1)
            if self._reg("traps") == traps or self._into_traps:
                break
            interrupt = self._cause() >> 63
            self._run_to([self._returned(sp, user)])
            if not interrupt and self._reg("pc") != pc:
                break  # a system call is one step; a page fault is followed by its instruction
        self._wait_for_turn()

    def _insn_back(self, over: bool) -> None:
        pc, sp, user = self._reg("pc"), self._reg("sp"), self._reg("priv") == 0
        for _ in range(_PATIENCE):
            self._back_to_own_step()
            if self._into_traps or self._code() not in _TRAP_RETURNS:
                break
            found = self._back_to([self._entered(sp, user)])
            cause = next((row[8] for row in found.records if ProbeKind(row[3]) is ProbeKind.TRAP), 0)
            if not cause >> 63 and self._reg("pc") != pc:
                break
        if over and self._code() in _RETURNS:
            calls = [pc - n for n in (4, 2) if is_call(self._code_at(pc - n, n))]
            if calls:
                self._back_to([self._at(at, f"$sp == {sp:#x}") for at in calls])

    def _back_to_own_step(self) -> None:
        """Go to before the last step that the context took."""
        session = self._session
        if session.cursor <= session.start:
            raise _Stopped(session._stop("start"))
        self._found(session._seek_back(session.cursor - 1), "")
        hart = session.board.engine.current_hart
        if self._now(hart) != self._context and (
            self._context.task == 0 or self._now(hart).task != self._context.task
        ):
            self._back_to([stop_probe(ProbeKind.EXEC, 0, NEVER, self._compile())])
        session.hart = session.board.engine.current_hart

    # lines

    def _line(self, over: bool) -> None:
        session = self._session
        low, high = self._line_range()
        top = self._reg("sp")
        for count in range(1 << 20):
            pc, code = self._reg("pc"), self._code()
            if count >= _PATIENCE and not is_call(code):
                self._leave(low, high)
            else:
                self._insn(False)
            here = self._reg("pc")
            if low <= here < high and self._reg("sp") >= top:
                continue
            if is_call(code) and here != pc + len(code) and count < _PATIENCE:
                if not over and session.lines.at(here) is not None:
                    self._skip_prologue()
                    return
                self._run_to([self._at(pc + len(code), f"$sp >= {top:#x}")])
                here = self._reg("pc")
                if low <= here < high:
                    continue
            if code in _RETURNS and session.lines.at(here) is not None:
                return
            line = session.lines.at(here)
            if line is None or session.lines.begins(here):
                return
            low, high = line.low, line.high

    def _leave(self, low: int, high: int) -> None:
        """Run until an instruction of the context outside of a range is next."""
        self._run_to(self._outside(low, high))

    def _line_back(self, over: bool) -> None:
        """Go to where the line began that was run before the cursor, or this one if the cursor is inside of it."""
        session = self._session
        self._insn_back(over)
        low, high = self._line_range()
        for count in range(1 << 20):
            here, hart = session.cursor, session.hart
            if count < _PATIENCE:
                self._insn_back(over)
            else:
                here = self._back_outside(low, high)
            if not low <= self._reg("pc") < high:
                session.timeline.goto(here)
                session.hart = hart
                return

    def _back_outside(self, low: int, high: int) -> int:
        """Go back to an instruction of the context outside of a range; returns where it next was inside."""
        self._back_to(self._outside(low, high))
        before, hart = self._session.cursor, self._session.hart
        self._insn(False)
        here = self._session.cursor
        self._session.timeline.goto(before)
        self._session.hart = hart
        return here

    def _outside(self, low: int, high: int) -> list[Probe]:
        ranges = [(0, low - 1), (high, NEVER)]
        return [stop_probe(ProbeKind.EXEC, a, b, self._compile()) for a, b in ranges if a <= b]

    def _line_range(self) -> tuple[int, int]:
        """Return the code of the line at the pc; without line tables, of the function."""
        session, pc = self._session, self._reg("pc")
        line = session.lines.at(pc)
        if line is not None:
            return line.low, line.high
        symbol = session.symbols.symbol_at(pc)
        found = session.symbols.range_of(symbol.name) if symbol is not None else None
        return found if found is not None and found[0] <= pc < found[1] else (pc, pc + 1)

    def _skip_prologue(self) -> None:
        session, pc = self._session, self._reg("pc")
        symbol = session.symbols.symbol_at(pc)
        found = session.symbols.range_of(symbol.name) if symbol is not None else None
        if found is not None and found[0] == pc:
            body = session.lines.after_prologue(*found)
            if body != pc:
                self._run_to([self._at(body)])

    # functions

    def _caller(self) -> tuple[int, str]:
        """Return the return address of the function at the cursor, and what holds of the stack behind it."""
        frames = backtrace(self._session, 2)
        if len(frames) < 2:
            raise CommandError("no return address found at the cursor; 'bt' shows the frames")
        saved = frames[1].fp != frames[0].fp
        return frames[1].pc, f"$sp == {frames[0].fp:#x}" if saved else f"$sp >= {self._reg('sp'):#x}"

    def _finish(self) -> None:
        address, stack = self._caller()
        self._run_to([self._at(address, stack)])

    def _finish_back(self) -> None:
        address, stack = self._caller()
        calls = [address - n for n in (4, 2) if is_call(self._code_at(address - n, n))]
        if not calls:
            raise CommandError(f"no call before the return address {address:#x}")
        self._back_to([self._at(call, stack) for call in calls])

    # primitives

    def _to(self, limit: int) -> None:
        session = self._session
        if session.at_end:
            raise _Stopped(session._stop("end"))
        self._found(session._seek(limit if session.live else min(limit, session.end)), "")

    def _run_to(self, probes: list[Probe]) -> Found:
        """Run forward to one of the motion's own probes; anything else ends the motion."""
        session = self._session
        found = Found("")
        while not found.own:
            if session.at_end:
                raise _Stopped(session._stop("end"))
            limit = None if session.live else session.end
            found = self._found(session._seek(limit, extra=probes), "end")
        session.hart = session.board.engine.current_hart
        return found

    def _back_to(self, probes: list[Probe]) -> Found:
        session = self._session
        found = Found("")
        while not found.own:
            found = self._found(session._seek_back(session.start, extra=probes), "start")
        session.hart = session.board.engine.current_hart
        return found

    def _found(self, found: Found, at_limit: str) -> Found:
        session = self._session
        if found.reason == "hit":
            stop = session._stopped(found)
            if stop is not None:
                raise _Stopped(stop)
        elif found.reason == "interrupted" or (found.reason == "limit" and at_limit):
            raise _Stopped(session._stop(at_limit if found.reason == "limit" else found.reason))
        return found

    def _wait_for_turn(self) -> None:
        """Go on while others run, until the context takes the next step."""
        session = self._session
        hart = session.board.engine.current_hart
        if self._context.task and self._now(hart).task == self._context.task:
            session.hart = hart
        elif not session.at_end and self._now(hart) != self._context:
            self._run_to([stop_probe(ProbeKind.EXEC, 0, NEVER, self._compile())])

    def _now(self, hart: int) -> Context:
        """Return the context that a hart is in. In M-mode, and where tp is no address of a kernel, it has no task."""
        session = self._session
        if session.reg("priv", hart) == _MACHINE:
            return Context(0, hart)
        task = session.reg("sscratch", hart) or session.reg("tp", hart)
        return Context(task, -1) if task >> 63 else Context(0, hart)

    def _at(self, address: int, more: str = "") -> Probe:
        return stop_probe(ProbeKind.EXEC, address & NEVER, address & NEVER, self._compile(more))

    def _returned(self, sp: int, user: bool) -> Probe:
        more = "$value == 0" if user else f"$sp == {sp:#x}"
        return stop_probe(ProbeKind.XRET, 0, NEVER, self._compile(more))

    def _entered(self, sp: int, user: bool) -> Probe:
        more = "$old == 0" if user else f"$sp == {sp:#x}"
        return stop_probe(ProbeKind.TRAP, 0, NEVER, self._compile(more))

    def _compile(self, more: str = "") -> bytes:
        condition = self._context.condition
        return compile_condition(f"{condition} && {more}" if more else condition, lambda name: None)

    def _reg(self, name: str) -> int:
        return self._session.reg(name)

    def _cause(self) -> int:
        return self._reg("mcause" if self._reg("priv") == _MACHINE else "scause") & (INTERRUPT_BIT | 63)

    def _code(self) -> bytes:
        """Return the bytes of the instruction at the pc."""
        pc = self._reg("pc")
        half = self._code_at(pc, 2)
        return half if not half or half[0] & 3 != 3 else half + self._code_at(pc + 2, 2)

    def _code_at(self, address: int, size: int) -> bytes:
        try:
            return self._session.read_mem(address, size)
        except MemoryAccessError:
            return b""

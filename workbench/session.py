"""The session: a trace, its machine, a cursor and breakpoints. REPL, gdb stub and scripts drive this one object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine.errors import MachineError
from machine.tcg.engine import Probe
from traces.errors import TraceError
from traces.position import parse_position
from traces.reader import TraceReader
from workbench.errors import WorkbenchError
from workbench.lines import Lines, elf_rows
from workbench.replay.consolesearch import ConsoleSearch
from workbench.replay.details import Found, describe, found_by, syscall_number
from workbench.replay.looking import Looking
from workbench.replay.motions import Stepper
from workbench.replay.parts import BoardFactory, BoardLike, build_board
from workbench.replay.playback import Playback
from workbench.replay.stoppers import Condition, Detail, Names, Stopper, Stoppers
from workbench.replay.timeline import Timeline
from workbench.symbols import Symbols

#: The name that breakpoints had before there were other stoppers.
Breakpoint = Stopper


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


class Session(Looking):
    """An open trace with a machine in it. Make one with ``open``; a context manager.

    Every motion leaves the machine at the state at ``cursor``. Nothing of a session changes the trace.
    """

    def __init__(self, trace: TraceReader, playback: Playback) -> None:
        self.trace = trace
        self.playback = playback
        self.timeline = Timeline(playback)
        #: the selected hart
        self.hart = 0
        self._stoppers = Stoppers(Names(self._symbol, self._device_range, syscall_number))
        self._console = ConsoleSearch(trace)
        self._symbols: Symbols | None = None
        self._lines: Lines | None = None
        self._notes: dict[str, int] = {}

    @classmethod
    def open(
        cls, path: str | Path, backend: str = "jit", board_factory: BoardFactory = build_board
    ) -> Session:
        """Open a trace at its start.

        Args:
            path: the trace. backend: ``jit`` or ``interp``. board_factory: builds the board.

        Raises:
            TraceError: the trace can't be used. MachineError: its machine can't be built.
        """
        trace = TraceReader.open(path)
        try:
            return cls(trace, Playback(trace, backend, board_factory))
        except BaseException:
            trace.close()
            raise

    def close(self) -> None:
        """Free the machine and the file."""
        self.playback.close()
        self.trace.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # where

    @property
    def board(self) -> BoardLike:
        """The machine, to be looked at; motions are the session's."""
        return self.playback.board

    @property
    def cursor(self) -> int:
        """The position."""
        return self.timeline.cursor

    @property
    def start(self) -> int:
        """The first position."""
        return self.timeline.start

    @property
    def end(self) -> int:
        """The last position."""
        return self.timeline.end

    @property
    def harts(self) -> int:
        """How many harts there are."""
        return self.playback.config.harts

    @property
    def symbols(self) -> Symbols:
        """The kernel's symbols, empty where it has none; more can be added."""
        if self._symbols is None:
            self._symbols = _kernel_symbols(self.trace)
        return self._symbols

    @property
    def lines(self) -> Lines:
        """The source lines of the images that have line tables; more can be added."""
        if self._lines is None:
            self._lines = _kernel_lines(self.trace)
        return self._lines

    def on_console(self, listener: Callable[[str, bytes, int], None] | None) -> None:
        """Hear what the guest prints while it is replayed: (port, data, icount)."""
        self.playback.console = listener

    def parse_position(self, text: str) -> int:
        """Return the position that a text names; a virtual time is looked for by replaying. Raises PositionError."""
        return parse_position(text, self)

    def bookmark_position(self, name: str) -> int | None:
        """Return where a bookmark is, the session's own before the trace's; None if there is none."""
        if name in self._notes:
            return self._notes[name]
        return next((b.icount for b in self.trace.bookmarks() if b.name == name), None)

    def input_position(self, input_id: int) -> int | None:
        """Return where an input came, or None if there is none of this id."""
        return next((i.icount for i in self.trace.inputs(input_id, 1) if i.id == input_id), None)

    def vtime_position(self, vtime_ns: int) -> int:
        """Return the first position at or after a virtual time, or the end."""
        before, after = self.trace.vtime_anchors(vtime_ns)
        here = self.cursor
        try:
            high = self.end if after is None else min(after[0], self.end)
            return self.timeline.first_vtime(vtime_ns, min(before[0], high), high)
        finally:
            self.timeline.goto(here)

    def console_position(self, text: str) -> int | None:
        """Return where the console shows a text for the first time, or None."""
        return next(iter(self._console.positions(text.encode())), None)

    def bookmark(self, name: str, icount: int | None = None) -> int:
        """Name a position, the cursor by default, for this session; returns it."""
        self._notes[name] = self.cursor if icount is None else icount
        return self._notes[name]

    # motions

    def goto(self, pos: int | str) -> Stop:
        """Go to a position. Raises PositionError: there is no such place."""
        target = self.parse_position(pos) if isinstance(pos, str) else pos
        return self._stop(self.timeline.goto(target))

    def stepi(self, n: int = 1) -> Stop:
        """Go ``n`` steps of the machine forward; a stopper on the way stops there."""
        if self.cursor >= self.end:
            return self._stop("end")
        limit = min(self.cursor + n, self.end)
        return self._run(limit, "step" if self.cursor + n <= self.end else "end", n > 1)

    def reverse_stepi(self, n: int = 1) -> Stop:
        """Go ``n`` steps of the machine back; a stopper on the way stops there."""
        if self.cursor <= self.start:
            return self._stop("start")
        limit = self.cursor - n
        return self._run_back(max(limit, self.start), "step" if limit >= self.start else "start", n > 1)

    def cont(self) -> Stop:
        """Run forward to a stopper or the end; a breakpoint at the cursor is left behind."""
        return self._stop("end") if self.cursor >= self.end else self._run(self.end, "end")

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
        return Stepper(self, into_traps).step(n, by, over=False, back=False)

    def next(self, n: int = 1, by: str = "insn", into_traps: bool = False) -> Stop:
        """As ``step``, but a call is one step."""
        return Stepper(self, into_traps).step(n, by, over=True, back=False)

    def finish(self) -> Stop:
        """Run until the function at the cursor has returned. Raises CommandError: its frame is not known."""
        return Stepper(self).finish(back=False)

    def until(self, addr: int) -> Stop:
        """Run forward to an address in this task (or hart)."""
        return Stepper(self).until(addr, back=False)

    def reverse_step(self, n: int = 1, by: str = "insn", into_traps: bool = False) -> Stop:
        """Step backwards; by ``line``, to where the code of the last line began."""
        return Stepper(self, into_traps).step(n, by, over=False, back=True)

    def reverse_next(self, n: int = 1, by: str = "insn", into_traps: bool = False) -> Stop:
        """As ``reverse_step``, but a call is one step."""
        return Stepper(self, into_traps).step(n, by, over=True, back=True)

    def reverse_finish(self) -> Stop:
        """Go back to the call of the function at the cursor. Raises CommandError: its frame is not known."""
        return Stepper(self).finish(back=True)

    def reverse_until(self, addr: int) -> Stop:
        """Go back to an address in this task (or hart)."""
        return Stepper(self).until(addr, back=True)

    def interrupt(self) -> None:
        """Stop a motion soon; from a signal handler or another thread."""
        self.timeline.interrupt()

    def _run(self, limit: int, whole: str, stopping: bool = True) -> Stop:
        """Run forward to a limit, or to what stops; ``whole`` is the reason at the limit."""
        while True:
            found = self._seek(limit, stopping)
            if found.reason != "hit":
                return self._stop(whole if found.reason == "limit" else found.reason)
            stop = self._stopped(found)
            if stop is not None:
                return stop

    def _run_back(self, limit: int, whole: str, stopping: bool = True) -> Stop:
        while True:
            found = self._seek_back(limit, stopping)
            if found.reason != "hit":
                return self._stop(whole if found.reason == "limit" else found.reason)
            stop = self._stopped(found)
            if stop is not None:
                return stop

    def _seek(self, limit: int, stopping: bool = True, extra: Sequence[Probe] = ()) -> Found:
        """Go forward to the first of: a stopper (``hit``), one of the extra probes (``own``), the limit."""
        stoppers = self.stoppers if stopping else []
        stoppers = [s for s in stoppers if s.enabled]
        printed = self._console.next(stoppers, self.cursor, limit)
        probes = [p for s in stoppers for p in s.probes] + list(extra)
        met = self.timeline.forward(probes, limit if printed is None else printed.icount)
        return found_by(met, stoppers, printed)

    def _seek_back(self, limit: int, stopping: bool = True, extra: Sequence[Probe] = ()) -> Found:
        """Go back to the last of: a stopper, one of the extra probes, the limit."""
        stoppers = self.stoppers if stopping else []
        stoppers = [s for s in stoppers if s.enabled]
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

    # what stops motions

    @property
    def stoppers(self) -> list[Stopper]:
        """All that stops motions, by number."""
        return list(self._stoppers)

    @property
    def breakpoints(self) -> list[Stopper]:
        """The breakpoints, by number."""
        return [s for s in self._stoppers if s.kind == "breakpoint"]

    def add_breakpoint(
        self,
        addr: int,
        temporary: bool = False,
        enabled: bool = True,
        *,
        physical: bool = False,
        condition: Condition = None,
        hits_ignored: int = 0,
    ) -> Stopper:
        """Stop before an instruction.

        Args:
            addr: its virtual address, in every address space and on every hart.
            temporary: delete it when it stops a motion. enabled: whether it stops any.
            physical: ``addr`` is a physical address.
            condition: an expression that must not be 0, gdb's byte code, or several of these of which one must hold.
            hits_ignored: how many hits don't stop.

        Raises:
            EvalError: the condition is none.
        """
        more = {"temporary": temporary, "enabled": enabled, "hits_ignored": hits_ignored}
        return self._stoppers.breakpoint(addr, physical, condition, **more)

    def add_watchpoint(
        self,
        addr: int,
        size: int,
        access: str = "w",
        *,
        physical: bool = False,
        condition: Condition = None,
        temporary: bool = False,
        enabled: bool = True,
        hits_ignored: int = 0,
    ) -> Stopper:
        """Stop at accesses to memory by instructions: forwards behind the access, backwards before it.

        Args:
            addr, size: the range, in bytes. access: ``r``, ``w`` or ``a`` (both).
            condition: may ask for ``$value`` (stored or loaded), ``$old`` (before a store), ``$addr``, ``$size``.
            The others: as for ``add_breakpoint``.

        Raises:
            EvalError: the range, the access or the condition is none.
        """
        more = {"temporary": temporary, "enabled": enabled, "hits_ignored": hits_ignored}
        return self._stoppers.watchpoint(addr, size, access, physical, condition, **more)

    def add_catch(
        self,
        what: str,
        arg: Any = None,
        condition: Condition = None,
        *,
        temporary: bool = False,
        enabled: bool = True,
        hits_ignored: int = 0,
    ) -> Stopper:
        """Stop at happenings.

        Args:
            what: and what ``arg`` is then, all or a certain one: ``trap`` (an exception's cause), ``interrupt`` (its
                number), ``syscall`` (its number or name), ``priv`` (a change of privilege), ``satp`` (a change of the
                address space, or its new value), ``csr`` (name or number: a write by an instruction), ``reg``
                (name: an instruction that writes it), ``console`` (text), ``mmio`` (a device's name, an address,
                or a pair of them).
            condition: as for ``add_watchpoint``.

        Raises:
            EvalError: there is nothing of that kind, or the condition is none.
        """
        more = {"temporary": temporary, "enabled": enabled, "hits_ignored": hits_ignored}
        return self._stoppers.catch(what, arg, condition, **more)

    def delete_stopper(self, n: int) -> None:
        """Delete a stopper. Raises KeyError: there is none of this number."""
        self._stoppers.delete(n)

    def enable_stopper(self, n: int, on: bool = True) -> None:
        """Switch a stopper on or off. Raises KeyError: there is none of this number."""
        self._stoppers.get(n).enabled = on

    delete_breakpoint = delete_stopper
    enable_breakpoint = enable_stopper

    def _device_range(self, name: str) -> tuple[int, int] | None:
        for device in getattr(self.board, "devices", ()):
            if device.name == name:
                return device.base, device.base + device.size - 1
        return None

    # the rest

    def _symbol(self, name: str) -> int | None:
        return self.symbols.lookup(name)

    def digest(self) -> str:
        """Return the digest of the whole state at the cursor, in hex."""
        return self.playback.digest().hex()

    def sql(self, text: str, params: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        """Run SQL on the trace; returns rows by column. Raises TraceError."""
        columns, rows = self.trace.sql(text, params)
        return [dict(zip(columns, row, strict=True)) for row in rows]


def _unpacked_images(trace: TraceReader) -> Iterator[tuple[str, bytes]]:
    """Yield role and contents of the images that hold programs."""
    from machine.images import unpack

    for role in ("kernel", "bios"):
        try:
            data = trace.image(role)
            if data:
                yield role, unpack(data, role)
        except (TraceError, MachineError):
            continue


def _kernel_symbols(trace: TraceReader) -> Symbols:
    from workbench.kallsyms import find_symbols

    found = Symbols()
    for role, data in _unpacked_images(trace):
        try:
            if data[:4] == b"\x7fELF":
                found.add(Symbols.from_elf(data, role))
            elif role == "kernel":
                found.add(find_symbols(data))
        except WorkbenchError:
            continue
    return found


def _kernel_lines(trace: TraceReader) -> Lines:
    found = Lines()
    for role, data in _unpacked_images(trace):
        try:
            if data[:4] == b"\x7fELF":
                found.add(elf_rows(data, role))
        except WorkbenchError:
            continue
    return found

"""The session: a trace, its machine, a cursor and breakpoints. REPL, gdb stub and scripts drive this one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traces.errors import TraceError
from traces.position import parse_position
from traces.reader import TraceReader
from workbench.registers import canonical
from workbench.replay.errors import EvalError, MemoryAccessError
from workbench.replay.expressions import Expression
from workbench.replay.parts import BoardFactory, BoardLike, build_board
from workbench.replay.playback import Playback
from workbench.replay.timeline import Timeline
from workbench.symbols import Symbols

_PAGE = 4096
_MASK = (1 << 64) - 1
#: Most memory that one read returns, in bytes.
_MAX_READ = 64 << 20


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a motion ended, and why.

    Args:
        reason: ``breakpoint``, ``step``, ``goto``, ``start``, ``end`` or ``interrupted``.
        icount: the position. hart: the one that takes the next step. pc: its program counter.
        detail: for a breakpoint its number.
    """

    reason: str
    icount: int
    hart: int
    pc: int
    detail: str = ""


@dataclass(slots=True)
class Breakpoint:
    """A breakpoint at a virtual address, on every hart."""

    number: int
    address: int
    temporary: bool = False
    enabled: bool = True
    hits: int = 0


class Session:
    """An open trace with a machine in it. Make one with ``open``; a context manager.

    Every motion leaves the machine at the state at ``cursor``. Nothing of a session changes the trace.
    """

    def __init__(self, trace: TraceReader, playback: Playback) -> None:
        self.trace = trace
        self.playback = playback
        self.timeline = Timeline(playback)
        #: the selected hart
        self.hart = 0
        self._points: dict[int, Breakpoint] = {}
        self._next_number = 1
        self._symbols: Symbols | None = None
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
        """Go ``n`` steps forward; a breakpoint on the way stops there."""
        if self.cursor >= self.end:
            return self._stop("end")
        return self._forward(min(self.cursor + n, self.end), self.cursor + n <= self.end, n > 1)

    def reverse_stepi(self, n: int = 1) -> Stop:
        """Go ``n`` steps back; a breakpoint on the way stops there."""
        if self.cursor <= self.start:
            return self._stop("start")
        limit = self.cursor - n
        points = self._addresses() if n > 1 else set()
        if not points:
            reason = self.timeline.goto(max(limit, self.start))
            return self._stop(
                reason if reason == "interrupted" else "step" if limit >= self.start else "start"
            )
        reason = self.timeline.backward(points, max(limit, self.start))
        if reason == "limit":
            reason = "step" if limit >= self.start else "start"
        return self._stop(reason)

    def cont(self) -> Stop:
        """Run forward to a breakpoint or the end; one at the cursor is left behind."""
        if self.cursor >= self.end:
            return self._stop("end")
        return self._forward(self.end, False, True)

    def reverse_cont(self) -> Stop:
        """Run backwards to the last breakpoint hit before the cursor, or to the start."""
        if self.cursor <= self.start:
            return self._stop("start")
        reason = self.timeline.backward(self._addresses(), self.start)
        return self._stop("start" if reason == "limit" else reason)

    reverse_continue = reverse_cont

    def interrupt(self) -> None:
        """Stop a motion soon; from a signal handler or another thread."""
        self.timeline.interrupt()

    def _forward(self, limit: int, whole: bool, stopping: bool) -> Stop:
        points = self._addresses() if stopping else set()
        reason = self.timeline.forward(points, limit)
        if reason == "limit":
            reason = "step" if whole else "end"
        return self._stop(reason)

    def _stop(self, reason: str) -> Stop:
        engine = self.board.engine
        hart = engine.current_hart
        self.hart = hart
        pc = engine.get_reg(hart, "pc")
        detail = ""
        if reason == "breakpoint":
            for point in [p for p in self._points.values() if p.enabled and p.address == pc]:
                point.hits += 1
                detail = detail or str(point.number)
                if point.temporary:
                    del self._points[point.number]
        return Stop(reason, self.cursor, hart, pc, detail)

    # breakpoints

    @property
    def breakpoints(self) -> list[Breakpoint]:
        """The breakpoints, by number."""
        return list(self._points.values())

    def add_breakpoint(self, addr: int, temporary: bool = False, enabled: bool = True) -> Breakpoint:
        """Set a breakpoint at a virtual address."""
        point = Breakpoint(self._next_number, addr & _MASK, temporary, enabled)
        self._next_number += 1
        self._points[point.number] = point
        return point

    def delete_breakpoint(self, n: int) -> None:
        """Delete a breakpoint. Raises KeyError: there is none of this number."""
        del self._points[n]

    def enable_breakpoint(self, n: int, enabled: bool = True) -> None:
        """Switch a breakpoint on or off. Raises KeyError: there is none of this number."""
        self._points[n].enabled = enabled

    def _addresses(self) -> set[int]:
        return {p.address for p in self._points.values() if p.enabled}

    # looking

    def reg(self, name: str, hart: int | None = None) -> int:
        """Return a register of the selected hart (or another) by name. Raises EvalError: there is none."""
        try:
            return int(self.board.engine.get_reg(self.hart if hart is None else hart, canonical(name)))
        except (ValueError, KeyError):
            raise EvalError(f"no register {name!r}") from None

    def regs(self, hart: int | None = None) -> dict[str, int]:
        """Return all registers of the selected hart, or of another, by name."""
        engine = self.board.engine
        which = self.hart if hart is None else hart
        return {name: engine.get_reg(which, name) for name in engine.reg_names}

    def translate(self, vaddr: int, access: str = "r") -> int | None:
        """Return the physical address behind a virtual one for the selected hart, or None; changes nothing."""
        found: int | None = self.board.engine.translate(self.hart, vaddr & _MASK, access)
        return found

    def read_phys(self, paddr: int, n: int) -> bytes:
        """Return RAM at a physical address. Raises MemoryAccessError: not RAM."""
        if not 0 <= n <= _MAX_READ:
            raise MemoryAccessError(f"{n} bytes are more than one read gives ({_MAX_READ})")
        try:
            return bytes(self.board.engine.read_phys(paddr, n))
        except (ValueError, OverflowError):
            raise MemoryAccessError(f"no RAM at physical address {paddr:#x}") from None

    def read_mem(self, vaddr: int, n: int) -> bytes:
        """Return memory as the selected hart sees it. Raises MemoryAccessError: not mapped, or not RAM."""
        if not 0 <= n <= _MAX_READ:
            raise MemoryAccessError(f"{n} bytes are more than one read gives ({_MAX_READ})")
        out = bytearray()
        while len(out) < n:
            at = (vaddr + len(out)) & _MASK
            paddr = self.translate(at)
            if paddr is None:
                raise MemoryAccessError(f"cannot access memory at address {at:#x}")
            out += self.read_phys(paddr, min(n - len(out), _PAGE - at % _PAGE))
        return bytes(out)

    def eval(self, text: str) -> int:
        """Return the value of an expression. Raises EvalError."""
        return Expression(text, self.reg, self.symbols.lookup).value()

    def sym(self, name: str) -> int:
        """Return a symbol's address. Raises EvalError: there is none."""
        address = self.symbols.lookup(name)
        if address is None:
            raise EvalError(f"no symbol {name!r}")
        return address

    def digest(self) -> str:
        """Return the digest of the whole state at the cursor, in hex."""
        return self.playback.digest().hex()

    def sql(self, text: str, params: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        """Run SQL on the trace; returns rows by column. Raises TraceError."""
        columns, rows = self.trace.sql(text, params)
        return [dict(zip(columns, row, strict=True)) for row in rows]


def _kernel_symbols(trace: TraceReader) -> Symbols:
    from machine.images import unpack
    from workbench.errors import WorkbenchError
    from workbench.kallsyms import find_symbols

    found = Symbols()
    for role in ("kernel", "bios"):
        try:
            data = trace.image(role)
        except TraceError:
            continue
        if not data:
            continue
        try:
            data = unpack(data, role)
            if data[:4] == b"\x7fELF":
                found.add(Symbols.from_elf(data, role))
            elif role == "kernel":
                found.add(find_symbols(data))
        except WorkbenchError:
            continue
    return found

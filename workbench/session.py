"""The session: a trace, its machine, a cursor and breakpoints. REPL, gdb stub and scripts drive this one object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine.errors import MachineError
from traces.errors import PositionError, TraceError, TraceWriteError
from traces.position import parse_position
from traces.reader import TraceReader
from traces.writer import TraceWriter
from workbench.buildid import build_ids, elf_build_id
from workbench.dwarf.file import DebugFile
from workbench.dwarf.program import Program
from workbench.dwarf.relocating import is_relocatable
from workbench.errors import InputError, WorkbenchError
from workbench.lines import Lines
from workbench.replay.changing import Changing
from workbench.replay.consolesearch import ConsoleSearch
from workbench.replay.details import syscall_number
from workbench.replay.live import Live
from workbench.replay.moving import Stop
from workbench.replay.parts import BoardFactory, BoardLike, build_board
from workbench.replay.playback import Playback
from workbench.replay.recorder import Recorder
from workbench.replay.stoppers import Names, Stopper, Stoppers
from workbench.replay.timeline import Timeline
from workbench.symbolcache import file_symbols, trace_symbols
from workbench.symbols import Symbol, Symbols, read_file

if TYPE_CHECKING:
    from workbench.loaded import LoadedModules, Told

__all__ = ["Breakpoint", "Session", "Stop"]

#: The name that breakpoints had before there were other stoppers.
Breakpoint = Stopper


class Session(Changing):
    """An open trace with a machine in it. Make one with ``open``; a context manager.

    Every motion leaves the machine at the state at ``cursor``. Of a trace that is there, a session changes nothing but
    bookmarks.
    """

    def __init__(self, trace: TraceReader, playback: Playback) -> None:
        self.trace = trace
        self.playback = playback
        self.timeline = Timeline(playback)
        self.hart = 0
        self._stoppers = Stoppers(Names(self._symbol, self._device_range, syscall_number))
        self._console = ConsoleSearch(trace)
        self._live: Live | None = None
        self._symbols: Symbols | None = None
        self._lines: Lines | None = None
        self._program: Program | None = None
        self._modules: LoadedModules | None = None
        #: what the files of symbols that were taken do not tell, a line each
        self.remarks: list[str] = []
        self._notes: dict[str, int] = {}
        #: positions of the rows of the last answer that had an ``icount``: what ``row:N`` means
        self.answer_positions: list[int] = []
        #: whether every bookmark could be written into the trace
        self.bookmarks_kept = True

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

    @classmethod
    def attach(
        cls, recorder: Recorder, backend: str = "jit", board_factory: BoardFactory = build_board
    ) -> Session:
        """Open a session on a recording that has begun and stands still: the cursor is now.

        What was recorded so far is this session's history; motions that go past its end record on. The recording
        stays the caller's: it goes on with ``Recorder.advance`` or ``finish`` when the session is closed.

        Raises:
            TraceError, MachineError: as ``open``.
        """
        return cls._on(Live(recorder, owned=False), backend, board_factory)

    @classmethod
    def _on(cls, live: Live, backend: str, board_factory: BoardFactory) -> Session:
        session = cls.open(live.recorder.path, backend, board_factory)
        session._live = live
        session.timeline.goto(session.end)
        return session

    def close(self) -> None:
        """Free the machine and the file; end a branch's recording."""
        if self._live is not None:
            self._live.close()
            self._live = None
        self.timeline.close()
        self.playback.close()
        self.trace.close()

    def _change_over(self, live: Live) -> None:
        backend, factory = self.playback.backend, self.playback.board_factory
        trace = TraceReader.open(live.recorder.path)
        try:
            playback = Playback(trace, backend, factory)
        except BaseException:
            trace.close()
            raise
        listener, hart = self.playback.console, self.hart
        self.close()
        self.trace, self.playback, self._live, self.hart = trace, playback, live, hart
        self.playback.console = listener
        self.timeline = Timeline(playback)
        self._console = ConsoleSearch(trace)
        self.timeline.goto(self.end)

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
    def harts(self) -> int:
        """How many harts there are."""
        return self.playback.config.harts

    @property
    def symbols(self) -> Symbols:
        """The kernel's symbols, empty where it has none; more can be added."""
        if self._symbols is None:
            self._symbols = trace_symbols(self.trace)
        self._follow_modules()
        return self._symbols

    @property
    def lines(self) -> Lines:
        """The source lines of the images that have line tables; more can be added."""
        if self._lines is None:
            self._lines = trace_lines(self.trace)
        self._follow_modules()
        return self._lines

    @property
    def program(self) -> Program:
        """The debug information of the images: variables, types, frames; empty where they have none."""
        if self._program is None:
            self._program = Program(list(_debug_files(self.trace)))
        self._follow_modules()
        return self._program

    @property
    def modules(self) -> LoadedModules:
        """The kernel's loaded modules; once asked for, what is known of them is told at every position."""
        if self._modules is None:
            from workbench.loaded import LoadedModules

            self._modules = LoadedModules(self, self.symbols.copy())
        self._modules.follow()
        return self._modules

    @property
    def knows_modules(self) -> bool:
        """Whether ``modules`` has been asked for."""
        return self._modules is not None

    def _follow_modules(self) -> None:
        if self._modules is not None:
            self._modules.follow()

    def replace_symbols(self, gone: list[Symbol], new: list[Symbol]) -> None:
        """Take symbols in place of others."""
        self.symbols.drop(gone)
        self.symbols.take(Symbols(new))

    def replace_files(self, gone: list[Told], new: list[Told]) -> None:
        """Take what modules' files tell in place of what others did."""
        for told in gone:
            self.lines.drop(told.rows)
            self.program.remove(told.file)
        for told in new:
            self.lines.add(told.rows)
            self.program.add(told.file)

    def add_symbol_file(self, path: Path, force: bool = False) -> int:
        """Take symbols, source lines and debug information of a file; return how many symbols it has.

        Of modules, symbols are the kernel's own; they and what the files tell are there where the modules are loaded.

        Args:
            path: an ELF file or a System.map; a module's file (``NAME.ko``, ``NAME.ko.debug``), or a folder of them.
            force: take one of another build than the kernel that ran.

        Raises:
            InputError: it can't be read, is neither of them, or has another build id than the kernel.
        """
        data = b"" if path.is_dir() else read_file(path)
        if not data or is_relocatable(data):
            self.modules.add(path)
            return self.modules.symbols
        found = file_symbols(path, data)
        if data[:4] == b"\x7fELF":
            if not force:
                _check_build(data, path, self.trace)
            file = DebugFile(data, str(path))
            self.lines.add_file(file)
            self.program.add(file)
            if file.split:
                self.remarks.append(
                    f"{path}: variables and types are in other files ({file.split}), which are not read: build without "
                    "-gsplit-dwarf for them"
                )
        self.symbols.take(found)
        return len(found)

    def on_console(self, listener: Callable[[str, bytes, int], None] | None) -> None:
        """Hear what the guest prints while it is replayed: (port, data, icount)."""
        self.playback.console = listener

    def parse_position(self, text: str) -> int:
        """Return the position that a text names; a virtual time is looked for by replaying. Raises PositionError.

        Beside what every trace knows, ``row:3`` is the position of the third row of the last answer that had any.
        """
        return parse_position(self._row_position(text) if text.strip().startswith("row:") else text, self)

    def _row_position(self, text: str) -> str:
        number = text.strip()[4:]
        if not (
            number.isascii() and number.isdecimal() and 0 < int(number[:9]) <= len(self.answer_positions)
        ):
            raise PositionError(
                f"{text.strip()[:40]!r}: the last answer has {len(self.answer_positions)} rows with a position"
            )
        return str(self.answer_positions[int(number[:9]) - 1])

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

    def bookmark(self, name: str, icount: int | None = None, note: str = "") -> int:
        """Name a position, the cursor by default; returns it.

        It is written into the trace, and into a live recording; where the trace can't be written it is this session's.

        Raises:
            PositionError: outside of the history.
        """
        at = self.cursor if icount is None else icount
        if not self.start <= at <= self.end:
            raise PositionError(f"position {at} is outside of {self.start}..{self.end}")
        self._notes[name] = at
        if self._live is not None:
            self._live.recorder.bookmark(name, at, note)
            return at
        try:
            with TraceWriter.amend(self.trace.path) as writer:
                writer.bookmark(name, at, note)
                writer.finish()
        except TraceWriteError:
            self.bookmarks_kept = False
        return at

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


def _check_build(data: bytes, path: Path, trace: TraceReader) -> None:
    """Refuse a file of another build than the kernel. Raises InputError."""
    mine = elf_build_id(data)
    known = [
        found for role, image in _unpacked_images(trace) if role == "kernel" for found in build_ids(image)
    ]
    if mine is not None and known and mine not in known:
        raise InputError(
            f"{path}: build id {mine.hex()}, but the kernel of this trace has {known[0].hex()}: another build's "
            "symbols would mislead; 'symbol-file --force FILE' takes them all the same"
        )


def _debug_files(trace: TraceReader) -> Iterator[DebugFile]:
    for role, data in _unpacked_images(trace):
        if data[:4] == b"\x7fELF":
            try:
                yield DebugFile(data, role)
            except WorkbenchError:
                continue


def trace_lines(trace: TraceReader) -> Lines:
    """Return the source lines of a trace's images that have line tables."""
    found = Lines()
    for file in _debug_files(trace):
        with suppress(WorkbenchError):
            found.add_file(file)
    return found

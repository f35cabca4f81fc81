"""What a REPL command works on: the session at its cursor, and the shell's own settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.disasm import Disassembler
from workbench.dwarf.frames import CallFrame, frame_name
from workbench.dwarf.program import Variable
from workbench.errors import CommandError, one_line
from workbench.kernel.btf import INT, STRUCT, UNION
from workbench.kernel.cexpr import evaluate, names_in
from workbench.kernel.errors import KernelError
from workbench.kernel.typed import Pointer, Typed, Types
from workbench.output import Result, Table
from workbench.peek import Peek
from workbench.sources import Sources, default_sources

if TYPE_CHECKING:
    from workbench.repl.registry import Registry
    from workbench.session import Session


#: ``&name`` is the address that a symbol's name stands for here anyway; at the beginning, and behind a cast.
_ADDRESS_OF = re.compile(r"(^\s*|[*]\s*\)\s*)&(?=[A-Za-z_.])")
#: The panes that a terminal shows after each stop; ``context`` changes them.
DEFAULT_PANES = ("registers", "code", "source", "stack", "backtrace")


class Quit(Exception):
    """The user asked to leave the REPL."""


class Context:
    """The state of one REPL, monitor or script."""

    def __init__(self, session: Session | None, registry: Registry) -> None:
        self.open_session = session
        self.registry = registry
        self.displays: dict[int, str] = {}
        self.next_display = 1
        self.examined: tuple[str, int] = ("", 0)
        self.names: dict[str, Any] = {"session": session}
        #: what is shown after a stop, in this order
        self.panes: tuple[str, ...] = DEFAULT_PANES
        #: registers at the stop before, by name, for marking changes
        self.seen: dict[str, int] = {}
        #: what runs after a motion, by number: after what (a stop, an input, at a bookmark), and the line
        self.hooks: dict[int, tuple[str, str]] = {}
        #: first words that stand for the beginnings of lines
        self.aliases: dict[str, str] = {}
        #: the terminal that shows the panes, empty for this one
        self.panes_to = ""
        #: the name by which the command was called
        self.word = ""
        #: whether stepping goes into the handlers of interrupts and exceptions
        self.into_traps = False
        #: the selected frame; every motion selects the innermost
        self.frame_level = 0
        #: how deep ``source`` is nested
        self.depth = 0
        #: run a line, or lines, as the shell does; the shell sets them
        self.run_line: Callable[[str], str] = lambda line: ""
        self.run_script: Callable[[Iterable[str], Callable[[str], object]], None] = lambda lines, write: None

    @property
    def session(self) -> Session:
        """Return the session.

        Raises:
            CommandError: when no trace is open.
        """
        if self.open_session is None:
            raise CommandError("no trace is open: 'open FILE' opens one")
        return self.open_session

    def use(self, session: Session | None) -> None:
        """Make another session the one that commands work on; the old one is closed."""
        if self.open_session is not None:
            self.open_session.close()
        self.open_session = session
        self.names["session"] = session
        self.seen = {}
        self.frame_level = 0
        for name in ("disassembler", "peek", "sources"):
            self.__dict__.pop(name, None)

    @cached_property
    def peek(self) -> Peek:
        """Return the debugger's view of memory."""
        return Peek(self.session)

    @cached_property
    def disassembler(self) -> Disassembler:
        """Return the disassembler, which falls back to the session's engine."""
        engine = None if self.open_session is None else self.open_session.board.engine
        return Disassembler(None if engine is None else engine.disasm)

    @cached_property
    def sources(self) -> Sources:
        """Return the texts of source files."""
        return default_sources()

    def remember_positions(self, answer: Table) -> None:
        """Keep the positions of an answer's rows, where it has any: ``goto row:3`` goes to the third."""
        place = next((i for i, name in enumerate(answer.columns) if name in ("icount", "position")), None)
        if place is None or self.open_session is None:
            return
        found = [row[place] for row in answer.rows]
        if found and all(isinstance(at, int) for at in found):
            self.open_session.answer_positions = found

    def run(self, name: str, arguments: str) -> Result:
        """Run another command by its full name."""
        return self.registry.resolve(name)[0].run(self, arguments)

    def number(self, text: str) -> int:
        """Return the value of an expression as an unsigned 64-bit number.

        Raises:
            CommandError: when it is none; the message has the expression.
        """
        if not text.strip().isidentifier():  # a name alone stands for its address, as in 'x/4gx pool'
            value = self.typed(text)
            if value is not None and self.is_number(value):
                return value.integer() & (1 << 64) - 1
        try:
            return self.session.eval(_ADDRESS_OF.sub(r"\1", text)) & (1 << 64) - 1
        except (ValueError, KeyError, ZeroDivisionError) as error:
            raise CommandError(f"can't evaluate {text!r}: {one_line(error).strip(chr(34))}") from None

    # what debug information tells

    def frames(self) -> list[CallFrame]:
        """Return the frames of the selected hart, innermost first."""
        return self.session.program.frames(self.session)

    def frame(self) -> CallFrame:
        """Return the selected frame."""
        if not self.frame_level:
            return self.session.program.frames(self.session, 1)[0]
        frames = self.frames()
        return frames[min(self.frame_level, len(frames) - 1)]

    def frame_place(self, frame: CallFrame) -> str:
        """Return where a frame is: its address, its function, and the one that is inlined there."""
        inlined = self.session.program.functions(frame.code)[:-1]
        name = frame_name(self.session.symbols, frame)
        text = f"{frame.pc:#x} <{name}>" if not name.startswith("0x") else name
        return text + (f" in {inlined[0]}" if inlined else "")

    def variables(self) -> list[Variable]:
        """Return the variables of the selected frame."""
        return list(self.session.program.variables(self.session, self.frame()))

    def typed(self, text: str) -> Typed | None:
        """Return the value of a C expression that names a variable of the debug information; None for others.

        Raises:
            KernelError: it has no value here.
        """
        session = self.session
        if not any(True for _ in names_in(text)) or not session.program:
            return None
        frame = self.frame()
        if not session.program.knows(session, frame, text):
            return None
        return session.program.evaluate(session, frame, text)

    def typed_by_casts(self, text: str) -> Typed | None:
        """Return the value of a C expression by the types that are known, None where it has none by them."""
        try:
            return self.session.program.evaluate(self.session, self.frame(), text)
        except KernelError:
            return self._typed_of_kernel(text)

    def _typed_of_kernel(self, text: str) -> Typed | None:
        from workbench.query.api import Trace

        kernel = Trace.of(self.session).kernel
        try:
            return evaluate(kernel, text, kernel.current(self.session.hart), register=self.session.reg)
        except KernelError:
            return None

    def type_sets(self) -> Iterator[Types]:
        """Yield all types that are known: of debug information, then of the kernel's BTF."""
        from workbench.query.api import Trace

        yield from self.session.program.types
        try:
            yield Trace.of(self.session).kernel.types
        except KernelError:
            return

    @staticmethod
    def is_number(value: Typed) -> bool:
        """Tell whether a value is a number or a pointer."""
        return isinstance(value, Pointer) or value.types.resolve(value.type)[1] not in (STRUCT, UNION)

    @staticmethod
    def reads_best_typed(value: Typed) -> bool:
        """Tell whether a value says more by its type than as a plain number."""
        return isinstance(value, Pointer) or value.types.resolve(value.type)[1] not in (0, INT)

    def located(self, text: str) -> tuple[int, int] | None:
        """Return address and size of a variable, or of a part of one; None for what debug information does not name.

        Raises:
            CommandError: it has no place in memory here.
        """
        value = self.typed(text)
        if value is None or text.lstrip().startswith("&"):
            return None
        size = value.types.size(value.type)
        if value.address is None or not size:
            raise CommandError(f"{text}: it has no place in memory here")
        return value.address, size

    def count(self, text: str, default: int = 1) -> int:
        """Return a count given to a motion: a positive number, or the default where there is none."""
        if not text:
            return default
        try:
            value = int(text.replace("_", ""), 0)
        except ValueError:
            value = self.number(text)
        if value < 1:
            raise CommandError(f"a count must be at least 1, not {text}")
        return value

    def memory(self, address: int, size: int) -> bytes:
        """Return guest memory at a virtual address.

        Raises:
            CommandError: when it is not mapped, or is not RAM.
        """
        data = self.peek.read(address, size)
        if len(data) < size:
            raise CommandError(f"cannot access memory at address {address + len(data):#x}")
        return data

    def place(self, address: int) -> str:
        """Return an address as listings have it: hex, with its symbol where there is one."""
        symbol = self.session.symbols.format(address)
        return f"{address:#x} <{symbol}>" if symbol else f"{address:#x}"

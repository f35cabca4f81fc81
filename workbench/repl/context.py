"""What a REPL command works on: the session at its cursor, and the shell's own settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.disasm import Disassembler
from workbench.errors import CommandError, one_line
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
        #: lines that run after a stop, by number
        self.hooks: dict[int, str] = {}
        #: the name by which the command was called
        self.word = ""
        #: whether stepping goes into the handlers of interrupts and exceptions
        self.into_traps = False
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
        try:
            return self.session.eval(_ADDRESS_OF.sub(r"\1", text)) & (1 << 64) - 1
        except (ValueError, KeyError, ZeroDivisionError) as error:
            raise CommandError(f"can't evaluate {text!r}: {one_line(error).strip(chr(34))}") from None

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

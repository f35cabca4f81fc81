"""Runs command lines: resolves a line, calls its command, renders the result. Knows no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from workbench import output
from workbench.errors import CommandError, exit_code_of, one_line
from workbench.output import Result
from workbench.repl.context import Context, Quit
from workbench.repl.registry import all_commands

if TYPE_CHECKING:
    from workbench.session import Session


class Shell:
    """One conversation: lines in, results out; an empty line repeats the last motion."""

    def __init__(self, session: Session | None) -> None:
        self.registry = all_commands()
        self.context = Context(session, self.registry)
        self._last = ""

    def execute(self, line: str, remote: bool = False) -> Result:
        """Run one line and return its result; None where there is nothing to show.

        Args:
            line: a command and its arguments.
            remote: whether it comes through a socket: then commands that touch the host are refused.

        Raises:
            CommandError: and whatever error the command met, each with one line that says why.
            Quit: when the command was ``quit``.
        """
        line = line.strip()
        if line.startswith("#"):
            return None
        if not line:
            line = self._last
            if not line:
                return None
        if line.startswith("!"):
            line = f"py {line[1:]}"
        entry, rest = self.registry.resolve(line)
        if remote and entry.touches_host:
            raise CommandError(f"{entry.name}: not through gdb; it is for the REPL alone")
        self._last = line if entry.repeat else ""
        if entry.needs_trace and self.context.open_session is None:
            raise CommandError(f"{entry.name}: no trace is open; 'open FILE' opens one")
        return entry.run(self.context, rest)

    def run_line(self, line: str) -> str:
        """Run one line and return what it prints; ``--json`` at its end gives JSON.

        Raises:
            CommandError: and whatever error the command met.
        """
        line, fmt = split_format(line)
        return output.render(self.execute(line), fmt)

    def monitor(self, line: str) -> str:
        """Run one line for gdb's ``monitor``: errors are text as well, and ``quit`` does nothing."""
        try:
            text, fmt = split_format(line)
            return output.render(self.execute(text, remote=True), fmt)
        except Quit:
            return "quit: gdb's own 'detach' or 'quit' ends the connection\n"
        # every expected error carries an exit code; others are bugs, for the server to report
        except Exception as error:
            if exit_code_of(error) is None:
                raise
            return f"error: {one_line(error)}\n"

    def run_script(self, lines: Iterable[str], write: Callable[[str], object]) -> None:
        """Run lines one after the other; the first that fails ends it with its error.

        A ``quit`` ends it without one.
        """
        for line in lines:
            try:
                write(self.run_line(line))
                write(self.displays())
            except Quit:
                return

    def displays(self) -> str:
        """Return what ``display`` shows after a motion; empty where the last line was none."""
        if not self._last or not self.context.displays:
            return ""
        out = []
        for number, expression in self.context.displays.items():
            try:
                shown = output.render(self.registry.resolve("print")[0].run(self.context, expression))
            except CommandError as error:
                shown = f"{one_line(error)}\n"
            out.append(f"{number}: {expression} = {shown.partition('= ')[2] or shown}")
        return "".join(out)


def split_format(line: str) -> tuple[str, output.Format]:
    """Return a line without its trailing ``--json``, ``--csv`` or ``--table``, and the format it asks for."""
    head, _, last = line.rstrip().rpartition(" ")
    if last == "--json":
        return head, "json"
    if last == "--csv":
        return head, "csv"
    if last == "--table":
        return head, "table"
    return line, "text"

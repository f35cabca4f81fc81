"""Runs command lines: resolves a line, calls its command, renders the result. Knows no terminal."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING

from workbench import output
from workbench.errors import CommandError, exit_code_of, one_line
from workbench.output import Result, Table
from workbench.plugins import tell_opened
from workbench.repl.context import Context, Quit
from workbench.repl.interrupt import left_to_child
from workbench.repl.library import code_of
from workbench.repl.lines import Line, blocks, parse_line
from workbench.repl.registry import Command, all_commands

if TYPE_CHECKING:
    from workbench.repl.settings import Settings
    from workbench.session import Session


class Shell:
    """One conversation: lines in, results out; an empty line repeats the last motion."""

    def __init__(self, session: Session | None) -> None:
        self.registry = all_commands()
        self.context = Context(session, self.registry)
        if session is not None:
            tell_opened(session)
        self.context.run_line = self.run_line
        self.context.run_script = self.run_script
        self._last = ""
        self._before = 0
        #: whether the line that ran last moved the cursor
        self.moved = False
        #: whether a motion runs: Ctrl-C then stops it and nothing else
        self.moving = False
        #: whether Ctrl-C was pressed during the line
        self.interrupted = False

    def configure(self, settings: Settings) -> None:
        """Take over what is configured. Raises CommandError: an alias of a name that there is."""
        context = self.context
        if settings.panes is not None:
            context.panes = settings.panes
        context.panes_to = settings.panes_to
        for name, text in settings.aliases.items():
            context.run("alias", f"{name} = {text}")
        for happening, lines in settings.hooks.items():
            for line in lines:
                context.run("hook", f"{happening} {line}")

    def execute(self, line: str, remote: bool = False) -> Result:
        """Run one line and return its result; None where there is nothing to show.

        Args:
            line: a command and its arguments.
            remote: whether it comes through a socket: then commands that touch the host are refused.

        Raises:
            CommandError: and whatever error the command met, each with one line that says why.
            Quit: when the command was ``quit``.
        """
        line = self._expanded(line.strip())
        if line.startswith("#"):
            return None
        if not line:
            line = self._last
            if not line:
                return None
        entry, rest = self._resolve(line)
        if remote and entry.touches_host:
            raise CommandError(f"{entry.name}: not through gdb or an editor; it is for the REPL alone")
        self._last = line if entry.repeat else ""
        if entry.needs_trace and self.context.open_session is None:
            raise CommandError(f"{entry.name}: no trace is open; 'open FILE' opens one")
        self.context.word = line.split(None, 1)[0]
        self.moved = entry.group == "motion"
        self.moving = self.moved
        if self.moved and self.context.open_session is not None:
            self._before = self.context.session.cursor
        try:
            result = entry.run(self.context, rest)
        finally:
            self.moving = False
            if self.moved:
                self.context.frame_level = 0
        if isinstance(result, Table):
            self.context.remember_positions(result)
        return result

    def parse(self, line: str) -> Line:
        """Take a line apart, by what its command takes. Raises CommandError."""
        line = self._expanded(line)
        stripped = line.strip()
        if stripped.startswith("#") or not stripped:
            return Line(stripped)
        try:
            entry = self._resolve(stripped)[0]
        except CommandError:
            return parse_line(line)
        plain = entry.name in ("py", "hook", "alias") or "\n" in line
        return parse_line(line, entry.completes in ("expression", "sql", "address"), plain)

    def _expanded(self, line: str) -> str:
        """Return a line with the alias that it begins with written out."""
        first, space, rest = line.strip().partition(" ")
        return f"{self.context.aliases[first]}{space}{rest}" if first in self.context.aliases else line

    def _resolve(self, line: str) -> tuple[Command, str]:
        """Return a line's command and the rest of the line; ``!CODE`` is Python, but for ``!tt`` and the like."""
        if line.startswith("!") and line.split()[0] not in self.registry.exact:
            return self.registry.resolve("py " + line[1:])
        return self.registry.resolve(line)

    def run_line(self, line: str) -> str:
        """Run one line and return what it prints: ``--json`` at its end, pipes and redirections are obeyed.

        Raises:
            CommandError: and whatever error the command met.
        """
        parsed = self.parse(line)
        text = (
            self.library(parsed)
            if parsed.library
            else output.render(self.execute(parsed.text), parsed.format)
        )
        if parsed.pipe:
            return pipe_through(parsed.pipe, text)
        if parsed.file:
            write_file(parsed.file, text, parsed.append)
            return ""
        return text

    def library(self, parsed: Line) -> str:
        """Return Python that does what a line does. Raises CommandError."""
        line = self._expanded(parsed.text.strip())
        entry, rest = self._resolve(line)
        self.context.word = line.split(None, 1)[0]
        if entry.library and entry.needs_trace and self.context.open_session is None:
            raise CommandError(f"{entry.name}: no trace is open; 'open FILE' opens one")
        return code_of(self.context, entry.library, line, rest)

    def run_remote(self, line: str) -> str:
        """Run one line that came from gdb or an editor: nothing on it touches the host.

        Raises:
            CommandError: and whatever error the command met. Quit: when it was ``quit``.
        """
        parsed = self.parse(line)
        if parsed.pipe or parsed.file:
            raise CommandError("pipes and files are not for gdb and editors; they are for the REPL alone")
        if parsed.library:
            return self.library(parsed)
        return output.render(self.execute(parsed.text, remote=True), parsed.format)

    def monitor(self, line: str) -> str:
        """Run one line for gdb's ``monitor``: errors are text as well, and ``quit`` does nothing."""
        try:
            return self.run_remote(line)
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
        for line in blocks(lines):
            try:
                write(self.run_line(line))
                write(self.after_motion())
            except Quit:
                return

    def after_motion(self) -> str:
        """Return what follows a motion: what ``display`` shows, and what hooks print; nothing after other lines.

        Raises:
            CommandError: and whatever error a hook met.
        """
        if not self.moved:
            return ""
        out = []
        for number, expression in self.context.displays.items():
            try:
                shown = output.render(self.registry.resolve("print")[0].run(self.context, expression))
            except CommandError as error:
                shown = f"{one_line(error)}\n"
            out.append(f"{number}: {expression} = {shown.partition('= ')[2] or shown}")
        last = self._last
        happened = self._happened()
        for when, line in list(self.context.hooks.values()):
            if when in happened:
                out.append(self.run_line(line))
        self._last = last
        self.moved = True
        return "".join(out)

    def _happened(self) -> set[str]:
        """Return what a motion came by: a stop always, inputs on its way, a bookmark at its end."""
        session, found = self.context.session, {"stop"}
        hooked = {when for when, _ in self.context.hooks.values()}
        if "input" in hooked:
            low, high = sorted((self._before, session.cursor))
            query = "select 1 from inputs where icount >= ? and icount < ? limit 1"
            if session.trace.sql(query, (low, high))[1]:
                found.add("input")
        if "bookmark" in hooked and any(mark.icount == session.cursor for mark in session.trace.bookmarks()):
            found.add("bookmark")
        return found


def pipe_through(program: str, text: str, show: bool = False) -> str:
    """Give text to a shell command; return what it prints, or let it print by itself.

    While it runs, Ctrl-C is its own: a pager goes on, what else runs ends by it.

    Raises:
        CommandError: it can't be started, or fails. KeyboardInterrupt: Ctrl-C ended it.
    """
    try:
        with left_to_child():
            done = subprocess.run(program, shell=True, input=text, text=True, stdout=None if show else PIPE)
    except OSError as error:
        raise CommandError(f"| {program}: {error.strerror or error}") from None
    if done.returncode in (-signal.SIGINT, 128 + signal.SIGINT):
        raise KeyboardInterrupt
    if done.returncode not in (0, 141):  # 141: the shell's word for a reader that closed its end
        raise CommandError(f"| {program}: failed with exit code {done.returncode}")
    return done.stdout or ""


def write_file(name: str, text: str, append: bool) -> None:
    """Write text to a file. Raises CommandError."""
    try:
        with Path(name).expanduser().open("a" if append else "w") as file:
            file.write(text)
    except OSError as error:
        raise CommandError(f"> {name}: can't be written: {error.strerror or error}") from None

"""The REPL on a terminal: prompt, history, completion, panes and colours over the shell; plain without one."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import output
from workbench.errors import EXIT_DONE, EXIT_NO, CommandError, exit_code_of, one_line
from workbench.repl.colours import Colours
from workbench.repl.context import Quit
from workbench.repl.interrupt import interruptible
from workbench.repl.lines import blocks
from workbench.repl.panes import note_registers, show_panes
from workbench.repl.progress import Progress
from workbench.repl.settings import Settings, config_folder, load_settings
from workbench.repl.shell import Shell, pipe_through, write_file
from workbench.repl.stops import mode

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

    from workbench.session import Session

__all__ = ["App", "interruptible", "run_commands"]

#: Lines of a stop that are no pane: what stopped, where, the prompt and the toolbar.
_AROUND_PANES = 8
GREETING = "workbench: 'help' lists the commands, 'apropos WORD' finds one, 'quit' leaves"


class App:
    """One REPL over a session, or over none.

    Args:
        session: what the commands work on; None starts without a trace.
        input, output: a pipe and a dummy output in tests; the terminal where None.
        panes: whether the context is shown after each stop; None shows it on a terminal alone.
        settings: what is configured; read from the user's file where None.

    Raises:
        InputError: the user's configuration can't be used.
    """

    def __init__(
        self,
        session: Session | None,
        input: Input | None = None,
        output: Output | None = None,
        panes: bool | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.settings = load_settings() if settings is None else settings
        self.shell = Shell(session)
        self.shell.configure(self.settings)
        self._colours = Colours(self.settings.colours)
        self._input = input
        self._output = output
        self._terminal = output is None and sys.stdout.isatty()
        self._colour = self._terminal and not os.environ.get("NO_COLOR")
        self._panes = self._terminal if panes is None else panes

    def run(self) -> int:
        """Read and run lines until ``quit`` or the end of input; return the exit code.

        On a terminal a command that fails is told and the REPL goes on; of lines from a pipe the last one's
        failure is the exit code, too.
        """
        interactive = self._input is not None or (sys.stdin.isatty() and sys.stdout.isatty())
        if not interactive:
            return self._run_plain()
        output.note(GREETING)
        for line in startup_lines():
            if not self._run_one(line)[1]:
                return EXIT_DONE
        prompter = self._prompter()
        while True:
            try:
                line = prompter.prompt(self.prompt())
            except KeyboardInterrupt:
                continue
            except EOFError:
                return EXIT_DONE
            if not self._run_one(line)[1]:
                return EXIT_DONE

    def _run_plain(self) -> int:
        code = EXIT_DONE
        try:
            for line in blocks(sys.stdin):
                ok, goes_on = self._run_one(line.rstrip("\n"))
                code = EXIT_DONE if ok else EXIT_NO
                if not goes_on:
                    return EXIT_DONE
        except KeyboardInterrupt:
            return EXIT_NO
        return code

    def _run_one(self, line: str) -> tuple[bool, bool]:
        """Run a line; return whether it went well, and whether the REPL goes on."""
        try:
            with interruptible(self.shell), Progress(self.shell.context.open_session):
                parsed = self.shell.parse(line)
                if parsed.library:
                    self._print(self.shell.library(parsed))
                    return True, True
                result = self.shell.execute(parsed.text)
            if parsed.pipe:
                pipe_through(parsed.pipe, output.render(result, parsed.format), show=True)
            elif parsed.file:
                write_file(parsed.file, output.render(result, parsed.format), parsed.append)
            else:
                self.show(result, parsed.format)
            self._after()
        except Quit:
            return True, False
        except KeyboardInterrupt:
            output.note("Interrupted.")
            return False, True
        # a command's own bug is told like an error and the session stays; --debug shows where it was
        except Exception as error:
            word = "error" if exit_code_of(error) is not None else f"bug: {type(error).__name__}"
            output.note(f"{word}: {one_line(error)}")
            if exit_code_of(error) is None and os.environ.get("WORKBENCH_DEBUG"):
                raise
            return False, True
        return True, True

    def _after(self) -> None:
        """Show what follows a motion: panes, displayed expressions, hooks."""
        if not self.shell.moved:
            return
        context = self.shell.context
        if self._panes and context.panes and context.panes_to:
            write_panes(context.panes_to, show_panes(context, context.panes))
        elif self._panes and context.panes:
            rows = shutil.get_terminal_size().lines - _AROUND_PANES if self._terminal else None
            self.show(show_panes(context, context.panes, rows), "text", page=False)
        self._print(self.shell.after_motion())
        note_registers(context)

    def show(self, result: output.Result, fmt: output.Format, page: bool = True) -> None:
        """Print a result, in colours where its kind has any and this is a terminal; a long one in a pager."""
        text = output.render(result, fmt)
        kind = result.kind if isinstance(result, output.Text) and fmt == "text" else ""
        if self._colour and kind:
            text = self._colours.of(text, kind)
        pager = os.environ.get("PAGER", "").strip() or self.settings.pager
        long = page and self._terminal and text.count("\n") >= shutil.get_terminal_size().lines
        if long and shutil.which(next(iter(pager.split()), "")):
            pipe_through(pager, text, show=True)
            return
        self._print(text)

    def _print(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def prompt(self) -> str:
        """Return the prompt: position, hart, mode and symbol of the cursor."""
        context = self.shell.context
        session = context.open_session
        if session is None:
            return "(workbench) "
        symbol = session.symbols.format(session.reg("pc"))
        return f"({session.cursor:_} h{session.hart} {mode(context)}{' ' + symbol if symbol else ''}) "

    def _prompter(self) -> PromptSession[str]:
        from workbench.repl.prompt import make_prompter

        return make_prompter(
            self.shell,
            history_path() if self._input is None else None,
            self._input,
            self._output,
            vi=self.settings.keys == "vi",
        )


def history_path() -> Path | None:
    """Return the file that keeps the history of lines, None where its folder can't be made."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    folder = Path(base) / "workbench"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    path = folder / "history"
    return path if os.access(path if path.exists() else folder, os.W_OK) else None


def startup_lines() -> list[str]:
    """Return the lines of the startup file, ``workbench/startup`` in the XDG configuration folder; none without."""
    path = config_folder() / "startup"
    try:
        return list(blocks(path.read_text().splitlines())) if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        output.note(f"{path}: can't be read: {one_line(error)}")
        return []


def write_panes(terminal: str, panes: output.Text) -> None:
    """Draw panes on another terminal, on its clear screen; one that is gone is told of.

    Raises:
        CommandError: it can't be written, or is no terminal.
    """
    try:
        with Path(terminal).open("w") as file:
            if not file.isatty():
                raise CommandError(
                    f"context to {terminal}: that is no terminal; 'tty' tells another one's name"
                )
            file.write("\x1b[H\x1b[2J" + output.render(panes))
    except OSError as error:
        raise CommandError(
            f"context to {terminal}: {error.strerror or error}; 'context to' ends it"
        ) from None


def run_commands(session: Session | None, lines: list[str]) -> None:
    """Run lines without a terminal (``debug T -c … -x FILE``); the first failure ends it with its error."""
    shell = Shell(session)

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    with interruptible(shell):
        shell.run_script(lines, write)

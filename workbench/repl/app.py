"""The REPL on a terminal: prompt, history, completion and colours over the shell; plain without one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from workbench import output
from workbench.errors import EXIT_DONE, EXIT_NO, exit_code_of, one_line
from workbench.repl.context import Quit
from workbench.repl.shell import Shell, split_format
from workbench.repl.stops import mode

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

    from workbench.session import Session

GREETING = "workbench: 'help' lists the commands, 'quit' leaves"


class App:
    """One REPL over a session, or over none.

    Args:
        session: what the commands work on; None starts without a trace.
        input, output: a pipe and a dummy output in tests; the terminal where None.
    """

    def __init__(
        self, session: Session | None, input: Input | None = None, output: Output | None = None
    ) -> None:
        self.shell = Shell(session)
        self._input = input
        self._output = output
        self._colour = output is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def run(self) -> int:
        """Read and run lines until ``quit`` or the end of input; return the exit code.

        On a terminal a command that fails is told and the REPL goes on; of lines from a pipe the last one's
        failure is the exit code, too.
        """
        interactive = self._input is not None or (sys.stdin.isatty() and sys.stdout.isatty())
        if not interactive:
            return self._run_plain()
        output.note(GREETING)
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
        for line in sys.stdin:
            ok, goes_on = self._run_one(line.rstrip("\n"))
            code = EXIT_DONE if ok else EXIT_NO
            if not goes_on:
                return EXIT_DONE
        return code

    def _run_one(self, line: str) -> tuple[bool, bool]:
        """Run a line; return whether it went well, and whether the REPL goes on."""
        try:
            with interruptible(self.shell):
                text, fmt = split_format(line)
                result = self.shell.execute(text)
                self.show(result, fmt)
                sys.stdout.write(self.shell.displays())
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

    def show(self, result: output.Result, fmt: output.Format) -> None:
        """Print a result, in colours where its kind has a lexer and this is a terminal."""
        text = output.render(result, fmt)
        if self._colour and fmt == "text" and isinstance(result, output.Text) and result.kind:
            text = _coloured(text, result.kind)
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
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory, InMemoryHistory

        from workbench.repl.completion import ReplCompleter

        path = history_path() if self._input is None else None
        return PromptSession(
            history=FileHistory(str(path)) if path else InMemoryHistory(),
            completer=ReplCompleter(self.shell.context),
            complete_while_typing=False,
            input=self._input,
            output=self._output,
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


@contextmanager
def interruptible(shell: Shell) -> Iterator[None]:
    """Make Ctrl-C stop a motion where it is, with the session whole; outside of one it raises as ever."""
    session: Any = shell.context.open_session
    if session is None:
        yield
        return
    pressed = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        session.interrupt()
        if pressed > 2:  # what runs is no motion: let Python unwind it
            raise KeyboardInterrupt

    previous: Callable[[int, FrameType | None], Any] | int | None
    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _coloured(text: str, kind: str) -> str:
    from pygments import highlight
    from pygments.formatters import TerminalFormatter
    from pygments.lexers.asm import GasLexer
    from pygments.lexers.special import OutputLexer

    lexer = GasLexer() if kind == "asm" else OutputLexer()
    return str(highlight(text, lexer, TerminalFormatter()))


def run_commands(session: Session | None, lines: list[str]) -> None:
    """Run lines without a terminal (``debug T -c … -x FILE``); the first failure ends it with its error."""
    shell = Shell(session)

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    with interruptible(shell):
        shell.run_script(lines, write)

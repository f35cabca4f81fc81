"""The prompt of a terminal: completion in a thread of its own, history, highlighting, lines that go on."""

from __future__ import annotations

import codeop
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.lexers import DynamicLexer, Lexer, PygmentsLexer, SimpleLexer

from workbench.repl.completion import ReplCompleter
from workbench.repl.toolbar import Toolbar

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

    from workbench.repl.shell import Shell


def make_prompter(
    shell: Shell, history: Path | None, input: Input | None, output: Output | None, vi: bool = False
) -> PromptSession[str]:
    """Return what reads lines.

    Args:
        shell: whose commands are completed. history: the file that keeps lines, None for this REPL alone.
        input, output: a pipe and a dummy in tests, the terminal where None. vi: whether keys are vi's.
    """
    toolbar = Toolbar(shell.context)
    return PromptSession(
        history=FileHistory(str(history)) if history else InMemoryHistory(),
        completer=ReplCompleter(shell.context),
        complete_in_thread=input is None,
        complete_while_typing=False,
        auto_suggest=AutoSuggestFromHistory(),
        vi_mode=vi,
        enable_history_search=True,
        enable_open_in_editor=True,
        multiline=Condition(lambda: goes_on(get_app().current_buffer.text)),
        lexer=DynamicLexer(lambda: _lexer(get_app().current_buffer.text)),
        bottom_toolbar=toolbar.text if input is None else None,
        input=input,
        output=output,
    )


def goes_on(text: str) -> bool:
    """Tell whether a line is not complete: Python that needs more, SQL with an open bracket or a last comma.

    An empty line ends a block of Python.
    """
    word, _, rest = text.lstrip().partition(" ")
    if text.startswith("!"):
        word, rest = "py", text[1:]
    if word in ("py", "python"):
        if text.endswith("\n"):
            return False
        try:
            return codeop.compile_command(rest, "<repl>", "exec" if "\n" in rest else "single") is None
        except (SyntaxError, ValueError, OverflowError):
            return False
    if word == "sql":
        return rest.count("(") > rest.count(")") or rest.rstrip().endswith((",", "\\"))
    return False


def _lexer(text: str) -> Lexer:
    word = text.split(None, 1)[0] if text.split() else ""
    if word in ("py", "python") or text.startswith("!"):
        from pygments.lexers.python import PythonLexer

        return PygmentsLexer(PythonLexer)
    if word == "sql":
        from pygments.lexers.sql import SqlLexer

        return PygmentsLexer(SqlLexer)
    return SimpleLexer()

"""What a command line is in the library: the text of the calls that ``--python`` prints.

Each command has its row beside it: a template, or a function of the line's arguments that is built of the parts here.
What only the REPL has, such as aliases, is a call of ``Trace.cmd``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.repl.context import Context

#: A template, with ``{text}`` for the arguments as a literal and ``{count}`` for a number (1 where none is given); or a
#: function of the arguments.
Library = str | Callable[["Context", str], str]

#: The session as one that answers questions.
ASK = "Trace.of(session)"
HERE = f"{ASK}.at(session.cursor)"
#: Where the names come from that the calls use.
_IMPORTS = {
    "Path": "pathlib",
    "Session": "workbench",
    "Trace": "workbench",
    "branches": "workbench.replay.branches",
    "compare": "workbench.replay.comparing",
    "GuestMemory": "workbench.kernel.pagetable",
    "islice": "itertools",
    "open_branch": "workbench.replay.branches",
    "profile": "workbench.query.profile",
    "tracetables": "workbench",
}


def code_of(context: Context, library: Library, line: str, arguments: str) -> str:
    """Return Python that does what a line does, with ``session`` bound; imports come first.

    Args:
        library: the command's row; empty where the library has the command itself. line: all of it.

    Raises:
        CommandError: the arguments are none of this command.
    """
    if not library:
        code = f"{ASK}.cmd({line!r})"
    elif isinstance(library, str):
        count = context.count(arguments) if "{count}" in library else 1
        code = library.format(text=repr(arguments), count=count)
    else:
        code = library(context, arguments)
    found = [
        f"from {module} import {name}\n"
        for name, module in _IMPORTS.items()
        if re.search(rf"(?<![\w.]){name}\b(?!['\"=])", code)
    ]
    return "".join((*found, code, "\n"))


def call(function: str, *arguments: str, **options: Any) -> str:
    """Return the text of a call.

    Args:
        arguments: Python, as it is to stand there. options: values; those that are None or False are left out.
    """
    shown = [
        f"{name}={value!r}" for name, value in options.items() if value is not None and value is not False
    ]
    return f"{function}({', '.join((*arguments, *shown))})"


def value_code(context: Context, text: str) -> str:
    """Return Python for the value of an expression: a literal, a symbol, a register, or what is evaluated."""
    text = text.strip()
    if re.fullmatch(r"0[xX][0-9a-fA-F]+|[1-9][0-9_]*|0", text):
        return text
    if text.startswith("$") and text[1:].isidentifier():
        return call("session.reg", repr(text[1:]))
    if text.isidentifier() and context.session.symbols.lookup(text) is not None:
        return call("session.sym", repr(text))
    value = context.typed(text) if not text.isidentifier() else None
    if value is not None and context.is_number(value):
        return f"{value.integer() & (1 << 64) - 1:#x}"
    return call("session.eval", repr(text))


def limited(rows: str, limit: int) -> str:
    """Return Python for the first rows of those that come from the cursor on."""
    return f"{rows}.after(session.cursor).first({limit})"

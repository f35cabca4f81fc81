"""Commands of the shell itself: help, Python, opening and leaving."""

from __future__ import annotations

import contextlib
import io
import re
import textwrap
import traceback

from workbench.errors import CommandError
from workbench.output import Record, Result, Table, Text
from workbench.repl.context import Context, Quit
from workbench.repl.registry import GROUPS, command

_WIDTH = 80
_NAMES = 28


@command("help", "h", "?", group="shell", usage="[COMMAND]", completes="command", needs_trace=False)
def help_(context: Context, arguments: str) -> Result:
    """List the commands, or tell about one.

    Example: help watch
    """
    if not arguments:
        return _overview(context)
    family = [c for c in context.registry.commands if c.name.startswith(arguments + " ")]
    if family and arguments not in (c.name for c in context.registry.commands):
        rows = [(entry.name, entry.usage, entry.summary) for entry in family]
        return Table(("command", "arguments", "does"), rows)
    entry, _ = context.registry.resolve(arguments)
    names = ", ".join((entry.name, *entry.aliases))
    text = f"{names}\nUsage: {entry.name} {entry.usage}".rstrip() + f"\n\n{entry.help}"
    text = text.replace("``", "'")
    return Text(
        text, {"name": entry.name, "aliases": list(entry.aliases), "usage": entry.usage, "help": entry.help}
    )


def _overview(context: Context) -> Text:
    lines, data = [], []
    for group, title in GROUPS.items():
        lines.append(title)
        for entry in context.registry.commands:
            if entry.group == group:
                names = ", ".join((entry.name, *(a for a in entry.aliases if " " not in a)))
                lines.append(_row(names, entry.summary))
                data.append({"name": entry.name, "group": group, "summary": entry.summary})
    lines.append(
        "A unique beginning of a name is enough; Enter repeats the last motion; '!' begins a line of Python."
    )
    lines.append("--json at the end of a line gives the result as JSON.")
    return Text("\n".join(lines), data)


def _row(names: str, summary: str) -> str:
    """Return a command's line of the overview: within 80 columns, its summary up to where it goes into detail."""
    brief = re.split(r"[:;]|, (?=so|or|such|without|with)", summary)[0].rstrip(".").replace("``", "")
    room = max(_WIDTH - 3 - max(len(names), _NAMES), 20)
    return f"  {names:<{_NAMES}} {textwrap.shorten(brief, room, placeholder=' …')}"


@command(
    *("py", "python"),
    group="shell",
    usage="CODE",
    needs_trace=False,
    touches_host=True,
    library=lambda _, arguments: arguments,
)
def py(context: Context, arguments: str) -> Result:
    """Run Python with ``session`` bound; the value of an expression is printed. ``!CODE`` is the same.

    Example: py session.cursor
    """
    if not arguments:
        raise CommandError("py: code is needed, as in 'py hex(session.reg(\"pc\"))'")
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            try:
                code = compile(arguments, "<repl>", "eval")
            except SyntaxError:
                exec(compile(arguments, "<repl>", "exec"), context.names)
                value = None
            else:
                value = eval(code, context.names)
                context.names["_"] = value
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything; it is told, not ours
        last = traceback.format_exception_only(error)[-1].strip()
        raise CommandError(f"py: {last}") from None
    printed = out.getvalue()
    if value is None:
        return Text(printed) if printed else None
    return Text(printed + repr(value), value)


@command("open", "file", group="shell", usage="TRACE", completes="file", needs_trace=False, touches_host=True)
def open_(context: Context, arguments: str) -> Result:
    """Open a trace in this REPL; one that is open is closed first.

    Example: open boot.trace
    """
    from workbench.session import Session

    if not arguments:
        raise CommandError("open: a trace is needed, as in 'open boot.trace'")
    context.use(Session.open(arguments))
    session = context.session
    return Record(
        {"trace": arguments, "start": session.start, "end": session.end, "symbols": len(session.symbols)}
    )


@command("quit", "q", "exit", group="shell", needs_trace=False)
def quit_(context: Context, arguments: str) -> Result:
    """Leave the REPL.

    Example: quit
    """
    raise Quit

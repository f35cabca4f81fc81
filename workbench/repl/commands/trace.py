"""Commands that look into what was recorded: console, inputs, checkpoints, bookmarks, SQL."""

from __future__ import annotations

from workbench import tracetables
from workbench.errors import CommandError
from workbench.output import Record, Result, Text
from workbench.query.api import Trace
from workbench.repl.context import Context
from workbench.repl.library import ASK, call, value_code
from workbench.repl.registry import command, split_word


@command("sql", group="trace", usage="QUERY", completes="sql", library=ASK + ".sql({text})")
def sql(context: Context, arguments: str) -> Result:
    """Run an SQL query on the trace, read-only; ``sql select * from inputs limit 5``.

    The tables insns, mem, calls, traps, syscalls, mmio, csr and switches are filled by replaying, as far as the
    query needs them. Functions: sym(address), addr('name'), hex(n), disasm(pc), task_at(icount), vtime(icount).

    Example: sql select * from inputs limit 5
    """
    if not arguments:
        raise CommandError("sql: a query is needed, as in 'sql select * from checkpoints'")
    return Trace.of(context.session).asker.table(arguments)


def _console_code(context: Context, arguments: str) -> str:
    text = "tracetables.console_text(session.trace, until=session.cursor)"
    return f"{text}.splitlines()[-{context.count(arguments, 20)}:]"


@command("console", group="trace", usage="[LINES]", library=_console_code)
def console(context: Context, arguments: str) -> Result:
    """Show what the guest had printed by the cursor: the last 20 lines, or the last LINES.

    Example: console 5
    """
    text = tracetables.console_text(context.session.trace, until=context.session.cursor)
    lines = text.splitlines()[-context.count(arguments, 20) :]
    return Text("\n".join(lines), kind="console")


@command(
    *("info checkpoints", "checkpoints"),
    group="trace",
    library="tracetables.checkpoints(session.trace)",
)
def info_checkpoints(context: Context, arguments: str) -> Result:
    """List the checkpoints of the trace.

    Example: info checkpoints
    """
    return tracetables.checkpoints(context.session.trace)


def _first_input(context: Context, arguments: str) -> int:
    return context.count(arguments, 0) if arguments else 0


@command(
    *("info inputs", "inputs"),
    group="trace",
    usage="[FROM]",
    library=lambda context, text: call(
        "tracetables.inputs", "session.trace", first=_first_input(context, text), limit=50
    ),
)
def info_inputs(context: Context, arguments: str) -> Result:
    """List the inputs of the run: 50 of them, from number FROM on.

    Example: info inputs
    """
    return tracetables.inputs(context.session.trace, first=_first_input(context, arguments), limit=50)


@command("info trace", group="trace", library="tracetables.info(session.trace)")
def info_trace(context: Context, arguments: str) -> Result:
    """Show what the trace says of itself: machine, length, when and by whom it was recorded.

    Example: info trace
    """
    return tracetables.info(context.session.trace)


@command("info bookmarks", group="trace", library="tracetables.bookmarks(session.trace)")
def info_bookmarks(context: Context, arguments: str) -> Result:
    """List the bookmarks; ``goto @NAME`` goes to one.

    Example: info bookmarks
    """
    return tracetables.bookmarks(context.session.trace)


@command(
    "bookmark",
    group="trace",
    usage="NAME",
    library=lambda _, text: call("session.bookmark", repr(split_word(text)[0])),
)
def bookmark(context: Context, arguments: str) -> Result:
    """Set a bookmark at the cursor, which the trace keeps; ``goto @NAME`` comes back to it.

    Example: bookmark before-the-bug
    """
    name, _ = split_word(arguments)
    if not name:
        return info_bookmarks(context, "")
    context.session.bookmark(name)
    return Text(
        f"Bookmark @{name} at {context.session.cursor:_}", {"name": name, "position": context.session.cursor}
    )


@command(
    *("info symbols", "info functions"),
    group="trace",
    usage="[PREFIX]",
    completes="address",
    library=lambda _, text: (
        f"tracetables.symbols(session.symbols, {text!r})" if text else "len(session.symbols)"
    ),
)
def info_symbols(context: Context, arguments: str) -> Result:
    """List symbols that begin with a prefix; without one, tell how many are known.

    Example: info symbols pool
    """
    symbols = context.session.symbols
    if not arguments:
        return Record({"symbols": len(symbols)})
    return tracetables.symbols(symbols, arguments)


@command(
    "info symbol",
    group="trace",
    usage="ADDRESS",
    completes="expression",
    library=lambda context, text: call("session.symbols.format", value_code(context, text or "$pc")),
)
def info_symbol(context: Context, arguments: str) -> Result:
    """Tell which symbol an address lies in.

    Example: info symbol $ra
    """
    address = context.number(arguments or "$pc")
    name = context.session.symbols.format(address)
    if not name:
        raise CommandError(f"no symbol matches {address:#x}")
    return Text(f"{name} is at {address:#x}", {"address": f"{address:#x}", "symbol": name})


def _named(arguments: str) -> tuple[bool, str]:
    """Return whether a file of another build is taken too, and the file's name."""
    return arguments.startswith("--force "), arguments.removeprefix("--force ").strip()


@command(
    *("symbol-file", "symbols", "add-symbol-file"),
    group="trace",
    usage="[--force] FILE",
    completes="file",
    touches_host=True,
    library=lambda _, text: call(
        "session.add_symbol_file", f"Path({_named(text)[1]!r})", force=_named(text)[0]
    ),
)
def symbol_file(context: Context, arguments: str) -> Result:
    """Read symbols, source lines and debug information from an ELF file, or symbols from a System.map.

    Of a kernel module's file (``NAME.ko.debug``), or a folder of them, it is told where that module is loaded.
    A file of another build than the kernel's, by its build id, is refused; ``--force`` takes it all the same.
    Example: symbol-file ~/linux/vmlinux
    """
    from pathlib import Path

    force, name = _named(arguments)
    if not name:
        raise CommandError("symbol-file: an ELF file or a System.map is needed")
    before, known = len(context.session.lines), len(context.session.remarks)
    count = context.session.add_symbol_file(Path(name).expanduser(), force)
    rows = len(context.session.lines) - before
    lines = f", {rows} rows of source lines" if rows else ""
    remarks = "".join(f"\n{line}" for line in context.session.remarks[known:])
    return Text(f"{count} symbols read from {name}{lines}{remarks}", {"symbols": count, "lines": rows})

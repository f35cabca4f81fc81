"""Commands that show the surroundings: the context panes and source lines."""

from __future__ import annotations

from workbench.errors import CommandError
from workbench.lines import Line
from workbench.output import Record, Result, Text
from workbench.repl.context import DEFAULT_PANES, Context
from workbench.repl.panes import PANES, show_panes
from workbench.repl.registry import command

_AROUND = 5


@command("context", "ctx", group="state", usage="[on|off|only PANE…|PANE…]", completes="pane")
def context_(context: Context, arguments: str) -> Result:
    """Show the panes of a stop: registers, code, source, stack, backtrace, inputs; or those that are named.

    On a terminal they are shown after each motion: ``context off`` ends that, ``context on`` begins it again,
    ``context only code stack`` says which. A star marks a register that the motion changed.
    """
    words = arguments.replace(",", " ").split()
    if words[:1] == ["off"]:
        context.panes = ()
    elif words[:1] == ["on"]:
        context.panes = DEFAULT_PANES
    elif words[:1] == ["only"]:
        unknown = [word for word in words[1:] if word not in PANES]
        if unknown or not words[1:]:
            raise CommandError(
                f"context: no pane {' '.join(unknown) or 'named'}; there are {', '.join(PANES)}"
            )
        context.panes = tuple(words[1:])
    else:
        return show_panes(context, words or context.panes or DEFAULT_PANES)
    return None


@command("list", "l", group="state", usage="[ADDRESS|FILE:LINE]", completes="address")
def list_(context: Context, arguments: str) -> Result:
    """Show the source lines around the cursor, an address or a line of a file."""
    file, colon, number = arguments.rpartition(":")
    if colon and number.isdecimal():
        found = context.session.lines.addresses(file, int(number))
        here = context.session.lines.at(found[0]) if found else None
        if here is None:
            raise CommandError(f"list: no code of {arguments} in the kernel's line table")
    else:
        here = _line(context, context.number(arguments or "$pc"))
    lines = context.sources.lines(here.file, here.line - _AROUND, here.line + _AROUND)
    if not lines:
        raise CommandError(f"list: {here.file}: not found; 'directory FOLDER' says where sources are")
    shown = [f"{'=>' if number == here.line else '  '} {number:5} {text}" for number, text in lines]
    value = {"file": here.file, "line": here.line, "lines": [text for _, text in lines]}
    return Text("\n".join((f"{here.file}:{here.line}", *shown)), value)


@command("info line", group="state", usage="[ADDRESS]", completes="address")
def info_line(context: Context, arguments: str) -> Result:
    """Tell which source line an address was compiled from."""
    address = context.number(arguments or "$pc")
    found = _line(context, address)
    return Record({"address": address, "file": found.file, "line": found.line}, {"address": "hex"})


@command("directory", group="state", usage="FOLDER", completes="file", touches_host=True)
def directory(context: Context, arguments: str) -> Result:
    """Look for source files in a folder, too."""
    from pathlib import Path

    folder = Path(arguments).expanduser()
    if not arguments or not folder.is_dir():
        raise CommandError(f"directory: {arguments or 'nothing'}: no such folder")
    context.sources.folders.insert(0, folder)
    context.sources.forget()
    return None


def _line(context: Context, address: int) -> Line:
    found = context.session.lines.at(address)
    if found is None:
        raise CommandError(
            f"no source line is known for {context.place(address)}: the kernel's ELF has no DWARF of it"
        )
    return found

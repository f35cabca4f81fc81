"""Commands that set and clear breakpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import CommandError
from workbench.output import Result, Table, Text
from workbench.repl.context import Context
from workbench.repl.registry import command

if TYPE_CHECKING:
    from workbench.session import Breakpoint


@command(
    "break", "b", "br", "hbreak", "hb", group="breakpoints", usage="SYMBOL|*ADDRESS", completes="address"
)
def break_(context: Context, arguments: str) -> Result:
    """Set a breakpoint at a symbol or an address (``*0x80200000``, ``start_kernel``, ``start_kernel+8``).

    It stops motions in both directions, on every hart, in every address space. Without an argument:
    at the pc.
    """
    return _set(context, arguments, temporary=False)


@command("tbreak", "tb", "thbreak", group="breakpoints", usage="SYMBOL|*ADDRESS", completes="address")
def tbreak(context: Context, arguments: str) -> Result:
    """Set a breakpoint that is deleted when it is first hit."""
    return _set(context, arguments, temporary=True)


@command("delete", "d", group="breakpoints", usage="[NUMBER]…", completes="breakpoint")
def delete(context: Context, arguments: str) -> Result:
    """Delete breakpoints by number; without a number, all of them."""
    numbers = _numbers(context, arguments)
    for number in numbers:
        context.session.delete_breakpoint(number)
    return None if numbers else Text("No breakpoints.", [])


@command("enable", group="breakpoints", usage="[NUMBER]…", completes="breakpoint")
def enable(context: Context, arguments: str) -> Result:
    """Enable breakpoints by number; without a number, all of them."""
    return _switch(context, arguments, on=True)


@command("disable", "dis", group="breakpoints", usage="[NUMBER]…", completes="breakpoint")
def disable(context: Context, arguments: str) -> Result:
    """Disable breakpoints by number, without forgetting them; without a number, all of them."""
    return _switch(context, arguments, on=False)


@command("info breakpoints", "info b", group="breakpoints")
def info_breakpoints(context: Context, arguments: str) -> Result:
    """List the breakpoints."""
    rows = [
        (p.number, "del" if p.temporary else "keep", p.enabled, p.hits, p.address, context.place(p.address))
        for p in _all(context)
    ]
    return Table(
        ("number", "after", "enabled", "hits", "address", "where"),
        rows,
        {"address": "hex16"},
        empty="No breakpoints.",
    )


def _set(context: Context, arguments: str, temporary: bool) -> Result:
    text = arguments.removeprefix("*").strip() or "$pc"
    address = context.number(text)
    if address & 1:
        raise CommandError(f"breakpoint at {address:#x}: instructions lie at even addresses")
    point = context.session.add_breakpoint(address, temporary=temporary)
    word = "Temporary breakpoint" if temporary else "Breakpoint"
    value = {"number": point.number, "address": f"{address:#x}", "temporary": temporary}
    return Text(f"{word} {point.number} at {context.place(address)}", value)


def _all(context: Context) -> list[Breakpoint]:
    return list(context.session.breakpoints)


def _numbers(context: Context, arguments: str) -> list[int]:
    known = [point.number for point in _all(context)]
    if not arguments:
        return known
    out = []
    for word in arguments.split():
        if not word.isdecimal() or int(word) not in known:
            raise CommandError(f"no breakpoint number {word}; 'info breakpoints' lists them")
        out.append(int(word))
    return out


def _switch(context: Context, arguments: str, on: bool) -> Result:
    numbers = _numbers(context, arguments)
    for number in numbers:
        context.session.enable_breakpoint(number, on)
    return None if numbers else Text("No breakpoints.", [])

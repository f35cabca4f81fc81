"""Commands that say what stops a motion: breakpoints, watchpoints, catches; one numbering for all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from workbench.errors import CommandError, one_line
from workbench.output import Result, Table, Text
from workbench.registers import CSRS, canonical
from workbench.repl.context import Context
from workbench.repl.library import Library, call, value_code
from workbench.repl.registry import command, split_word
from workbench.replay.errors import EvalError

if TYPE_CHECKING:
    from workbench.session import Session

_CONDITION = re.compile(r"(?:^|\s)if(?=[\s(]|$)")
_SIZES = {"u8": 1, "s8": 1, "char": 1, "u16": 2, "s16": 2, "short": 2, "u32": 4, "s32": 4, "int": 4}
_SIZES |= {"u64": 8, "s64": 8, "long": 8}
#: ``*(u32 *)ADDRESS``, as gdb's users write what is to be watched
_CAST = re.compile(r"\*\s*\(\s*(?:unsigned\s+)?(\w+)\s*\*\s*\)\s*&?\s*(.+)", re.DOTALL)
_WORD_BYTES = 8


def _break_code(temporary: bool) -> Library:
    def library(context: Context, arguments: str) -> str:
        rest, condition = _split_condition(arguments)
        rest, physical = _take_physical(rest)
        more: dict[str, Any] = {"temporary": temporary, "physical": physical, "condition": condition}
        return call("session.add_breakpoint", place_code(context, rest), **more)

    return library


def _watch_code(access: str) -> Library:
    def library(context: Context, arguments: str) -> str:
        rest, condition, physical = _watched(arguments)
        if rest.startswith("$"):
            kind, name = _register(rest, access)
            return call("session.add_catch", repr(kind), repr(name), condition=condition)
        address, size = _range(context, rest)
        shown = value_code(context, rest) if rest.isidentifier() else f"{address:#x}"
        return call(
            "session.add_watchpoint",
            *(shown, str(size), repr(access)),
            physical=physical,
            condition=condition,
        )

    return library


def _each(change: str) -> Library:
    """Return the library's row of what is done to breakpoints by number."""

    def library(context: Context, arguments: str) -> str:
        return "\n".join(change.format(point) for point in _numbers(context, arguments)) or "pass"

    return library


@command(
    *("break", "b", "br", "hbreak", "hb"),
    group="breakpoints",
    usage="[-p] [SYMBOL|*ADDRESS|FILE:LINE] [if CONDITION]",
    completes="address",
    library=_break_code(temporary=False),
)
def break_(context: Context, arguments: str) -> Result:
    """Set a breakpoint: at a symbol, an address (``*0x80200000``) or a source line; without one, at the pc.

    It stops motions in both directions, on every hart, in every address space. With ``-p`` the address is a
    physical one, and the instruction there stops wherever it is mapped. A
    condition (``if $a0 == 3 && $priv == 1``) is evaluated in the machine, at full speed.

    Example: break pool_put if $a0 > 0x80000000
    """
    return _break(context, arguments, temporary=False)


@command(
    *("tbreak", "tb", "thbreak"),
    group="breakpoints",
    usage="as break",
    completes="address",
    library=_break_code(temporary=True),
)
def tbreak(context: Context, arguments: str) -> Result:
    """Set a breakpoint that is deleted when it is first hit.

    Example: tbreak pool_put
    """
    return _break(context, arguments, temporary=True)


@command(
    *("watch", "wa"),
    group="breakpoints",
    usage="[-p] PLACE [SIZE] [if CONDITION]",
    completes="address",
    library=_watch_code("w"),
)
def watch(context: Context, arguments: str) -> Result:
    """Stop at writes: forwards behind the store, backwards before it, so that ``rc`` finds the last writer.

    PLACE is a symbol, an address with a SIZE in bytes (8 by default; ``-p``: a physical one),
    ``*(u32 *)ADDRESS``, or a register or CSR (``watch $a0``, ``watch $satp``).
    A condition may ask for $value, $old, $addr and $size.

    Example: watch tick_queue.taken if $value == 2
    """
    return _watch(context, arguments, "w")


@command(
    *("rwatch", "rw"),
    group="breakpoints",
    usage="[-p] PLACE [SIZE] [if CONDITION]",
    completes="address",
    library=_watch_code("r"),
)
def rwatch(context: Context, arguments: str) -> Result:
    """Stop at reads; places are as for ``watch``.

    Example: rwatch pool.free
    """
    return _watch(context, arguments, "r")


@command(
    *("awatch", "aw"),
    group="breakpoints",
    usage="[-p] PLACE [SIZE] [if CONDITION]",
    completes="address",
    library=_watch_code("a"),
)
def awatch(context: Context, arguments: str) -> Result:
    """Stop at reads and writes; places are as for ``watch``.

    Example: awatch pool.free
    """
    return _watch(context, arguments, "a")


def _caught(arguments: str) -> tuple[str, str | None, str | None]:
    """Return what is to be caught, its argument and the condition."""
    rest, condition = _split_condition(arguments)
    what, arg = split_word(rest)
    if not what:
        raise CommandError("catch: what? 'help catch' lists what there is")
    if what == "console":  # its text may hold an "if" of its own
        arg, condition = split_word(arguments)[1], None
    quoted = arg[:1] in ("'", '"') and arg[-1:] == arg[:1]
    return what, (arg[1:-1] if quoted else arg) or None, condition


def _catch_code(context: Context, arguments: str) -> str:
    what, arg, condition = _caught(arguments)
    return call("session.add_catch", repr(what), *([] if arg is None else [repr(arg)]), condition=condition)


@command(
    "catch",
    group="breakpoints",
    usage="WHAT [ARGUMENT] [if CONDITION]",
    completes="catch",
    library=_catch_code,
)
def catch(context: Context, arguments: str) -> Result:
    """Stop at happenings, such as a trap, a system call, or a text on the console.

    ``catch trap``, ``catch interrupt 5``, ``catch syscall openat if $a0 == 3``, ``catch console "panic"``.
    WHAT: trap [CAUSE], interrupt [NUMBER], syscall [NAME|NUMBER], priv (a change of privilege), satp [VALUE] (of
    the address space), csr NAME, reg NAME, mmio [DEVICE|ADDRESS], console TEXT.

    Example: catch interrupt 5
    """
    what, arg, condition = _caught(arguments)
    point = _add(lambda: context.session.add_catch(what, arg, condition))
    return _told(context, "Catchpoint", point)


@command(
    *("delete", "d"),
    group="breakpoints",
    usage="[NUMBER]…",
    completes="breakpoint",
    library=_each("session.delete_stopper({})"),
)
def delete(context: Context, arguments: str) -> Result:
    """Delete breakpoints, watchpoints and catches by number; without a number, all of them.

    Example: delete 1
    """
    numbers = _numbers(context, arguments)
    for number in numbers:
        context.session.delete_stopper(number)
    return None if numbers else Text("No breakpoints.", [])


@command(
    "enable",
    group="breakpoints",
    usage="[NUMBER]…",
    completes="breakpoint",
    library=_each("session.enable_stopper({}, True)"),
)
def enable(context: Context, arguments: str) -> Result:
    """Enable breakpoints, watchpoints and catches by number; without a number, all of them.

    Example: enable 1
    """
    return _switch(context, arguments, on=True)


@command(
    *("disable", "dis"),
    group="breakpoints",
    usage="[NUMBER]…",
    completes="breakpoint",
    library=_each("session.enable_stopper({}, False)"),
)
def disable(context: Context, arguments: str) -> Result:
    """Disable breakpoints and the like by number, without forgetting them; without a number, all of them.

    Example: disable 1
    """
    return _switch(context, arguments, on=False)


@command("ignore", group="breakpoints", usage="NUMBER COUNT", completes="breakpoint")
def ignore(context: Context, arguments: str) -> Result:
    """Let the next COUNT hits of a breakpoint, watchpoint or catch pass.

    Example: ignore 1 10
    """
    number, count = split_word(arguments)
    if not count.isdecimal():
        raise CommandError("ignore: a number and a count are needed, as in 'ignore 1 10'")
    (found,) = _numbers(context, number or "?")
    for point in context.session.stoppers:
        if point.number == found:
            point.hits_ignored = int(count)
    return Text(
        f"The next {count} hits of {found} are passed over.", {"number": found, "ignored": int(count)}
    )


@command(
    *("info breakpoints", "info b", "info watchpoints"),
    group="breakpoints",
    library="session.stoppers",
)
def info_breakpoints(context: Context, arguments: str) -> Result:
    """List the breakpoints, watchpoints and catches.

    Example: info breakpoints
    """
    rows = []
    for point in context.session.stoppers:
        where = _what(context, point)
        after = "del" if point.temporary else "keep"
        condition = f"if {point.condition}" if point.condition else ""
        rows.append((point.number, point.kind, after, point.enabled, point.hits, where, condition))
    columns = ("number", "kind", "after", "enabled", "hits", "where", "condition")
    return Table(columns, rows, empty="No breakpoints.")


def _what(context: Context, point: Any) -> str:
    if point.kind == "breakpoint":
        return str(point.text) if point.physical else str(context.place(point.address))
    if point.kind == "watchpoint":
        access = {"w": "writes", "r": "reads", "a": "accesses"}[point.what]
        name = context.session.symbols.format(point.address)
        return f"{access} of {point.text}{f' <{name}>' if name and not point.physical else ''}"
    return str(point.text)


def _break(context: Context, arguments: str, temporary: bool) -> Result:
    rest, condition = _split_condition(arguments)
    rest, physical = _take_physical(rest)
    if physical and not rest:
        raise CommandError("break -p: a physical address is needed, as in 'break -p 0x80200000'")
    address = place_of(context, rest)
    if address & 1:
        raise CommandError(f"breakpoint at {address:#x}: instructions lie at even addresses")
    more: dict[str, Any] = {"temporary": temporary, "physical": physical, "condition": condition}
    point = _add(lambda: context.session.add_breakpoint(address, **more))
    word = "Temporary breakpoint" if temporary else "Breakpoint"
    value = {"number": point.number, "address": f"{address:#x}", "temporary": temporary}
    value["physical"] = physical
    return Text(f"{word} {point.number} at {_what(context, point)}", value)


def place_of(context: Context, text: str) -> int:
    """Return the address that a place in code means: a symbol, an expression, ``FILE:LINE``; the pc for none."""
    file, colon, line = text.rpartition(":")
    if colon and line.isdecimal():
        found = context.session.lines.addresses(file, int(line))
        if not found:
            raise CommandError(f"no code of {text} in the kernel's line table")
        return found[0]
    return context.number(text.removeprefix("*").strip() or "$pc")


def place_code(context: Context, text: str) -> str:
    """Return Python for the address that ``place_of`` finds."""
    file, colon, line = text.rpartition(":")
    if colon and line.isdecimal():
        return f"session.lines.addresses({file!r}, {line})[0]"
    return value_code(context, text.removeprefix("*").strip() or "$pc")


def _watch(context: Context, arguments: str, access: str) -> Result:
    rest, condition, physical = _watched(arguments)
    session = context.session
    if rest.startswith("$"):
        kind, name = _register(rest, access)
        return _told(context, "Watchpoint", _add(lambda: session.add_catch(kind, name, condition)))
    address, size = _range(context, rest)
    point = _add(
        lambda: session.add_watchpoint(address, size, access, physical=physical, condition=condition)
    )
    return _told(context, "Watchpoint", point)


def _watched(arguments: str) -> tuple[str, str | None, bool]:
    """Return the place that is watched, the condition, and whether the place is a physical one."""
    rest, condition = _split_condition(arguments)
    rest, physical = _take_physical(rest.removeprefix("-l ").removeprefix("-location "))
    if not rest:
        raise CommandError("watch: a place is needed, as in 'watch jiffies' or 'watch 0x80400000 4'")
    return rest, condition, physical


def _register(text: str, access: str) -> tuple[str, str]:
    if access != "w":
        raise CommandError(f"{text}: only writes of a register can be watched; 'watch {text}'")
    name = canonical(text)
    return ("csr" if name in CSRS else "reg"), name


def _range(context: Context, text: str) -> tuple[int, int]:
    """Return address and size of what is watched."""
    cast = _CAST.fullmatch(text)
    if cast is not None:
        size = _SIZES.get(cast[1].removesuffix("_t").replace("uint", "u"), _WORD_BYTES)
        return context.number(cast[2]), size
    head, _, last = text.replace(",", " ").rpartition(" ")
    if head.strip() and last.isdecimal() and head.strip()[-1] not in "+-*/(&|":
        return context.number(head.strip().removeprefix("*")), int(last)
    located = context.located(text)
    if located is not None:
        return located
    address = context.number(text.removeprefix("*").removeprefix("&"))
    symbol = context.session.symbols.symbol_at(address)
    exact = symbol is not None and symbol.name == text.removeprefix("&")
    size = symbol.size if symbol is not None and exact and symbol.size else _WORD_BYTES
    return address, size


def _split_condition(text: str) -> tuple[str, str | None]:
    match = _CONDITION.search(text)
    if match is None:
        return text.strip(), None
    condition = text[match.end() :].strip()
    if not condition:
        raise CommandError("a condition is missing behind 'if'")
    return text[: match.start()].strip(), condition


def _take_physical(text: str) -> tuple[str, bool]:
    word, rest = split_word(text)
    return (rest, True) if word == "-p" else (text, False)


def _add(add: Any) -> Any:
    try:
        return add()
    except EvalError as error:
        raise CommandError(one_line(error)) from None


def _told(context: Context, word: str, point: Any) -> Text:
    value = {"number": point.number, "kind": point.kind, "what": _what(context, point)}
    return Text(f"{word} {point.number}: {value['what']}", value)


def _numbers(context: Context, arguments: str) -> list[int]:
    session: Session = context.session
    known = [point.number for point in session.stoppers]
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
        context.session.enable_stopper(number, on)
    return None if numbers else Text("No breakpoints.", [])

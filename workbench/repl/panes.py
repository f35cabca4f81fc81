"""What a terminal shows after each stop: registers with changes marked, code, source, stack, calls, inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from machine.hw.registers import Reg, registers_of
from workbench.errors import CommandError
from workbench.output import Text
from workbench.registers import ABI_X, PRIVILEGES
from workbench.repl.context import Context

_BEFORE, _AFTER = 3, 6
_STACK_WORDS = 8
_FRAMES = 8
_SOURCE_LINES = 3
_NEXT_INPUTS = 3
_WIDTH = 79
#: What panes are cut to in a low terminal, at least, in this order.
_LEAST = {"stack": 2, "devices": 3, "inputs": 1, "backtrace": 3, "code": 6}


def show_panes(context: Context, names: Iterable[str], rows: int | None = None) -> Text:
    """Return panes by name, one under the other; one that has nothing to show is left out.

    Args:
        names: the panes. rows: lines that there are for them; those that can be cut are cut to fit.

    Raises:
        CommandError: there is no such pane.
    """
    lines: list[str] = []
    value: dict[str, list[str]] = {}
    for name in names:
        if name not in PANES:
            raise CommandError(f"no pane {name!r}; there are {', '.join(PANES)}")
        value[name] = PANES[name](context)
    if rows is not None:
        _fit(value, rows)
    for name, found in value.items():
        if found:
            lines += [f"── {name} ".ljust(_WIDTH, "─"), *found]
    return Text("\n".join(lines), value, kind="context")


def _fit(panes: dict[str, list[str]], rows: int) -> None:
    """Cut the ends of panes until all of them fit: first of those that tell least."""
    for name, least in _LEAST.items():
        over = sum(len(found) + 1 for found in panes.values() if found) - rows
        if over > 0 and name in panes:
            panes[name] = panes[name][: max(len(panes[name]) - over, least)]


def note_registers(context: Context) -> None:
    """Keep the registers as they are, so that the next stop can mark what changed."""
    context.seen = _values(context)


def _values(context: Context) -> dict[str, int]:
    session = context.session
    return {"pc": session.reg("pc")} | {ABI_X[i]: session.reg(f"x{i}") for i in range(1, 32)}


def registers(context: Context) -> list[str]:
    """Three registers a line; a star behind what changed since the stop before."""
    values = _values(context)
    cells = []
    for name, value in values.items():
        star = "*" if context.seen.get(name, value) != value else " "
        cells.append(f"{name:>4} {value:016x}{star}")
    cells.append(f"mode {PRIVILEGES.get(context.session.reg('priv'), '?')}")
    return ["  ".join(cells[at : at + 3]).rstrip() for at in range(0, len(cells), 3)]


def code(context: Context) -> list[str]:
    """The instructions around the pc."""
    pc = context.session.reg("pc")
    symbol = context.session.symbols.symbol_at(pc)
    before: list[str] = []
    # backwards only from a place where an instruction surely begins: that of the symbol
    if symbol is not None and 0 < pc - symbol.address <= 1 << 16:
        data = context.peek.read(symbol.address, pc - symbol.address)
        listed = list(context.disassembler.listing(data, symbol.address, len(data)))[-_BEFORE:]
        before = [f"   {context.place(entry.address)}:  {entry.text}" for entry in listed]
    after = [
        f"{'=>' if entry.address == pc else '  '} {context.place(entry.address)}:  {entry.text}"
        for entry in context.disassembler.listing(context.peek.read(pc, 4 * _AFTER), pc, _AFTER)
    ]
    return before + (after or [f"=> {context.place(pc)}: no memory there"])


def stack(context: Context) -> list[str]:
    """The words from the stack pointer on."""
    sp = context.session.reg("x2")
    lines = []
    for at in range(_STACK_WORDS):
        word = context.peek.word(sp + 8 * at)
        if word is None:
            break
        name = context.session.symbols.format(word) if word > 0xFFF else ""
        lines.append(f"sp+{8 * at:#04x} {sp + 8 * at:#x}: {word:016x}{f' <{name}>' if name else ''}")
    return lines


def calls(context: Context) -> list[str]:
    """The frames, innermost first."""
    return [
        f"#{frame.level} {context.frame_place(frame)}{_at(context, frame.code)}"
        for frame in context.session.program.frames(context.session, _FRAMES)
    ]


def _at(context: Context, address: int) -> str:
    line = context.session.lines.at(address)
    return "" if line is None else f" at {line}"


def source(context: Context) -> list[str]:
    """The source lines around the pc, where they are known and their file is found."""
    here = context.session.lines.at(context.session.reg("pc"))
    if here is None:
        return []
    lines = context.sources.lines(here.file, here.line - _SOURCE_LINES, here.line + _SOURCE_LINES)
    shown = [f"{'=>' if number == here.line else '  '} {number:5} {text}" for number, text in lines]
    return [f"{here.file}:{here.line}", *shown]


def inputs(context: Context) -> list[str]:
    """The inputs that come next."""
    rows = context.session.sql(
        "select id, icount, source, kind from inputs where icount >= ? order by id limit ?",
        (context.session.cursor, _NEXT_INPUTS),
    )
    return [f"input {row['id']} at {row['icount']:_}: {row['source']} {row['kind']}" for row in rows]


def devices(context: Context) -> list[str]:
    """The devices: where each lies, and the registers that hold anything."""
    lines = []
    for device in getattr(context.session.board, "devices", ()):
        stored = [reg.name for reg in registers_of(type(device)) if isinstance(reg, Reg) and reg.stored]
        shown = "  ".join(f"{name} {value:#x}" for name in stored if (value := getattr(device, name)))
        lines.append(f"{device.name:<9} {device.base:#10x}  {shown}"[:_WIDTH].rstrip())
    return lines


PANES: dict[str, Callable[[Context], list[str]]] = {
    "registers": registers,
    "code": code,
    "source": source,
    "stack": stack,
    "backtrace": calls,
    "inputs": inputs,
    "devices": devices,
}

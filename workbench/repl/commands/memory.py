"""Commands that show memory: x and disas."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from workbench.errors import CommandError
from workbench.output import Result, Text, printable
from workbench.repl.context import Context
from workbench.repl.library import ASK, call, value_code
from workbench.repl.registry import command

MAX_UNITS = 65_536
MAX_STRING = 4096
MAX_DISAS_BYTES = 64 << 10
_SIZES = {"b": 1, "h": 2, "w": 4, "g": 8}
_FORMAT = re.compile(r"(\d*)([a-z]*)")


class Examine(NamedTuple):
    """What ``x`` shows: how many units, in which format, of which size."""

    units: int
    letter: str
    size: int


def _shown(context: Context, arguments: str) -> tuple[str, str]:
    """Return the format, or the one that was used last, and the expression of the address."""
    fmt, _, expression = arguments[1:].partition(" ") if arguments.startswith("/") else ("", "", arguments)
    return fmt or context.examined[0] or "xg", expression.strip().removeprefix("*")


def _examine_code(context: Context, arguments: str) -> str:
    fmt, expression = _shown(context, arguments)
    shape = _parse_format(fmt)
    address = value_code(context, expression) if expression else f"{context.examined[1]:#x}"
    if shape.letter in "is":
        return call(f"{ASK}.cmd", repr(f"x/{fmt} {expression or address}"))
    return call("session.read_mem", address, str(shape.units * shape.size))


@command(
    "x",
    group="state",
    usage="[/COUNT FORMAT SIZE] ADDRESS",
    completes="expression",
    repeat=True,
    library=_examine_code,
)
def examine(context: Context, arguments: str) -> Result:
    """Show memory: x/8gx $sp, x/4i $pc, x/s ADDRESS.

    Formats: x hex, d signed, u unsigned, o octal, t binary, a address, c character, s string, i instruction.
    Sizes: b 1 byte, h 2, w 4, g 8. Without an address it goes on behind what was shown last.

    Example: x/4i $pc
    """
    last_format, next_address = context.examined
    fmt, expression = _shown(context, arguments)
    shape = _parse_format(fmt)
    if expression:
        address = context.number(expression)
    elif last_format:
        address = next_address
    else:
        raise CommandError("x: an address is needed, as in 'x/8gx $sp'")
    if shape.letter == "i":
        result, end = _instructions(context, address, shape.units)
    elif shape.letter == "s":
        result, end = _strings(context, address, shape.units)
    else:
        result, end = _units(context, address, shape)
    context.examined = (fmt, end)
    return result


def _parse_format(text: str) -> Examine:
    match = _FORMAT.fullmatch(text)
    if match is None:
        raise CommandError(f"x: no format /{text}; 'help x' lists them")
    letter, size = "x", 8
    for char in match[2]:
        if char in _SIZES:
            size = _SIZES[char]
        elif char in "xduotacsi":
            letter = char
        else:
            raise CommandError(f"x: no format letter {char!r}; 'help x' lists them")
    if letter == "c" and not set(match[2]) & set(_SIZES):
        size = 1
    count = int(match[1] or "1") if len(match[1]) < 9 else MAX_UNITS + 1
    if not 0 < count <= MAX_UNITS:
        raise CommandError(f"x: a count from 1 to {MAX_UNITS}, not {match[1]}")
    return Examine(count, letter, 8 if letter == "a" else size)


def _units(context: Context, address: int, shape: Examine) -> tuple[Text, int]:
    data = context.memory(address, shape.units * shape.size)
    codes = {1: "b", 2: "h", 4: "i", 8: "q"}
    code = codes[shape.size] if shape.letter == "d" else codes[shape.size].upper()
    values = list(struct.unpack(f"<{shape.units}{code}", data))
    per_line = 1 if shape.letter == "a" else max(1, 16 // shape.size)
    lines = []
    for at in range(0, len(values), per_line):
        shown = "  ".join(_unit(context, v, shape) for v in values[at : at + per_line])
        lines.append(f"{context.place(address + at * shape.size)}:  {shown}")
    return Text("\n".join(lines), values), address + len(data)


def _unit(context: Context, value: int, shape: Examine) -> str:
    width = shape.size * 2
    match shape.letter:
        case "a":
            return context.place(value)
        case "c":
            return f"{value} {chr(value)!r}" if value < 256 else str(value)
        case "o":
            return f"{value:#o}"
        case "t":
            return f"{value:0{shape.size * 8}b}"
        case "d" | "u":
            return str(value)
    return f"0x{value:0{width}x}"


def _strings(context: Context, address: int, count: int) -> tuple[Text, int]:
    lines, values = [], []
    for _ in range(count):
        raw = bytearray()
        while len(raw) < MAX_STRING:
            byte = context.memory(address + len(raw), 1)[0]
            if byte == 0:
                break
            raw.append(byte)
        text = raw.decode("utf-8", "replace")
        lines.append(f'{context.place(address)}:  "{printable(text)}"')
        values.append(text)
        address += len(raw) + 1
    return Text("\n".join(lines), values), address


def _instructions(context: Context, address: int, count: int) -> tuple[Text, int]:
    pc = context.session.reg("pc")
    lines: list[str] = []
    values: list[dict[str, str]] = []
    for _ in range(count):
        found = context.disassembler.decode(_code(context, address), address)
        if found is None:
            if not lines:
                raise CommandError(f"cannot access memory at address {address:#x}")
            break
        mark = "=>" if address == pc else "  "
        lines.append(f"{mark} {context.place(address)}:  {found.text}")
        values.append({"address": f"{address:#x}", "code": found.code.hex(), "text": found.text})
        address += len(found.code)
    return Text("\n".join(lines), values, kind="asm"), address


def _code(context: Context, address: int) -> bytes:
    low = context.memory(address, 2)
    return low + context.memory(address + 2, 2) if low[0] & 3 == 3 else low


@command("disassemble", "disas", group="state", usage="[SYMBOL|ADDRESS][, END|, +BYTES]", completes="address")
def disassemble(context: Context, arguments: str) -> Result:
    """Disassemble a function: the one at the cursor, or the one an address lies in; or a range of addresses.

    Where there is no symbol: the 16 instructions from the address on.

    Example: disassemble pool_get
    """
    first, comma, last = arguments.partition(",")
    address = context.number(first.strip()) if first.strip() else context.session.reg("pc")
    if comma:
        last = last.strip()
        end = address + context.number(last[1:]) if last.startswith("+") else context.number(last)
    else:
        symbol = context.session.symbols.symbol_at(address)
        if symbol is None:
            return _instructions(context, address, 16)[0]
        found = context.session.symbols.range_of(symbol.name)
        address, end = found if found else (address, address + 64)
    if not address < end <= address + MAX_DISAS_BYTES:
        raise CommandError(
            f"disassemble: a range of at most {MAX_DISAS_BYTES} bytes, not {address:#x} to {end:#x}"
        )
    pc = context.session.reg("pc")
    lines: list[str] = []
    values: list[dict[str, str]] = []
    for entry in context.disassembler.listing(context.memory(address, end - address), address, MAX_UNITS):
        mark = "=>" if entry.address == pc else "  "
        lines.append(f"{mark} {context.place(entry.address)}:  {entry.text}")
        values.append({"address": f"{entry.address:#x}", "code": entry.code.hex(), "text": entry.text})
    return Text("\n".join(lines), values, kind="asm")

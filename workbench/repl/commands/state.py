"""Commands that show the machine at the cursor: registers, harts, the stack, expressions."""

from __future__ import annotations

import re

from machine.arch.riscv64 import describe_csr
from workbench.errors import CommandError
from workbench.kernel.cexpr import KERNEL_NAMES
from workbench.output import Record, Result, Table, Text
from workbench.registers import CSR_GROUP, PRIVILEGES, abi_name, canonical
from workbench.repl.context import Context
from workbench.repl.library import HERE, call, value_code
from workbench.repl.registry import command
from workbench.repl.stops import instruction_line, position_line

#: What only an expression over C's types has.
_C = re.compile(rf"->|\.|\((struct|union|enum) |\bsizeof\b|(?<![&\w])({'|'.join(KERNEL_NAMES)})\b")


def _names(context: Context, arguments: str) -> list[str]:
    """Return the registers that are asked for."""
    if not arguments:
        return [f"x{i}" for i in range(1, 32)] + ["pc", "priv"]
    if arguments == "all":
        return list(context.session.regs())
    return [name for word in arguments.split() for name in _expand(context, word)]


def _registers_code(context: Context, arguments: str) -> str:
    if not arguments or arguments == "all":
        return "session.regs()"
    return f"{{name: session.reg(name) for name in {_names(context, arguments)!r}}}"


@command(
    "info registers",
    "info r",
    "info reg",
    group="state",
    usage="[NAME|all|csr|float|vector]…",
    completes="register",
    library=_registers_code,
)
def info_registers(context: Context, arguments: str) -> Result:
    """Show registers of the selected hart: general ones, those named, or a group (all, csr, float, vector).

    Example: info registers a0 sepc
    """
    rows = []
    for name in _names(context, arguments):
        value = _register(context, name)
        rows.append((abi_name(name), value, _note(context, name, value)))
    return Table(("register", "value", "means"), rows, {"value": "hex16"})


def _expand(context: Context, word: str) -> list[str]:
    if word in ("csr", "csrs", "system"):
        known = set(context.session.board.engine.reg_names)
        return [name for name in CSR_GROUP if name in known]
    if word in ("float", "fpu"):
        return [f"f{i}" for i in range(32)]
    if word == "vector":
        return ["vl", "vtype", "vstart", "vcsr", *(f"v{i}" for i in range(32))]
    return [canonical(word)]


def _register(context: Context, name: str) -> int:
    if name == "x0":
        return 0
    try:
        return int(context.session.reg(name))
    except (ValueError, KeyError):
        raise CommandError(f"no register {name!r}; 'info registers all' lists them") from None


def _note(context: Context, name: str, value: int) -> str:
    if name == "priv":
        return PRIVILEGES.get(value, "?")
    if name[0] == "v":
        return describe_csr(name, value)
    symbol = context.session.symbols.format(value) if value > 0xFFF else ""
    return f"<{symbol}>" if symbol else str(value)


@command(
    *("info harts", "info threads"),
    group="state",
    library="[(hart, session.reg('pc', hart), session.reg('priv', hart)) for hart in range(session.harts)]",
)
def info_harts(context: Context, arguments: str) -> Result:
    """List the harts: mode and where each one is; the selected one has a star.

    Example: info harts
    """
    session = context.session
    rows: list[tuple[object, ...]] = []
    for hart in range(session.harts):
        pc, priv = session.board.engine.get_reg(hart, "pc"), session.board.engine.get_reg(hart, "priv")
        star = "*" if hart == session.hart else ""
        rows.append((star, hart, PRIVILEGES.get(priv, "?"), pc, session.symbols.format(pc)))
    return Table(("", "hart", "mode", "pc", "where"), rows, {"pc": "hex16"})


def _hart_number(context: Context, text: str) -> int:
    harts = context.session.harts
    if not text.isdecimal() or int(text) >= harts:
        raise CommandError(f"no hart {text}: this machine has harts 0 to {harts - 1}")
    return int(text)


def _hart_code(context: Context, arguments: str) -> str:
    return f"session.hart = {_hart_number(context, arguments)}" if arguments else "session.hart"


@command("hart", "thread", group="state", usage="[NUMBER]", library=_hart_code)
def hart(context: Context, arguments: str) -> Result:
    """Select a hart; without a number, tell which one is selected. ``set hart N`` is the same.

    Example: hart 0
    """
    session = context.session
    if arguments:
        session.hart = _hart_number(context, arguments)
    return Text(position_line(context), {"hart": session.hart}, kind="asm")


def _print_code(context: Context, arguments: str) -> str:
    expression = arguments.partition(" ")[2] if arguments.startswith("/") else arguments
    if context.typed(expression) is not None:
        frame = f"session.program.frames(session)[{context.frame_level}]"
        return call("session.program.evaluate", "session", frame, repr(expression)) + ".show()"
    if _C.search(expression):
        return call(f"{HERE}.p", repr(expression))
    return value_code(context, expression)


@command(
    *("print", "p", "inspect"),
    group="state",
    usage="[/x|/d|/u|/t|/o|/c|/a] EXPRESSION",
    completes="expression",
    library=_print_code,
)
def print_(context: Context, arguments: str) -> Result:
    """Evaluate a C expression: registers ($pc, $a0), variables, members, casts, numbers, operators.

    A format: /x hex, /d signed, /u unsigned, /t binary, /o octal, /c character, /a address with its symbol.
    What debug information has types of is shown by its type, in the selected frame; so are expressions like
    ``task->comm`` where the kernel carries BTF. A symbol that nothing has a type of stands for its address.
    Example: p *pool.free
    """
    letter, expression = "", arguments
    if arguments.startswith("/"):
        fmt, _, expression = arguments[1:].partition(" ")
        letter = fmt.strip() or "x"
    if not expression.strip():
        raise CommandError("print: an expression is needed, as in 'p $sp + 16'")
    found = context.typed(expression)
    if found is None and _C.search(expression):
        found = context.typed_by_casts(expression)
    if found is not None and (
        context.reads_best_typed(found) if not letter else not context.is_number(found)
    ):
        return Text(f"= {found.show()}", found.python())
    value = context.number(expression.strip()) if found is None else found.integer() & (1 << 64) - 1
    return Text(f"= {format_value(context, value, letter)}", value)


def format_value(context: Context, value: int, letter: str) -> str:
    """Return a 64-bit number in one of print's formats; without one, hex and its symbol or decimal."""
    signed = value - (1 << 64) if value >> 63 else value
    if letter == "":
        symbol = context.session.symbols.format(value) if value > 0xFFF else ""
        return f"{value:#x} <{symbol}>" if symbol else f"{value:#x} ({signed})"
    if letter == "a":
        return context.place(value)
    if letter == "c":
        return f"{value & 0xFF} {chr(value & 0xFF)!r}"
    texts = {"x": f"{value:#x}", "d": str(signed), "u": str(value), "t": f"{value:#b}", "o": f"{value:#o}"}
    if letter not in texts:
        raise CommandError(f"print: no format /{letter}; there are /x /d /u /t /o /c /a")
    return texts[letter]


@command(
    *("backtrace", "bt", "where-from"),
    group="state",
    usage="[LIMIT]",
    library=lambda context, text: f"session.program.frames(session, {context.count(text, 64)})",
)
def bt(context: Context, arguments: str) -> Result:
    """Show the calls that led here, by call frame information, or by frame pointers where there is none.

    Code with neither, and the first instructions of a function without the former, show fewer frames.
    Example: bt 5
    """
    session = context.session
    frames = session.program.frames(session, context.count(arguments, 64))
    names = [context.frame_place(frame).partition("<")[2].replace(">", "") for frame in frames]
    if not session.program:
        short = [(f.level, f.pc, name) for f, name in zip(frames, names, strict=True)]
        return Table(("frame", "pc", "where"), short, {"pc": "hex16"})
    lines = [str(session.lines.at(frame.code) or "") for frame in frames]
    rows = [(f.level, f.pc, name, line) for f, name, line in zip(frames, names, lines, strict=True)]
    return Table(("frame", "pc", "where", "source"), rows, {"pc": "hex16"})


@command(
    "where", "w", "when", group="state", library="session.cursor, session.reg('pc'), session.board.vtime_ns"
)
def where(context: Context, arguments: str) -> Result:
    """Tell where the cursor is: position, virtual time, hart, mode, symbol and the next instruction.

    Example: where
    """
    session = context.session
    pc = session.reg("pc")
    vtime_ns = session.board.vtime_ns
    value = {
        "position": session.cursor,
        "end": session.end,
        "vtime_ns": vtime_ns,
        "hart": session.hart,
        "mode": PRIVILEGES.get(session.reg("priv"), "?"),
        "pc": f"{pc:#x}",
        "symbol": session.symbols.format(pc),
    }
    lines = (f"{position_line(context)} · {vtime_ns / 1e9:.9f} s", instruction_line(context, pc))
    return Text("\n".join(lines), value, kind="asm")


@command("digest", group="state", library="session.digest()")
def digest(context: Context, arguments: str) -> Result:
    """Show the digest of the whole state at the cursor; equal digests, equal states.

    Example: digest
    """
    return Text(context.session.digest())


@command(
    "translate",
    group="state",
    usage="ADDRESS",
    completes="address",
    library=lambda context, text: call("session.translate", value_code(context, text or "$pc")),
)
def translate(context: Context, arguments: str) -> Result:
    """Show the physical address behind a virtual one, as the selected hart maps it now.

    Example: translate $sp
    """
    address = context.number(arguments or "$pc")
    found = context.session.translate(address)
    if found is None:
        raise CommandError(f"{address:#x} is not mapped in hart {context.session.hart}")
    return Record({"vaddr": address, "paddr": found}, {"vaddr": "hex", "paddr": "hex"})


@command("display", group="state", usage="[EXPRESSION]", completes="expression")
def display(context: Context, arguments: str) -> Result:
    """Show an expression after every motion; without one, list what is shown.

    Example: display ticks
    """
    if arguments:
        print_(context, arguments)
        context.displays[context.next_display] = arguments
        context.next_display += 1
    return Table(("number", "expression"), list(context.displays.items()), empty="Nothing is displayed.")


@command("undisplay", group="state", usage="[NUMBER]…")
def undisplay(context: Context, arguments: str) -> Result:
    """Stop displaying expressions by number; without a number, all of them.

    Example: undisplay 1
    """
    for word in arguments.split() or [str(number) for number in context.displays]:
        if not word.isdecimal() or context.displays.pop(int(word), None) is None:
            raise CommandError(f"no display number {word}; 'display' lists them")
    return None

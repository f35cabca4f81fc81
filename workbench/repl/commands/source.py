"""Commands over source and debug information: lines, frames, locals, types."""

from __future__ import annotations

from pathlib import Path

from workbench.dwarf.program import Variable
from workbench.errors import CommandError
from workbench.kernel.btf import ENUM, STRUCT, UNION
from workbench.kernel.errors import KernelError
from workbench.kernel.typed import Pointer, Types
from workbench.lines import Line
from workbench.output import Record, Result, Table, Text
from workbench.repl.context import Context
from workbench.repl.library import call, value_code
from workbench.repl.registry import command

_AROUND = 5
_MAX_MEMBERS = 400


@command("list", "l", group="state", usage="[ADDRESS|FILE:LINE]", completes="address")
def list_(context: Context, arguments: str) -> Result:
    """Show the source lines around the selected frame, an address or a line of a file.

    Example: list pool.c:56
    """
    file, colon, number = arguments.rpartition(":")
    if colon and number.isdecimal():
        found = context.session.lines.addresses(file, int(number))
        here = context.session.lines.at(found[0]) if found else None
        if here is None:
            raise CommandError(f"list: no code of {arguments} in the kernel's line table")
    elif arguments:
        here = _line(context, context.number(arguments))
    else:
        here = _line(context, context.frame().code)
    lines = context.sources.lines(here.file, here.line - _AROUND, here.line + _AROUND)
    if not lines:
        raise CommandError(
            f"list: {here.file}: not found; 'directory FOLDER' or 'set substitute-path OLD NEW' says where it is"
        )
    shown = [f"{'=>' if number == here.line else '  '} {number:5} {text}" for number, text in lines]
    value = {"file": here.file, "line": here.line, "lines": [text for _, text in lines]}
    return Text("\n".join((f"{here.file}:{here.line}", *shown)), value, kind="c")


@command(
    "info line",
    group="state",
    usage="[ADDRESS]",
    completes="address",
    library=lambda context, text: call("session.lines.at", value_code(context, text or "$pc")),
)
def info_line(context: Context, arguments: str) -> Result:
    """Tell which source line an address was compiled from.

    Example: info line pool_put
    """
    address = context.number(arguments or "$pc")
    found = _line(context, address)
    return Record({"address": address, "file": found.file, "line": found.line}, {"address": "hex"})


@command(
    "info sources",
    group="state",
    usage="[TEXT]",
    library="[file for file in session.lines.files() if {text} in file]",
)
def info_sources(context: Context, arguments: str) -> Result:
    """List the source files that code comes from, and where they were found; those that have a text in their name.

    Example: info sources pool
    """
    rows = [
        (file, str(context.sources.find(file) or "not found"))
        for file in context.session.lines.files()
        if arguments in file
    ]
    return Table(("source", "here"), rows, empty="No code has source lines; 'symbol-file FILE' reads some.")


@command("directory", group="state", usage="FOLDER", completes="file", touches_host=True, needs_trace=False)
def directory(context: Context, arguments: str) -> Result:
    """Look for source files in a folder, too.

    Example: directory ~/linux
    """
    folder = Path(arguments).expanduser()
    if not arguments or not folder.is_dir():
        raise CommandError(f"directory: {arguments or 'nothing'}: no such folder")
    context.sources.folders.insert(0, folder)
    context.sources.forget()
    return None


def _variables_code(context: Context, arguments: str) -> str:
    frame = f"session.program.frames(session)[{context.frame_level}]"
    return f"list(session.program.variables(session, {frame}))"


@command("info locals", group="state", completes="expression", library=_variables_code)
def info_locals(context: Context, arguments: str) -> Result:
    """Show the variables of the selected frame, those of inlined functions too.

    Example: info locals
    """
    return _variables(context, [v for v in context.variables() if not v.is_argument], "No locals.")


@command("info args", group="state", library=_variables_code)
def info_args(context: Context, arguments: str) -> Result:
    """Show the arguments of the selected frame's function, and of the functions that are inlined there.

    Example: info args
    """
    return _variables(context, [v for v in context.variables() if v.is_argument], "No arguments.")


def _variables(context: Context, found: list[Variable], empty: str) -> Result:
    if not context.session.program:
        raise CommandError("no debug information is loaded: 'symbol-file FILE' reads some from an ELF file")
    of = {v.function for v in found}
    lines = [f"{v.name} = {v.show()}" + (f"   ({v.function})" if len(of) > 1 else "") for v in found]
    value = {v.name: None if v.value is None else v.value.python() for v in found}
    return Text("\n".join(lines) or empty, value)


@command("frame", "f", group="state", usage="[NUMBER]")
def frame(context: Context, arguments: str) -> Result:
    """Select a frame of the stack for ``p``, ``list`` and ``info locals``; without a number, tell which it is.

    Example: frame 1
    """
    if arguments:
        if not arguments.isdecimal() or int(arguments) >= len(context.frames()):
            raise CommandError(f"frame: no frame {arguments}; 'bt' lists them")
        context.frame_level = int(arguments)
    here = context.frame()
    line = context.session.lines.at(here.code)
    text = f"#{here.level} {context.frame_place(here)}"
    if line is not None:
        shown = context.sources.lines(line.file, line.line, line.line)
        text += f" at {line}" + (f"\n{line.line}\t{shown[0][1]}" if shown else "")
    value = {"frame": here.level, "pc": f"{here.pc:#x}", "line": None if line is None else str(line)}
    return Text(text, value, kind="asm")


@command("up", group="state", usage="[COUNT]")
def up(context: Context, arguments: str) -> Result:
    """Select the frame that called the selected one, or the one COUNT calls up.

    Example: up
    """
    level = min(context.frame_level + context.count(arguments), len(context.frames()) - 1)
    return frame(context, str(level))


@command("down", group="state", usage="[COUNT]")
def down(context: Context, arguments: str) -> Result:
    """Select the frame that the selected one called, or the one COUNT calls down.

    Example: down
    """
    return frame(context, str(max(context.frame_level - context.count(arguments), 0)))


@command("ptype", group="state", usage="TYPE|EXPRESSION", completes="expression")
def ptype(context: Context, arguments: str) -> Result:
    """Show a type with its members: ``ptype struct buffer``, or that of an expression.

    Types come from debug information, or from the BTF that a kernel carries.
    Example: ptype pool
    """
    types, type_id, stars = _type_of(context, arguments)
    bare, kind = types.resolve(type_id)
    name = types.name(type_id) + (" " + "*" * stars if stars else "")
    if kind in (STRUCT, UNION) and not stars:
        members = types.members(bare)
        lines = [
            f"/* {m.offset_bits // 8:4} */  {types.name(m.type)} {m.name}{f' : {m.bits}' if m.bits else ''};"
            for m in members[:_MAX_MEMBERS]
        ]
        value = {
            "type": name,
            "size": types.size(bare),
            "members": [
                {"name": m.name, "type": types.name(m.type), "offset": m.offset_bits // 8} for m in members
            ],
        }
        return Text("\n".join((f"{name} {{", *lines, f"}} /* {types.size(bare)} bytes */")), value)
    if kind == ENUM and not stars:
        values = types.enumerators(bare)
        return Text(f"{name} {{ {', '.join(f'{n} = {v}' for v, n in values.items())} }}", {"type": name})
    return Text(name, {"type": name, "size": 8 if stars else types.size(type_id)})


@command("whatis", group="state", usage="EXPRESSION", completes="expression")
def whatis(context: Context, arguments: str) -> Result:
    """Tell the type of an expression.

    Example: whatis pool.free
    """
    types, type_id, stars = _type_of(context, arguments)
    name = types.name(type_id) + (" " + "*" * stars if stars else "")
    return Text(name, {"type": name})


def _type_of(context: Context, text: str) -> tuple[Types, int, int]:
    """Return types, a type of them and how many pointers stand above it."""
    if not text:
        raise CommandError("a type or an expression is needed, as in 'ptype struct page'")
    for types in context.type_sets():
        try:
            return types, types.find(text.rstrip(" *")), text.count("*")
        except KernelError:
            continue
    value = context.typed(text) or context.typed_by_casts(text)
    if value is None:
        raise CommandError(f"no type is known of {text!r}: neither debug information nor BTF tells")
    return value.types, value.type, value.stars if isinstance(value, Pointer) else 0


def _line(context: Context, address: int) -> Line:
    found = context.session.lines.at(address)
    if found is None:
        raise CommandError(
            f"no source line is known for {context.place(address)}: no debug information tells; "
            "'symbol-file FILE' reads some"
        )
    return found

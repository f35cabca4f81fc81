"""Frames, scopes and variables: ``stackTrace scopes variables setVariable source``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from workbench.dap.link import MAX_ITEMS, Link, Meaning
from workbench.dap.protocol import Arguments, BadRequest
from workbench.dwarf.errors import DwarfError
from workbench.dwarf.frames import CallFrame, frame_name
from workbench.dwarf.program import Variable
from workbench.errors import one_line
from workbench.kernel.btf import ARRAY, PTR, STRUCT, UNION
from workbench.kernel.errors import KernelError
from workbench.kernel.typed import Pointer, Typed
from workbench.registers import ABI_X, CSR_GROUP, canonical

_MAX_VALUE: Final = 1000


@dataclass(frozen=True)
class Locals:
    """The variables of a frame."""

    variables: tuple[Variable, ...]

    def named(self, name: str) -> Typed | None:
        """Return a variable. Raises DwarfError: there is none, or it has no value."""
        found = next((v for v in self.variables if v.name == name), None)
        if found is None or found.value is None:
            raise DwarfError(f"{name}: {found.why if found else 'no such variable'}")
        return found.value


@dataclass(frozen=True)
class Parts:
    """The members of a struct, the elements of an array, or what a pointer points to."""

    value: Typed

    def named(self, name: str) -> Typed | None:
        """Return a part. Raises KernelError: there is none."""
        return dict(self.all())[name] if name in dict(self.all()) else self.value.member(name)

    def all(self, start: int = 0, count: int = MAX_ITEMS) -> list[tuple[str, Typed]]:
        """Return the parts by name, of an array only some. Raises KernelError."""
        value = self.value
        type_id, kind = value.types.resolve(value.type)
        if kind == ARRAY and not isinstance(value, Pointer):
            size = value.types.array(type_id)[1]
            return [(f"[{i}]", value.index(i)) for i in range(start, min(start + count, size))]
        if kind in (STRUCT, UNION) and not isinstance(value, Pointer):
            names = [m.name for m in value.types.members(type_id) if m.name]
            return [(name, value.member(name)) for name in names]
        target = value.deref()
        inner = target.types.resolve(target.type)[1]
        return Parts(target).all() if inner in (STRUCT, UNION) else [("*", target)]


@dataclass(frozen=True)
class Registers:
    """Registers of the selected hart, or of a frame as far as they are known."""

    names: tuple[str, ...]
    frame: CallFrame | None = None


class Stack:
    """What the client shows of a stop.

    Args:
        link: the client.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def requests(self) -> dict[str, Meaning]:
        """Return the meanings by the request's command."""
        return {
            "stackTrace": self.stack_trace,
            "scopes": self.scopes,
            "variables": self.variables,
            "setVariable": self.set_variable,
            "source": self.source,
        }

    def stack_trace(self, arguments: Arguments) -> dict[str, Any]:
        """The frames of a hart, innermost first."""
        link = self._link
        link.select(arguments.number("threadId", low=1) - 1)
        start, levels = arguments.number("startFrame", 0), arguments.number("levels", 0) or MAX_ITEMS
        frames = link.frames()
        shown = [self._frame(frame) for frame in frames[start : start + levels]]
        return {"stackFrames": shown, "totalFrames": len(frames)}

    def _frame(self, frame: CallFrame) -> dict[str, Any]:
        link = self._link
        session = link.session
        functions = session.program.functions(frame.code)
        name = frame_name(session.symbols, frame)
        if len(functions) > 1:
            name = f"{functions[0]} (inlined in {name})"
        body: dict[str, Any] = {
            "id": link.frame_id(frame.level),
            "name": name,
            "line": 0,
            "column": 0,
            "instructionPointerReference": f"{frame.pc:#x}",
        }
        line = session.lines.at(frame.code)
        if line is None:
            return body | {"presentationHint": "subtle"}
        return body | {"source": link.source(line.file), "line": link.line_out(line.line)}

    def scopes(self, arguments: Arguments) -> dict[str, Any]:
        """Locals where debug information tells of some, general registers, CSRs."""
        link = self._link
        frame = link.frame(arguments.number("frameId"))
        session = link.session
        out = []
        variables = tuple(session.program.variables(session, frame))
        if variables:
            out.append(self._scope("Locals", Locals(variables), "locals"))
        general = ("pc", *(f"x{number}" for number in range(1, 32)))
        out.append(self._scope("Registers", Registers(general, frame), "registers"))
        known = set(session.board.engine.reg_names)
        csrs = ("priv", *(name for name in CSR_GROUP if name in known))
        return {"scopes": [*out, self._scope("CSRs", Registers(csrs), "registers", expensive=True)]}

    def _scope(self, name: str, of: Any, hint: str, expensive: bool = False) -> dict[str, Any]:
        reference = self._link.handle(of)
        return {
            "name": name,
            "presentationHint": hint,
            "variablesReference": reference,
            "expensive": expensive,
        }

    def variables(self, arguments: Arguments) -> dict[str, Any]:
        """The variables behind a handle."""
        of = self._link.of_handle(arguments.number("variablesReference", low=1))
        start, count = arguments.number("start", 0), arguments.number("count", 0) or MAX_ITEMS
        as_hex = arguments.inner("format").flag("hex")
        match of:
            case Locals():
                found = [self._local(variable, as_hex) for variable in of.variables[:MAX_ITEMS]]
            case Registers():
                found = [self._register(of, name) for name in of.names]
            case Parts():
                found = [self.typed(n, value, as_hex) for n, value in of.all(start, min(count, MAX_ITEMS))]
            case _:
                raise BadRequest("variablesReference: of a scope or a variable")
        return {"variables": found}

    def _local(self, variable: Variable, as_hex: bool) -> dict[str, Any]:
        if variable.value is None:
            return {"name": variable.name, "value": f"<{variable.why}>", "variablesReference": 0}
        return self.typed(variable.name, variable.value, as_hex)

    def _register(self, of: Registers, name: str) -> dict[str, Any]:
        session = self._link.session
        shown = ABI_X[int(name[1:])] if name[0] == "x" and name[1:].isdecimal() else name
        if of.frame is not None and of.frame.level:
            known = of.frame.registers
            value = of.frame.pc if name == "pc" else known.get(int(name[1:]), -1)
            if value < 0:
                return {"name": shown, "value": "<not kept>", "variablesReference": 0}
        else:
            value = session.reg(name)
        text = self._link.place(value) if value > 0xFFF else f"{value:#x}"
        return {
            "name": shown,
            "value": text,
            "type": "register",
            "evaluateName": f"${shown}",
            "variablesReference": 0,
            "memoryReference": f"{value:#x}",
        }

    def typed(self, name: str, value: Typed, as_hex: bool = False) -> dict[str, Any]:
        """Return a typed value as a variable: what has parts can be opened."""
        types = value.types
        type_id, kind = types.resolve(value.type)
        pointer = isinstance(value, Pointer)
        stars = " " + "*" * value.stars if isinstance(value, Pointer) else ""
        body: dict[str, Any] = {"name": name, "type": types.name(value.type) + stars, "variablesReference": 0}
        if not pointer and kind in (STRUCT, UNION, ARRAY) and value.address is not None:
            body |= {"variablesReference": self._link.handle(Parts(value))}
            body["value"] = types.name(value.type)
            if kind == ARRAY:
                body["indexedVariables"] = types.array(type_id)[1]
        else:
            try:
                number = value.integer()
                plain = as_hex and not pointer and kind != PTR
                body["value"] = (hex(number) if plain else value.show())[:_MAX_VALUE]
                if (pointer or kind == PTR) and number:
                    body |= {"memoryReference": f"{number & (1 << 64) - 1:#x}"}
                    target = value.deref()
                    if target.types.size(target.type):
                        body["variablesReference"] = self._link.handle(Parts(value))
            except KernelError as error:
                body["value"] = f"<{one_line(error)}>"
        if value.address is not None:
            body.setdefault("memoryReference", f"{value.address:#x}")
        return body

    def set_variable(self, arguments: Arguments) -> dict[str, Any]:
        """Write a register, or a variable in memory: in history that opens a branch."""
        link = self._link
        of = link.of_handle(arguments.number("variablesReference", low=1))
        name = arguments.text("name")
        session = link.session
        number = session.eval(arguments.text("value"))
        if isinstance(of, Registers):
            if of.frame is not None and of.frame.level:
                raise BadRequest("only the innermost frame's registers can be written")
            written = session.write_reg(canonical(name), number)
        else:
            value = of.named(name) if isinstance(of, Locals | Parts) else None
            size = 0 if value is None else value.types.size(value.type)
            if value is None or value.address is None or size not in (1, 2, 4, 8):
                raise BadRequest(f"{name}: it has no place in memory that could be written")
            data = (number & (1 << 8 * size) - 1).to_bytes(size, "little")
            written = session.write_mem(value.address, data)
        link.tell(str(written))
        link.changed()
        return {"value": f"{number:#x}"}

    def source(self, arguments: Arguments) -> dict[str, Any]:
        """The text of a source."""
        link = self._link
        file = link.file_of(arguments.inner("source"))
        lines = link.sources.lines(file, 1, 1 << 31)
        if not lines:
            raise BadRequest(f"{file}: not found here; 'sourceMap' or 'sources' say where sources are")
        return {"content": "".join(text + "\n" for _, text in lines), "mimeType": "text/x-c"}

"""What stops a motion: the client's breakpoints by line, function, instruction, data and happening."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from workbench.dap.link import MAX_ITEMS, Link, Meaning, address_of
from workbench.dap.protocol import Arguments, BadRequest
from workbench.dwarf.errors import DwarfError
from workbench.errors import exit_code_of, one_line
from workbench.kernel.errors import KernelError
from workbench.kernel.typed import Typed
from workbench.registers import CSRS, canonical

#: What may be caught: by the session's names.
FILTERS: Final = (
    {"filter": "trap", "label": "Exceptions in the guest", "supportsCondition": True, "default": False},
    {"filter": "interrupt", "label": "Interrupts", "supportsCondition": True, "default": False},
    {"filter": "syscall", "label": "System calls", "supportsCondition": True, "default": False},
)
_ACCESS: Final = {"read": "r", "write": "w", "readWrite": "a"}
_DATA: Final = re.compile(r"mem:([0-9a-f]{1,16}):([0-9]{1,5})|(reg|csr):(\w+)")
_HOLE: Final = re.compile(r"\{([^{}]+)\}")
_MAX_BYTES: Final = 4096


@dataclass
class Point:
    """A point that a client set: the session's number, what a stop there is called, what it logs."""

    number: int
    reason: str
    log: str = ""


class Points:
    """The points that this client set, by kind; each request of a kind replaces all of that kind.

    Args:
        link: the client.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._kinds: dict[str, list[Point]] = {}

    def requests(self) -> dict[str, Meaning]:
        """Return the meanings by the request's command."""
        return {
            "setBreakpoints": self.set_lines,
            "breakpointLocations": self.locations,
            "setFunctionBreakpoints": self.set_functions,
            "setInstructionBreakpoints": self.set_instructions,
            "setDataBreakpoints": self.set_data,
            "dataBreakpointInfo": self.data_info,
            "setExceptionBreakpoints": self.set_catches,
        }

    # setting

    def set_lines(self, arguments: Arguments) -> dict[str, Any]:
        """``setBreakpoints``: of one source; a line without code moves on to the next that has some."""
        link = self._link
        wanted = arguments.objects("breakpoints")
        source = arguments.inner("source")
        try:
            file = link.file_of(source)
        except BadRequest as error:
            return {"breakpoints": [{"verified": False, "message": str(error)} for _ in wanted]}

        def add(each: Arguments) -> dict[str, Any]:
            line = link.line_in(each.number("line"))
            known = link.session.lines.line_with_code(file, line)
            if known is None:
                raise BadRequest(f"no code comes from line {line} of {file} or a later one")
            addresses = link.session.lines.addresses(file, known)
            numbers = [self._break(address, each, "breakpoint", f"lines:{file}") for address in addresses]
            return self._told(numbers[0], addresses[0]) | {"line": link.line_out(known)}

        return self._replace(f"lines:{file}", wanted, add)

    def locations(self, arguments: Arguments) -> dict[str, Any]:
        """``breakpointLocations``: the lines of a range that have code."""
        link = self._link
        file = link.file_of(arguments.inner("source"))
        first = link.line_in(arguments.number("line"))
        last = link.line_in(arguments.number("endLine", link.line_out(first)))
        if not 0 <= last - first < MAX_ITEMS:
            raise BadRequest(f"endLine: at most {MAX_ITEMS} lines")
        lines = [n for n in range(first, last + 1) if link.session.lines.addresses(file, n)]
        return {"breakpoints": [{"line": link.line_out(line)} for line in lines]}

    def set_functions(self, arguments: Arguments) -> dict[str, Any]:
        """``setFunctionBreakpoints``: at symbols."""

        def add(each: Arguments) -> dict[str, Any]:
            name = each.text("name")
            address = self._link.session.eval(name)
            return self._told(self._break(address, each, "function breakpoint", "functions"), address)

        return self._replace("functions", arguments.objects("breakpoints"), add)

    def set_instructions(self, arguments: Arguments) -> dict[str, Any]:
        """``setInstructionBreakpoints``: at addresses."""

        def add(each: Arguments) -> dict[str, Any]:
            offset = each.number("offset", 0, low=-(1 << 40))
            address = address_of(each.text("instructionReference"), offset)
            return self._told(self._break(address, each, "instruction breakpoint", "instructions"), address)

        return self._replace("instructions", arguments.objects("breakpoints"), add)

    def set_data(self, arguments: Arguments) -> dict[str, Any]:
        """``setDataBreakpoints``: at what ``dataBreakpointInfo`` named."""

        def add(each: Arguments) -> dict[str, Any]:
            match = _DATA.fullmatch(each.text("dataId"))
            access = _ACCESS.get(each.text("accessType", "write"))
            if match is None or access is None:
                raise BadRequest("dataId: what 'dataBreakpointInfo' returned was expected")
            session, more = self._link.session, self._more(each)
            if match[3]:
                point = session.add_catch(match[3], match[4], **more)
            else:
                point = session.add_watchpoint(int(match[1], 16), int(match[2]), access, **more)
            self._keep("data", point.number, "data breakpoint", "")
            return {"id": point.number, "verified": True}

        return self._replace("data", arguments.objects("breakpoints"), add)

    def set_catches(self, arguments: Arguments) -> dict[str, Any]:
        """``setExceptionBreakpoints``: exceptions, interrupts and system calls."""
        wanted = [Arguments({"filterId": name}) for name in arguments.texts("filters")]

        def add(each: Arguments) -> dict[str, Any]:
            name = each.text("filterId")
            if name not in [known["filter"] for known in FILTERS]:
                raise BadRequest(f"no filter {name!r}")
            point = self._link.session.add_catch(name, **self._more(each))
            self._keep("catches", point.number, "exception", "")
            return {"id": point.number, "verified": True}

        return self._replace("catches", wanted + arguments.objects("filterOptions"), add)

    def data_info(self, arguments: Arguments) -> dict[str, Any]:
        """``dataBreakpointInfo``: what can be watched of a variable, a register, an expression or an address."""
        name = arguments.text("name")
        try:
            data_id, text = self._watchable(name, arguments)
        except (KernelError, BadRequest) as error:
            return {"dataId": None, "description": str(error)}
        types = ["read", "write", "readWrite"] if data_id.startswith("mem") else ["write"]
        return {"dataId": data_id, "description": text, "accessTypes": types, "canPersist": True}

    def _watchable(self, name: str, arguments: Arguments) -> tuple[str, str]:
        link = self._link
        if arguments.flag("asAddress"):
            address, size = address_of(name), arguments.number("bytes", 8, low=1, high=_MAX_BYTES)
            return f"mem:{address:x}:{size}", f"{size} bytes at {link.place(address)}"
        reference = arguments.number("variablesReference", 0)
        if reference:
            value = _named(link.of_handle(reference), name)
        else:
            frame = link.frame(arguments.number("frameId")) if "frameId" in arguments else link.frames()[0]
            value = None if name.startswith("$") else link.session.program.evaluate(link.session, frame, name)
        if value is None:
            register = canonical(name)
            if register not in link.session.board.engine.reg_names:
                raise BadRequest(f"{name}: neither in memory nor a register")
            return f"{'csr' if register in CSRS else 'reg'}:{register}", f"writes of {name}"
        size = value.types.size(value.type)
        if value.address is None or not 0 < size <= _MAX_BYTES:
            raise DwarfError(f"{name} has no place in memory here")
        return f"mem:{value.address:x}:{size}", f"{name}, {size} bytes at {link.place(value.address)}"

    # the session's stoppers behind them

    def _replace(
        self, kind: str, wanted: list[Arguments], add: Callable[[Arguments], dict[str, Any]]
    ) -> dict[str, Any]:
        if len(wanted) > MAX_ITEMS:
            raise BadRequest(f"breakpoints: at most {MAX_ITEMS}")
        session = self._link.session
        known = {stopper.number for stopper in session.stoppers}
        for point in self._kinds.pop(kind, []):
            if point.number in known:
                session.delete_stopper(point.number)
        self._kinds[kind] = []
        return {"breakpoints": [self._tried(add, each) for each in wanted]}

    @staticmethod
    def _tried(add: Callable[[Arguments], dict[str, Any]], each: Arguments) -> dict[str, Any]:
        # an expected error says why there is no such breakpoint; bugs go up
        try:
            return add(each)
        except Exception as error:
            if exit_code_of(error) is None and not isinstance(error, BadRequest):
                raise
            return {"verified": False, "message": one_line(error)}

    def _break(self, address: int, each: Arguments, reason: str, kind: str) -> int:
        if address & 1:
            raise BadRequest(f"{address:#x}: instructions lie at even addresses")
        point = self._link.session.add_breakpoint(address, **self._more(each))
        return self._keep(kind, point.number, reason, each.text("logMessage", ""))

    def _keep(self, kind: str, number: int, reason: str, log: str) -> int:
        self._kinds[kind].append(Point(number, reason, log))
        return number

    @staticmethod
    def _more(each: Arguments) -> dict[str, Any]:
        """Return condition and ignored hits. Raises BadRequest: the hit condition is no number."""
        hits = each.text("hitCondition", "").strip()
        if hits and not (hits.isascii() and hits.isdecimal() and 0 < int(hits) < 1 << 48):
            raise BadRequest(f"hitCondition {hits!r}: the number of the hit that stops was expected")
        return {"condition": each.text("condition", "") or None, "hits_ignored": int(hits) - 1 if hits else 0}

    def _told(self, number: int, address: int) -> dict[str, Any]:
        link = self._link
        body: dict[str, Any] = {"id": number, "verified": True, "instructionReference": f"{address:#x}"}
        line = link.session.lines.at(address)
        if line is not None:
            body |= {"source": link.source(line.file), "line": link.line_out(line.line)}
        return body

    # what they say of a stop

    def _of(self, stop: Any) -> Point | None:
        number = None if stop is None else stop.stopper
        points = [point for kind in self._kinds.values() for point in kind]
        return next((point for point in points if point.number == number), None)

    def reason(self, stop: Any) -> str:
        """Return what the stop is called, empty for one that this client's points did not make."""
        point = self._of(stop)
        return "" if point is None else point.reason

    def log(self, stop: Any) -> str | None:
        """Return what a logpoint prints, with ``{EXPRESSION}`` filled in; None where the stop is a real one."""
        point = self._of(stop)
        if point is None or not point.log:
            return None
        return _HOLE.sub(lambda match: self._filled(match[1]), point.log)

    def _filled(self, text: str) -> str:
        session = self._link.session
        try:
            frame = session.program.frames(session, 1)[0]
            if session.program.knows(session, frame, text):
                return session.program.evaluate(session, frame, text).show()
            return str(session.eval(text))
        # an expected error stands where the value would
        except Exception as error:
            if exit_code_of(error) is None:
                raise
            return f"<{one_line(error)}>"


def _named(scope: Any, name: str) -> Typed | None:
    """Return the variable of a name among those that a handle is of; None: it is a register."""
    found = getattr(scope, "named", None)
    return None if found is None else found(name)

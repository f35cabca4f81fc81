"""What a debugger asks debug information about a session at its cursor: frames, variables, values of C expressions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from workbench.kernel.btf import INT
from workbench.kernel.cexpr import evaluate, names_in
from workbench.kernel.errors import KernelError
from workbench.kernel.typed import Typed
from workbench.peek import Peek

from .errors import DwarfError, Unavailable
from .file import DebugFile, children_of, name_of
from .frames import CallFrame, Unwinder, machine_of
from .places import Place, expression_at
from .places import evaluate as place_of
from .types import DwarfTypes

if TYPE_CHECKING:
    from workbench.session import Session
    from workbench.symbols import Symbols

_VARIABLES: Final = ("DW_TAG_formal_parameter", "DW_TAG_variable")
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a frame.

    Args:
        name: in the source. value: None where it has none. why: why it has none.
        is_argument: whether it is a parameter. function: the function that it is of, which may be inlined.
    """

    name: str
    value: Typed | None
    why: str
    is_argument: bool
    function: str

    def show(self) -> str:
        """Return the value as a debugger shows it, or why there is none."""
        if self.value is None:
            return f"<{self.why}>"
        try:
            return self.value.show()
        except KernelError as error:
            return f"<{error}>"


class Memory:
    """Guest memory as the typed values read it.

    Args:
        peek: the debugger's view.
    """

    def __init__(self, peek: Peek) -> None:
        self._peek = peek

    def word(self, vaddr: int, size: int = 8) -> int:
        """Return a little-endian number. Raises DwarfError: it can't be read."""
        value = self._peek.word(vaddr & _MASK, size)
        if value is None:
            raise DwarfError(f"cannot access memory at address {vaddr & _MASK:#x}")
        return value

    def text(self, vaddr: int, limit: int = 256) -> str:
        """Return the text up to a zero byte. Raises DwarfError: it can't be read."""
        data = self._peek.read(vaddr & _MASK, limit)
        if not data:
            raise DwarfError(f"cannot access memory at address {vaddr & _MASK:#x}")
        return data.partition(b"\0")[0].decode("utf-8", "replace")


class Scene:
    """The types of one file over the memory of a session; what typed values are made with."""

    def __init__(self, types: DwarfTypes, peek: Peek, symbols: Symbols) -> None:
        self.types = types
        self.memory = Memory(peek)
        self.symbols = symbols


class Program:
    """The debug files of a session.

    Args:
        files: of the kernel first; more can be added.
    """

    def __init__(self, files: list[DebugFile]) -> None:
        self.files = [file for file in files if not file.empty]
        self._types = {id(file): DwarfTypes(file) for file in self.files}

    def __bool__(self) -> bool:
        return bool(self.files)

    def add(self, file: DebugFile) -> None:
        """Take one more file."""
        if not file.empty:
            self.files.append(file)
            self._types[id(file)] = DwarfTypes(file)
            self.__dict__.pop("_unwinder", None)

    def remove(self, file: DebugFile) -> None:
        """Let go of a file that was taken."""
        if self._types.pop(id(file), None) is not None:
            self.files = [each for each in self.files if each is not file]
            self.__dict__.pop("_unwinder", None)

    @property
    def types(self) -> list[DwarfTypes]:
        """The types of the files, in their order."""
        return [self._types[id(file)] for file in self.files]

    @cached_property
    def _unwinder(self) -> Unwinder:
        return Unwinder(self.files)

    def frames(self, session: Session, limit: int = 64) -> list[CallFrame]:
        """Return the frames of the selected hart, innermost first. Raises DwarfError."""
        return self._unwinder.frames(session, limit)

    def functions(self, address: int) -> list[str]:
        """Return the functions that an address lies in, the inlined ones first; none where none is known."""
        for file in self.files:
            scopes = file.scopes_at(address)
            named = [name_of(scope) for scope in scopes if scope.tag != "DW_TAG_lexical_block"]
            if named:
                return named
        return []

    def variables(self, session: Session, frame: CallFrame) -> Iterator[Variable]:
        """Yield the variables of a frame that are in scope, innermost first. Raises DwarfError."""
        peek = Peek(session)
        for file in self.files:
            scopes = file.scopes_at(frame.code)
            if not scopes:
                continue
            seen: set[str] = set()
            function = scopes[-1]
            for index, scope in enumerate(scopes):
                outer = (s for s in scopes[index:] if s.tag != "DW_TAG_lexical_block")
                of = name_of(next(outer, function))
                for die in file.guard(lambda scope=scope: list(children_of(scope))):  # type: ignore[misc]
                    name = name_of(die) if die.tag in _VARIABLES else ""
                    if name and name not in seen:
                        seen.add(name)
                        yield self._variable(file, die, function, frame, peek, session, of)
            return

    def _variable(
        self,
        file: DebugFile,
        die: Any,
        function: Any,
        frame: CallFrame,
        peek: Peek,
        session: Session,
        of: str,
    ) -> Variable:
        name, is_argument = name_of(die), die.tag == "DW_TAG_formal_parameter"
        try:
            value = self._value(file, die, function, frame, peek, session)
        except Unavailable as error:
            return Variable(name, None, str(error), is_argument, of)
        return Variable(name, value, "", is_argument, of)

    def _value(
        self, file: DebugFile, die: Any, function: Any, frame: CallFrame, peek: Peek, session: Session
    ) -> Typed:
        types = self._types[id(file)]
        scene, type_id = Scene(types, peek, session.symbols), types.of(die)
        constant = die.attributes.get("DW_AT_const_value")
        if constant is not None and isinstance(constant.value, int):
            return Typed(scene, type_id, None, constant.value)
        structs, pc = die.cu.structs, frame.code

        def base() -> int:
            expression = expression_at(file.dwarf, function, "DW_AT_frame_base", pc)
            return place_of(structs, expression, machine_of(frame, peek)).number

        def place() -> Place:
            expression = expression_at(file.dwarf, die, "DW_AT_location", pc)
            return place_of(structs, expression, machine_of(frame, peek, base))

        found = file.guard(place)
        if found.in_memory:
            return Typed(scene, type_id, found.number)
        return Typed(scene, type_id, None, _narrowed(types, type_id, found.number))

    def lookup(self, session: Session, frame: CallFrame, name: str) -> Typed | None:
        """Return a variable by its name: one of the frame, or a global one; None where there is none.

        Raises:
            Unavailable: there is one, which has no value here.
        """
        for variable in self.variables(session, frame):
            if variable.name == name:
                if variable.value is None:
                    raise Unavailable(f"{name}: {variable.why}")
                return variable.value
        for file in self.files:
            die = file.variable(name, session.symbols.lookup(name))
            if die is not None:
                return self._value(file, die, die, frame, Peek(session), session)
        return None

    def knows(self, session: Session, frame: CallFrame, text: str) -> bool:
        """Tell whether an expression names a variable, or a type by a cast, that only debug information tells."""
        for name in names_in(text):
            try:
                if self.lookup(session, frame, name) is not None:
                    return True
            except Unavailable:
                return True
        return False

    def evaluate(self, session: Session, frame: CallFrame, text: str) -> Typed:
        """Return the value of a C expression in a frame: variables, members, casts, ``$registers``, operators.

        Raises:
            KernelError: it can't be understood, or has no value here.
        """
        if not self.files:
            raise DwarfError("there is no debug information: 'symbol-file FILE' reads some")
        unit = next((file for file in self.files if file.scopes_at(frame.code)), self.files[0])
        scene = Scene(self._types[id(unit)], Peek(session), session.symbols)

        def register(name: str) -> int:
            return session.reg(name) if frame.level == 0 else self._register(session, frame, name)

        return evaluate(scene, text, named=lambda name: self.lookup(session, frame, name), register=register)

    @staticmethod
    def _register(session: Session, frame: CallFrame, name: str) -> int:
        from workbench.registers import canonical

        known = canonical(name)
        if known == "pc":
            return frame.pc
        if known[:1] == "x" and known[1:].isdecimal():
            value = frame.registers.get(int(known[1:]))
            if value is None:
                raise Unavailable(f"${name} of frame {frame.level} was not kept")
            return value
        return session.reg(name)


def _narrowed(types: DwarfTypes, type_id: int, number: int) -> int:
    """Return what a register's value is as a value of a type: fewer bytes, and a sign."""
    bare, kind = types.resolve(type_id)
    size = types.size(type_id)
    if not 0 < size <= 8:
        raise Unavailable("it is spread over several places")
    number &= (1 << 8 * size) - 1
    if kind == INT and types.signed(bare) and number >> (8 * size - 1):
        number -= 1 << 8 * size
    return number

"""Values of C types in a guest's memory: numbers, structs and their members, arrays, pointers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from workbench.symbols import Symbols

from .btf import ARRAY, ENUM, ENUM64, INT, PTR, STRUCT, UNION, Member
from .errors import KernelError

#: Types of variables that BTF does not tell.
VARIABLES: Final = {
    "init_task": "struct task_struct",
    "init_mm": "struct mm_struct",
    "prb": "struct printk_ringbuffer *",
    "jiffies": "long unsigned int",
    "modules": "struct list_head",
    "saved_command_line": "char *",
    "nr_threads": "int",
    "init_uts_ns": "struct uts_namespace",
    "init_nsproxy": "struct nsproxy",
}
_MAX_SHOWN: Final = 32
_DEPTH: Final = 3
#: Values that are shown of one expression.
_MOST_VALUES: Final = 20_000
_TEXT: Final = 256


class Types(Protocol):
    """What is asked of types, by numbers of their own: BTF's, or debug information's. 0 is void."""

    def find(self, name: str) -> int: ...
    def variable(self, name: str) -> int | None: ...
    def resolve(self, type_id: int) -> tuple[int, int]: ...
    def size(self, type_id: int) -> int: ...
    def array(self, type_id: int) -> tuple[int, int]: ...
    def target(self, type_id: int) -> int: ...
    def signed(self, type_id: int) -> bool: ...
    def members(self, type_id: int) -> tuple[Member, ...]: ...
    def member(self, type_id: int, name: str) -> Member: ...
    def enumerators(self, type_id: int) -> dict[int, str]: ...
    def name(self, type_id: int) -> str: ...


class Words(Protocol):
    """Memory, as typed values read it."""

    def word(self, vaddr: int, size: int = 8) -> int: ...
    def text(self, vaddr: int, limit: int = 256) -> str: ...


class Program(Protocol):
    """A program at one position: its types, its memory, its symbols."""

    @property
    def types(self) -> Types: ...
    @property
    def memory(self) -> Words: ...
    @property
    def symbols(self) -> Symbols: ...


@dataclass(frozen=True)
class Typed:
    """A value of a type: in memory at ``address``, or ``number`` itself."""

    kernel: Program
    type: int
    address: int | None = None
    number: int = 0
    field: Member | None = None

    @property
    def types(self) -> Types:
        return self.kernel.types

    def integer(self) -> int:
        """Return the value of a number or pointer; of an array, its address. Raises KernelError for a struct."""
        if self.address is None:
            return self.number
        type_id, kind = self.types.resolve(self.type)
        if kind == ARRAY:
            return self.address
        if kind in (STRUCT, UNION):
            raise KernelError(f"{self.types.name(self.type)} is not a number")
        size = self.types.size(type_id)
        if not 0 < size <= 8:
            raise KernelError(f"a value of {self.types.name(self.type)} has {size} bytes")
        if self.field is not None and self.field.bits:
            start = self.field.offset_bits % 8
            raw = self.kernel.memory.word(self.address, (start + self.field.bits + 7) // 8)
            return raw >> start & (1 << self.field.bits) - 1
        value = self.kernel.memory.word(self.address, size)
        if kind == INT and self.types.signed(type_id) and value >> (8 * size - 1):
            value -= 1 << 8 * size
        return value

    def member(self, name: str) -> Typed:
        """Return a member of a struct in memory."""
        type_id, _ = self.types.resolve(self.type)
        found = self.types.member(type_id, name)
        if self.address is None:
            raise KernelError(f"{self.types.name(self.type)} is not in memory")
        return Typed(self.kernel, found.type, self.address + found.offset_bits // 8, 0, found)

    def deref(self) -> Typed:
        """Return what a pointer points to."""
        type_id, kind = self.types.resolve(self.type)
        if kind == ARRAY:
            return Typed(self.kernel, self.types.array(type_id)[0], self.address)
        if kind != PTR:
            raise KernelError(f"{self.types.name(self.type)} is no pointer")
        return Typed(self.kernel, self.types.target(type_id), self.integer() & (1 << 64) - 1)

    def index(self, number: int) -> Typed:
        """Return an element of an array, or behind a pointer."""
        first = self.deref()
        assert first.address is not None
        return Typed(self.kernel, first.type, first.address + number * self.types.size(first.type))

    def python(self) -> Any:
        """Return the value as Python has it: numbers, texts for arrays of char, dicts for structs."""
        return self._python(0, iter(range(_MOST_VALUES)))

    def _python(self, depth: int, left: Iterator[int]) -> Any:
        if next(left, None) is None:
            return "…"
        type_id, kind = self.types.resolve(self.type)
        if kind in (STRUCT, UNION):
            if depth >= _DEPTH:
                return "{…}"
            return dict(self._members(type_id, depth, left))
        if kind == ARRAY and self.address is not None:
            element, count = self.types.array(type_id)
            if self.types.name(self.types.resolve(element)[0]) == "char":
                return self.kernel.memory.text(self.address, count)
            return [self.index(i)._python(depth + 1, left) for i in range(min(count, _MAX_SHOWN))]
        value = self.integer()
        if kind in (ENUM, ENUM64):
            return self.types.enumerators(type_id).get(value, value)
        return value

    def _members(self, type_id: int, depth: int, left: Iterator[int]) -> Iterator[tuple[str, Any]]:
        assert self.address is not None
        for each in self.types.members(type_id):
            if each.name:
                value = Typed(self.kernel, each.type, self.address + each.offset_bits // 8, 0, each)
                yield each.name, value._python(depth + 1, left)

    def show(self) -> str:
        """Return the value as a debugger shows it: pointers in hex with what they name, texts in quotes."""
        return self._show(0, iter(range(_MOST_VALUES)))

    def _show(self, depth: int, left: Iterator[int]) -> str:
        if next(left, None) is None:
            return "…"
        type_id, kind = self.types.resolve(self.type)
        if kind in (STRUCT, UNION):
            if depth >= _DEPTH or self.address is None:
                return "{…}"
            parts = []
            for m in self.types.members(type_id):
                if m.name:
                    each = Typed(self.kernel, m.type, self.address + m.offset_bits // 8, 0, m)
                    parts.append(f"{m.name} = {each._show(depth + 1, left)}")
            pad = "  " * (depth + 1)
            return "{\n" + "".join(f"{pad}{part},\n" for part in parts) + "  " * depth + "}"
        if kind == ARRAY:
            value = self._python(depth, left)
            if isinstance(value, str):
                return f'"{value}"'
            count = self.types.array(type_id)[1]
            shown = [self.index(i)._show(depth + 1, left) for i in range(min(count, 8))]
            return "{" + ", ".join(shown) + (", …}" if count > 8 else "}")
        value = self.integer()
        if kind == PTR:
            return self._show_pointer(type_id, value)
        if kind in (ENUM, ENUM64):
            return str(self.types.enumerators(type_id).get(value, value))
        return str(value)

    def _show_pointer(self, type_id: int, value: int) -> str:
        target = self.types.resolve(self.types.target(type_id))[0]
        name = self.kernel.symbols.format(value) if value else ""
        text = f"{value:#x}" + (f" <{name}>" if name else "")
        if value and target and self.types.name(target) == "char":
            try:
                return f'{text} "{self.kernel.memory.text(value, _TEXT)}"'
            except KernelError:
                return text
        return text


@dataclass(frozen=True)
class Pointer(Typed):
    """A pointer that no type of the kernel's stands for: ``stars`` levels above ``type``."""

    stars: int = 1

    def deref(self) -> Typed:
        if self.stars == 1:
            return Typed(self.kernel, self.type, self.number)
        return Pointer(
            self.kernel, self.type, None, self.kernel.memory.word(self.number), None, self.stars - 1
        )

    def integer(self) -> int:
        return self.number

    def python(self) -> Any:
        return self.number

    def show(self) -> str:
        name = self.kernel.symbols.format(self.number)
        text = f"{self.number:#x}" + (f" <{name}>" if name else "")
        if self.stars == 1 and self.types.name(self.type) == "char":
            return f'{text} "{self.kernel.memory.text(self.number, _TEXT)}"'
        return f"({self.types.name(self.type)} {'*' * self.stars}) {text}"

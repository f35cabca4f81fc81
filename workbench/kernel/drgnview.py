"""drgn on a machine at one position: its Program with our memory, our symbols, and the types of the kernel's BTF.

drgn is an extra (``pip install workbench[drgn]``). What it reads is the state that a replay stands at, so nothing races
with it, and the same question at the same position has the same answer. Spec: drgn's API reference.
"""

from __future__ import annotations

from typing import Any, Final

from workbench.errors import MissingToolError

from .btf import (
    ARRAY,
    CONST,
    ENUM,
    ENUM64,
    FLOAT,
    FUNC,
    FUNC_PROTO,
    FWD,
    INT,
    PTR,
    RESTRICT,
    STRUCT,
    TYPE_TAG,
    TYPEDEF,
    UNION,
    VOLATILE,
    Btf,
)
from .errors import KernelError
from .linux import Kernel
from .typed import VARIABLES

_EVERYWHERE: Final = (1 << 64) - 1
_DEEPEST: Final = 64
_WORDS: Final = {STRUCT: "struct", UNION: "union", ENUM: "enum", ENUM64: "enum"}


def program(kernel: Kernel) -> Any:
    """Return a ``drgn.Program`` that looks at a kernel; it is good for as long as the machine stands there.

    ``prog["init_task"].comm``, ``prog.type("struct module")``, ``prog.symbol(address)`` and what is built on them work.
    Threads and stack traces don't: they need a debug file, which ``prog.load_debug_info`` takes.

    Raises:
        MissingToolError: drgn is not installed. KernelError: the kernel has no page tables yet, or no BTF.
    """
    try:
        import drgn
    except ImportError:
        raise MissingToolError("this needs drgn: pip install 'workbench[drgn]'") from None
    flags = drgn.PlatformFlags.IS_64_BIT | drgn.PlatformFlags.IS_LITTLE_ENDIAN
    made = drgn.Program(drgn.Platform(drgn.Architecture.RISCV64, flags))
    memory = kernel.memory

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        try:
            return memory.read(address, count)
        except KernelError as error:
            raise drgn.FaultError(str(error), address) from None

    made.add_memory_segment(0, _EVERYWHERE, read, False)
    view = _View(drgn, made, kernel)
    made.register_symbol_finder("workbench", view.find_symbols, enable_index=0)
    made.register_type_finder("workbench", view.find_type, enable_index=0)
    made.register_object_finder("workbench", view.find_object, enable_index=0)
    return made


class _View:
    """Finds what drgn asks for; types are made when they are looked at, as most of a kernel's never are."""

    def __init__(self, drgn: Any, made: Any, kernel: Kernel) -> None:
        self._drgn, self._program, self._kernel = drgn, made, kernel
        self._btf: Btf = kernel.types
        self._types: dict[int, Any] = {}

    def find_symbols(self, made: Any, name: str | None, address: int | None, one: bool) -> list[Any]:
        """Return the symbols that a name or an address stands for."""
        symbols = self._kernel.symbols
        place = symbols.lookup(name) if name is not None else address
        if place is None:
            return []
        found = symbols.symbol_at(place)
        if found is None or (address is not None and name is not None and found.name != name):
            return []
        span = symbols.range_of(found.name) or (found.address, found.address + 1)
        binding, kind = self._drgn.SymbolBinding.GLOBAL, self._drgn.SymbolKind
        size = max(1, span[1] - span[0])
        kinds = {"func": kind.FUNC, "object": kind.OBJECT}
        shown = name if name is not None else found.name
        return [self._drgn.Symbol(shown, found.address, size, binding, kinds.get(found.kind, kind.UNKNOWN))]

    def find_type(self, made: Any, kinds: Any, name: str, filename: str | None) -> Any:
        """Return the type of a name, None where the kernel has none of these kinds."""
        kind = self._drgn.TypeKind
        for word, of in (("struct ", kind.STRUCT), ("union ", kind.UNION), ("enum ", kind.ENUM), ("", None)):
            if of is not None and of not in kinds:
                continue
            try:
                found = self._of(self._btf.find(word + name))
            except KernelError:
                continue
            if found.kind in kinds:
                return found
        return None

    def find_object(self, made: Any, name: str, flags: Any, filename: str | None) -> Any:
        """Return a variable whose type is known, or a function."""
        address = self._kernel.symbols.lookup(name)
        if address is None:
            return None
        of = self._btf.variable(name)
        if of is not None and self._drgn.FindObjectFlags.VARIABLE in flags:
            return self._drgn.Object(self._program, self._of(of), address=address)
        text = VARIABLES.get(name)
        if text is None or self._drgn.FindObjectFlags.VARIABLE not in flags:
            return None
        found = self._of(self._btf.find(text.rstrip(" *")))
        if text.endswith("*"):
            found = self._program.pointer_type(found)
        return self._drgn.Object(self._program, found, address=address)

    def _of(self, type_id: int, depth: int = 0) -> Any:
        if type_id not in self._types:
            if depth > _DEEPEST:
                raise KernelError(f"BTF: type {type_id} is of itself")
            self._types[type_id] = self._make(type_id, depth + 1)
        return self._types[type_id]

    def _make(self, type_id: int, depth: int) -> Any:
        made, btf, drgn = self._program, self._btf, self._drgn
        if type_id == 0:
            return made.void_type()
        kind, name, other = btf.kind(type_id), btf.tag(type_id), btf.target(type_id)
        if kind == INT:
            if name == "_Bool":
                return made.bool_type(name, btf.size(type_id))
            return made.int_type(name or "int", btf.size(type_id), btf.signed(type_id))
        if kind == FLOAT:
            return made.float_type(name or "float", btf.size(type_id))
        if kind in (STRUCT, UNION):
            make = made.struct_type if kind == STRUCT else made.union_type
            return make(name or None, btf.size(type_id), [self._member(m) for m in btf.members(type_id)])
        if kind in (ENUM, ENUM64):
            size = btf.size(type_id)
            values = [drgn.TypeEnumerator(text, value) for value, text in btf.enumerators(type_id).items()]
            signed = any(value.value < 0 for value in values)
            base = made.int_type(f"{'' if signed else 'u'}int{8 * size}_t", size, signed)
            return made.enum_type(name or None, base, values)
        if kind == FWD:
            return made.struct_type(name)
        if kind in (FUNC, FUNC_PROTO):
            return made.function_type(made.void_type(), ())
        if kind == ARRAY:
            element, count = btf.array(type_id)
            return made.array_type(self._of(element, depth), count)
        if kind == PTR:
            return made.pointer_type(self._of(other, depth))
        if kind == TYPEDEF:
            return made.typedef_type(name, self._of(other, depth))
        of = drgn.Qualifiers
        qualifiers = {CONST: of.CONST, VOLATILE: of.VOLATILE, RESTRICT: of.RESTRICT}
        if kind in qualifiers:
            below = self._of(other, depth)
            return below.qualified(below.qualifiers | qualifiers[kind])
        if kind == TYPE_TAG:
            return self._of(other, depth)
        raise KernelError(f"BTF: type {type_id} is of the kind {kind}, which is no type of C's")

    def _member(self, member: Any) -> Any:
        def look() -> Any:
            of = self._of(member.type)
            return self._drgn.Object(self._program, of, bit_field_size=member.bits) if member.bits else of

        return self._drgn.TypeMember(look, member.name or None, member.offset_bits)

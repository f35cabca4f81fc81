"""BTF, the kernel's own description of its types: sizes, members, offsets.

Spec: Linux, Documentation/bpf/btf.rst. The data comes from guest memory and is not trusted: every offset is checked.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from .errors import KernelError

MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("<HBBIIIII")
_TYPE: Final = struct.Struct("<III")
(INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT,
 DECL_TAG, TYPE_TAG, ENUM64) = range(1, 20)  # fmt: skip
#: Bytes behind a type's head: fixed, and for each of its vlen parts.
_EXTRA: Final = {
    INT: (4, 0), PTR: (0, 0), ARRAY: (12, 0), STRUCT: (0, 12), UNION: (0, 12), ENUM: (0, 8), FWD: (0, 0),
    TYPEDEF: (0, 0), VOLATILE: (0, 0), CONST: (0, 0), RESTRICT: (0, 0), FUNC: (0, 0), FUNC_PROTO: (0, 8), VAR: (4, 0),
    DATASEC: (0, 12), FLOAT: (0, 0), DECL_TAG: (4, 0), TYPE_TAG: (0, 0), ENUM64: (0, 12),
}  # fmt: skip
_MODIFIERS: Final = frozenset((TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG))
_MAX_TYPES: Final = 4_000_000
_MAX_DEPTH: Final = 32
_MAX_NAME: Final = 4096
POINTER_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or union: where it begins, in bits; ``bits`` is 0 unless it is a bit field."""

    name: str
    type: int
    offset_bits: int
    bits: int


class Btf:
    """The types of a kernel.

    Args:
        data: the section, with its header.

    Raises:
        KernelError: it is no BTF, or damaged.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise KernelError("BTF: too short for its header")
        magic, version, _, head, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
        if magic != MAGIC or version != 1:
            raise KernelError(f"BTF: magic {magic:#x} version {version}, expected {MAGIC:#x} version 1")
        if head < 24 or max(head + type_off + type_len, head + str_off + str_len) > len(data):
            raise KernelError("BTF: its sections reach behind its end")
        self._types = data[head + type_off : head + type_off + type_len]
        self._strings = data[head + str_off : head + str_off + str_len]
        self._offsets = self._index()
        self._named: dict[tuple[int, str], int] | None = None
        self._members: dict[int, tuple[Member, ...]] = {}

    def __len__(self) -> int:
        return len(self._offsets)

    def _index(self) -> list[int]:
        types, at, out = self._types, 0, [0]
        unpack, size = _TYPE.unpack_from, len(self._types)
        while at + 12 <= size:
            info = unpack(types, at)[1]
            extra = _EXTRA.get(info >> 24 & 31)
            if extra is None or len(out) > _MAX_TYPES:
                raise KernelError(f"BTF: type {len(out)} is of the unknown kind {info >> 24 & 31}")
            out.append(at)
            at += 12 + extra[0] + extra[1] * (info & 0xFFFF)
        if at != size:
            raise KernelError("BTF: its last type is cut short")
        return out

    def _head(self, type_id: int) -> tuple[int, int, int, int, int]:
        """Return name, kind, vlen, kind flag and size-or-type."""
        if not 0 < type_id < len(self._offsets):
            raise KernelError(f"BTF: no type {type_id}")
        name, info, other = _TYPE.unpack_from(self._types, self._offsets[type_id])
        return name, info >> 24 & 31, info & 0xFFFF, info >> 31, other

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset, offset + _MAX_NAME)
        if end < 0:
            raise KernelError(f"BTF: no string at {offset}")
        return self._strings[offset:end].decode("utf-8", "replace")

    def find(self, name: str) -> int:
        """Return the type of a name: ``struct x``, ``union x``, ``enum x``, or a typedef or base type.

        Raises:
            KernelError: there is none.
        """
        if self._named is None:
            self._named = {}
            for type_id in range(1, len(self._offsets)):
                at, kind, _, _, _ = self._head(type_id)
                if at and kind in (INT, STRUCT, UNION, ENUM, ENUM64, TYPEDEF, VAR, FLOAT):
                    kind = ENUM if kind == ENUM64 else INT if kind in (FLOAT, TYPEDEF) else kind
                    self._named.setdefault((kind, self._string(at)), type_id)
        word, _, rest = name.strip().partition(" ")
        kinds = {"struct": STRUCT, "union": UNION, "enum": ENUM}
        key = (kinds[word], rest.strip()) if word in kinds else (INT, name.strip())
        if key not in self._named:
            raise KernelError(f"the kernel's types have no {name!r}")
        return self._named[key]

    def variable(self, name: str) -> int | None:
        """Return the type of a global variable, None where the kernel does not tell."""
        if self._named is None:
            try:
                self.find("int")
            except KernelError:
                return None
        found = (self._named or {}).get((VAR, name))
        return None if found is None else self._head(found)[4]

    def resolve(self, type_id: int) -> tuple[int, int]:
        """Return a type without typedefs and qualifiers, and its kind (0 for void)."""
        for _ in range(_MAX_DEPTH):
            if type_id == 0:
                return 0, 0
            _, kind, _, _, other = self._head(type_id)
            if kind not in _MODIFIERS:
                return type_id, kind
            type_id = other
        raise KernelError(f"BTF: type {type_id} is of itself")

    def size(self, type_id: int) -> int:
        """Return a type's size in bytes; 0 where it has none."""
        count = 1
        for _ in range(_MAX_DEPTH):
            type_id, kind = self.resolve(type_id)
            if kind == ARRAY:
                type_id, n = self.array(type_id)
                count *= n
                continue
            if kind == PTR:
                return count * POINTER_BYTES
            if kind in (INT, STRUCT, UNION, ENUM, ENUM64, FLOAT):
                return count * self._head(type_id)[4]
            return 0
        raise KernelError("BTF: arrays of arrays without end")

    def array(self, type_id: int) -> tuple[int, int]:
        """Return an array's element type and count."""
        element, _, count = struct.unpack_from("<III", self._types, self._offsets[type_id] + 12)
        return element, count

    def kind(self, type_id: int) -> int:
        """Return a type's kind, as it stands there."""
        return self._head(type_id)[1]

    def tag(self, type_id: int) -> str:
        """Return a type's own name, empty where it has none."""
        return self._string(self._head(type_id)[0])

    def target(self, type_id: int) -> int:
        """Return what a pointer points to."""
        return self._head(type_id)[4]

    def signed(self, type_id: int) -> bool:
        """Tell whether an integer type has a sign."""
        return bool(struct.unpack_from("<I", self._types, self._offsets[type_id] + 12)[0] >> 24 & 1)

    def members(self, type_id: int) -> tuple[Member, ...]:
        """Return the members of a struct or union, in order."""
        if type_id not in self._members:
            _, kind, count, bitfields, _ = self._head(type_id)
            if kind not in (STRUCT, UNION):
                raise KernelError(f"{self.name(type_id)} has no members")
            at = self._offsets[type_id] + 12
            out = []
            for i in range(count):
                name, of, offset = _TYPE.unpack_from(self._types, at + 12 * i)
                place, bits = (offset & 0xFFFFFF, offset >> 24) if bitfields else (offset, 0)
                out.append(Member(self._string(name), of, place, bits))
            self._members[type_id] = tuple(out)
        return self._members[type_id]

    def member(self, type_id: int, name: str) -> Member:
        """Return a member by name, looked for in nameless members too; its offset is from the outer struct."""
        found = self._member(type_id, name, set())
        if found is None:
            raise KernelError(f"{self.name(type_id)} has no member {name!r}")
        return found

    def _member(self, type_id: int, name: str, without: set[int]) -> Member | None:
        """Look into each struct once: one that holds itself has no more to offer the second time."""
        without.add(type_id)
        for each in self.members(type_id):
            if each.name == name:
                return each
        for each in self.members(type_id):
            inner, kind = self.resolve(each.type)
            if each.name or kind not in (STRUCT, UNION) or inner in without or len(without) > _MAX_DEPTH:
                continue
            found = self._member(inner, name, without)
            if found is not None:
                return Member(name, found.type, found.offset_bits + each.offset_bits, found.bits)
        return None

    def offset(self, struct_name: str, path: str) -> int:
        """Return the offset of a member in bytes: ``offset("task_struct", "thread.ra")``."""
        type_id, bits = self.find(f"struct {struct_name}"), 0
        for name in path.split("."):
            type_id, _ = self.resolve(type_id)
            found = self.member(type_id, name)
            bits += found.offset_bits
            type_id = found.type
        return bits // 8

    def enumerators(self, type_id: int) -> dict[int, str]:
        """Return the names of an enum's values."""
        _, kind, count, is_signed, _ = self._head(type_id)
        at = self._offsets[type_id] + 12
        out: dict[int, str] = {}
        for i in range(count):
            if kind == ENUM64:
                name, low, high = _TYPE.unpack_from(self._types, at + 12 * i)
                value = low | high << 32
            else:
                name, value = struct.unpack_from("<Ii" if is_signed else "<II", self._types, at + 8 * i)
            out.setdefault(value, self._string(name))
        return out

    def name(self, type_id: int, depth: int = 0) -> str:
        """Return a type as C writes it, as far as it has a name."""
        if type_id == 0:
            return "void"
        if depth > _MAX_DEPTH:
            raise KernelError(f"BTF: type {type_id} is of itself")
        at, kind, _, _, other = self._head(type_id)
        text = self._string(at)
        if kind in (STRUCT, UNION, ENUM, ENUM64):
            return f"{ {STRUCT: 'struct', UNION: 'union'}.get(kind, 'enum') } {text or '{…}'}"
        if kind == PTR:
            _, below = self.resolve(other)
            return "function *" if below == FUNC_PROTO else f"{self.name(other, depth + 1)} *"
        if kind == ARRAY:
            element, count = self.array(type_id)
            return f"{self.name(element, depth + 1)}[{count}]"
        return text or (self.name(other, depth + 1) if kind in _MODIFIERS else "?")

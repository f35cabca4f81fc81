"""The types of a debug file, by the same questions as a kernel's BTF answers: a type is the offset of its entry."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

from workbench.kernel.btf import (
    ARRAY,
    ENUM,
    FLOAT,
    FUNC_PROTO,
    INT,
    POINTER_BYTES,
    PTR,
    STRUCT,
    UNION,
    Member,
)

from .errors import DwarfError
from .file import DebugFile, children_of, name_of, type_of

_KINDS: Final = {
    "DW_TAG_base_type": INT,
    "DW_TAG_pointer_type": PTR,
    "DW_TAG_array_type": ARRAY,
    "DW_TAG_structure_type": STRUCT,
    "DW_TAG_union_type": UNION,
    "DW_TAG_enumeration_type": ENUM,
    "DW_TAG_subroutine_type": FUNC_PROTO,
}
_MODIFIERS: Final = (
    "DW_TAG_typedef",
    "DW_TAG_const_type",
    "DW_TAG_volatile_type",
    "DW_TAG_restrict_type",
    "DW_TAG_atomic_type",
)
_PLAIN_TAGS: Final = ("DW_TAG_base_type", "DW_TAG_typedef")
_WORDS: Final = {STRUCT: "struct", UNION: "union", ENUM: "enum"}
_SIGNED: Final = (5, 6, 13)  # DW_ATE_signed, signed_char, signed_fixed
_FLOAT: Final = 4  # DW_ATE_float
_MAX_DEPTH: Final = 32


class DwarfTypes:
    """The types of one debug file.

    Args:
        file: which.
    """

    def __init__(self, file: DebugFile) -> None:
        self._file = file
        self._members: dict[int, tuple[Member, ...]] = {}

    def _die(self, type_id: int) -> Any:
        return self._file.guard(lambda: self._file.dwarf.get_DIE_from_refaddr(type_id))

    def of(self, die: Any) -> int:
        """Return the type of an entry, 0 for void."""
        found = self._file.guard(lambda: type_of(die))
        return 0 if found is None else int(found.offset)

    @cached_property
    def _named(self) -> dict[str, int]:
        if self._file.large:
            return {}

        def read() -> dict[str, int]:
            out: dict[str, int] = {}
            for unit in self._file.units():
                for die in children_of(unit.get_top_DIE()):
                    if die.tag in _KINDS or die.tag == "DW_TAG_typedef":
                        name = name_of(die)
                        if name and "DW_AT_declaration" not in die.attributes:
                            word = _WORDS.get(_KINDS.get(die.tag, 0))
                            out.setdefault(f"{word} {name}" if word else name, die.offset)
            return out

        return self._file.guard(read)

    def _defined(self, name: str) -> int | None:
        """Return the type of a name with single spaces, or None."""
        if self._file.large and name not in self._named:
            word, _, bare = name.partition(" ")
            kind = next((kind for kind, each in _WORDS.items() if each == word), None)
            tags = [tag for tag, each in _KINDS.items() if each == kind] if kind else _PLAIN_TAGS
            die = self._file.named(tags, bare if kind else name)
            if die is not None:
                self._named[name] = int(die.offset)
        return self._named.get(name)

    def find(self, name: str) -> int:
        """Return the type of a name: ``struct x``, ``union x``, ``enum x``, or a typedef or base type.

        Raises:
            DwarfError: there is none.
        """
        found = self._defined(" ".join(name.split()))
        if found is None:
            raise DwarfError(f"the debug information has no type {name!r}")
        return found

    def variable(self, name: str) -> int | None:
        """Return the type of a global variable, or None."""
        die = self._file.globals.get(name)
        return None if die is None else self.of(die)

    def resolve(self, type_id: int) -> tuple[int, int]:
        """Return a type without typedefs and qualifiers, and its kind (0 for void)."""
        for _ in range(_MAX_DEPTH):
            if type_id == 0:
                return 0, 0
            die = self._die(type_id)
            if die.tag not in _MODIFIERS:
                return self._complete(die), self._kind(die)
            type_id = self.of(die)
        raise DwarfError("a type is of itself")

    def _kind(self, die: Any) -> int:
        kind = _KINDS.get(die.tag, 0)
        encoding = die.attributes.get("DW_AT_encoding")
        return FLOAT if kind == INT and encoding is not None and encoding.value == _FLOAT else kind

    def _complete(self, die: Any) -> int:
        """Return the type itself, of one that a unit only declares."""
        if "DW_AT_declaration" in die.attributes:
            word = _WORDS.get(_KINDS.get(die.tag, 0), "struct")
            found = self._defined(f"{word} {name_of(die)}") if name_of(die) else None
            return int(die.offset) if found is None else found
        return int(die.offset)

    def size(self, type_id: int) -> int:
        """Return a type's size in bytes; 0 where it has none."""
        count = 1
        for _ in range(_MAX_DEPTH):
            type_id, kind = self.resolve(type_id)
            if kind != ARRAY:
                return count * self._own_size(type_id, kind)
            type_id, more = self.array(type_id)
            count *= more
        raise DwarfError("arrays of arrays without end")

    def _own_size(self, type_id: int, kind: int) -> int:
        if not kind:
            return 0
        found = self._die(type_id).attributes.get("DW_AT_byte_size")
        if found is not None:
            return int(found.value)
        return POINTER_BYTES if kind == PTR else 0

    def array(self, type_id: int) -> tuple[int, int]:
        """Return an array's element type and count, of all its dimensions together."""

        def read() -> tuple[int, int]:
            die, count = self._die(type_id), 1
            for child in children_of(die):
                if child.tag == "DW_TAG_subrange_type":
                    bound, number = (
                        child.attributes.get("DW_AT_upper_bound"),
                        child.attributes.get("DW_AT_count"),
                    )
                    known = (
                        (bound.value + 1) if bound is not None else number.value if number is not None else 0
                    )
                    count *= known if isinstance(known, int) else 0
            return self.of(die), count

        return self._file.guard(read)

    def target(self, type_id: int) -> int:
        """Return what a pointer points to."""
        return self.of(self._die(type_id))

    def signed(self, type_id: int) -> bool:
        """Tell whether an integer type has a sign."""
        encoding = self._die(type_id).attributes.get("DW_AT_encoding")
        return encoding is not None and encoding.value in _SIGNED

    def members(self, type_id: int) -> tuple[Member, ...]:
        """Return the members of a struct or union, in order."""
        if type_id not in self._members:
            self._members[type_id] = self._file.guard(lambda: self._read_members(type_id))
        return self._members[type_id]

    def _read_members(self, type_id: int) -> tuple[Member, ...]:
        out = []
        for die in children_of(self._die(type_id)):
            if die.tag != "DW_TAG_member":
                continue
            attributes = die.attributes
            at = attributes.get("DW_AT_data_bit_offset")
            offset = attributes.get("DW_AT_data_member_location")
            bits = attributes.get("DW_AT_bit_size")
            place = at.value if at is not None else 8 * offset.value if offset is not None else 0
            out.append(Member(name_of(die), self.of(die), place, bits.value if bits is not None else 0))
        return tuple(out)

    def member(self, type_id: int, name: str, depth: int = 0) -> Member:
        """Return a member by name, looked for in nameless members too; its offset is from the outer struct."""
        for each in self.members(type_id):
            if each.name == name:
                return each
        for each in self.members(type_id):
            inner, kind = self.resolve(each.type)
            if not each.name and kind in (STRUCT, UNION) and depth < _MAX_DEPTH:
                try:
                    found = self.member(inner, name, depth + 1)
                except DwarfError:
                    continue
                return Member(name, found.type, found.offset_bits + each.offset_bits, found.bits)
        raise DwarfError(f"{self.name(type_id)} has no member {name!r}")

    def enumerators(self, type_id: int) -> dict[int, str]:
        """Return the names of an enum's values."""

        def read() -> dict[int, str]:
            children = children_of(self._die(type_id))
            return {
                child.attributes["DW_AT_const_value"].value: name_of(child)
                for child in children
                if child.tag == "DW_TAG_enumerator"
            }

        return self._file.guard(read)

    def name(self, type_id: int, depth: int = 0) -> str:
        """Return a type as C writes it, as far as it has a name."""
        if type_id == 0:
            return "void"
        if depth > _MAX_DEPTH:
            raise DwarfError("a type is of itself")
        die = self._die(type_id)
        kind, text = _KINDS.get(die.tag, 0), name_of(die)
        if kind in _WORDS:
            return f"{_WORDS[kind]} {text or '{…}'}"
        if kind == PTR:
            below = self.of(die)
            if self.resolve(below)[1] == FUNC_PROTO:
                return "function *"
            return f"{self.name(below, depth + 1)} *"
        if kind == ARRAY:
            element, count = self.array(type_id)
            return f"{self.name(element, depth + 1)}[{count}]"
        if die.tag in _MODIFIERS and not text:
            word = {"DW_TAG_const_type": "const ", "DW_TAG_volatile_type": "volatile "}.get(die.tag, "")
            return word + self.name(self.of(die), depth + 1)
        return text or "?"

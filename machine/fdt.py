"""Flattened device trees (version 17), written and read.

Spec: Devicetree Specification 0.4, chapter 5.
"""

from __future__ import annotations

import struct
from dataclasses import field
from typing import Union

from machine.errors import ImageError
from machine.values import valueclass

MAGIC = 0xD00DFEED
BEGIN_NODE, END_NODE, PROP, NOP, END = 1, 2, 3, 4, 9
DEPTH_MAX = 64
#: A property's value: text, texts, 32-bit cells, raw bytes, or None for one that is there without a value.
Value = Union[str, int, bytes, None, "list[str]", "list[int]"]


@valueclass()
class Node:
    """A node: its name (with unit address), properties and children, in the order they are written.

    ``parent`` names the path under which a board puts it, for nodes that devices hand out.
    """

    name: str
    props: dict[str, Value] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    parent: str = "/soc"

    def add(self, child: Node) -> Node:
        """Append a child and return it."""
        self.children.append(child)
        return child

    def find(self, path: str) -> Node | None:
        """Return the node at ``path`` (``/soc/serial@10000000``) below this root, or None."""
        node: Node | None = self
        for part in path.strip("/").split("/"):
            if part and node is not None:
                node = next((c for c in node.children if c.name == part), None)
        return node


def cells64(*values: int) -> list[int]:
    """Return two cells for each 64-bit value."""
    return [half for value in values for half in (value >> 32 & 0xFFFF_FFFF, value & 0xFFFF_FFFF)]


def encode_value(value: Value) -> bytes:
    """Return a property's value as it stands in the tree."""
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode() + b"\0"
    if isinstance(value, int):
        return struct.pack(">I", value)
    return b"".join(v.encode() + b"\0" if isinstance(v, str) else struct.pack(">I", v) for v in value)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def write_fdt(root: Node, boot_hart: int = 0, reservations: bytes = b"") -> bytes:
    """Return the tree as a flattened blob, a multiple of 8 bytes long.

    Args:
        root: the root node; its name is ignored.
        boot_hart: the id of the hart that boots.
        reservations: pairs of 64-bit address and size, without the terminating pair.
    """
    strings = bytearray()
    offsets: dict[str, int] = {}
    out: list[bytes] = []

    def emit(node: Node, name: str) -> None:
        out.append(struct.pack(">I", BEGIN_NODE) + _pad(name.encode() + b"\0"))
        for key, value in node.props.items():
            if key not in offsets:
                offsets[key] = len(strings)
                strings.extend(key.encode() + b"\0")
            data = encode_value(value)
            out.append(struct.pack(">III", PROP, len(data), offsets[key]) + _pad(data))
        for child in node.children:
            emit(child, child.name)
        out.append(struct.pack(">I", END_NODE))

    emit(root, "")
    out.append(struct.pack(">I", END))
    structure = b"".join(out)
    header_bytes = 40
    reserve = reservations + bytes(16)
    at_struct = header_bytes + len(reserve)
    at_strings = at_struct + len(structure)
    total = at_strings + len(strings)
    total += -total % 8
    header = struct.pack(
        ">10I",
        MAGIC,
        total,
        at_struct,
        at_strings,
        header_bytes,
        17,
        16,
        boot_hart,
        len(strings),
        len(structure),
    )
    blob = header + reserve + structure + bytes(strings)
    return blob + bytes(total - len(blob))


def parse_fdt(blob: bytes, what: str = "dtb") -> tuple[Node, bytes]:
    """Return a flattened tree's root, its properties as raw bytes, and its memory reservations.

    Raises:
        ImageError: the blob is not a flattened tree of version 16 or 17, or is damaged; ``what`` names it.
    """
    try:
        return _Parser(blob).parse()
    except (ValueError, IndexError, struct.error) as error:
        raise ImageError(f"{what}: not a usable device tree ({error}); compile it with dtc -O dtb") from None


class _Parser:
    def __init__(self, blob: bytes) -> None:
        if len(blob) < 40:
            raise ValueError("the header is cut off")
        fields = struct.unpack_from(">10I", blob)
        if fields[0] != MAGIC:
            raise ValueError(f"magic {fields[0]:#x}, expected {MAGIC:#x}")
        total, at_struct, at_strings, self.at_reserve = fields[1:5]
        strings_bytes, struct_bytes = fields[8:10]
        if fields[6] > 17 or fields[5] < 17:
            raise ValueError(f"version {fields[5]}, expected 17")
        if total > len(blob) or at_struct + struct_bytes > total or at_strings + strings_bytes > total:
            raise ValueError("a block lies outside of the file")
        self.blob = blob[:total]
        self.data = blob[at_struct : at_struct + struct_bytes]
        self.strings = blob[at_strings : at_strings + strings_bytes]
        self.at = 0

    def _word(self) -> int:
        value: int = struct.unpack_from(">I", self.data, self.at)[0]
        self.at += 4
        return value

    def _text(self, data: bytes, start: int) -> str:
        return data[start : data.index(b"\0", start)].decode("ascii")

    def parse(self) -> tuple[Node, bytes]:
        reservations = b""
        for at in range(self.at_reserve, len(self.blob), 16):
            pair = self.blob[at : at + 16]
            if len(pair) < 16:
                raise ValueError("the memory reservations do not end")
            if pair == bytes(16):
                break
            reservations += pair
        word = self._word()
        while word == NOP:
            word = self._word()
        if word != BEGIN_NODE:
            raise ValueError("the first node is missing")
        return self._node(0), reservations

    def _node(self, depth: int) -> Node:
        if depth > DEPTH_MAX:
            raise ValueError(f"nodes nest deeper than {DEPTH_MAX}")
        node = Node(self._text(self.data, self.at))
        self.at += len(node.name) + 1
        self.at += -self.at % 4
        while (word := self._word()) != END_NODE:
            if word == BEGIN_NODE:
                node.add(self._node(depth + 1))
            elif word == PROP:
                size, name = self._word(), self._word()
                if self.at + size > len(self.data):
                    raise ValueError("a property lies outside of its block")
                node.props[self._text(self.strings, name)] = self.data[self.at : self.at + size]
                self.at += size + -size % 4
            elif word != NOP:
                raise ValueError(f"token {word:#x}")
        return node

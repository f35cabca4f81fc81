"""Registers and memory: ``g G p P m M X``. A write opens a branch of the run, the recorded one stays as it is."""

from __future__ import annotations

from typing import Any

from workbench.gdbstub.link import (
    ERROR_ARGUMENT,
    ERROR_MEMORY,
    MAX_MEMORY_BYTES,
    BadPacket,
    Link,
    Meaning,
    bytes_of,
    number_of,
    pair_of,
)
from workbench.gdbstub.target import encode
from workbench.peek import PAGE


class Memory:
    """The state of the machine, read and written.

    Args:
        link: the connection.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def packets(self) -> dict[str, Meaning]:
        """Return the meanings by the packet's letter."""
        return {
            "g": self.read_registers,
            "G": self.write_registers,
            "p": self.read_register,
            "P": self.write_register,
            "m": self.read_memory,
            "M": self.write_memory,
            "X": self.write_binary,
        }

    def read_registers(self, text: str) -> bytes:
        """``g``: the general registers, pc and the floating-point registers."""
        return b"".join(
            encode(register, self._value(register.engine)) for register in self._link.target.general
        )

    def write_registers(self, text: str) -> bytes:
        """``G values``: those that differ are written."""
        data = bytes_of(text)
        at, changes = 0, []
        for register in self._link.target.general:
            size = register.bits // 8
            if at + size > len(data):
                break
            value = int.from_bytes(data[at : at + size], "little")
            at += size
            if value != self._value(register.engine):
                changes.append((register.engine, value))
        if at != len(data):
            raise BadPacket
        for name, value in changes:
            self._write_register(name, value)
        return b"OK"

    def read_register(self, text: str) -> bytes:
        """``p n``: one register, x's for one that has no value now."""
        register = self._link.target.by_number.get(number_of(text))
        if register is None:
            return ERROR_ARGUMENT
        try:
            return encode(register, self._value(register.engine))
        except (ValueError, KeyError):
            return b"x" * (register.bits // 4)

    def write_register(self, text: str) -> bytes:
        """``P n=value``: one register."""
        number, equals, value = text.partition("=")
        register = self._link.target.by_number.get(number_of(number))
        data = bytes_of(value)
        if register is None or not equals or len(data) != register.bits // 8:
            return ERROR_ARGUMENT
        self._write_register(register.engine, int.from_bytes(data, "little"))
        return b"OK"

    def _write_register(self, name: str, value: int) -> None:
        if name == "x0":
            return
        session = self._link.session
        session.hart = self._link.hart
        self._told(session.write_reg(name, value))

    def _value(self, source: str) -> int:
        engine = self._link.session.board.engine
        return 0 if source == "x0" else int(engine.get_reg(self._link.hart, source))

    def read_memory(self, text: str) -> bytes:
        """``m addr,length``: as the selected hart maps it, or by its page tables; as much as is readable."""
        address, length = pair_of(text)
        self._link.session.hart = self._link.hart
        data = self._link.peek.read(address, min(length, MAX_MEMORY_BYTES), self._link.physical)
        return data.hex().encode() if data or length == 0 else ERROR_MEMORY

    def write_memory(self, text: str) -> bytes:
        """``M addr,length:hex``."""
        span, colon, digits = text.partition(":")
        if not colon:
            raise BadPacket
        return self._write(span, bytes_of(digits))

    def write_binary(self, text: str) -> bytes:
        """``X addr,length:bytes``; of no bytes, a question whether this packet is known."""
        span, colon, data = text.partition(":")
        if not colon:
            raise BadPacket
        return self._write(span, data.encode("latin-1"))

    def _write(self, span: str, data: bytes) -> bytes:
        address, length = pair_of(span)
        if length != len(data):
            raise BadPacket
        if not data:
            return b"OK"
        link = self._link
        link.session.hart = link.hart
        if len(link.peek.read(address, length, link.physical)) != length:
            return ERROR_MEMORY
        pages = range(address, address + length, PAGE)
        if not link.physical and all(link.session.translate(page) is not None for page in pages):
            self._told(link.session.write_mem(address, data))  # one branch for it all
            return b"OK"
        for at, part in self._pieces(address, data):
            self._told(link.session.write_phys(at, part))
        return b"OK"

    def _pieces(self, address: int, data: bytes) -> list[tuple[int, bytes]]:
        """Return the parts of a write by their physical addresses. Raises BadPacket: a part has none."""
        if self._link.physical:
            return [(address, data)]
        out = []
        at = 0
        while at < len(data):
            here = address + at
            size = min(len(data) - at, PAGE - here % PAGE)
            paddr = self._link.peek.paddr(here)
            if paddr is None:
                raise BadPacket
            out.append((paddr, data[at : at + size]))
            at += size
        return out

    def _told(self, written: Any) -> None:
        self._link.tell(str(written))

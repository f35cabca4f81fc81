"""A device's registers as data: offset, width, access, reset value, bit fields, what reading and writing do.

::

    class Gadget(Device):
        control = Reg(0x00, fields=(ENABLE, MODE))          # stored, readable, writable
        status = Reg(0x04, access="ro", stored=False)       # computed

        @status.on_read
        def _read_status(self) -> int: ...

        @control.on_write
        def _write_control(self, value: int) -> None: ...   # replaces the plain store

A guest that misses (an offset with nothing, a width that a register has not) reads 0 and writes nothing; the
miss is a line in the guest-error log, never an exception. Bits outside the declared fields are reserved: they
read as zeros, and writing a one there is a guest error too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar, TypeVar

from machine.hw.state import Part, Saved, parse_int
from machine.values import valueclass

F = TypeVar("F", bound=Callable[..., Any])


@valueclass(frozen=True, slots=True)
class Field:
    """Bits ``lo`` to ``lo + bits - 1`` of a register."""

    name: str
    lo: int
    bits: int = 1
    access: str = "rw"
    doc: str = ""
    #: The field's bits, in place.
    mask: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", ((1 << self.bits) - 1) << self.lo)

    def get(self, value: int) -> int:
        """Return the field's value out of a register's."""
        return (value >> self.lo) & ((1 << self.bits) - 1)


class _Register:
    """What single registers and banks have in common."""

    def __init__(
        self,
        offset: int,
        *,
        size: int = 4,
        access: str = "rw",
        reset: int = 0,
        fields: tuple[Field, ...] = (),
        sizes: tuple[int, ...] = (),
        stored: bool = True,
        doc: str = "",
    ) -> None:
        if access not in ("rw", "ro", "wo"):
            raise ValueError(f"access {access!r} is not rw, ro or wo")
        self.offset = offset
        self.size = size
        self.bits = 8 * size
        self.access = access
        self.reset_value = reset
        self.fields = fields
        self.sizes = sizes or ((4, 8) if size == 8 else (size,))
        self.stored = stored
        self.doc = doc
        whole = (1 << self.bits) - 1
        self.reserved = whole & ~sum(f.mask for f in fields) if fields else 0
        self.writable = sum(f.mask for f in fields if f.access != "ro") if fields else whole
        self.reader: Callable[..., int] | None = None
        self.writer: Callable[..., None] | None = None

    def on_read(self, function: F) -> F:
        """Take the method that computes what is read: ``(self)``, in a bank ``(self, index)``."""
        self.reader = function
        return function

    def on_write(self, function: F) -> F:
        """Take the method that replaces the store: ``(self, value)``, in a bank ``(self, index, value)``."""
        self.writer = function
        return function


class Reg(_Register, Saved[int]):
    """One register of ``size`` bytes at ``offset``.

    Args:
        access: ``rw``, ``ro`` or ``wo``.
        fields: bit fields; bits outside of them are reserved. None: all bits are one unnamed field.
        sizes: widths of access in bytes that are allowed; an 8-byte register also takes its 4-byte halves.
        stored: False: there is no value behind it, only callbacks.
    """

    def initial(self) -> int:
        return self.reset_value

    def parse(self, data: Any, where: str) -> int:
        return parse_int(data, self.bits, where)


class RegBank(_Register, Saved[list[int]]):
    """``count`` equal registers, ``stride`` bytes apart (their size when 0)."""

    def __init__(self, offset: int, *, count: int, stride: int = 0, **options: Any) -> None:
        super().__init__(offset, **options)
        self.count = count
        self.stride = stride or self.size

    def initial(self) -> list[int]:
        return [self.reset_value] * self.count

    def dump(self, value: list[int]) -> Any:
        return list(value)

    def parse(self, data: Any, where: str) -> list[int]:
        if not isinstance(data, list) or len(data) != self.count:
            raise ValueError(f"state {where}: expected {self.count} integers")
        return [parse_int(item, self.bits, where) for item in data]


class Window:
    """A range of ``size`` bytes with accesses of any width, such as a configuration space. Holds no state."""

    def __init__(self, offset: int, size: int, doc: str = "") -> None:
        self.offset = offset
        self.size = size
        self.doc = doc
        self.reader: Callable[[Any, int, int], int] | None = None
        self.writer: Callable[[Any, int, int, int], None] | None = None

    def on_read(self, function: F) -> F:
        """Take the method that reads: ``(self, offset in the window, size)``."""
        self.reader = function
        return function

    def on_write(self, function: F) -> F:
        """Take the method that writes: ``(self, offset in the window, size, value)``."""
        self.writer = function
        return function


class RegisterFile(Part):
    """A part with registers: dispatches the guest's accesses to its declarations."""

    name: str
    #: A register takes accesses of every width, of which it uses as many bytes as it has.
    any_width: ClassVar[bool] = False
    _readable: ClassVar[dict[int, tuple[Reg | RegBank, int]]] = {}
    _writable: ClassVar[dict[int, tuple[Reg | RegBank, int]]] = {}
    _windows: ClassVar[tuple[Window, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        readable: dict[int, tuple[Reg | RegBank, int]] = {}
        writable: dict[int, tuple[Reg | RegBank, int]] = {}
        for reg in registers_of(cls):
            count, stride = (reg.count, reg.stride) if isinstance(reg, RegBank) else (1, reg.size)
            for slots, other in ((readable, "wo"), (writable, "ro")):
                if reg.access == other:
                    continue
                for index in range(count):
                    at = reg.offset + index * stride
                    if at in slots:
                        raise TypeError(
                            f"{cls.__name__}: {reg.name} and {slots[at][0].name} are both at {at:#x}"
                        )
                    slots[at] = (reg, index)
        cls._readable = readable
        cls._writable = writable
        cls._windows = tuple(w for w in vars(cls).values() if isinstance(w, Window)) or cls._windows

    def guest_error(self, text: str) -> None:
        """Note a guest's mistake. It has no effect on the machine."""

    def read(self, offset: int, size: int) -> int:
        """Return what the guest reads: ``size`` bytes (1, 2, 4, 8) at ``offset``, 0 where it may not."""
        slot = self._readable.get(offset)
        if slot is None:
            return self._read_other(offset, size)
        reg, index = slot
        if size not in reg.sizes and not self.any_width:
            self.guest_error(f"read of {size} bytes at {offset:#x} ({reg.name})")
            return 0
        return self._value(reg, index) & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Take what the guest writes; see ``read``."""
        slot = self._writable.get(offset)
        if slot is None:
            self._write_other(offset, size, value)
            return
        reg, index = slot
        if size not in reg.sizes and not self.any_width:
            self.guest_error(f"write of {size} bytes at {offset:#x} ({reg.name})")
            return
        if size != reg.size and reg.size == 8:
            value |= self._value(reg, index) & ~0xFFFF_FFFF
        self._store(reg, index, value)

    def _value(self, reg: Reg | RegBank, index: int) -> int:
        if isinstance(reg, RegBank):
            if reg.reader is not None:
                return reg.reader(self, index)
            values: list[int] = getattr(self, reg.name)
            return values[index]
        if reg.reader is not None:
            return reg.reader(self)
        value: int = getattr(self, reg.name) if reg.stored else 0
        return value

    def _store(self, reg: Reg | RegBank, index: int, value: int) -> None:
        if value & reg.reserved:
            self.guest_error(f"write of {value:#x} to {reg.name}: reserved bits {value & reg.reserved:#x}")
        value &= reg.writable
        if isinstance(reg, RegBank):
            if reg.writer is not None:
                reg.writer(self, index, value)
            elif reg.stored:
                getattr(self, reg.name)[index] = value
        elif reg.writer is not None:
            reg.writer(self, value)
        elif reg.stored:
            kept = getattr(self, reg.name) & ~reg.writable
            setattr(self, reg.name, kept | value)

    def _read_other(self, offset: int, size: int) -> int:
        for window in self._windows:
            if window.offset <= offset and offset + size <= window.offset + window.size and window.reader:
                return window.reader(self, offset - window.offset, size) & ((1 << 8 * size) - 1)
        high = self._readable.get(offset - 4)
        if size == 4 and high is not None and high[0].size == 8:
            return self._value(*high) >> 32
        self.guest_error(f"read of {size} bytes at {offset:#x}: nothing to read there")
        return 0

    def _write_other(self, offset: int, size: int, value: int) -> None:
        for window in self._windows:
            if window.offset <= offset and offset + size <= window.offset + window.size and window.writer:
                window.writer(self, offset - window.offset, size, value)
                return
        high = self._writable.get(offset - 4)
        if size == 4 and high is not None and high[0].size == 8:
            reg, index = high
            self._store(reg, index, value << 32 | self._value(reg, index) & 0xFFFF_FFFF)
            return
        self.guest_error(f"write of {size} bytes at {offset:#x}: nothing to write there")


def registers_of(cls: type) -> list[Reg | RegBank]:
    """Return the registers that a class declares, its bases' first."""
    found: dict[str, Reg | RegBank] = {}
    for base in reversed(cls.__mro__):
        found.update({k: v for k, v in vars(base).items() if isinstance(v, Reg | RegBank)})
    return list(found.values())


def describe(cls: type[RegisterFile]) -> str:
    """Return the register table of a device class as Markdown, for the generated documentation."""
    lines = [
        "| offset | register | size | access | reset | meaning |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for reg in sorted(registers_of(cls), key=lambda r: r.offset):
        times = f" × {reg.count} every {reg.stride:#x}" if isinstance(reg, RegBank) else ""
        bits = "; ".join(
            f"{f.name}[{f.lo + f.bits - 1}:{f.lo}]" if f.bits > 1 else f"{f.name}[{f.lo}]" for f in reg.fields
        )
        meaning = ". ".join(text for text in (reg.doc, bits) if text)
        lines.append(
            f"| {reg.offset:#x}{times} | {reg.name} | {reg.size} | {reg.access} "
            f"| {reg.reset_value:#x} | {meaning} |"
        )
    return "\n".join(lines) + "\n"

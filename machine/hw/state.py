"""State declared once: what a part of the machine remembers, saved and restored from the declaration.

A declaration is a class attribute; the value lives in the instance under the same name::

    class Counter(Part):
        count = Int(32, reset=7)
        seen = ByteString(max_bytes=64)

``reset`` gives every declared value its initial one, ``save_state`` returns a JSON-able dict in the order of
declaration, ``load_state`` takes only such a dict and checks every bound.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Self, TypeVar, overload

T = TypeVar("T")


class Saved(Generic[T]):
    """A declared value. Not a data descriptor: instances hold the value as a plain attribute."""

    name: str = ""
    stored: bool = True

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, obj: None, owner: type) -> Self: ...
    @overload
    def __get__(self, obj: object, owner: type) -> T: ...
    def __get__(self, obj: object, owner: type) -> Self | T:
        if obj is None:
            return self
        raise AttributeError(
            f"{type(obj).__name__}.{self.name} has no value: it is not stored, or before reset"
        )

    def initial(self) -> T:
        """Return the value after reset."""
        raise NotImplementedError

    def dump(self, value: T) -> Any:
        """Return the value as JSON-able data."""
        return value

    def parse(self, data: Any, where: str) -> T:
        """Return the value of ``dump``'s data. Raises ValueError for data that is not."""
        raise NotImplementedError


def parse_int(data: Any, bits: int, where: str) -> int:
    """Return ``data`` if it is an integer of at most ``bits`` bits, without sign.

    Raises:
        ValueError: it is not; ``where`` names it in the message.
    """
    if type(data) is not int or not 0 <= data < 1 << bits:
        raise ValueError(f"state {where}: expected an unsigned integer of {bits} bits")
    return data


class Int(Saved[int]):
    """An unsigned integer of ``bits`` bits."""

    def __init__(self, bits: int = 64, reset: int = 0) -> None:
        self.bits = bits
        self.reset_value = reset

    def initial(self) -> int:
        return self.reset_value

    def parse(self, data: Any, where: str) -> int:
        return parse_int(data, self.bits, where)


class Ints(Saved[list[int]]):
    """A list of unsigned integers: ``count`` of them, or from 0 to ``max_count``."""

    def __init__(
        self, bits: int = 64, *, count: int | None = None, max_count: int = 1 << 16, reset: int = 0
    ) -> None:
        self.bits = bits
        self.count = count
        self.max_count = max_count
        self.reset_value = reset

    def initial(self) -> list[int]:
        return [self.reset_value] * (self.count or 0)

    def dump(self, value: list[int]) -> Any:
        return list(value)

    def parse(self, data: Any, where: str) -> list[int]:
        if not isinstance(data, list) or len(data) > self.max_count:
            raise ValueError(f"state {where}: expected a list of at most {self.max_count} integers")
        if self.count is not None and len(data) != self.count:
            raise ValueError(f"state {where}: expected {self.count} integers, found {len(data)}")
        return [parse_int(item, self.bits, where) for item in data]


class ByteString(Saved[bytearray]):
    """Bytes, at most ``max_bytes`` of them; saved as hexadecimal text."""

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self.max_bytes = max_bytes

    def initial(self) -> bytearray:
        return bytearray()

    def dump(self, value: bytearray) -> Any:
        return value.hex()

    def parse(self, data: Any, where: str) -> bytearray:
        if not isinstance(data, str) or len(data) > 2 * self.max_bytes:
            raise ValueError(f"state {where}: expected at most {self.max_bytes} bytes as hexadecimal text")
        try:
            return bytearray.fromhex(data)
        except ValueError as error:
            raise ValueError(f"state {where}: not hexadecimal text") from error


class Part:
    """Something with declared state. Subclasses add declarations, and name their own parts in ``parts``."""

    declared: ClassVar[tuple[Saved[Any], ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        found: dict[str, Saved[Any]] = {}
        for base in reversed(cls.__mro__):
            found.update({k: v for k, v in vars(base).items() if isinstance(v, Saved)})
        cls.declared = tuple(v for v in found.values() if v.stored)

    def parts(self) -> dict[str, Part]:
        """Return the parts that this one is made of, by name; their state is saved inside this one's."""
        return {}

    def reset(self) -> None:
        """Give every declared value its initial one, here and in all parts."""
        for item in self.declared:
            setattr(self, item.name, item.initial())
        for part in self.parts().values():
            part.reset()

    def save_state(self) -> dict[str, Any]:
        """Return the declared values as JSON-able data, in the order of declaration."""
        state: dict[str, Any] = {item.name: item.dump(getattr(self, item.name)) for item in self.declared}
        for name, part in self.parts().items():
            state[name] = part.save_state()
        return state

    def load_state(self, state: Any, where: str = "") -> None:
        """Take ``save_state``'s data.

        Raises:
            ValueError: it is not data of such a part. Values read before the bad one are taken already:
                load into a machine that may be thrown away.
        """
        parts = self.parts()
        expected = {item.name for item in self.declared} | set(parts)
        if not isinstance(state, dict) or set(state) != expected:
            found = sorted(state) if isinstance(state, dict) else type(state).__name__
            raise ValueError(
                f"state {where or type(self).__name__}: expected {sorted(expected)}, found {found}"
            )
        for item in self.declared:
            setattr(self, item.name, item.parse(state[item.name], f"{where}.{item.name}"))
        for name, part in parts.items():
            part.load_state(state[name], f"{where}.{name}")
        self.state_loaded()

    def state_loaded(self) -> None:
        """Recompute what is derived from the declared values. Called after ``load_state``."""

"""The registers of a machine's harts: their names, widths and words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from machine.tcg._core import ffi, lib

_WORD_BITS: Final = 64
_WORD: Final = (1 << _WORD_BITS) - 1


class Registers:
    """The registers that each hart of one machine has, and which of them are its state.

    Args:
        machine: of the core; it lives at least as long. Harts that are given exist.
    """

    def __init__(self, machine: Any) -> None:
        self._m = machine
        n = lib.wb_n_regs(machine)
        #: by number
        self._bits = {i: bits for i in range(n) if (bits := int(lib.wb_reg_bits(machine, i)))}
        self._numbers = {ffi.string(lib.wb_reg_name(machine, i)).decode(): i for i in self._bits}
        self.names: tuple[str, ...] = tuple(self._numbers)
        n_state = lib.wb_n_state(machine)
        #: words of each register that is state, in order
        self._state = {name: self._bits[i] // _WORD_BITS for name, i in self._numbers.items() if i < n_state}
        self._words = ffi.new("uint64_t[]", max(self._bits.values()) // _WORD_BITS)

    def number(self, reg: str | int) -> int:
        """Return a register's number. Raises ValueError: there is none of this name or number."""
        if isinstance(reg, str):
            try:
                return self._numbers[reg]
            except KeyError:
                raise ValueError(f"no register {reg!r}") from None
        if reg not in self._bits:
            raise ValueError(f"no register number {reg}")
        return reg

    def bits(self, reg: str | int) -> int:
        """Return a register's width."""
        return self._bits[self.number(reg)]

    def get(self, hart: int, reg: str | int) -> int:
        """Return what a hart's register holds."""
        number = self.number(reg)
        bits = self._bits[number]
        if bits <= _WORD_BITS:
            return int(lib.wb_reg_get(self._m, hart, number))
        lib.wb_wide_get(self._m, hart, number, self._words)
        return _join(self._words[0 : bits // _WORD_BITS])

    def set(self, hart: int, reg: str | int, value: int) -> None:
        """Write a hart's register. Raises ValueError when it is read-only or refuses the value."""
        number = self.number(reg)
        bits = self._bits[number]
        if bits <= _WORD_BITS:
            refused = lib.wb_reg_set(self._m, hart, number, value & _WORD)
        else:
            words = _split(value & (1 << bits) - 1, bits // _WORD_BITS)
            refused = lib.wb_wide_set(self._m, hart, number, words)
        if refused:
            raise ValueError(f"register {reg} can't be set to {value:#x}")

    def save(self, hart: int) -> dict[str, int]:
        """Return a hart's whole state by register name."""
        out = ffi.new("uint64_t[]", sum(self._state.values()))
        lib.wb_state_get(self._m, hart, out)
        state = {}
        at = 0
        for name, words in self._state.items():
            state[name] = out[at] if words == 1 else _join(out[at : at + words])
            at += words
        return state

    def load(self, hart: int, state: Mapping[str, int]) -> None:
        """Set a hart's whole state. Raises ValueError unless ``state`` has exactly its registers."""
        if state.keys() != self._state.keys():
            odd = sorted(set(state) ^ set(self._state))
            raise ValueError(f"not a state of this hart: {', '.join(odd[:4])} missing or unknown")
        values: list[int] = []
        for name, words in self._state.items():
            value = state[name]
            if not isinstance(value, int) or not 0 <= value < 1 << _WORD_BITS * words:
                raise ValueError(
                    f"not a state of this hart: {name} is not a number of {_WORD_BITS * words} bits"
                )
            values += [value] if words == 1 else _split(value, words)
        lib.wb_state_set(self._m, hart, ffi.new("uint64_t[]", values))


def _join(words: Iterable[int]) -> int:
    """Return the number that words make up, the lowest first."""
    return sum(word << _WORD_BITS * i for i, word in enumerate(words))


def _split(value: int, words: int) -> list[int]:
    return [value >> _WORD_BITS * i & _WORD for i in range(words)]

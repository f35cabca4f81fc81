"""Disassembly: capstone where it is installed, the translator's own tables where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

#: (code, pc) -> (length in bytes, text); length 0 where nothing could be decoded. ``Engine.disasm`` is one.
RawDisassembler = Callable[[bytes, int], tuple[int, str]]


class Instruction(NamedTuple):
    """One instruction as it is listed; ``text`` is mnemonic and operands."""

    address: int
    code: bytes
    text: str


class Disassembler:
    """Decodes RV64GC one instruction at a time; what is no instruction becomes ``.half`` or ``.word``."""

    def __init__(self, fallback: RawDisassembler | None = None) -> None:
        self._fallback = fallback
        self._capstone: Any = _open_capstone()

    def decode(self, code: bytes, pc: int) -> Instruction | None:
        """Return the instruction at the beginning of ``code``, None where there are too few bytes for one."""
        if len(code) < 2:
            return None
        size = 4 if code[0] & 3 == 3 else 2
        if len(code) < size:
            return None
        raw = code[:size]
        return Instruction(pc, raw, self._text(raw, pc) or _data_text(raw))

    def _text(self, raw: bytes, pc: int) -> str:
        if self._capstone is not None:
            for _address, size, mnemonic, operands in self._capstone.disasm_lite(raw, pc, 1):
                if size == len(raw):
                    return f"{mnemonic} {operands}".strip()
        if self._fallback is not None:
            size, text = self._fallback(raw, pc)
            if size == len(raw):
                return text
        return ""

    def listing(self, code: bytes, pc: int, count: int) -> Iterator[Instruction]:
        """Yield up to ``count`` instructions, as far as the bytes reach."""
        at = 0
        for _ in range(count):
            found = self.decode(code[at:], pc + at)
            if found is None:
                return
            yield found
            at += len(found.code)


def _data_text(raw: bytes) -> str:
    return f"{'.half' if len(raw) == 2 else '.word'} {int.from_bytes(raw, 'little'):#x}"


def _open_capstone() -> Any:
    try:
        import capstone
    except ImportError:
        return None
    return capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC)

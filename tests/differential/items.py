"""Items of a random sequence: instructions by their encodings, and the few that belong together."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from machine.tcg import decodetree
from machine.tcg.decodetree import Pattern
from tests.differential.harness import ARENA, CODE, Start

TABLES = sorted((Path(decodetree.__file__).parent / "guest" / "riscv").glob("*.decode"))
#: Registers that hold addresses; instructions seldom write them.
BASES = {
    2: ARENA + 0x200, 8: ARENA + 0x700, 9: ARENA + 0x1900, 10: ARENA + 0x1FFC, 11: ARENA + 0x1803,
    12: ARENA + 0x2405, 13: ARENA + 0x4900,
}  # fmt: skip
NOP, ECALL, SRET, MRET, FENCE_I, SFENCE = 0x13, 0x73, 0x1020_0073, 0x3020_0073, 0x100F, 0x1200_0073


@dataclass(frozen=True)
class Item:
    """One instruction, or a few that belong together.

    ``code`` gives its bytes from its address and that of the instruction it refers to, ``skip`` items further on.
    """

    name: str
    size: int
    code: Callable[[int, int], bytes]
    skip: int = 0
    count: int = 1
    rewrites: bool = False  # its last instruction, with a FENCE.I


@dataclass(frozen=True)
class Sequence_:
    """Items, and the state they start from."""

    seed: int
    items: tuple[Item, ...]
    start: Start

    def may_rewrite(self) -> int:
        """Return the 2-byte parts of the code that change as they should, as ``Outcome.rewritten``."""
        place = out = 0
        for item in self.items:
            place += item.size
            if item.rewrites:
                out |= 3 << (place - 4) // 2
        return out

    def assemble(self) -> Start:
        """Return the start with the items one behind the other, a NOP to refer to, and the ``ecall`` that ends it."""
        places = [CODE]
        for item in self.items:
            places.append(places[-1] + item.size)
        code = b""
        for i, item in enumerate(self.items):
            code += item.code(places[i], places[min(i + 1 + item.skip, len(self.items))])
        s = self.start
        return replace(s, code=code + struct.pack("<II", NOP, ECALL))


@cache
def parser() -> decodetree.Parser:
    return decodetree.parse_files(TABLES)


@cache
def patterns() -> tuple[Pattern, ...]:
    """Every instruction of the tables."""
    return tuple(p for table in parser().tables for p in table.patterns())


def put(p: Pattern, word: int, name: str, value: int) -> int:
    """Put an argument's value into an encoding; one that the pattern fixes stays."""
    source = p.values[name]
    if isinstance(source, int):
        return word
    f = parser().fields[source]
    raw = (value - f.add) >> f.shift
    for segment in reversed(f.segments):
        mask = (1 << segment.length) - 1
        word = word & ~(mask << segment.pos) | (raw & mask) << segment.pos
        raw >>= segment.length
    return word


def pack(p: Pattern, word: int) -> bytes:
    return struct.pack("<I" if p.width == 32 else "<H", word)


def fixed(name: str, *words: int) -> Item:
    """Return an item of instructions of four bytes that are the same wherever they lie."""
    code = struct.pack(f"<{len(words)}I", *words)
    return Item(name, len(code), lambda pc, to: code, count=len(words))


def dest(rng: random.Random) -> int:
    """Draw a register to write: seldom one that holds an address."""
    while True:
        reg = rng.randrange(32)
        if reg not in BASES or rng.random() < 0.02:
            return reg


def scratch(rng: random.Random) -> int:
    """Draw a register to write that holds no address, and is not x0."""
    return rng.choice([r for r in range(1, 32) if r not in BASES])


def constant(reg: int, value: int) -> list[int]:
    """lui and addiw: any positive value below 2^31 - 2048."""
    low = (value & 0xFFF) - ((value & 0x800) << 1)
    return [(value - low) & 0xFFFF_F000 | reg << 7 | 0x37, (low & 0xFFF) << 20 | reg << 15 | reg << 7 | 0x1B]


def address_of(reg: int, address: int, pc: int) -> list[int]:
    """auipc, which is at pc, and addi."""
    away = address - pc
    low = (away & 0xFFF) - ((away & 0x800) << 1)
    return [(away - low) & 0xFFFF_F000 | reg << 7 | 0x17, (low & 0xFFF) << 20 | reg << 15 | reg << 7 | 0x13]


def set_mstatus(reg: int, mask: int, on: bool) -> list[int]:
    return [*constant(reg, mask), 0x300 << 20 | reg << 15 | (2 if on else 3) << 12 | 0x73]

"""A model of RV64IMC in Python, for tests to hold the translator against.

It works from the disassembler's text, which is held against objdump elsewhere, so that an error in a
table cannot be in both.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from machine.tcg import decodetree

BASE = 0x8000_0000
CODE = BASE + 0x4000
TRAP = BASE + 0x2000
DATA = BASE + 0x8000
DATA_SIZE = 0x4000
M64 = (1 << 64) - 1
ABI = (
    "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"
).split()
NUMBER = {name: i for i, name in enumerate(ABI)}
PATTERNS = [
    p
    for t in decodetree.parse_files(
        sorted((Path(decodetree.__file__).parent / "guest" / "riscv").glob("*.decode"))
    ).tables
    for p in t.patterns()
]


def signed(v: int, bits: int = 64) -> int:
    v &= (1 << bits) - 1
    return v - (1 << bits) if v >> (bits - 1) else v


def divide(a: int, b: int) -> int:
    return -1 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def remainder(a: int, b: int) -> int:
    return a if b == 0 else a - b * divide(a, b)


BINARY: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "sll": lambda a, b: a << (b & 63),
    "srl": lambda a, b: a >> (b & 63),
    "sra": lambda a, b: signed(a) >> (b & 63),
    "slt": lambda a, b: signed(a) < signed(b),
    "sltu": lambda a, b: a < b & M64,
    "mul": lambda a, b: a * b,
    "mulh": lambda a, b: signed(a) * signed(b) >> 64,
    "mulhu": lambda a, b: a * b >> 64,
    "mulhsu": lambda a, b: signed(a) * b >> 64,
    "div": lambda a, b: divide(signed(a), signed(b)),
    "divu": lambda a, b: divide(a, b),
    "rem": lambda a, b: remainder(signed(a), signed(b)),
    "remu": lambda a, b: remainder(a, b),
    "addw": lambda a, b: signed(a + b, 32),
    "subw": lambda a, b: signed(a - b, 32),
    "sllw": lambda a, b: signed(a << (b & 31), 32),
    "srlw": lambda a, b: signed((a & 0xFFFFFFFF) >> (b & 31), 32),
    "sraw": lambda a, b: signed(a, 32) >> (b & 31),
    "mulw": lambda a, b: signed(a * b, 32),
    "divw": lambda a, b: signed(divide(signed(a, 32), signed(b, 32)), 32),
    "divuw": lambda a, b: signed(divide(a & 0xFFFFFFFF, b & 0xFFFFFFFF), 32),
    "remw": lambda a, b: signed(remainder(signed(a, 32), signed(b, 32)), 32),
    "remuw": lambda a, b: signed(remainder(a & 0xFFFFFFFF, b & 0xFFFFFFFF), 32),
}
IMMEDIATE = {
    f"{op}i{w}": f"{op}{w}"
    for op in ("add", "and", "or", "xor", "sll", "srl", "sra", "slt")
    for w in ("", "w")
} | {"sltiu": "sltu"}
BRANCH: dict[str, Callable[[int, int], bool]] = {
    "beq": lambda a, b: a == b,
    "bne": lambda a, b: a != b,
    "blt": lambda a, b: signed(a) < signed(b),
    "bge": lambda a, b: signed(a) >= signed(b),
    "bltu": lambda a, b: a < b,
    "bgeu": lambda a, b: a >= b,
}
LOAD = {"lb": -8, "lh": -16, "lw": -32, "ld": 64, "lbu": 8, "lhu": 16, "lwu": 32}
STORE = {"sb": 8, "sh": 16, "sw": 32, "sd": 64}


def expand(text: str) -> tuple[str, list[str]]:
    """A compressed instruction as its full twin: mnemonic and operands."""
    name, _, rest = text.partition(" ")
    ops = [o for o in re.split(r"[ ,()]+", rest) if o]
    if not name.startswith("c."):
        return name, ops
    plain = name[2:].removesuffix("sp") if name[2:] in ("lwsp", "ldsp", "swsp", "sdsp") else name[2:]
    match plain:
        case "addi16sp":
            return "addi", ["sp", "sp", ops[1]]
        case "addi4spn":
            return "addi", ops
        case "li":
            return "addi", [ops[0], "zero", ops[1]]
        case "mv":
            return "add", [ops[0], "zero", ops[1]]
        case "j":
            return "jal", ["zero", ops[0]]
        case "jr" | "jalr":
            return "jalr", ["zero" if plain == "jr" else "ra", "0", ops[0]]
        case "beqz" | "bnez":
            return plain[:3], [ops[0], "zero", ops[1]]
    if plain in BINARY or plain in IMMEDIATE:
        return plain, [ops[0], *ops]
    return plain, ops


class Model:
    """RV64IM and what C adds, one instruction at a time, from its text."""

    def __init__(self, x: list[int], data: bytearray, pc: int) -> None:
        self.x, self.data, self.pc = x, data, pc

    def set(self, reg: str, value: int) -> None:
        if reg != "zero":
            self.x[NUMBER[reg]] = value & M64

    def get(self, reg: str) -> int:
        return self.x[NUMBER[reg]]

    def address(self, offset: str, base: str) -> int:
        return (self.get(base) + int(offset) & M64) - DATA

    def step(self, text: str, length: int) -> None:
        name, ops = expand(text)
        following = self.pc + length & M64
        target = following
        if name in BINARY:
            self.set(ops[0], BINARY[name](self.get(ops[1]), self.get(ops[2])))
        elif name in IMMEDIATE:
            self.set(ops[0], BINARY[IMMEDIATE[name]](self.get(ops[1]), int(ops[2], 0) & M64))
        elif name in ("lui", "auipc"):
            self.set(ops[0], signed(int(ops[1], 16) << 12, 32) + (self.pc if name == "auipc" else 0))
        elif name in BRANCH:
            target = int(ops[2], 16) if BRANCH[name](self.get(ops[0]), self.get(ops[1])) else following
        elif name == "jal":
            target = int(ops[1], 16)
            self.set(ops[0], following)
        elif name == "jalr":
            target = self.get(ops[2]) + int(ops[1]) & M64 & ~1
            self.set(ops[0], following)
        elif name in LOAD:
            bits, at = abs(LOAD[name]), self.address(ops[1], ops[2])
            value = int.from_bytes(self.data[at : at + bits // 8], "little")
            self.set(ops[0], signed(value, bits) if LOAD[name] < 0 else value)
        elif name in STORE:
            size, at = STORE[name] // 8, self.address(ops[1], ops[2])
            self.data[at : at + size] = (self.get(ops[0]) & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        else:
            assert name.startswith("fence") or name == "pause", f"no model of {text}"
        self.pc = target

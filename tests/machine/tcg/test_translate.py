"""The RISC-V front end through the engine: random instructions and programs, against a model in Python.

The model works from the disassembler's text, which is held against objdump elsewhere, so that an error in
a table cannot be in both.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machine.tcg import decodetree
from machine.tcg.decodetree import Pattern
from machine.tcg.engine import Engine

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
EDGES = [
    0,
    1,
    2,
    31,
    32,
    63,
    64,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 32,
    M64 >> 1,
    1 << 63,
    M64 - 1,
    M64,
]
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


class NoHost:
    def mmio_read(self, paddr: int, size: int, hart: int) -> int | None:
        return None

    def mmio_write(self, paddr: int, size: int, hart: int, value: int) -> bool | None:
        return False

    def sbi_call(self, hart: int) -> None:
        raise AssertionError("no SBI here")


@pytest.fixture(params=["interp", "jit"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(ram_base=BASE, ram_size=1 << 20, host=NoHost(), builtin_sbi=False) as e:
        if request.param == "jit" and not e.has_jit:
            pytest.skip("this host has no back end")
        if e.has_jit:
            e.set_switch("jit", request.param == "jit")
            e.set_hot_runs(0)
        e.reset_hart(0, CODE)
        e.set_reg(0, "mtvec", TRAP)
        yield e


@functools.cache
def named(name: re.Pattern[str]) -> list[Pattern]:
    return [p for p in PATTERNS if name.fullmatch(p.mnemonic)]


def encode(rng: random.Random, name: re.Pattern[str]) -> bytes:
    """An encoding of an instruction whose name matches, free bits at random; it may be another's."""
    p = rng.choice(named(name))
    word = p.match | rng.getrandbits(p.width) & ~p.mask
    return word.to_bytes(p.width // 8, "little")


def value(rng: random.Random) -> int:
    return rng.choice([rng.choice(EDGES), rng.getrandbits(64), rng.getrandbits(8), M64 - rng.getrandbits(8)])


ALU = re.compile(
    "(c\\.)?(" + "|".join([*BINARY, *IMMEDIATE, "lui", "auipc", "li", "mv", "addi16sp", "addi4spn"]) + ")"
)
MEMORY = re.compile("(c\\.)?(" + "|".join([*LOAD, *STORE, "lwsp", "ldsp", "swsp", "sdsp"]) + ")")
BRANCHES = re.compile("(c\\.)?(" + "|".join([*BRANCH, "jal", "beqz", "bnez", "j"]) + ")")


def legal(e: Engine, rng: random.Random, name: re.Pattern[str], pc: int) -> tuple[bytes, str]:
    while True:
        code = encode(rng, name)
        _, text = e.disasm(code, pc)
        if name.fullmatch(text.split()[0]):  # else a condition of the table does not hold
            return code, text


def load(e: Engine, m: Model) -> None:
    for i in range(1, 32):
        e.set_reg(0, i, m.x[i])
    e.set_reg(0, "pc", m.pc)
    e.write_phys(DATA, bytes(m.data))


def check(e: Engine, m: Model, why: str) -> None:
    regs = {ABI[i]: hex(e.get_reg(0, i)) for i in range(1, 32)} | {"pc": hex(e.get_reg(0, "pc"))}
    expected = {ABI[i]: hex(m.x[i]) for i in range(1, 32)} | {"pc": hex(m.pc)}
    assert regs == expected, why
    assert e.read_phys(DATA, DATA_SIZE) == bytes(m.data), why


def fresh(rng: random.Random) -> Model:
    return Model([0] + [value(rng) for _ in range(31)], bytearray(rng.randbytes(DATA_SIZE)), CODE)


@pytest.mark.parametrize("seed", range(3))
def test_straight_lines_compute_what_the_model_does(engine: Engine, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(25):
        m = fresh(rng)
        load(engine, m)
        texts, code = [], b""
        for _ in range(rng.randrange(1, 120)):
            part, text = legal(engine, rng, ALU, CODE + len(code))
            code += part
            texts.append((text, len(part)))
        engine.write_phys(CODE, code)
        engine.run(engine.icount + len(texts))
        for text, length in texts:
            m.step(text, length)
        check(engine, m, "; ".join(t for t, _ in texts))


def test_loads_and_stores_move_what_the_model_does(engine: Engine) -> None:
    rng = random.Random(7)
    for _ in range(400):
        m = fresh(rng)
        code, text = legal(engine, rng, MEMORY, CODE)
        _, ops = expand(text)
        if ops[2] == "zero":
            continue
        m.set(ops[2], DATA + rng.randrange(DATA_SIZE - 8) - int(ops[1]))
        load(engine, m)
        engine.write_phys(CODE, code)
        engine.run(engine.icount + 1)
        m.step(text, len(code))
        check(engine, m, text)


@pytest.mark.parametrize("superblock", [True, False])
@pytest.mark.parametrize("tb_max", [64, 5, 1])
def test_programs_that_jump_go_where_the_model_goes(engine: Engine, superblock: bool, tb_max: int) -> None:
    """Random code with branches and jumps, run for 300 steps or until it would leave its page."""
    rng = random.Random(11)
    engine.set_switch("superblock", superblock)
    engine.set_tb_max(tb_max)
    total = 0
    for size in (2, 4) * 12:  # of one size, so that every jump lands on an instruction
        m = fresh(rng)
        page = b""
        while len(page) < 0xF00:
            kind = BRANCHES if rng.random() < 0.25 else ALU
            part, text = legal(engine, rng, kind, CODE + len(page))
            target = int(text.split()[-1], 16) if kind is BRANCHES else CODE
            if len(part) == size and target in range(CODE, CODE + 0xF00, size):
                page += part
        engine.write_phys(CODE, page)
        load(engine, m)
        texts: list[str] = []
        while len(texts) < 300 and m.pc - CODE in range(0xE00):
            at = m.pc - CODE
            texts.append(engine.disasm(page[at : at + 4], m.pc)[1])
            m.step(texts[-1], size)
        engine.run(engine.icount + len(texts))
        check(engine, m, "; ".join(texts))
        total += len(texts)
    assert total > 3000


def test_illegal_encodings_trap_with_their_bits_and_legal_ones_do_not(engine: Engine) -> None:
    rng = random.Random(13)
    engine.set_reg(0, "mstatus", 3 << 11 | 1 << 13)
    words = [rng.getrandbits(32) | 3 for _ in range(700)] + [
        rng.getrandbits(14) << 2 | q for q in (0, 1, 2) for _ in range(500)
    ]
    seen = {True: 0, False: 0}
    for word in words:
        code = word.to_bytes(4, "little")
        length, text = engine.disasm(code, CODE)
        if re.match(r"csrr|[ms]ret|wfi|c?\.?ebreak|ecall|.*, [56]$", text):
            continue
        engine.write_phys(CODE, code)
        engine.set_reg(0, "pc", CODE)
        engine.set_reg(0, "mcause", 0)
        engine.set_reg(0, "mtval", 0)
        engine.run(engine.icount + 1)
        illegal = engine.get_reg(0, "mcause") == 2
        assert illegal == text.startswith("."), text
        if illegal:
            assert engine.get_reg(0, "mtval") == word & (0xFFFFFFFF if length == 4 else 0xFFFF), text
            assert engine.get_reg(0, "mepc") == CODE
        seen[illegal] += 1
    assert min(seen.values()) > 100


def test_fp_is_illegal_when_off_and_dirties_when_on(engine: Engine) -> None:
    fadd = (0x02A58553).to_bytes(4, "little")
    engine.write_phys(CODE, fadd)
    engine.set_reg(0, "mstatus", 3 << 11)
    engine.run(engine.icount + 1)
    assert (engine.get_reg(0, "mcause"), engine.get_reg(0, "mtval")) == (2, 0x02A58553)
    engine.set_reg(0, "mstatus", 3 << 11 | 1 << 13)
    engine.set_reg(0, "pc", CODE)
    engine.run(engine.icount + 1)
    assert engine.get_reg(0, "pc") == CODE + 4
    assert engine.get_reg(0, "mstatus") >> 13 & 3 == 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fsgnj.d", lambda a, b: a & ~(1 << 63) | b & 1 << 63),
        ("fsgnjn.d", lambda a, b: a & ~(1 << 63) | ~b & 1 << 63),
        ("fsgnjx.d", lambda a, b: a ^ b & 1 << 63),
        ("fmv.d.x", lambda a, b: a),
        ("fmv.w.x", lambda a, b: a & 0xFFFFFFFF | 0xFFFFFFFF << 32),
    ],
)
def test_bits_move_between_registers(engine: Engine, name: str, expected: Callable[[int, int], int]) -> None:
    rng = random.Random(17)
    (p,) = [p for p in PATTERNS if p.mnemonic == name]
    engine.set_reg(0, "mstatus", 3 << 11 | 1 << 13)
    for rd, rs1, rs2 in itertools.product((1, 2, 3), repeat=3):
        a, b = value(rng), value(rng)
        for bank in "xf":
            engine.set_reg(0, f"{bank}{rs1}", a)
            engine.set_reg(0, f"{bank}{rs2}", b)
        if rs1 == rs2:
            a = b
        word = p.match | rd << 7 | rs1 << 15 | (rs2 << 20) & ~p.mask
        engine.write_phys(CODE, word.to_bytes(4, "little"))
        engine.set_reg(0, "pc", CODE)
        engine.run(engine.icount + 1)
        assert engine.get_reg(0, f"f{rd}") == expected(a, b)


def test_reserved_rounding_modes_trap(engine: Engine) -> None:
    engine.set_reg(0, "mstatus", 3 << 11 | 1 << 13)
    for word, frm in ((0x02A5D553, 0), (0x02A5E553, 0), (0x02A5F553, 5), (0x02A5F543, 6)):
        engine.write_phys(CODE, word.to_bytes(4, "little"))
        engine.set_reg(0, "frm", frm)
        engine.set_reg(0, "pc", CODE)
        engine.set_reg(0, "mcause", 0)
        engine.run(engine.icount + 1)
        assert (engine.get_reg(0, "mcause"), engine.get_reg(0, "mtval")) == (2, word)


def test_an_instruction_may_cross_a_page(engine: Engine) -> None:
    end = (CODE | 0xFFF) + 1
    engine.write_phys(end - 4, bytes.fromhex("05059305a0020505"))  # c.addi a0,1; addi a1,zero,42; c.addi a0,1
    engine.set_reg(0, "x10", 0)
    engine.set_reg(0, "pc", end - 4)
    engine.run(engine.icount + 3)
    assert (engine.get_reg(0, "x10"), engine.get_reg(0, "x11")) == (2, 42)
    engine.write_phys(end, bytes.fromhex("b002"))  # its second half, now 43
    engine.set_reg(0, "pc", end - 4)
    engine.run(engine.icount + 2)
    assert engine.get_reg(0, "x11") == 43


def test_breakpoints_stop_before_their_instruction(engine: Engine) -> None:
    engine.write_phys(CODE, bytes.fromhex("0505") * 20)  # c.addi a0, 1
    engine.set_reg(0, "x10", 0)
    engine.set_breakpoints([CODE + 14])
    start = engine.icount
    assert engine.run(start + 20).name == "BREAKPOINT"
    assert (engine.icount - start, engine.get_reg(0, "x10"), engine.get_reg(0, "pc")) == (7, 7, CODE + 14)


def test_ir_of_plain_arithmetic_is_one_op_an_instruction(engine: Engine) -> None:
    code = bytes.fromhex("3385c50013054500b71500002e8501a0")  # add; addi; lui; c.mv; c.j .
    engine.write_phys(CODE, code)
    engine.set_switch("optimise", False)
    engine.set_reg(0, "pc", CODE)
    ops = [line.split()[0] for line in engine.dump_ir(0).splitlines() if line.startswith(" ")]
    assert ops == ["ADD", "ADD", "MOV", "MOV", "GOTO"]


def test_state_registers_restore_a_hart(engine: Engine) -> None:
    rng = random.Random(19)
    for name in ("x5", "f7", "mscratch", "sepc", "mtimecmp", "stimecmp", "pmpaddr3"):
        engine.set_reg(0, name, rng.getrandbits(50) & ~3)
    state = engine.save_state(0)
    engine.reset_hart(0, BASE)
    assert engine.save_state(0) != state
    engine.load_state(0, state)
    assert engine.save_state(0) == state

"""The RISC-V front end through the engine: random instructions and programs, against a model in Python."""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Callable

import pytest

from machine.tcg.decodetree import Pattern
from machine.tcg.engine import Engine
from machine.tcg.probes import Probe, ProbeAction, ProbeKind
from tests.machine.tcg.rvmodel import (
    ABI,
    BASE,
    BINARY,
    BRANCH,
    CODE,
    DATA,
    DATA_SIZE,
    IMMEDIATE,
    LOAD,
    M64,
    PATTERNS,
    STORE,
    Model,
    expand,
)
from tests.rvasm import assemble

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
    engine.translator.set_switch("superblock", superblock)
    engine.translator.set_tb_max(tb_max)
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
        assert illegal == text.startswith((".", "v")), text  # this machine has no vectors
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
    engine.set_probes([Probe(ProbeKind.EXEC, ProbeAction.STOP, CODE + 14, CODE + 14)])
    start = engine.icount
    assert engine.run(start + 20).name == "BREAKPOINT"
    assert (engine.icount - start, engine.get_reg(0, "x10"), engine.get_reg(0, "pc")) == (7, 7, CODE + 14)


def test_ir_of_plain_arithmetic_is_one_op_an_instruction(engine: Engine) -> None:
    code = bytes.fromhex("3385c50013054500b71500002e8501a0")  # add; addi; lui; c.mv; c.j .
    engine.write_phys(CODE, code)
    engine.translator.set_switch("optimise", False)
    engine.set_reg(0, "pc", CODE)
    ops = [line.split()[0] for line in engine.translator.dump_ir(0).splitlines() if line.startswith(" ")]
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


CALLS = """
        li   s0, 0
        li   s1, 50
again:  call near
        auipc t1, 0
        jalr ra, 36(t1)     # far
        addi s1, s1, -1
        bnez s1, again
done:   j    done
near:   addi s0, s0, 1
        ret
        nop
        nop
far:    mv   t0, ra
        call near
        slli s0, s0, 1
        jalr zero, 0(t0)
"""


@pytest.mark.parametrize("superblock", [True, False])
def test_calls_and_returns_come_back(engine: Engine, superblock: bool) -> None:
    engine.translator.set_switch("superblock", superblock)
    code, labels = assemble(CALLS, CODE)
    assert labels["far"] == labels["again"] + 4 + 36
    engine.write_phys(CODE, code)
    engine.run(engine.icount + 2000)
    expected = 0
    for _ in range(50):
        expected = (expected + 2) * 2
    assert engine.get_reg(0, "x8") == expected & M64
    assert engine.get_reg(0, "pc") == labels["done"]


def test_a_leaf_function_becomes_part_of_its_callers_block(engine: Engine) -> None:
    code, labels = assemble(CALLS, CODE)
    engine.write_phys(CODE, code)
    engine.set_reg(0, "pc", labels["again"])
    ir = engine.translator.dump_ir(0)
    assert "GOTO_IND" not in ir
    assert f"{labels['again'] + 4:016x}:" in ir  # behind the return


def test_every_register_reads_and_read_only_ones_refuse(engine: Engine) -> None:
    values = {name: engine.get_reg(0, name) for name in engine.reg_names}
    assert len(values) == len(engine.reg_names)
    assert values["pc"] == CODE
    assert values["misa"] >> 62 == 2
    for name in ("time", "cycle", "instret", "mhartid", "traps"):
        with pytest.raises(ValueError, match=name):
            engine.set_reg(0, name, 1)
    with pytest.raises(ValueError, match="pc"):
        engine.set_reg(0, "pc", CODE + 1)
    with pytest.raises(ValueError, match="priv"):
        engine.set_reg(0, "priv", 2)

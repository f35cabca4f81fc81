"""What the optimiser makes of words, and accesses that share a look-up where pages end or are watched."""

from __future__ import annotations

import pytest

from machine.tcg.engine import Engine
from tests.machine.tcg.rvmodel import CODE, DATA, M64
from tests.rvasm import assemble

ROTATE = """
        mv    a1, a0        # the source under another name
        .word 0x00b5561b  # srliw a2, a0, 11
        .word 0x0155969b  # slliw a3, a1, 21
        or    a2, a2, a3
        li    a3, 0
done:   j     done
"""
#: As compilers order several at a time: the source is gone before the parts meet.
ROTATE_LATE = """
        .word 0x00b5561b  # srliw a2, a0, 11
        .word 0x0155169b  # slliw a3, a0, 21
        li    a0, 77
        {between}
        or    a3, a3, a2
        li    a2, 0
done:   j     done
"""
EXTENDED = """
        .word 0x00c505bb  # addw a1, a0, a2
        .word 0x0005859b  # sext.w a1, a1
        slli   a2, a1, 32
        srli   a2, a2, 32
done:   j      done
"""
#: Reads and writes near each other, through a base that walks over the end of a page.
WALK = """
        li   s1, 40
        li   a0, 0
next:   ld   a1, 0(s0)
        ld   a2, 8(s0)
        ld   a3, 24(s0)
        add  a1, a1, a2
        sd   a1, 16(s0)
        sw   a3, 8(s0)
        sb   a1, 31(s0)
        xor  a0, a0, a1
        slli a0, a0, 1
        addi s0, s0, 4
        addi s1, s1, -1
        bnez s1, next
done:   j    done
"""


def ops_at(engine: Engine, source: str) -> list[str]:
    code, _ = assemble(source, CODE)
    engine.write_phys(CODE, code)
    engine.set_reg(0, "pc", CODE)
    return [line.split()[0] for line in engine.translator.dump_ir(0).splitlines() if line.startswith(" ")]


def test_two_shifts_of_one_word_and_an_or_are_a_rotation(engine: Engine) -> None:
    ops = ops_at(engine, ROTATE)
    assert ops.count("ROTR32S") == 1
    assert "OR" not in ops
    engine.translator.set_switch("words", False)
    assert "ROTR32S" not in ops_at(engine, ROTATE)
    engine.translator.set_switch("words", True)
    engine.set_reg(0, "x10", 0x9234_5678)
    engine.run(engine.icount + 5)
    turned = (0x9234_5678 >> 11 | 0x9234_5678 << 21) & 0xFFFF_FFFF
    assert engine.get_reg(0, "x12") == (turned ^ 0x8000_0000) - 0x8000_0000 & M64


def test_a_rotation_whose_source_is_gone_is_made_where_its_part_was(engine: Engine) -> None:
    source = ROTATE_LATE.format(between="nop")
    ops = ops_at(engine, source)
    assert ops.count("ROTR32S") == 1 and not {"OR", "SHL32S", "SHR32S"} & set(ops)
    engine.set_reg(0, "x10", 0x9234_5678)
    engine.run(engine.icount + 6)
    turned = (0x9234_5678 >> 11 | 0x9234_5678 << 21) & 0xFFFF_FFFF
    assert engine.get_reg(0, "x13") == (turned ^ 0x8000_0000) - 0x8000_0000 & M64
    assert engine.get_reg(0, "x10") == 77


@pytest.mark.parametrize("between", ["addi a4, a3, 0", "addi a4, a3, 1", "ld a4, 0(sp)", "add a3, a3, a4"])
def test_a_rotation_is_none_where_its_part_is_seen(engine: Engine, between: str) -> None:
    assert "ROTR32S" not in ops_at(engine, ROTATE_LATE.format(between=between))


def test_an_extension_of_what_is_extended_is_none(engine: Engine) -> None:
    assert ops_at(engine, EXTENDED) == ["ADD32S", "ZEXT32", "GOTO"]
    engine.translator.set_switch("words", False)
    assert ops_at(engine, EXTENDED) == ["ADD32S", "SEXT32", "SHL", "SHR", "GOTO"]


def walked(start: int, memory: bytearray) -> int:
    """Do in Python what WALK does; return a0."""

    def load(at: int) -> int:
        return int.from_bytes(memory[at : at + 8], "little")

    a0 = 0
    for at in range(start, start + 160, 4):
        a1, a3 = (load(at) + load(at + 8)) & M64, load(at + 24)
        memory[at + 16 : at + 24] = a1.to_bytes(8, "little")
        memory[at + 8 : at + 12] = (a3 & 0xFFFF_FFFF).to_bytes(4, "little")
        memory[at + 31] = a1 & 0xFF
        a0 = (a0 ^ a1) << 1 & M64
    return a0


@pytest.mark.parametrize("group_mem", [True, False])
@pytest.mark.parametrize("start", [0x100, 0xF60, 0xFA2])
def test_neighbouring_accesses_do_the_same_where_a_page_ends(
    engine: Engine, start: int, group_mem: bool
) -> None:
    engine.translator.set_switch("group_mem", group_mem)
    memory = bytearray(bytes((7 * i + i // 256) & 0xFF for i in range(0x2000)))
    code, labels = assemble(WALK, CODE)
    engine.write_phys(CODE, code)
    engine.write_phys(DATA, bytes(memory))
    engine.set_reg(0, "x8", DATA + start)
    began = engine.icount
    engine.run(began + 2 + 40 * 12)
    expected = walked(start, memory)
    assert (engine.get_reg(0, "x10"), engine.get_reg(0, "pc")) == (expected, labels["done"])
    assert engine.read_phys(DATA, 0x2000) == bytes(memory)


def test_neighbouring_stores_change_the_code_they_hit(engine: Engine) -> None:
    """The second store of a group writes the instruction behind it, on the page it runs from."""
    source = """
        li   s1, 3
        li   a0, 0
next:   sd   zero, 64(s0)
        sw   a2, 0(s0)
patch:  addi a0, a0, 1
        sd   zero, 72(s0)
        addi s1, s1, -1
        bnez s1, next
done:   j    done
        nop
"""
    code, labels = assemble(source, CODE)
    engine.write_phys(CODE, code + bytes(256))
    patched, _ = assemble("addi a0, a0, 5", labels["patch"])
    engine.set_reg(0, "x8", labels["patch"])
    engine.set_reg(0, "x12", int.from_bytes(patched, "little"))
    engine.run(engine.icount + 2 + 3 * 6)
    assert (engine.get_reg(0, "x10"), engine.get_reg(0, "pc")) == (15, labels["done"])

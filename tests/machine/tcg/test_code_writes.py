"""Writes to pages of code: the next pass runs what is there, and what was beside the written bytes is not made anew."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machine.tcg.engine import PAGE_SIZE, Engine
from tests.machine.tcg.rvmodel import CODE

#: Instructions of the program, over two pages; it begins before a page's end.
SLOTS = 200
START = CODE + PAGE_SIZE - 4 * 90 - 2
LINE = 64


def addi(value: int) -> bytes:
    """addi a0, a0, value"""
    return (value << 20 | 10 << 15 | 10 << 7 | 0x13).to_bytes(4, "little")


def jump_back() -> bytes:
    """jal zero, to the start"""
    offset = -4 * SLOTS
    word = (offset >> 20 & 1) << 31 | (offset >> 1 & 0x3FF) << 21
    word |= (offset >> 11 & 1) << 20 | (offset >> 12 & 0xFF) << 12
    return (word | 0x6F).to_bytes(4, "little")


def one_pass(engine: Engine) -> int:
    engine.set_reg(0, "x10", 0)
    engine.set_reg(0, "pc", START)
    engine.run(engine.icount + SLOTS + 1)
    assert engine.get_reg(0, "pc") == START
    return engine.get_reg(0, "x10")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    changes=st.lists(
        st.lists(st.tuples(st.integers(0, SLOTS - 1), st.integers(1, 2047)), max_size=4), max_size=8
    )
)
def test_what_was_written_is_what_runs(engine: Engine, changes: list[list[tuple[int, int]]]) -> None:
    values = [1] * SLOTS
    engine.write_phys(START, b"".join(map(addi, values)) + jump_back())
    assert one_pass(engine) == SLOTS
    for some in changes:
        for slot, value in some:
            values[slot] = value
            engine.write_phys(START + 4 * slot, addi(value))
        assert one_pass(engine) == one_pass(engine) == sum(values)


def test_only_blocks_that_have_the_bytes_are_made_anew(engine: Engine) -> None:
    engine.write_phys(START, b"".join(addi(1) for _ in range(SLOTS)) + jump_back())
    one_pass(engine)
    before = engine.translator.stat("tb_translated")
    for at in (START - LINE, START - 1, START + 4 * SLOTS + 4, CODE + PAGE_SIZE * 2 - 1):
        engine.write_phys(at, b"\0")
    one_pass(engine)
    assert engine.translator.stat("tb_translated") == before
    engine.write_phys(START + 4 * SLOTS, jump_back())
    one_pass(engine)
    assert engine.translator.stat("tb_translated") == before + 1

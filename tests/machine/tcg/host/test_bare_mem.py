"""Blocks that know untranslated memory at a fixed place are left when loads and stores come to be translated."""

from __future__ import annotations

import pytest

from tests.bare import RAM, Bare

MPRV, MPP_S = 1 << 17, 1 << 11
#: Under translation RAM's first 2 MiB are the third, so one address has two words.
ROOT, TABLE, WORD, MOVED = RAM + 0x8000, RAM + 0x9000, RAM + 0xA008, RAM + 0x40A008
LINK, LEAF = 1, 0xC7
ROUNDS = 40

SOURCE = f"""
    li t0, {(1 << 54) - 1}
    csrrw zero, pmpaddr0, t0
    li t0, 15
    csrrw zero, pmpcfg0, t0
    li t0, {8 << 60 | ROOT >> 12}
    csrrw zero, satp, t0
    li t4, {MPRV}
    li t5, {MPP_S}
    csrrs zero, mstatus, t5
    li s0, {WORD}
    li s1, {ROUNDS}
loop:
    ld a0, 0(s0)
    csrrs zero, mstatus, t4
    ld a1, 0(s0)
    addi a1, a1, 3
    sd a1, 0(s0)
    csrrc zero, mstatus, t4
    addi a0, a0, 1
    sd a0, 0(s0)
    addi s1, s1, -1
    bnez s1, loop
end:
    j end
"""


@pytest.mark.parametrize(
    "off", [(), ("bare_mem",), ("near_ram",), ("ram_bounds",), ("group_mem",), ("jit",)], ids="+".join
)
def test_mprv_in_the_middle_of_a_loop_takes_effect_at_the_next_access(off: tuple[str, ...]) -> None:
    machine = Bare(SOURCE)
    engine = machine.engine
    engine.translator.set_hot_runs(0)
    for switch in off:
        engine.translator.set_switch(switch, False)
    engine.write_phys(ROOT + 8 * (RAM >> 30), (TABLE >> 12 << 10 | LINK).to_bytes(8, "little"))
    engine.write_phys(TABLE, ((RAM + 0x400000) >> 12 << 10 | LEAF).to_bytes(8, "little"))
    engine.write_phys(MOVED, (1000).to_bytes(8, "little"))
    machine.run(2000)
    assert int.from_bytes(engine.read_phys(WORD, 8), "little") == ROUNDS
    assert int.from_bytes(engine.read_phys(MOVED, 8), "little") == 1000 + 3 * ROUNDS
    assert machine.reg("pc") == machine.labels["end"]

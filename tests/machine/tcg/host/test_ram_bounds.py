"""Untranslated loads are compared with RAM's bounds: exact at both ends, and where a load is to be seen or refused."""

from __future__ import annotations

import pytest

from machine.tcg.probes import RECORD, Probe, ProbeAction, ProbeKind
from tests.bare import RAM, Bare

BYTES = 1 << 20
#: Sums up loads of all sizes around both ends of RAM; a trap counts, with its address, and goes on behind the load.
SOURCE = f"""
    la t0, trap
    csrrw zero, mtvec, t0
    li s0, {RAM + BYTES - 12}
    li s1, 24
    li s3, {RAM - 12}
loop:
    lb a0, 0(s0)
    add s4, s4, a0
    lhu a0, 0(s0)
    add s4, s4, a0
    lw a0, -1(s0)
    add s4, s4, a0
    ld a0, 0(s0)
    add s4, s4, a0
    ld a0, 0(s3)
    ld a1, 24(s3)
    add s4, s4, a0
    add s4, s4, a1
    lw a0, -8(s3)
    lbu a1, 3(s3)
    add s4, s4, a0
    add s4, s4, a1
    addi s0, s0, 1
    addi s3, s3, 1
    addi s1, s1, -1
    bnez s1, loop
end:
    j end
trap:
    csrrs t1, mtval, zero
    add s2, s2, t1
    addi s5, s5, 1
    csrrs t1, mepc, zero
    lhu t2, 0(t1)
    andi t2, t2, 3
    li t3, 3
    addi t1, t1, 2
    bne t2, t3, back
    addi t1, t1, 2
back:
    csrrw zero, mepc, t1
    mret
"""


def prepared(off: tuple[str, ...]) -> Bare:
    machine = Bare(SOURCE, memory=BYTES).at_once(off)
    machine.engine.write_phys(RAM + BYTES - 64, bytes(range(100, 164)))
    return machine


@pytest.mark.parametrize("off", [("ram_bounds",), ("near_ram",), ("group_mem",), ("bare_mem",)], ids="+".join)
def test_loads_at_the_ends_of_ram_fault_and_read_as_in_the_interpreter(off: tuple[str, ...]) -> None:
    machines = [prepared(()), prepared(off), prepared(("jit",))]
    for machine in machines:
        machine.run(2000)
        assert machine.reg("pc") == machine.labels["end"]
    assert machines[0].reg("x21") > 60
    assert machines[0].state() == machines[1].state() == machines[2].state()


WATCHED = """
    li s1, 200
    la s0, cell
loop:
    ld a0, 0(s0)
    ld a1, 8(s0)
    addi s1, s1, -1
    bnez s1, loop
end:
    j end
.align 4096
cell: .dword 7
    .dword 8
"""


def test_a_load_is_seen_by_a_probe_set_in_the_middle_of_a_run_and_by_none_after() -> None:
    """A comparison with the bounds alone would go past the probe."""
    bare = Bare(WATCHED)
    bare.engine.translator.set_hot_runs(0)
    bare.run(203)
    cell = bare.labels["cell"]
    bare.engine.set_probes([Probe(ProbeKind.READ, ProbeAction.RECORD, cell + 8, cell + 15)])
    bare.run(200)
    seen = bare.engine.take_records()
    assert len(seen) // RECORD.size == 50
    bare.engine.set_probes([])
    bare.run(200)
    assert not bare.engine.take_records()
    assert bare.reg("x11") == 8


LOCKED = f"""
    la t0, trap
    csrrw zero, mtvec, t0
    li s1, 40
    la s0, cell
loop:
    ld a0, 0(s0)
    addi s2, s2, 1
    addi s1, s1, -1
    bnez s1, loop
    srli t0, s0, 2
    csrrw zero, pmpaddr0, t0
    li t0, {0x80 | 0x10}
    csrrw zero, pmpcfg0, t0
    li s1, 1
    j loop
trap:
    csrrs s4, mcause, zero
    csrrs s5, mtval, zero
end:
    j end
.align 4096
    .dword 0
cell: .dword 7
"""


@pytest.mark.parametrize("off", [(), ("ram_bounds",), ("jit",)], ids="+".join)
def test_an_entry_of_the_pmp_that_is_locked_refuses_the_next_load(off: tuple[str, ...]) -> None:
    machine = Bare(LOCKED)
    machine.engine.translator.set_hot_runs(0)
    for switch in off:
        machine.engine.translator.set_switch(switch, False)
    machine.run(400)
    assert machine.reg("x18") == 40
    assert machine.reg("x20") == 5
    assert machine.reg("x21") == machine.labels["cell"]


def test_a_second_machine_has_its_own_ram() -> None:
    """The first has the place whose distance fits; where the others lie is the host's business."""
    machines = [prepared(()) for _ in range(6)]
    for machine in machines:
        machine.run(2000)
    assert all(m.state() == machines[0].state() for m in machines)

"""Atomics in generated code do what the helpers do, and are seen by all that asks for loads or for stores."""

from __future__ import annotations

import random

import pytest

from machine.tcg.probes import RECORD, Probe, ProbeAction, ProbeKind
from tests.bare import RAM, Bare

LR, SC = 2, 3
RMW = [0, 1, 4, 8, 12, 16, 20, 24, 28]
W, D = 2, 3
#: Where RAM is too, for loads and stores that are translated.
ALIAS = 0x4000_0000
MSTATUS_MPRV_S = 1 << 17 | 1 << 11
#: Some of them live in the host's registers.
REGS = [5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 28, 29]
HANDLER = f"""
trap:
    csrrs t5, mcause, zero
    add s10, s10, t5
    csrrs t5, mtval, zero
    add s10, s10, t5
    li t5, {1 << 12}
    csrrc zero, mstatus, t5
    li t5, {1 << 11}
    csrrs zero, mstatus, t5
    csrrs t5, mepc, zero
    addi t5, t5, 4
    jalr zero, 0(t5)
"""


def atomic(funct5: int, rd: int, rs1: int, rs2: int, size: int) -> str:
    return f".word {funct5 << 27 | rs2 << 20 | rs1 << 15 | size << 12 | rd << 7 | 0x2F}"


def some_atomics(rng: random.Random, bases: list[int]) -> list[str]:
    lines = []
    for _ in range(rng.randrange(3, 16)):
        size = rng.choice([W, D])
        base, at = rng.choice(bases), 8 * rng.randrange(6) + rng.choice([0, 0, 0, 4])
        if rng.randrange(12) == 0:
            at += rng.randrange(1, 8)
        addr, value, rd = rng.choice(REGS), rng.choice([0, *REGS]), rng.choice([0, *REGS])
        lines += [f"la x{addr}, data", f"addi x{addr}, x{addr}, {at}"]
        if base:
            lines += [f"li t6, {base}", f"sub x{addr}, x{addr}, t6"]
        kind = rng.randrange(3)
        if kind == 0:
            lines.append(atomic(LR, rd, addr, 0, size))
            if rng.randrange(3):
                lines.append(atomic(SC, rng.choice([0, *REGS]), addr, value, rng.choice([size, size, W])))
        else:
            lines.append(atomic(rng.choice([SC, *RMW]), rd, addr, value, size))
        lines.append(f"xor s11, s11, x{rd}")
    return lines


def program(rng: random.Random, translated: bool) -> str:
    lines = ["la t0, trap", "csrrw zero, mtvec, t0"]
    if translated:
        lines += [
            "la t0, root",
            "srli t0, t0, 12",
            f"li t1, {8 << 60}",
            "or t0, t0, t1",
            "csrrw zero, satp, t0",
        ]
        lines += [f"li t0, {MSTATUS_MPRV_S}", "csrrs zero, mstatus, t0"]
    lines += [f"li x{r}, {rng.getrandbits(64) - (1 << 63)}" for r in REGS]
    lines += ["li s2, 12", "loop:"]
    # untranslated, the second of them is no RAM
    lines += some_atomics(rng, [0, 0, 0, RAM - ALIAS] if not translated else [0, RAM - ALIAS])
    lines += ["addi s2, s2, -1", "bnez s2, loop", "end:", "j end", HANDLER]
    lines += [".align 4096", "data:"] + [f".dword {rng.getrandbits(64)}" for _ in range(8)]
    leaf = RAM >> 2 | 0xCF
    lines += [".align 4096", "root:", ".dword 0", f".dword {leaf}", f".dword {leaf}"]
    return "\n".join(lines) + "\n"


def final_state(source: str, off: tuple[str, ...]) -> tuple[object, ...]:
    machine = Bare(source, memory=1 << 20).at_once(off)
    machine.run(6000)
    assert machine.reg("pc") == machine.labels["end"]
    return machine.state()


@pytest.mark.parametrize("translated", [False, True], ids=["bare", "translated"])
@pytest.mark.parametrize("seed", range(6))
def test_atomics_in_the_block_give_the_state_of_the_helpers(translated: bool, seed: int) -> None:
    rng = random.Random(2 * seed + translated)
    for _ in range(6):
        source = program(rng, translated)
        expected = final_state(source, ("jit",))
        for off in [(), ("inline_amo",), ("near_ram",), ("bare_mem",), ("pin",)]:
            assert final_state(source, off) == expected, (off, source)


LOOP = f"""
    la s0, cell
    li a1, 1
loop:
    {atomic(0, 10, 8, 11, D)}
    {atomic(LR, 12, 8, 0, D)}
    {atomic(SC, 13, 8, 12, D)}
    j loop
.align 4096
cell: .dword 7
"""


def in_the_loop(off: tuple[str, ...] = ()) -> Bare:
    bare = Bare(LOOP).at_once(off)
    bare.run(203)
    return bare


@pytest.mark.parametrize("kind", [ProbeKind.READ, ProbeKind.WRITE])
def test_a_probe_set_in_the_middle_of_a_run_is_told(kind: ProbeKind) -> None:
    """An AMO is a load and a store."""
    told = []
    for bare in (in_the_loop(), in_the_loop(("jit",))):
        cell = bare.labels["cell"]
        bare.engine.set_probes([Probe(kind, ProbeAction.RECORD, cell, cell + 7)])
        bare.run(200)
        told.append(bare.engine.take_records())
        bare.engine.set_probes([])
        bare.run(200)
        assert not bare.engine.take_records()
    assert told[0] == told[1]
    assert len(told[0]) // RECORD.size >= 100


def test_a_page_is_dirty_again_after_its_next_atomic() -> None:
    bare = in_the_loop()
    page = (bare.labels["cell"] - RAM) >> 12
    for _ in range(8):
        bare.engine.dirty_pages()
        before = bare.ram("cell")
        bare.run(4)
        assert list(bare.engine.dirty_pages()) == [page]
        assert bare.ram("cell") == before + 1


def test_an_atomic_that_changes_code_ends_what_was_translated_of_it() -> None:
    add, sub = 0x00B50533, 0x40B50533  # a0 = a0 + a1, a0 - a1
    source = f"""
    la s0, patch
    la s1, spare
    li a1, 1
    li a2, {add ^ sub}
    li s2, 40
loop:
patch: .word {add}
    {atomic(4, 13, 9, 12, W)}
    .word {0x0000100F}
    addi s2, s2, -1
    bnez s2, loop
end:
    j end
spare: .word 0
"""
    for at, expected in (("spare", 40), ("patch", 0)):
        bare = Bare(source.replace("la s1, spare", f"la s1, {at}")).at_once()
        bare.run(1000)
        assert bare.reg("pc") == bare.labels["end"]
        assert bare.reg("x10") == expected

"""The engine from outside: positions, exits, breakpoints, MMIO, idle time."""

from __future__ import annotations

import pytest

from machine.tcg.engine import PAGE_SIZE, Engine, ExitReason
from machine.tcg.probes import Probe, ProbeAction, ProbeKind
from tests.bare import Bare
from tests.machine.tcg.rvmodel import BASE, CODE

STOP = "li t6, 0x100000; sw zero, 0(t6)\n"
LOOP = (
    """
    li a0, 1000
    li a1, 0
loop:
    addi a1, a1, 3
    addi a0, a0, -1
    bnez a0, loop
done:
"""
    + STOP
    + "forever: j forever\n"
)
BACKENDS = ["jit", "interp"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_icount_counts_every_retired_instruction(backend: str) -> None:
    bare = Bare(LOOP, backend=backend)
    assert bare.run() is ExitReason.STOP
    # li, li, 1000 rounds of three, then lui, addiw, sw
    assert bare.engine.icount == 2 + 3 * 1000 + 3
    assert bare.reg("x11") == 3000


@pytest.mark.parametrize("backend", BACKENDS)
def test_run_stops_at_every_position_asked_for(backend: str) -> None:
    whole = Bare(LOOP, backend=backend)
    for n in range(1, 400):
        assert whole.engine.run(n) is ExitReason.UNTIL
        assert whole.engine.icount == n
        stepped = whole.state()
        if n % 37 == 0:
            other = Bare(LOOP, backend=backend)
            other.engine.run(n)
            assert other.state() == stepped


@pytest.mark.parametrize("backend", BACKENDS)
def test_mmio_sees_the_exact_position_in_the_middle_of_a_block(backend: str) -> None:
    source = "li t0, 0x10000000; li a0, 50\n"
    source += "again: nop; sb a0, 0(t0); nop; lb a1, 0(t0); addi a0, a0, -1; bnez a0, again\n"
    bare = Bare(source + STOP, backend=backend)
    assert bare.run() is ExitReason.STOP
    assert [at for at, _ in bare.out] == [3 + 6 * i + 1 for i in range(50)]
    assert bare.reads == [3 + 6 * i + 3 for i in range(50)]
    assert [value for _, value in bare.out] == list(range(50, 0, -1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_breakpoint_stops_before_its_instruction_and_is_passed_on_going_on(backend: str) -> None:
    bare = Bare(LOOP, backend=backend)
    loop = bare.labels["loop"]
    bare.engine.set_probes([Probe(ProbeKind.EXEC, ProbeAction.STOP, loop, loop)])
    for i in range(5):
        assert bare.run() is ExitReason.BREAKPOINT
        assert bare.reg("pc") == loop
        assert bare.engine.icount == 2 + 3 * i
        bare.engine.skip_probes_at(bare.engine.icount)
    bare.engine.set_probes([])
    assert bare.run() is ExitReason.STOP


@pytest.mark.parametrize("backend", BACKENDS)
def test_breakpoints_that_note_tell_the_last_hit_without_stopping(backend: str) -> None:
    bare = Bare(LOOP, backend=backend)
    loop = bare.labels["loop"]
    bare.engine.set_probes([Probe(ProbeKind.EXEC, ProbeAction.LAST, loop, loop)])
    assert bare.run() is ExitReason.STOP
    assert bare.engine.probe_hits(0) == 1000
    assert bare.engine.probe_last(0) == 2 + 3 * 999


def test_unmapped_address_is_an_access_fault_of_the_guest() -> None:
    bare = Bare(
        "la t0, trap\ncsrw mtvec, t0\nli t1, 0x20000000\nld a0, 0(t1)\nnop\ntrap: csrr a1, mcause\ncsrr a2, mtval\n"
        + STOP
    )
    assert bare.run() is ExitReason.STOP
    assert (bare.reg("x11"), bare.reg("x12")) == (5, 0x2000_0000)


def test_wfi_jumps_virtual_time_to_the_timer() -> None:
    source = "la t0, trap\ncsrw mtvec, t0\nli t0, 128\ncsrw mie, t0\ncsrr a0, time\nwfi\nnop\ncsrr a1, time\n"
    bare = Bare(source + STOP + "trap: j trap\n")
    bare.engine.set_reg(0, "mtimecmp", 5000)
    assert bare.run() is ExitReason.STOP
    assert bare.reg("x11") >= 5000
    assert bare.engine.icount < 20
    assert bare.engine.warp_ns > 400_000


def test_wfi_with_nothing_to_wake_it_halts() -> None:
    assert Bare("wfi\nnop\n").run() is ExitReason.HALTED


def test_device_deadline_falls_on_its_exact_position() -> None:
    bare = Bare("a: addi a0, a0, 1\nj a\n")
    bare.engine.set_device_deadline(12345)
    assert bare.run() is ExitReason.DEADLINE
    assert bare.engine.icount == 12345


def test_exception_in_a_device_reaches_the_caller() -> None:
    bare = Bare("li t0, 0x10000000\nlb a0, 0(t0)\n" + STOP)

    def broken(paddr: int, size: int, hart: int) -> int:
        raise RuntimeError("device broke")

    bare.mmio_read = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="device broke"):
        bare.run()


def test_state_restored_in_another_engine_goes_on_the_same() -> None:
    first = Bare(LOOP)
    first.engine.run(500)
    second = Bare(LOOP)
    second.engine.set_icount(500)
    second.engine.load_state(0, first.engine.save_state(0))
    second.engine.load_sched(first.engine.save_sched())
    first.run(), second.run()
    assert first.state() == second.state()


@pytest.mark.parametrize("bad", [{}, {"pc": 0}, {"nonsense": 1}])
def test_a_state_of_another_shape_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="not a state"):
        Bare("nop").engine.load_state(0, bad)


def test_memory_outside_ram_is_refused() -> None:
    engine = Bare("nop").engine
    with pytest.raises(ValueError, match="not all in RAM"):
        engine.read_phys(0x8000_0000 + (8 << 20) - 4, 8)
    with pytest.raises(ValueError, match="not all in RAM"):
        engine.write_phys(0, b"x")


def test_impossible_machines_are_refused() -> None:
    host = Bare("nop")
    for harts, size in ((0, 4096), (17, 4096), (1, 4095), (1, 0)):
        with pytest.raises(ValueError, match="no such machine"):
            Engine(ram_base=0, ram_size=size, harts=harts, host=host, builtin_sbi=False)


def test_harts_take_turns_of_a_quantum() -> None:
    source = "csrr t0, mhartid; slli t0, t0, 3; la t1, cells; add t1, t1, t0\n"
    source += "a: ld t2, 0(t1); addi t2, t2, 1; sd t2, 0(t1); j a\n"
    source += ".align 8\ncells: .dword 0\n.dword 0\n.dword 0\n"
    bare = Bare(source, harts=3, quantum=100)
    bare.run(30_000)
    base = bare.labels["cells"]
    counts = [int.from_bytes(bare.engine.read_phys(base + 8 * i, 8), "little") for i in range(3)]
    assert max(counts) - min(counts) <= 26
    assert sum(counts) == pytest.approx(30_000 / 4, abs=10)


def test_a_restored_page_keeps_the_blocks_whose_bytes_stay(engine: Engine) -> None:
    loop = bytes.fromhex("0505fdbf")  # c.addi a0,1; c.j .-2
    page = loop + bytes(PAGE_SIZE - len(loop))
    index = (CODE - BASE) // PAGE_SIZE
    engine.write_phys(CODE, page)
    engine.set_reg(0, "x10", 0)
    engine.run(engine.icount + 100)
    made = engine.translator.stat("tb_translated")
    engine.restore_pages([index], page[:2048] + b"\x55" * 2048)
    engine.run(engine.icount + 100)
    assert (engine.translator.stat("tb_translated"), engine.get_reg(0, "x10")) == (made, 100)
    engine.restore_pages([index], bytes.fromhex("0905fdbf") + b"\x55" * (PAGE_SIZE - 4))  # c.addi a0,2
    assert engine.read_phys(CODE + 4, 2) == b"\x55\x55"
    engine.run(engine.icount + 100)
    assert engine.get_reg(0, "x10") == 200


def test_of_pages_restored_together_those_that_changed_are_told(engine: Engine) -> None:
    first = (CODE - BASE) // PAGE_SIZE
    contents = [bytes([n]) * PAGE_SIZE for n in range(4)]
    pages = [first + 2, first, first + 1, first + 3]
    engine.restore_pages([first + 1], contents[2])
    assert engine.restore_pages(pages, b"".join(contents)) == [first, first + 3]
    assert [bytes(engine.ram[p * PAGE_SIZE : (p + 1) * PAGE_SIZE]) for p in pages] == contents
    assert engine.restore_pages(pages, b"".join(contents)) == []
    assert engine.restore_pages([], b"") == []


def test_pages_that_are_none_are_not_restored_and_neither_are_the_others(engine: Engine) -> None:
    first = (CODE - BASE) // PAGE_SIZE
    for pages, size in (
        ([first, engine.ram_pages], 2),
        ([first, -1], 2),
        ([first, 1 << 40], 2),
        ([first], 2),
    ):
        with pytest.raises(ValueError, match="page"):
            engine.restore_pages(pages, b"\x55" * size * PAGE_SIZE)
    assert not any(engine.ram[first * PAGE_SIZE : (first + 1) * PAGE_SIZE])

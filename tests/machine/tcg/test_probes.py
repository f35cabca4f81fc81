"""Probes: what they see, where they stop, and that no guest can tell."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from machine.tcg.engine import ExitReason
from machine.tcg.probes import NEVER, RECORD, Probe, ProbeAction, ProbeKind
from tests.bare import Bare

BACKENDS = ["jit", "interp"]
STOP = "li t6, 0x100000; sw zero, 0(t6)\nforever: j forever\n"
#: Calls a function that stores its argument to `cell`, a hundred times, with a trap each tenth time.
PROGRAM = (
    """
    la t0, trap; csrw mtvec, t0; li s0, 100; la s1, cell; la sp, stack
loop:
    mv a0, s0
    call store
    li t1, 10; remu t2, s0, t1; bnez t2, next
    ecall
next:
    addi s0, s0, -1
    bnez s0, loop
"""
    + STOP
    + """
store: sd a0, 0(s1); ld a1, 0(s1); ret
trap: csrr t3, mepc; addi t3, t3, 4; csrw mepc, t3; mret
.align 4096
cell: .dword 0
stack: .dword 0
"""
)


def run_with(probes: list[Probe], backend: str) -> tuple[Bare, list[tuple[int, ...]]]:
    bare = Bare(PROGRAM, backend=backend)
    bare.engine.set_probes(probes)
    records = b""
    while (reason := bare.run()) in (ExitReason.RECORDS, ExitReason.BREAKPOINT):
        records += bare.engine.take_records()
    assert reason is ExitReason.STOP
    records += bare.engine.take_records()
    return bare, list(RECORD.iter_unpack(records))


def everywhere(kind: ProbeKind, action: ProbeAction = ProbeAction.RECORD) -> Probe:
    return Probe(kind, action, 0, NEVER)


@pytest.fixture(scope="module")
def plain() -> tuple[object, ...]:
    bare = Bare(PROGRAM)
    assert bare.run() is ExitReason.STOP
    return bare.state()


@pytest.mark.parametrize("action", [ProbeAction.STOP, ProbeAction.LAST, ProbeAction.RECORD])
@pytest.mark.parametrize("kind", [k for k in ProbeKind if k is not ProbeKind.TURN])
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_guest_can_tell(
    kind: ProbeKind, action: ProbeAction, backend: str, plain: tuple[object, ...]
) -> None:
    probe = Probe(kind, action, 8, 8) if kind is ProbeKind.REG else everywhere(kind, action)
    bare = Bare(PROGRAM, backend=backend)
    bare.engine.set_probes([probe])
    while (reason := bare.run()) in (ExitReason.RECORDS, ExitReason.BREAKPOINT):
        bare.engine.take_records()
        bare.engine.skip_probes_at(bare.engine.icount)
    assert reason is ExitReason.STOP
    assert bare.engine.probe_hits(0) > 0
    assert bare.state() == plain


@pytest.mark.parametrize("kind", [k for k in ProbeKind if k is not ProbeKind.REG])
def test_both_back_ends_write_the_same_records(kind: ProbeKind) -> None:
    assert run_with([everywhere(kind)], "jit")[1] == run_with([everywhere(kind)], "interp")[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_instruction_is_recorded_once(backend: str) -> None:
    bare, rows = run_with([everywhere(ProbeKind.EXEC)], backend)
    # every step is an instruction here; the traps are the steps of the ecalls
    assert [row[0] for row in rows] == list(range(bare.engine.icount))


@pytest.mark.parametrize("backend", BACKENDS)
def test_stores_to_a_range_are_recorded_with_value_and_what_was_there(backend: str) -> None:
    bare = Bare(PROGRAM)
    cell = bare.labels["cell"]
    _, rows = run_with([Probe(ProbeKind.WRITE, ProbeAction.RECORD, cell + 3, cell + 3)], backend)
    assert [(row[8], row[10], row[11]) for row in rows] == [
        (cell, n, (n + 1) % 101) for n in range(100, 0, -1)
    ]
    assert {row[1] for row in rows} == {bare.labels["store"]}


@pytest.mark.parametrize("backend", BACKENDS)
def test_calls_and_returns_pair_up(backend: str) -> None:
    bare, rows = run_with([everywhere(ProbeKind.CALL), everywhere(ProbeKind.RET)], backend)
    assert [row[3] for row in rows] == [ProbeKind.CALL, ProbeKind.RET] * 100
    for call, ret in zip(rows[::2], rows[1::2], strict=True):
        assert call[8] == bare.labels["store"]
        assert call[9] == ret[8]
        assert call[10] == ret[10] == bare.labels["stack"]
        assert call[13] == bare.engine.get_reg(0, "x8") + 100 - (rows.index(call) // 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_traps_and_their_returns(backend: str) -> None:
    _, rows = run_with([everywhere(ProbeKind.TRAP), everywhere(ProbeKind.XRET)], backend)
    assert [(row[3], row[8] if row[3] == ProbeKind.TRAP else None) for row in rows] == [
        (ProbeKind.TRAP, 11),
        (ProbeKind.XRET, None),
    ] * 10


@pytest.mark.parametrize("backend", BACKENDS)
def test_watchpoint_stops_right_behind_the_store(backend: str) -> None:
    bare = Bare(PROGRAM, backend=backend)
    cell = bare.labels["cell"]
    bare.engine.set_probes([Probe(ProbeKind.WRITE, ProbeAction.STOP, cell, cell + 7)])
    for n in range(100, 90, -1):
        assert bare.run() is ExitReason.BREAKPOINT
        assert bare.engine.probe_stopped() == 0
        assert bare.reg("pc") == bare.labels["store"] + 4
        assert bare.ram("cell") == n
        assert bare.engine.probe_last(0) == bare.engine.icount


#: S-mode calls `spot` by two virtual addresses, at 6 GiB and 8 GiB above its physical one, 50 times each; then it
#: gives the first one another page, and calls it once more.
ALIASES = (
    """
    li t0, -1; csrw pmpaddr0, t0; li t0, 0x1f; csrw pmpcfg0, t0
    la s0, root; li t0, 0xcf; sd t0, 0(s0); li t0, 0x200000cf; sd t0, 16(s0); sd t0, 80(s0)
    la s1, mid; srli t0, s1, 2; ori t0, t0, 1; sd t0, 48(s0)
    la s2, leaf; srli t0, s2, 2; ori t0, t0, 1; sd t0, 0(s1)
    la s3, spot; srli t0, s3, 2; ori t0, t0, 0xcf; sd t0, 0(s2)
    srli t0, s0, 12; li t1, 8; slli t1, t1, 60; or t0, t0, t1; csrw satp, t0
    li t0, 0x1800; csrc mstatus, t0; li t0, 0x800; csrs mstatus, t0
    la t0, super; csrw mepc, t0; mret
super:
    li s4, 3; slli s4, s4, 31
    li s5, 2; slli s5, s5, 32; add s5, s5, s3
    li s6, 50
again:
    jalr ra, 0(s4); jalr ra, 0(s5)
    addi s6, s6, -1; bnez s6, again
    la t0, other; srli t0, t0, 2; ori t0, t0, 0xcf; sd t0, 0(s2)
    jalr ra, 0(s4)
"""
    + STOP
    + """
.align 4096
spot: addi a0, a0, 1; ret
.align 4096
other: addi a1, a1, 1; ret
.align 4096
root: .dword 0
.align 4096
mid: .dword 0
.align 4096
leaf: .dword 0
"""
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_physical_breakpoint_is_met_by_every_name_of_its_page_and_by_no_other(backend: str) -> None:
    spot = Bare(ALIASES).labels["spot"]
    near, far = 3 << 31, spot + (2 << 32)
    probes = [
        Probe(ProbeKind.EXEC, ProbeAction.RECORD, spot, spot, physical=True),
        Probe(ProbeKind.EXEC, ProbeAction.LAST, near, near),
        Probe(ProbeKind.EXEC, ProbeAction.LAST, far, far),
        Probe(ProbeKind.EXEC, ProbeAction.LAST, spot, spot),
    ]
    bare = Bare(ALIASES, backend=backend)
    bare.run(20)  # some of it is translated before there are any probes
    bare.engine.set_probes(probes)
    assert bare.run() is ExitReason.STOP
    assert [bare.engine.probe_hits(i) for i in range(4)] == [100, 51, 50, 0]
    assert (bare.reg("x10"), bare.reg("x11")) == (100, 1)
    rows = list(RECORD.iter_unpack(bare.engine.take_records()))
    assert [row[1] for row in rows] == [near, far] * 50
    assert {row[9] for row in rows} == {spot}


@pytest.mark.parametrize("backend", BACKENDS)
def test_setting_and_clearing_a_physical_breakpoint_drops_what_was_translated(backend: str) -> None:
    bare = Bare(ALIASES, backend=backend)
    spot = bare.labels["spot"]
    bare.run(200)
    probe = Probe(ProbeKind.EXEC, ProbeAction.STOP, spot + 4, spot + 4, physical=True)
    bare.engine.set_probes([probe])
    assert bare.run() is ExitReason.BREAKPOINT
    assert bare.reg("pc") & 0xFFF == 4
    bare.engine.set_probes([replace(probe, lo=0, hi=NEVER)])
    for _ in range(3):
        at = bare.engine.icount
        bare.engine.skip_probes_at(at)
        assert bare.run() is ExitReason.BREAKPOINT
        assert bare.engine.icount == at + 1
    bare.engine.set_probes([])
    assert bare.run() is ExitReason.STOP
    plain = Bare(ALIASES, backend=backend)
    plain.run()
    assert bare.state() == plain.state()


@pytest.mark.parametrize("backend", BACKENDS)
def test_physical_range_sees_what_a_virtual_one_sees(backend: str) -> None:
    cell = Bare(PROGRAM).labels["cell"]
    virtual = run_with([Probe(ProbeKind.READ, ProbeAction.RECORD, cell, cell)], backend)[1]
    physical = run_with([Probe(ProbeKind.READ, ProbeAction.RECORD, cell, cell, physical=True)], backend)[1]
    assert virtual == physical
    assert len(virtual) == 100


@pytest.mark.parametrize("backend", BACKENDS)
def test_accesses_are_seen_beside_registers_in_the_middle_of_a_run(backend: str) -> None:
    """Probes of registers drop all code, and pages that were looked up before stayed on the fast path."""
    bare = Bare(PROGRAM, backend=backend)
    half = bare.engine.icount + 200
    assert bare.engine.run(half) is ExitReason.UNTIL
    kinds = (ProbeKind.READ, ProbeKind.WRITE)
    registers = Probe(ProbeKind.REG, ProbeAction.RECORD, 10, 10)
    bare.engine.set_probes([*(everywhere(kind) for kind in kinds), registers])
    assert bare.engine.run(half + 100) is ExitReason.UNTIL
    rows = list(RECORD.iter_unpack(bare.engine.take_records()))
    assert {row[3] for row in rows} == {*kinds, ProbeKind.REG}


def ax(*parts: int | tuple[int, int]) -> bytes:
    return b"".join(p.to_bytes(1, "big") if isinstance(p, int) else p[0].to_bytes(p[1], "big") for p in parts)


@pytest.mark.parametrize("backend", BACKENDS)
def test_condition_is_evaluated_beside_the_code(backend: str) -> None:
    cell = Bare(PROGRAM).labels["cell"]
    # value == 42, by gdb's agent expression: reg value; const8 42; equal; end
    condition = ax(0x26, (0x1000, 2), 0x22, 42, 0x13, 0x27)
    _, rows = run_with(
        [Probe(ProbeKind.WRITE, ProbeAction.RECORD, cell, cell + 7, condition=condition)], backend
    )
    assert [row[10] for row in rows] == [42]
    # a0 < 3 at the function's entry, from the guest's register
    store = Bare(PROGRAM).labels["store"]
    condition = ax(0x26, (10, 2), 0x22, 3, 0x15, 0x27)
    _, rows = run_with(
        [Probe(ProbeKind.EXEC, ProbeAction.RECORD, store, store, condition=condition)], backend
    )
    assert [row[13] for row in rows] == [2, 1]


BROKEN = [b"\xff", b"\x26", b"\x13\x27", b"\x28", b"\x21\x00\x00", b"\x22\x01\x32\x09\x27", b""]


@pytest.mark.parametrize("code", BROKEN)
def test_a_broken_condition_does_not_hold_and_does_no_harm(code: bytes) -> None:
    _, rows = run_with([Probe(ProbeKind.WRITE, ProbeAction.RECORD, 0, NEVER, condition=code)], "jit")
    assert bool(rows) is (code == b"")


def test_too_many_probes_are_refused() -> None:
    bare = Bare(PROGRAM)
    with pytest.raises(ValueError, match="too many"):
        bare.engine.set_probes([everywhere(ProbeKind.EXEC)] * 257)
    with pytest.raises(ValueError, match="empty range"):
        bare.engine.set_probes([Probe(ProbeKind.EXEC, ProbeAction.STOP, 5, 4)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_paired_returns_are_those_of_recorded_calls(backend: str) -> None:
    store = Bare(PROGRAM).labels["store"]
    calls = Probe(ProbeKind.CALL, ProbeAction.RECORD, store, store)
    returns = Probe(ProbeKind.RET, ProbeAction.RECORD, 0, NEVER, paired=True)
    _, rows = run_with([calls, returns], backend)
    assert [row[3] for row in rows] == [ProbeKind.CALL, ProbeKind.RET] * 100
    nowhere = Probe(ProbeKind.CALL, ProbeAction.RECORD, 0, 0)
    assert run_with([nowhere, returns], backend)[1] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_counts_are_those_of_the_records(backend: str) -> None:
    bare = Bare(PROGRAM, backend=backend)
    bare.engine.set_probes([everywhere(ProbeKind.EXEC, ProbeAction.COUNT)])
    assert bare.run() is ExitReason.STOP
    counted = bare.engine.take_counts()
    assert counted == dict(Counter(row[1] for row in run_with([everywhere(ProbeKind.EXEC)], backend)[1]))
    assert counted[bare.labels["store"]] == 100
    with pytest.raises(ValueError, match="too many"):
        bare.engine.set_probes([everywhere(ProbeKind.CALL, ProbeAction.COUNT)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_turns_are_recorded_where_they_begin(backend: str) -> None:
    bare = Bare("loop: addi a0, a0, 1; j loop", backend=backend, harts=3, quantum=100)
    bare.engine.set_probes([everywhere(ProbeKind.TURN)])
    bare.run(1050)
    rows = list(RECORD.iter_unpack(bare.engine.take_records()))
    assert [(row[0], row[4], row[8]) for row in rows] == [(100 * i, i % 3, i % 3) for i in range(1, 11)]


def test_no_probe_stops_where_a_turn_begins() -> None:
    """The machine there would have another state than one that has run to the same position."""
    with pytest.raises(ValueError, match="where none can be"):
        Bare(PROGRAM).engine.set_probes([everywhere(ProbeKind.TURN, ProbeAction.STOP)])

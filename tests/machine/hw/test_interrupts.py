"""PLIC and ACLINT."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.hw.aclint import Aclint
from machine.hw.plic import Plic
from machine.hw.virtmap import IRQ_MEIP, IRQ_MSIP, IRQ_SEIP
from tests.machine.hw.fakes import FakeHarts, FakeWires

ENABLE, THRESHOLD, CLAIM = 0x2000, 0x20_0000, 0x20_0004
S_MODE = 1  # context of hart 0


class Rig:
    """A PLIC of two harts."""

    def __init__(self) -> None:
        self.wires = FakeWires()
        self.harts = FakeHarts(2)
        self.plic = Plic(self.wires, "plic", 0, self.harts, 2)
        self.wires.plug(self.plic)

    def enable(self, context: int, *sources: int) -> None:
        for source in sources:
            at = ENABLE + 0x80 * context + 4 * (source // 32)
            self.plic.write(at, 4, self.plic.read(at, 4) | 1 << source % 32)

    def claim(self, context: int) -> int:
        return self.plic.read(CLAIM + 0x1000 * context, 4)

    def complete(self, context: int, source: int) -> None:
        self.plic.write(CLAIM + 0x1000 * context, 4, source)

    def out(self, hart: int, line: int) -> bool:
        return self.harts.lines.get((hart, line), False)


@pytest.fixture
def rig() -> Rig:
    made = Rig()
    for source in (3, 10, 40):
        made.plic.write(4 * source, 4, 1)
    made.enable(S_MODE, 3, 10, 40)
    return made


def test_highest_priority_then_lowest_id_is_claimed(rig: Rig) -> None:
    rig.plic.write(4 * 40, 4, 7)
    for source in (10, 3, 40):
        rig.plic.line(source).set(True)
    assert [rig.claim(S_MODE) for _ in range(4)] == [40, 3, 10, 0]


def test_line_goes_to_the_context_that_enabled_it(rig: Rig) -> None:
    rig.enable(2, 40)  # M-mode of hart 1
    rig.plic.line(40).set(True)
    assert rig.out(0, IRQ_SEIP) and rig.out(1, IRQ_MEIP)
    assert not rig.out(0, IRQ_MEIP) and not rig.out(1, IRQ_SEIP)


def test_high_wire_is_pending_again_after_completion(rig: Rig) -> None:
    line = rig.plic.line(10)
    line.set(True)
    assert rig.claim(S_MODE) == 10
    assert not rig.out(0, IRQ_SEIP) and rig.claim(S_MODE) == 0
    rig.complete(S_MODE, 10)
    assert rig.out(0, IRQ_SEIP) and rig.claim(S_MODE) == 10
    line.set(False)
    rig.complete(S_MODE, 10)
    assert not rig.out(0, IRQ_SEIP) and rig.claim(S_MODE) == 0


def test_accepted_request_stays_when_the_wire_falls(rig: Rig) -> None:
    rig.plic.line(3).set(True)
    rig.plic.line(3).set(False)
    assert rig.plic.read(0x1000, 4) == 1 << 3
    assert rig.claim(S_MODE) == 3


def test_threshold_masks_the_line_but_not_the_claim(rig: Rig) -> None:
    rig.plic.write(THRESHOLD + 0x1000 * S_MODE, 4, 1)
    rig.plic.line(10).set(True)
    assert not rig.out(0, IRQ_SEIP)
    assert rig.claim(S_MODE) == 10


def test_completion_of_a_disabled_source_is_ignored(rig: Rig) -> None:
    rig.plic.line(10).set(True)
    assert rig.claim(S_MODE) == 10
    rig.complete(0, 10)
    rig.complete(S_MODE, 1 << 31)
    assert rig.claim(S_MODE) == 0
    assert len(rig.wires.errors) == 2


def test_contexts_that_are_not_there_are_guest_errors(rig: Rig) -> None:
    rig.plic.write(ENABLE + 0x80 * 4, 4, 0xFF)
    assert rig.plic.read(CLAIM + 0x1000 * 4, 4) == 0
    assert len(rig.wires.errors) == 2


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(0, 7)), max_size=60))
def test_lines_always_say_what_is_pending(operations: list[tuple[int, int, int]]) -> None:
    """After any operations a line is high exactly when something enabled is pending above the threshold."""
    rig = Rig()
    for kind, source, value in operations:
        if kind == 0:
            rig.plic.line(source).set(bool(value & 1))
        elif kind == 1:
            rig.plic.write(4 * source, 4, value)
        elif kind == 2:
            rig.plic.write(ENABLE + 0x80 * (value & 3), 4, 1 << source)
        elif kind == 3:
            rig.plic.write(THRESHOLD + 0x1000 * (value & 3), 4, source)
        elif kind == 4:
            rig.claim(value & 3)
        else:
            rig.complete(value & 3, source)
    plic = rig.plic
    for context in range(4):
        wanted = any(
            plic.pending >> s & 1
            and plic.enabled[context] >> s & 1
            and plic.priority[s] > plic.threshold[context]
            for s in range(96)
        )
        assert rig.out(context >> 1, IRQ_SEIP if context & 1 else IRQ_MEIP) == wanted
    assert not plic.pending & plic.in_service
    other = Plic(rig.wires, "other", 0, rig.harts, 2)
    other.reset()
    other.load_state(plic.save_state())
    assert other.save_state() == plic.save_state()


def test_state_of_another_number_of_harts_is_refused(rig: Rig) -> None:
    other = Plic(rig.wires, "other", 0, FakeHarts(1), 1)
    other.reset()
    with pytest.raises(ValueError, match="2 contexts"):
        other.load_state(rig.plic.save_state())


def test_aclint_registers_reach_the_harts() -> None:
    wires, harts = FakeWires(), FakeHarts(2)
    clint = Aclint(wires, "clint", 0, harts, 2)
    wires.plug(clint)
    clint.write(4, 4, 1)
    assert harts.lines == {(1, IRQ_MSIP): True}
    assert clint.read(4, 4) == 1
    clint.write(0x4008, 8, 1 << 40)
    assert harts.regs[1]["mtimecmp"] == 1 << 40
    clint.write(0x400C, 4, 0)
    clint.write(0x4008, 4, 77)
    assert clint.read(0x4008, 8) == 77
    wires.vtime_ns = 12_399
    assert clint.read(0xBFF8, 8) == 123
    assert not wires.errors
    clint.write(8, 4, 1)
    assert wires.errors and (2, IRQ_MSIP) not in harts.lines


def test_mtime_can_be_written_whole_and_by_halves() -> None:
    """It was read-only: a program that sets the time went on with the old one. Spec: ACLINT 1.0, 2.1"""
    wires, harts = FakeWires(), FakeHarts(1)
    clint = Aclint(wires, "clint", 0, harts, 1)
    wires.plug(clint)
    wires.run_to(500_000)
    assert clint.read(0xBFF8, 8) == 5000
    clint.write(0xBFF8, 8, 100)
    assert clint.read(0xBFF8, 8) == 100 and harts.time_offset == (100 - 5000) % (1 << 64)
    wires.run_to(600_000)
    assert clint.read(0xBFF8, 8) == 1100
    clint.write(0xBFFC, 4, 7)
    assert (clint.read(0xBFFC, 4), clint.read(0xBFF8, 4)) == (7, 1100)
    clint.write(0xBFF8, 4, 9)
    assert clint.read(0xBFF8, 8) == 7 << 32 | 9
    other = Aclint(wires, "clint", 0, FakeHarts(1), 1)
    other.reset()
    other.load_state(clint.save_state())
    assert other.read(0xBFF8, 8) == 7 << 32 | 9
    assert not wires.errors

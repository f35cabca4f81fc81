"""The register DSL: dispatch, misbehaving guests, saved state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.hw.device import Device
from machine.hw.registers import Field, Reg, RegBank, Window, describe
from machine.hw.state import ByteString, Int, Ints
from tests.machine.hw.fakes import FakeWires


class Gadget(Device):
    """Every kind of register."""

    control = Reg(
        0x00, fields=(Field("enable", 0), Field("mode", 4, 2), Field("id", 8, 8, access="ro")), reset=0x700
    )
    status = Reg(0x04, access="ro", stored=False)
    command = Reg(0x04, access="wo", stored=False)
    counter = Reg(0x08, size=8)
    bank = RegBank(0x100, count=4, stride=0x10, sizes=(2, 4))
    window = Window(0x200, 0x10)
    seen = Ints(32, max_count=8)
    level = Int(3)
    text = ByteString(4)

    @status.on_read
    def _read_status(self) -> int:
        return 0xABCD

    @command.on_write
    def _write_command(self, value: int) -> None:
        self.seen.append(value)

    @window.on_read
    def _read_window(self, offset: int, size: int) -> int:
        return offset << 8 | size


@pytest.fixture
def wires() -> FakeWires:
    return FakeWires()


@pytest.fixture
def gadget(wires: FakeWires) -> Gadget:
    device = Gadget(wires, "gadget", 0x1000)
    wires.plug(device)
    return device


def test_write_changes_writable_fields_only(gadget: Gadget, wires: FakeWires) -> None:
    gadget.write(0, 4, 0xFF31)
    assert gadget.read(0, 4) == 0x731
    assert not wires.errors


def test_reserved_bit_is_a_guest_error_and_reads_zero(gadget: Gadget, wires: FakeWires) -> None:
    gadget.write(0, 4, 0x8000_0001)
    assert gadget.read(0, 4) == 0x701
    assert wires.errors == ["gadget: write of 0x80000001 to control: reserved bits 0x80000000"]


def test_read_and_write_registers_share_an_offset(gadget: Gadget) -> None:
    gadget.write(4, 4, 7)
    assert gadget.seen == [7]
    assert gadget.read(4, 4) == 0xABCD


def test_wide_register_is_accessed_in_halves(gadget: Gadget) -> None:
    gadget.write(8, 8, 0x1122_3344_5566_7788)
    assert (gadget.read(8, 4), gadget.read(12, 4)) == (0x5566_7788, 0x1122_3344)
    gadget.write(12, 4, 1)
    gadget.write(8, 4, 2)
    assert gadget.read(8, 8) == 0x1_0000_0002


def test_bank_and_window(gadget: Gadget) -> None:
    gadget.write(0x120, 2, 0x1234)
    assert gadget.bank == [0, 0, 0x1234, 0]
    assert gadget.read(0x20C, 2) == 0xC02


@pytest.mark.parametrize(
    ("offset", "size"), [(0x40, 4), (1, 1), (0, 8), (0, 1), (0x110, 1), (0x20F, 2), (12, 8)]
)
def test_guest_miss_reads_zero_writes_nothing_and_is_logged(
    gadget: Gadget, wires: FakeWires, offset: int, size: int
) -> None:
    before = gadget.save_state()
    assert gadget.read(offset, size) == 0
    gadget.write(offset, size, 0xFF)
    assert gadget.save_state() == before
    assert len(wires.errors) == 2


def test_two_registers_at_one_offset_are_refused() -> None:
    with pytest.raises(TypeError, match="both at 0x0"):
        type("Bad", (Device,), {"a": Reg(0), "b": Reg(0)})


@given(st.integers(0, 0x300), st.sampled_from((1, 2, 4, 8)), st.integers(0, (1 << 64) - 1))
def test_no_access_raises(offset: int, size: int, value: int) -> None:
    wires = FakeWires()
    device = Gadget(wires, "gadget", 0)
    wires.plug(device)
    device.write(offset, size, value & ((1 << 8 * size) - 1))
    assert 0 <= device.read(offset, size) < 1 << 8 * size


def test_state_comes_back(gadget: Gadget, wires: FakeWires) -> None:
    gadget.write(0, 4, 0x31)
    gadget.write(4, 4, 9)
    gadget.text += b"abc"
    state = gadget.save_state()
    assert list(state) == ["control", "counter", "bank", "seen", "level", "text"]
    other = Gadget(wires, "other", 0x2000)
    other.reset()
    other.load_state(state)
    assert other.save_state() == state
    assert other.text == b"abc"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["control", "counter", "bank", "seen", "level", "text"]), json_values),
    st.booleans(),
)
def test_foreign_state_is_refused_or_taken_whole(parts: dict[str, Any], whole: bool) -> None:
    wires = FakeWires()
    device = Gadget(wires, "gadget", 0)
    device.reset()
    state = {**device.save_state(), **parts} if whole else parts
    try:
        device.load_state(state)
    except ValueError:
        return
    assert device.save_state() == {k: v.lower() if k == "text" else v for k, v in state.items()}


def test_documentation_derives_from_the_declaration() -> None:
    text = describe(Gadget)
    assert "| 0x0 | control | 4 | rw | 0x700 | enable[0]; mode[5:4]; id[15:8] |" in text
    assert "| 0x100 × 4 every 0x10 | bank |" in text

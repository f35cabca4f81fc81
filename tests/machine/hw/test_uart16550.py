"""The serial port as drivers use it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.hw.uart16550 import Uart
from machine.inputs import Input
from tests.machine.hw.fakes import FakeLine, FakeWires

DATA, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 0, 1, 2, 2, 3, 4, 5, 6, 7


class Rig:
    """A port and its wire."""

    def __init__(self) -> None:
        self.wires = FakeWires()
        self.line = FakeLine()
        self.uart = Uart(self.wires, "uart0", 0x1000_0000, self.line)
        self.wires.plug(self.uart)

    def put(self, offset: int, value: int) -> None:
        self.uart.write(offset, 1, value)

    def get(self, offset: int) -> int:
        return self.uart.read(offset, 1)

    def type(self, text: bytes) -> None:
        self.uart.deliver(Input("uart0", "rx", text))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_characters_leave_at_once(rig: Rig) -> None:
    for char in b"hi\n":
        assert rig.get(LSR) & 0x60 == 0x60
        rig.put(DATA, char)
    assert rig.wires.ports["uart0"].text == b"hi\n"


def test_transmit_interrupt_comes_with_enable_and_goes_with_identification(rig: Rig) -> None:
    rig.put(IER, 2)
    assert rig.line.level
    assert rig.get(IIR) == 2
    assert not rig.line.level and rig.get(IIR) == 1
    rig.put(DATA, 65)
    assert rig.line.level and rig.get(IIR) == 2
    rig.put(IER, 0)
    rig.put(IER, 2)
    assert rig.line.level
    rig.put(IER, 0)
    assert not rig.line.level


def test_receive_trigger_and_timeout(rig: Rig) -> None:
    rig.put(FCR, 0x81)  # FIFO, trigger at 8
    rig.put(IER, 1)
    rig.type(b"1234567")
    assert rig.line.level and rig.get(IIR) == 0xCC
    rig.type(b"8")
    assert rig.get(IIR) == 0xC4
    assert bytes(rig.get(DATA) for _ in range(8)) == b"12345678"
    assert not rig.line.level and not rig.get(LSR) & 1


def test_nothing_typed_is_lost_beyond_the_fifo(rig: Rig) -> None:
    text = bytes(range(1, 201))
    rig.put(FCR, 1)
    rig.type(text)
    read = bytearray()
    while rig.get(LSR) & 1:
        read.append(rig.get(DATA))
    assert read == text


def test_fifo_reset_drops_what_the_chip_holds(rig: Rig) -> None:
    rig.put(FCR, 1)
    rig.type(bytes(range(20)))
    rig.put(FCR, 3)
    assert rig.get(DATA) == 16


def test_divisor_latch_hides_data_and_enables(rig: Rig) -> None:
    rig.put(IER, 1)
    rig.put(LCR, 0x83)
    rig.put(0, 0x34)
    rig.put(1, 0x12)
    assert (rig.get(0), rig.get(1)) == (0x34, 0x12)
    rig.put(LCR, 3)
    assert rig.get(IER) == 1 and rig.uart.divisor == 0x1234
    assert rig.wires.ports["uart0"].text == b""


def test_loopback_returns_data_and_modem_lines(rig: Rig) -> None:
    assert rig.get(MSR) & 0xF0 == 0xB0
    rig.put(MCR, 0x1A)  # loop, OUT2, RTS: what Linux probes with
    assert rig.get(MSR) & 0xF0 == 0x90
    rig.put(DATA, 0x5A)
    assert rig.get(DATA) == 0x5A
    assert rig.wires.ports["uart0"].text == b""
    rig.put(DATA, 1)
    rig.put(DATA, 2)
    assert rig.get(LSR) & 2, "an overrun"
    assert not rig.get(LSR) & 2, "reading clears it"


def test_line_status_has_the_highest_priority(rig: Rig) -> None:
    rig.put(IER, 0x0F)
    rig.uart.deliver(Input("uart0", "break", b""))
    assert rig.get(IIR) == 6
    assert rig.get(LSR) & 0x11 == 0x11
    assert rig.get(IIR) == 4
    assert rig.get(DATA) == 0
    assert rig.get(IIR) == 2


def test_scratch_and_fifo_bits_identify_a_16550a(rig: Rig) -> None:
    rig.put(SCR, 0xA5)
    assert rig.get(SCR) == 0xA5
    rig.put(FCR, 1)
    assert rig.get(IIR) & 0xC0 == 0xC0
    rig.put(FCR, 0)
    assert rig.get(IIR) & 0xC0 == 0


def test_words_reach_the_register_at_their_address(rig: Rig) -> None:
    """Small programs print with ``sw``: QEMU's board takes it, here it was dropped as a guest's mistake."""
    for size, char in ((1, b"a"), (2, b"b"), (4, b"c"), (8, b"d")):
        rig.uart.write(DATA, size, 0x4300 | char[0] if size > 1 else char[0])
    assert rig.wires.ports["uart0"].text == b"abcd"
    assert rig.uart.read(MCR, 4) == 0 and rig.uart.read(LSR, 2) == 0x60
    assert not rig.wires.errors


def test_unknown_input_is_a_guest_error_line(rig: Rig) -> None:
    rig.uart.deliver(Input("uart0", "smoke", b""))
    assert rig.wires.errors


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans(), st.integers(0, 255)), max_size=80))
def test_interrupt_line_always_agrees_with_identification(accesses: list[tuple[int, bool, int]]) -> None:
    rig = Rig()
    for offset, write, value in accesses:
        if write:
            rig.put(offset, value)
        elif value & 1:
            rig.get(offset)
        else:
            rig.type(bytes((value,)))
        state = rig.uart.save_state()
        other = Rig()
        other.uart.load_state(state)
        assert (other.get(IIR) & 1 == 0) == rig.line.level
        assert rig.uart.save_state() == state

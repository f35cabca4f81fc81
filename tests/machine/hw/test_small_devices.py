"""Finisher and clock."""

from __future__ import annotations

import pytest

from machine.hw.finisher import Finisher
from machine.hw.goldfish_rtc import GoldfishRtc
from tests.machine.hw.fakes import FakeLine, FakeWires


@pytest.mark.parametrize(
    ("value", "stop"),
    [(0x5555, ("poweroff", 0)), (0x7777, ("reboot", 0)), (0x3333, ("fail", 0)), (0x2A_3333, ("fail", 42))],
)
def test_finisher_ends_the_machine(value: int, stop: tuple[str, int]) -> None:
    wires = FakeWires()
    device = Finisher(wires, "finisher", 0x10_0000)
    wires.plug(device)
    device.write(0, 4, value)
    assert wires.stops == [stop]


def test_finisher_ignores_what_is_no_status() -> None:
    wires = FakeWires()
    device = Finisher(wires, "finisher", 0x10_0000)
    wires.plug(device)
    device.write(0, 4, 1)
    device.write(0, 1, 0x55)
    assert not wires.stops and len(wires.errors) == 2


class Rtc:
    """A clock that was switched on at 1,700,000,000 s."""

    WALL = 1_700_000_000_123_456_789

    def __init__(self) -> None:
        self.wires = FakeWires()
        self.line = FakeLine()
        self.device = GoldfishRtc(self.wires, "rtc", 0x10_1000, self.line)
        self.wires.plug(self.device)
        self.wires.answer = self.WALL.to_bytes(8, "little")
        self.device.started()

    def time(self) -> int:
        return self.device.read(0, 4) | self.device.read(4, 4) << 32

    def set_alarm(self, time_ns: int) -> None:
        self.device.write(0x0C, 4, time_ns >> 32)
        self.device.write(0x08, 4, time_ns & 0xFFFF_FFFF)


def test_wall_clock_is_asked_once_and_goes_with_virtual_time() -> None:
    rtc = Rtc()
    assert rtc.time() == Rtc.WALL
    rtc.wires.vtime_ns = 5_000_000_000
    assert rtc.time() == Rtc.WALL + 5_000_000_000
    assert rtc.wires.asked == [("rtc", "wallclock", b"")]


def test_reading_low_latches_high() -> None:
    rtc = Rtc()
    rtc.device.read(0, 4)
    high = rtc.device.read(4, 4)
    rtc.wires.vtime_ns = 1 << 33
    assert rtc.device.read(4, 4) == high


def test_guest_sets_the_time() -> None:
    rtc = Rtc()
    rtc.device.write(4, 4, 1)
    rtc.device.write(0, 4, 2)
    assert rtc.time() == (1 << 32) + 2


def test_alarm_rings_at_its_time_until_cleared() -> None:
    rtc = Rtc()
    rtc.device.write(0x10, 4, 1)
    rtc.set_alarm(Rtc.WALL + 1000)
    assert rtc.device.read(0x18, 4) == 1
    rtc.wires.run_to(999)
    assert not rtc.line.level
    rtc.wires.run_to(1000)
    assert rtc.line.level and rtc.device.read(0x18, 4) == 0
    rtc.device.write(0x1C, 4, 1)
    assert not rtc.line.level


def test_alarm_in_the_past_rings_at_once_and_a_cleared_one_never() -> None:
    rtc = Rtc()
    rtc.device.write(0x10, 4, 1)
    rtc.set_alarm(5)
    assert rtc.line.level
    rtc.device.write(0x1C, 4, 1)
    rtc.set_alarm(Rtc.WALL + 1000)
    rtc.device.write(0x14, 4, 1)
    rtc.wires.run_to(10_000)
    assert not rtc.line.level

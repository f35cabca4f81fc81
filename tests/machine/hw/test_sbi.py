"""The built-in SBI against its specification."""

from __future__ import annotations

import pytest

from machine.hw.sbi import Sbi
from machine.hw.virtmap import IRQ_SEIP, IRQ_SSIP
from tests.machine.hw.fakes import RAM_BASE, FakeHarts, FakePort, FakeRam

BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN = (
    0x10,
    0x54494D45,
    0x735049,
    0x52464E43,
    0x48534D,
    0x53525354,
    0x4442434E,
)
U64 = (1 << 64) - 1
ERRORS = {
    name: -value & U64 for name, value in (("unsupported", 2), ("param", 3), ("address", 5), ("already", 6))
}


class Rig:
    """An SBI of three harts; hart 1 and 2 are stopped."""

    def __init__(self) -> None:
        self.harts = FakeHarts(3)
        self.harts.stopped = [False, True, True]
        self.ram, self.port = FakeRam(), FakePort()
        self.typed = bytearray()
        self.stops: list[tuple[str, int]] = []
        self.sbi = Sbi(
            self.harts, self.ram, self.port, self._receive, self._stop, lambda _source, _text: None
        )

    def _receive(self, size: int) -> bytes:
        data = bytes(self.typed[:size])
        del self.typed[:size]
        return data

    def _stop(self, reason: str, code: int) -> None:
        self.stops.append((reason, code))

    def call(self, extension: int, function: int, *args: int, hart: int = 0) -> tuple[int, int]:
        for i, arg in enumerate((*args, *(0,) * (6 - len(args)))):
            self.harts.set_reg(hart, f"x{10 + i}", arg & U64)
        self.harts.set_reg(hart, "x16", function)
        self.harts.set_reg(hart, "x17", extension)
        self.sbi.call(hart)
        return self.harts.get_reg(hart, "x10"), self.harts.get_reg(hart, "x11")


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_base_tells_version_and_extensions(rig: Rig) -> None:
    assert rig.call(BASE, 0) == (0, 2 << 24)
    for extension in (BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN, 0, 8):
        assert rig.call(BASE, 3, extension) == (0, 1)
    assert rig.call(BASE, 3, 0x504D55) == (0, 0)
    assert rig.call(BASE, 9) == (ERRORS["unsupported"], 0)


def test_unknown_extension_is_not_supported(rig: Rig) -> None:
    assert rig.call(0x0999_9999, 0) == (ERRORS["unsupported"], 0)
    for extension in (TIME, IPI, RFENCE, HSM, SRST, DBCN):
        assert rig.call(extension, 99) == (ERRORS["unsupported"], 0)


def test_set_timer_sets_the_compare_register(rig: Rig) -> None:
    assert rig.call(TIME, 0, 12345) == (0, 0)
    assert rig.harts.regs[0]["stimecmp"] == 12345


def test_ipi_reaches_the_harts_of_the_mask(rig: Rig) -> None:
    assert rig.call(IPI, 0, 0b11, 1) == (0, 0)
    assert rig.harts.lines == {(1, IRQ_SSIP): True, (2, IRQ_SSIP): True}
    assert rig.call(IPI, 0, 0, U64) == (0, 0)
    assert rig.harts.lines[0, IRQ_SSIP]
    assert rig.call(IPI, 0, 1, 3)[0] == ERRORS["param"]


def test_remote_fence_checks_its_harts(rig: Rig) -> None:
    assert rig.call(RFENCE, 1, 0b111, 0, 0, U64) == (0, 0)
    assert rig.call(RFENCE, 0, 1 << 5, 0)[0] == ERRORS["param"]
    assert rig.call(RFENCE, 3, 1, 0)[0] == ERRORS["unsupported"]


def test_hart_starts_runs_and_stops(rig: Rig) -> None:
    assert rig.call(HSM, 2, 1) == (0, 1)
    rig.harts.regs[1]["seip_line"] = 1
    assert rig.call(HSM, 0, 1, RAM_BASE + 0x100, 77) == (0, 0)
    assert rig.harts.resets == [(1, RAM_BASE + 0x100, 1, 77)]
    assert rig.harts.lines[1, IRQ_SEIP], "the interrupt controller's wire keeps its level"
    assert rig.call(HSM, 2, 1) == (0, 0)
    assert rig.call(HSM, 0, 1, RAM_BASE, 0)[0] == ERRORS["already"]
    rig.call(HSM, 1, hart=1)
    assert rig.call(HSM, 2, 1) == (0, 1)


def test_hart_start_checks_hart_and_address(rig: Rig) -> None:
    assert rig.call(HSM, 0, 3, RAM_BASE)[0] == ERRORS["param"]
    assert rig.call(HSM, 0, 1, 0x1000)[0] == ERRORS["address"]
    assert rig.call(HSM, 0, 1, RAM_BASE + 1)[0] == ERRORS["address"]
    assert rig.harts.stopped[1]


def test_suspend_types(rig: Rig) -> None:
    for kind, error in (
        (5, "param"),
        (0x8000_0001, "param"),
        (0x1000_0000, "unsupported"),
        (0x9000_0000, "unsupported"),
    ):
        assert rig.call(HSM, 3, kind, RAM_BASE)[0] == ERRORS[error]
    assert rig.call(HSM, 3, 0x8000_0000, RAM_BASE + 1)[0] == ERRORS["address"]
    assert rig.call(HSM, 3, 0x8000_0000, 0x1000)[0] == ERRORS["address"]
    assert not rig.harts.suspended[0] and not rig.harts.jumps


def test_suspended_hart_says_so_and_comes_back_behind_the_call(rig: Rig) -> None:
    """A suspension came back at once, and nobody ever saw a hart suspended."""
    assert rig.call(HSM, 3, 1 << 63)[0] == 0, "only the low half of the type counts"
    assert rig.harts.suspended[0] and not rig.harts.jumps
    assert rig.call(HSM, 2, 0, hart=1) == (0, 4)


def test_non_retentive_suspension_resumes_elsewhere(rig: Rig) -> None:
    """It was not supported. What the hart resumes with is table 9's: satp 0, SIE 0, a0 and a1."""
    rig.harts.regs[0].update(satp=8 << 60, sstatus=0x22)
    assert rig.call(HSM, 3, 0x8000_0000, RAM_BASE + 0x100, 77) == (0, 77)
    assert rig.harts.suspended[0] and rig.harts.jumps == [(0, RAM_BASE + 0x100)]
    assert (rig.harts.regs[0]["satp"], rig.harts.regs[0]["sstatus"]) == (0, 0x20)


@pytest.mark.parametrize(
    ("kind", "reason", "stop"),
    [(0, 0, ("poweroff", 0)), (0, 1, ("fail", 1)), (1, 0, ("reboot", 0)), (2, 0, ("reboot", 0))],
)
def test_system_reset(rig: Rig, kind: int, reason: int, stop: tuple[str, int]) -> None:
    rig.call(SRST, 0, kind, reason)
    assert rig.stops == [stop]


def test_system_reset_of_unknown_type_is_refused(rig: Rig) -> None:
    assert rig.call(SRST, 0, 3, 0)[0] == ERRORS["param"]
    assert rig.call(SRST, 0, 0, 2)[0] == ERRORS["param"]
    assert rig.call(SRST, 0, 0xF000_0000, 0)[0] == ERRORS["unsupported"], "a vendor's type is not reserved"
    assert not rig.stops


def test_debug_console_writes_and_reads_memory(rig: Rig) -> None:
    rig.ram.write(RAM_BASE + 16, b"hello")
    assert rig.call(DBCN, 0, 5, RAM_BASE + 16, 0) == (0, 5)
    assert rig.call(DBCN, 2, 0x21) == (0, 0)
    assert rig.port.text == b"hello!"
    rig.typed += b"abc"
    assert rig.call(DBCN, 1, 16, RAM_BASE + 64, 0) == (0, 3)
    assert rig.ram.read(RAM_BASE + 64, 4) == b"abc\0"


@pytest.mark.parametrize(
    ("size", "low", "high"),
    [(1, 0x1000, 0), (8, RAM_BASE + (1 << 20) - 4, 0), (1, RAM_BASE, 1), (U64, RAM_BASE + 64, 1)],
)
def test_debug_console_checks_its_addresses(rig: Rig, size: int, low: int, high: int) -> None:
    assert rig.call(DBCN, 0, size, low, high)[0] == ERRORS["param"]
    assert rig.port.text == b""


def test_debug_console_read_outside_ram_takes_no_input(rig: Rig) -> None:
    rig.typed += b"abc"
    assert rig.call(DBCN, 1, 3, 0x1000, 0)[0] == ERRORS["param"]
    assert rig.typed == b"abc"


def test_legacy_console(rig: Rig) -> None:
    assert rig.call(1, 0, 0x41)[0] == 0
    assert rig.port.text == b"A"
    assert rig.call(2, 0)[0] == U64
    rig.typed += b"z"
    assert rig.call(2, 0)[0] == ord("z")


def test_legacy_ipi_reads_its_mask_through_the_page_table(rig: Rig) -> None:
    rig.harts.pages[0xFFFF_0000] = RAM_BASE
    rig.ram.write(RAM_BASE, (0b100).to_bytes(8, "little"))
    assert rig.call(4, 0, 0xFFFF_0000)[0] == 0
    assert rig.harts.lines == {(2, IRQ_SSIP): True}
    assert rig.call(4, 0, 0xDEAD_0000)[0] == U64
    rig.call(3, 0, hart=2)
    assert rig.harts.lines == {(2, IRQ_SSIP): False}
    rig.call(8, 0)
    assert rig.stops == [("poweroff", 0)]

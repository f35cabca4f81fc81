"""The transport: negotiation, reset, and drivers that break the rules."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.hw.virtio.console import VirtioConsole
from machine.hw.virtio.device import VirtioDevice
from machine.hw.virtio.mmio import NEEDS_RESET, VirtioMmio
from machine.hw.virtio.rng import VirtioRng
from machine.inputs import Input
from tests.machine.hw.fakes import RAM_BASE, FakeLine, FakeWires
from tests.machine.hw.virtio.driver import EVENT_BIT, INDIRECT, INDIRECT_BIT, NEXT, WRITE, Driver


def rng(low_features: int = 0, start: bool = True) -> Driver:
    driver = Driver(VirtioRng("rng0"), low_features, start)
    driver.wires.answer = bytes(range(256))
    return driver


def test_empty_slot_has_no_device() -> None:
    wires = FakeWires()
    slot = VirtioMmio(wires, 0x1000_1000, FakeLine(), 1, None, 0)
    wires.plug(slot)
    assert [slot.read(o, 4) for o in (0, 4, 8)] == [0x74726976, 2, 0]
    assert slot.name == "virtio-mmio0"


def test_entropy_is_asked_of_the_gate_and_interrupts() -> None:
    driver = rng()
    at = driver.chain([], [8, 8])
    driver.offer(0)
    assert driver.wires.asked == [("rng0", "entropy", (16).to_bytes(4, "little"))]
    assert driver.used() == [(0, 16)]
    assert driver.wires.ram.read(at[0], 8) + driver.wires.ram.read(at[1], 8) == bytes(range(16))
    assert driver.line.level and driver.r(0x60) == 1
    driver.w(0x64, 1)
    assert not driver.line.level


@pytest.mark.parametrize("features", [(1 << 5, 1), (0, 3)])
def test_wrong_features_are_refused(features: tuple[int, int]) -> None:
    driver = rng(start=False)
    driver.w(0x70, 3)
    for half in (0, 1):
        driver.w(0x24, half)
        driver.w(0x20, features[half])
    driver.w(0x70, 0xB)
    assert driver.r(0x70) == 3
    driver.w(0x70, 0xF)
    assert not driver.r(0x70) & 4, "no DRIVER_OK without FEATURES_OK"


def test_driver_without_version_1_is_served() -> None:
    """Teaching kernels take the lower half of the features alone: QEMU's device goes on, as section 6.2 allows."""
    driver = rng(start=False)
    for status in (1, 3):
        driver.w(0x70, status)
    driver.w(0x20, driver.r(0x10) & ~(EVENT_BIT | INDIRECT_BIT))
    driver.w(0x70, 11)
    assert driver.r(0x70) == 11
    assert driver.wires.errors[-1].endswith("a driver that does not accept VERSION_1")


def test_features_cannot_change_after_they_are_agreed() -> None:
    driver = rng()
    driver.w(0x24, 0)
    driver.w(0x20, INDIRECT_BIT)
    assert driver.dev.driver_features == 1 << 32


def test_status_zero_resets_everything() -> None:
    driver = rng()
    driver.chain([], [8])
    driver.offer(0)
    driver.w(0x70, 0)
    assert not driver.line.level and driver.r(0x60) == 0 and driver.r(0x44) == 0
    driver.w(0x50, 0)
    assert len(driver.wires.asked) == 1, "a notification before DRIVER_OK does nothing"
    driver.avail, driver.seen = [0], [0]
    driver.wires.ram.write(RAM_BASE, bytes(0x1000))
    driver.start()
    driver.chain([], [4])
    driver.offer(0)
    assert driver.used() == [(0, 4)]


def test_queue_setup_is_frozen_while_ready() -> None:
    driver = rng()
    driver.w(0x38, 4)
    driver.w(0x80, 0)
    queue = driver.dev.queues[0]
    assert (queue.size, queue.desc) == (8, RAM_BASE)
    driver.w(0x44, 0)
    driver.w(0x38, 3)
    assert queue.size == 8, "not a power of two"


def test_interrupts_can_be_suppressed() -> None:
    driver = rng()
    driver.wires.ram.write(driver.rings(0)[1], struct.pack("<H", 1))
    driver.chain([], [4])
    driver.offer(0)
    assert driver.used() == [(0, 4)] and not driver.line.level


def test_event_index_decides_on_interrupts_and_kicks() -> None:
    driver = rng(low_features=EVENT_BIT)
    size = driver.QUEUE_SIZE
    used_event = driver.rings(0)[1] + 4 + 2 * size
    driver.wires.ram.write(used_event, struct.pack("<H", 1))
    for i in range(2):
        driver.chain([], [4], first=i)
        driver.offer(i)
        driver.w(0x64, driver.r(0x60)) if i == 0 else None
    assert driver.line.level, "the second buffer passes the event index"
    avail_event = driver.wires.ram.read(driver.rings(0)[2] + 4 + 8 * size, 2)
    assert struct.unpack("<H", avail_event)[0] == 2


def test_indirect_chain() -> None:
    driver = rng(low_features=INDIRECT_BIT)
    target = driver.alloc(12)
    table = struct.pack("<QIHH", target, 4, WRITE | NEXT, 1) + struct.pack("<QIHH", target + 4, 8, WRITE, 0)
    driver.descriptor(3, driver.alloc(table), len(table), INDIRECT)
    driver.offer(3)
    assert driver.used() == [(3, 12)]
    assert driver.wires.ram.read(target, 12) == bytes(range(12))


def loop(driver: Driver) -> None:
    driver.descriptor(0, RAM_BASE, 4, NEXT | WRITE, 1)
    driver.descriptor(1, RAM_BASE, 4, NEXT | WRITE, 0)


def outside_the_table(driver: Driver) -> None:
    driver.descriptor(0, RAM_BASE, 4, NEXT | WRITE, 200)


def not_ram(driver: Driver) -> None:
    driver.descriptor(0, 0x1000, 4, WRITE)


def beyond_all_addresses(driver: Driver) -> None:
    driver.descriptor(0, (1 << 64) - 2, 4, WRITE)


def too_large(driver: Driver) -> None:
    driver.descriptor(0, RAM_BASE, 0xFFFF_FFFF, WRITE)


def indirect_not_agreed(driver: Driver) -> None:
    driver.descriptor(0, RAM_BASE, 16, INDIRECT)


def readable_behind_writable(driver: Driver) -> None:
    driver.descriptor(0, RAM_BASE, 4, NEXT | WRITE, 1)
    driver.descriptor(1, RAM_BASE, 4, 0)


@pytest.mark.parametrize(
    "build",
    [
        loop,
        outside_the_table,
        not_ram,
        beyond_all_addresses,
        too_large,
        indirect_not_agreed,
        readable_behind_writable,
    ],
)
def test_hostile_chain_stops_the_device_until_reset(build: object) -> None:
    driver = rng()
    assert callable(build)
    build(driver)
    driver.offer(0)
    assert driver.r(0x70) & NEEDS_RESET
    assert driver.line.level and driver.r(0x60) & 2
    assert driver.used() == []
    driver.chain([], [4])
    driver.offer(0)
    assert driver.used() == [], "nothing is done before the reset"


def test_nested_indirect_table_is_refused() -> None:
    driver = rng(low_features=INDIRECT_BIT)
    inner = driver.alloc(struct.pack("<QIHH", RAM_BASE, 4, WRITE, 0))
    outer = driver.alloc(struct.pack("<QIHH", inner, 16, INDIRECT, 0))
    driver.descriptor(0, outer, 16, INDIRECT)
    driver.offer(0)
    assert driver.r(0x70) & NEEDS_RESET


def test_impossible_available_index_is_refused() -> None:
    driver = rng()
    driver.avail[0] = 100
    driver.offer(0)
    assert driver.r(0x70) & NEEDS_RESET


def test_rings_outside_ram_are_refused() -> None:
    driver = rng()
    driver.dev.queues[0].driver = 0
    driver.w(0x50, 0)
    assert driver.r(0x70) & NEEDS_RESET


class Console(Driver):
    """A console with its port."""

    def __init__(self) -> None:
        self.device: VirtioDevice = VirtioConsole("console0")
        super().__init__(self.device)

    def type(self, text: bytes) -> None:
        self.dev.deliver(Input("console0", "rx", text))


def test_console_prints_what_the_driver_sends() -> None:
    driver = Console()
    driver.chain([b"hel", b"lo\n"], [], queue=1)
    driver.offer(0, queue=1)
    assert driver.wires.ports["console0"].text == b"hello\n"
    assert driver.used(1) == [(0, 0)]


def test_console_input_waits_for_buffers() -> None:
    driver = Console()
    driver.type(b"abcdef")
    at = driver.chain([], [4])
    driver.offer(0)
    assert driver.used() == [(0, 4)] and driver.wires.ram.read(at[0], 4) == b"abcd"
    state = driver.dev.save_state()
    assert state["backend"]["waiting"] == b"ef".hex()
    at = driver.chain([], [4], first=1)
    driver.offer(1)
    assert driver.used() == [(1, 2)] and driver.wires.ram.read(at[0], 2) == b"ef"


@settings(max_examples=200)
@given(
    st.binary(min_size=0, max_size=0x900),
    st.lists(st.tuples(st.integers(0, 0xFC), st.integers(0, 2**32 - 1)), max_size=12),
)
def test_no_memory_and_no_register_write_breaks_the_machine(
    memory: bytes, writes: list[tuple[int, int]]
) -> None:
    driver = rng(low_features=INDIRECT_BIT | EVENT_BIT)
    driver.wires.ram.write(RAM_BASE, memory)
    driver.w(0x50, 0)
    for offset, value in writes:
        driver.w(offset & ~3, value)
        driver.r(offset & ~3)
    driver.w(0x50, 0)
    state = driver.dev.save_state()
    driver.dev.load_state(state)
    assert driver.dev.save_state() == state

"""The block device against a model that does one request after another; the guest changes its buffers all the time."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from machine.hw.overlay import OverlayDisk
from machine.hw.virtio import blk
from tests.machine.hw.fakes import RAM_BASE
from tests.machine.hw.virtio.driver import INDIRECT_BIT, WRITE, Driver

QUEUES = 2
SLOTS = 4  # requests of a queue at the same time
SECTORS = 40
BUFFERS = RAM_BASE + 0x2_0000
KINDS = (blk.T_IN, blk.T_OUT, blk.T_FLUSH, blk.T_DISCARD, blk.T_WRITE_ZEROES)


class FewBytes:
    """A base of 20 KiB."""

    size_bytes = 512 * SECTORS

    def cluster(self, index: int, length: int) -> bytes:
        return bytes(i // 512 for i in range(self.size_bytes))

    def identity(self) -> str:
        raise AssertionError("nobody asks")

    def close(self) -> None:
        return


@dataclass(eq=False)
class Asked:
    """A request under way: what it will return, and what must be told before it: those that a flush covers."""

    kind: int
    data: bytes
    at: int
    room: int
    before: list[Asked]


class DiskMachine(RuleBasedStateMachine):
    """Requests of all kinds on two queues; the model does each at once, when it is asked for."""

    held_max = 4096

    def __init__(self) -> None:
        super().__init__()
        self.drawn = random.Random(7)
        self.model = bytearray(FewBytes().cluster(0, 0))
        self.asked: dict[tuple[int, int], Asked] = {}
        self.disk = OverlayDisk(FewBytes())
        self.driver = Driver(blk.VirtioBlk("vda", self.disk, queues=QUEUES))

    def slot(self, queue: int, slot: int) -> int:
        return BUFFERS + (queue * SLOTS + slot) * 0x4000

    @rule(
        queue=st.integers(0, QUEUES - 1),
        slot=st.integers(0, SLOTS - 1),
        kind=st.sampled_from(KINDS),
        sector=st.integers(0, SECTORS - 1),
        count=st.integers(1, 6),
    )
    def ask(self, queue: int, slot: int, kind: int, sector: int, count: int) -> None:
        if (queue, slot) in self.asked or not self.nothing_waits():
            return  # what waits in a queue has no effect yet: the guest leaves it alone here
        count = min(count, SECTORS - sector)
        at, size = self.slot(queue, slot), 512 * count
        body, room, found = b"", 0, b""
        if kind == blk.T_IN:
            room, found = size, bytes(self.model[512 * sector : 512 * sector + size])
        elif kind == blk.T_OUT:
            body = self.drawn.randbytes(size)
        elif kind != blk.T_FLUSH:
            body = struct.pack("<QII", sector, count, 0)
        ram, head = self.driver.wires.ram, 2 * slot
        ram.write(at, struct.pack("<IIQ", kind, 0, sector) + body)
        self.driver.descriptor(head, at, 16 + len(body), 1, head + 1, queue)
        self.driver.descriptor(head + 1, at + 0x2000, room + 1, WRITE, 0, queue)
        before = list(self.asked.values()) if kind == blk.T_FLUSH else []
        self.driver.offer(head, queue)
        if body:
            self.model[512 * sector : 512 * sector + size] = body if kind == blk.T_OUT else bytes(size)
        self.asked[queue, slot] = Asked(kind, found, at, room, before)

    def nothing_waits(self) -> bool:
        return not self.driver.dev.save_state()["backend"]["waiting"]

    @precondition(lambda self: self.nothing_waits())
    @rule(queue=st.integers(0, QUEUES - 1), slot=st.integers(0, SLOTS - 1), fill=st.integers(0, 255))
    def scribble(self, queue: int, slot: int, fill: int) -> None:
        """Write over a request's descriptors, header and payload, whether it is under way or not."""
        ram = self.driver.wires.ram
        ram.write(self.slot(queue, slot), bytes([fill]) * 0x2000)
        ram.write(self.driver.rings(queue)[0] + 32 * slot, bytes([fill]) * 32)

    @rule(ns=st.integers(1, 60_000))
    def wait(self, ns: int) -> None:
        self.driver.wires.run_to(self.driver.wires.vtime_ns + ns)
        told = [(q, *entry) for q in range(QUEUES) for entry in self.driver.used(q)]
        done = [(self.asked.pop((q, head // 2)), written) for q, head, written in told]
        for request, written in done:
            answer = self.driver.wires.ram.read(request.at + 0x2000, request.room + 1)
            assert answer == request.data + b"\0" and written == len(answer)
            assert not any(earlier in self.asked.values() for earlier in request.before)

    @rule()
    def checkpoint(self) -> None:
        """Go on in another device, from the saved states."""
        wires, old = self.driver.wires, self.driver.dev
        states: list[Any] = json.loads(
            json.dumps([old.save_state(), self.disk.save_state(), wires.clock.save_state()])
        )
        fresh = Driver(blk.VirtioBlk("vda", disk := OverlayDisk(FewBytes()), queues=QUEUES), start=False)
        fresh.wires.ram, fresh.wires.vtime_ns = wires.ram, wires.vtime_ns
        fresh.dev.dma = fresh.dev.backend.transport.dma = wires.ram  # type: ignore[union-attr]
        for ring in fresh.dev.queues:
            ring.dma = wires.ram
        fresh.avail, fresh.seen = self.driver.avail, self.driver.seen
        fresh.dev.load_state(states[0])
        disk.load_state(states[1])
        fresh.wires.clock.load_state(states[2])
        self.disk, self.driver = disk, fresh

    @invariant()
    def the_device_works(self) -> None:
        assert not self.driver.r(0x70) & 0x40, self.driver.wires.errors
        if self.nothing_waits():
            assert self.disk.pread(0, self.disk.size_bytes) == self.model

    def teardown(self) -> None:
        self.wait(10_000_000)
        assert not self.asked and self.disk.pread(0, self.disk.size_bytes) == self.model


@settings(max_examples=60)
@given(st.data())
def test_noise_in_rings_and_headers_ends_in_errors_of_the_guest(data: st.DataObject) -> None:
    """Whatever a driver may have written: the device refuses or obeys, and its state can be saved and loaded."""
    draw = random.Random(data.draw(st.integers(0, 1 << 32)))
    disk = OverlayDisk(FewBytes())
    driver = Driver(
        blk.VirtioBlk("vda", disk, queues=QUEUES), low_features=INDIRECT_BIT if draw.random() < 0.5 else 0
    )
    ram = driver.wires.ram
    for _ in range(draw.randrange(1, 30)):
        queue = draw.randrange(QUEUES)
        desc, avail, used = driver.rings(queue)
        places = (desc, avail, used, RAM_BASE - 8, 0, (1 << 64) - 4, BUFFERS + 64)
        for head in (0, 3):  # header, data, status
            kind, size = draw.choice((*KINDS, blk.T_GET_ID, 99)), draw.choice((16, 512, 513, 4096, 1 << 20))
            at = BUFFERS + 0x2000 * head
            sector = draw.choice((0, 1, 7, SECTORS - 1, SECTORS, 1 << 63))
            ram.write(
                at, struct.pack("<IIQQII", kind, 0, sector, sector, draw.randrange(4), draw.randrange(2))
            )
            chain = [
                [at, 16, 1, head + 1],
                [at + 16, size, draw.choice((1, 3)), head + 2],
                [at + 0x1000, 1, 2, 0],
            ]
            if draw.random() < 0.15:
                changed = draw.choice(chain)
                changed[draw.randrange(4)] = draw.choice((*places, 0, 1, 4, 5, 7, 15, 4096, 0xFFFF))
            for index, (paddr, length, flags, following) in enumerate(chain):
                fields = (paddr, length & 0xFFFF_FFFF, flags & 0xFFFF, following & 0xFFFF)
                ram.write(desc + 16 * (head + index), struct.pack("<QIHH", *fields))
        for head in draw.choice(((0,), (3, 0), (0, 3), (0, 0), (8,))) if draw.random() < 0.9 else (1, 7):
            driver.offer(head, queue, kick=False)
        if draw.random() < 0.05:
            ram.write(avail + 2, draw.randbytes(2))
        driver.w(0x50, queue)
        driver.wires.run_to(driver.wires.vtime_ns + draw.choice((1, 30_000, 10_000_000)))
        state = json.loads(json.dumps(driver.dev.save_state()))
        driver.dev.load_state(state)
        if driver.r(0x70) & 0x40 and draw.random() < 0.9:
            for ring in range(QUEUES):
                ram.write(driver.rings(ring)[0], bytes(0x1000))
            driver.avail, driver.seen = [0] * QUEUES, [0] * QUEUES
            driver.start()
    assert len(disk.pread(0, disk.size_bytes)) == FewBytes.size_bytes


@pytest.fixture(autouse=True)
def little_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blk, "HELD_MAX_BYTES", DiskMachine.held_max)


TestDisk = DiskMachine.TestCase
TestDisk.settings = settings(max_examples=60, stateful_step_count=40)

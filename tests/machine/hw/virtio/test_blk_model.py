"""The block device against a model that does one request after another; the guest changes its buffers all the time."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from machine.hw.overlay import OverlayDisk
from machine.hw.virtio import blk
from tests.machine.hw.fakes import RAM_BASE
from tests.machine.hw.virtio.driver import WRITE, Driver

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


@pytest.fixture(autouse=True)
def little_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blk, "HELD_MAX_BYTES", DiskMachine.held_max)


TestDisk = DiskMachine.TestCase
TestDisk.settings = settings(max_examples=60, stateful_step_count=40)

"""A driver for tests: sets a virtio-mmio device up, and speaks split queues to it."""

from __future__ import annotations

import struct

from machine.hw.virtio.device import VirtioDevice
from machine.hw.virtio.mmio import VirtioMmio
from tests.machine.hw.fakes import RAM_BASE, FakeLine, FakeWires

NEXT, WRITE, INDIRECT = 1, 2, 4
FEATURES_LOW, FEATURES_HIGH = 0, 1 << 0
INDIRECT_BIT, EVENT_BIT = 1 << 28, 1 << 29


class Driver:
    """One device, its rings, and a bump allocator in RAM."""

    QUEUE_SIZE = 8

    def __init__(self, backend: VirtioDevice, low_features: int = 0, start: bool = True) -> None:
        self.wires = FakeWires()
        self.line = FakeLine()
        self.dev = VirtioMmio(self.wires, 0x1000_8000, self.line, 8, backend, 7)
        self.wires.plug(self.dev)
        self.next_free = RAM_BASE + 0x1_0000
        self.avail = [0] * len(self.dev.queues)
        self.seen = [0] * len(self.dev.queues)
        if start:
            self.start(low_features)

    def w(self, offset: int, value: int) -> None:
        self.dev.write(offset, 4, value)

    def r(self, offset: int) -> int:
        return self.dev.read(offset, 4)

    def start(self, low_features: int = 0) -> None:
        self.w(0x70, 0)
        self.w(0x70, 1)
        self.w(0x70, 3)
        for half, bits in ((0, low_features), (1, 1)):
            self.w(0x24, half)
            self.w(0x20, bits)
        self.w(0x70, 0xB)
        assert self.r(0x70) & 8
        for queue in range(len(self.dev.queues)):
            self.w(0x30, queue)
            self.w(0x38, self.QUEUE_SIZE)
            for offset, address in zip((0x80, 0x90, 0xA0), self.rings(queue), strict=True):
                self.w(offset, address & 0xFFFF_FFFF)
                self.w(offset + 4, address >> 32)
            self.w(0x44, 1)
        self.w(0x70, 0xF)

    def rings(self, queue: int) -> tuple[int, int, int]:
        base = RAM_BASE + 0x1000 * queue
        return base, base + 0x400, base + 0x800

    def alloc(self, data: bytes | int) -> int:
        at = self.next_free
        content = data if isinstance(data, bytes) else bytes(data)
        self.wires.ram.write(at, content)
        self.next_free += (len(content) + 15) & ~15
        return at

    def descriptor(
        self, index: int, paddr: int, size: int, flags: int, following: int = 0, queue: int = 0
    ) -> None:
        self.wires.ram.write(
            self.rings(queue)[0] + 16 * index, struct.pack("<QIHH", paddr, size, flags, following)
        )

    def offer(self, head: int, queue: int = 0, kick: bool = True) -> None:
        driver = self.rings(queue)[1]
        self.wires.ram.write(driver + 4 + 2 * (self.avail[queue] % self.QUEUE_SIZE), struct.pack("<H", head))
        self.avail[queue] = (self.avail[queue] + 1) & 0xFFFF
        self.wires.ram.write(driver + 2, struct.pack("<H", self.avail[queue]))
        if kick:
            self.w(0x50, queue)

    def chain(self, readable: list[bytes], writable: list[int], first: int = 0, queue: int = 0) -> list[int]:
        """Write a chain from descriptor ``first`` on; returns the addresses of its buffers."""
        places = [(self.alloc(d), len(d), 0) for d in readable] + [
            (self.alloc(n), n, WRITE) for n in writable
        ]
        for i, (paddr, size, flags) in enumerate(places):
            more = NEXT if i + 1 < len(places) else 0
            self.descriptor(first + i, paddr, size, flags | more, first + i + 1, queue)
        return [paddr for paddr, _, _ in places]

    def used(self, queue: int = 0) -> list[tuple[int, int]]:
        """Return the (head, bytes written) that came back since the last call."""
        device = self.rings(queue)[2]
        index = struct.unpack("<H", self.wires.ram.read(device + 2, 2))[0]
        out = []
        while self.seen[queue] != index:
            at = device + 4 + 8 * (self.seen[queue] % self.QUEUE_SIZE)
            out.append(struct.unpack("<II", self.wires.ram.read(at, 8)))
            self.seen[queue] = (self.seen[queue] + 1) & 0xFFFF
        return out

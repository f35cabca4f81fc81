"""Split virtqueues as a device sees them, against drivers that may be wrong or hostile.

Every index, address and length comes from guest memory, so each is checked; where a driver breaks the rules
``BrokenQueue`` is raised, which the transport turns into DEVICE_NEEDS_RESET.

Spec: Virtual I/O Device 1.2, section 2.7.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import field

from machine.hw.device import Dma
from machine.hw.state import Int, Part
from machine.values import valueclass

QUEUE_MAX = 256
CHAIN_MAX = 1024  # descriptors of one chain, indirect ones included
REQUEST_MAX_BYTES = 64 << 20
NEXT, WRITE, INDIRECT = 1, 2, 4
NO_INTERRUPT = 1
U16 = 0xFFFF


class BrokenQueue(Exception):
    """The driver broke the queue's rules. Never leaves the transport."""


@valueclass(slots=True)
class Chain:
    """One request: guest-physical ranges (paddr, bytes) to read from, then ranges to write to."""

    head: int
    dma: Dma
    readable: list[tuple[int, int]] = field(default_factory=list)
    writable: list[tuple[int, int]] = field(default_factory=list)

    @property
    def readable_bytes(self) -> int:
        return sum(size for _, size in self.readable)

    @property
    def writable_bytes(self) -> int:
        return sum(size for _, size in self.writable)

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the readable part. Raises BrokenQueue when they are not there or not RAM."""
        try:
            out = b"".join([self.dma.read(paddr, n) for paddr, n in _slice(self.readable, offset, size)])
        except ValueError as error:
            raise BrokenQueue(f"a buffer is not RAM: {error}") from None
        if len(out) != size:
            raise BrokenQueue(
                f"a request has {self.readable_bytes} bytes to read, {offset + size} are needed"
            )
        return out

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes to the writable part. Raises BrokenQueue when there is no room or no RAM."""
        if offset + len(data) > self.writable_bytes:
            raise BrokenQueue(
                f"a request has {self.writable_bytes} bytes to write, {offset + len(data)} are needed"
            )
        done = 0
        for paddr, size in _slice(self.writable, offset, len(data)):
            try:
                self.dma.write(paddr, data[done : done + size])
            except ValueError as error:
                raise BrokenQueue(f"a buffer is not RAM: {error}") from None
            done += size


def _slice(ranges: list[tuple[int, int]], offset: int, size: int) -> Iterator[tuple[int, int]]:
    for paddr, length in ranges:
        if offset >= length:
            offset -= length
            continue
        if not size:
            return
        count = min(length - offset, size)
        yield paddr + offset, count
        size -= count
        offset = 0


class VirtQueue(Part):
    """One queue: what the driver set up, and how far the device has come.

    Args:
        dma: guest-physical memory.
        notify: called when the driver is to be interrupted about used buffers.
    """

    size = Int(16, reset=QUEUE_MAX)
    ready = Int(1)
    desc = Int(64)
    driver = Int(64)
    device = Int(64)
    taken = Int(16)
    used = Int(16)
    signalled = Int(16)
    signalled_valid = Int(1)

    def __init__(self, dma: Dma, notify: Callable[[], None]) -> None:
        self.dma = dma
        self.notify = notify
        self.event_idx = False
        self.indirect = False

    def _read(self, paddr: int, size: int) -> bytes:
        try:
            return self.dma.read(paddr, size)
        except ValueError as error:
            raise BrokenQueue(f"a ring is not in RAM: {error}") from None

    def _u16(self, paddr: int) -> int:
        return int.from_bytes(self._read(paddr, 2), "little")

    def _store(self, paddr: int, data: bytes) -> None:
        try:
            self.dma.write(paddr, data)
        except ValueError as error:
            raise BrokenQueue(f"a ring is not in RAM: {error}") from None

    def pending(self) -> int:
        """Return how many chains wait. Raises BrokenQueue for an index that is impossible."""
        if not self.ready:
            return 0
        count = (self._u16(self.driver + 2) - self.taken) & U16
        if count > self.size:
            raise BrokenQueue(f"{count} chains are offered in a queue of {self.size}")
        return count

    def peek(self) -> Chain | None:
        """Return the next chain, which stays in the queue, or None: the driver will then kick for more."""
        if not self.pending():
            if not (self.event_idx and self.ready):
                return None
            self._ask_for_kick()
            if not self.pending():
                return None
        return self.chain(self._u16(self.driver + 4 + 2 * (self.taken % self.size)))

    def advance(self) -> None:
        """Take the chain that ``peek`` returned."""
        self.taken = (self.taken + 1) & U16

    def pop(self) -> Chain | None:
        """Take the next chain, or None."""
        chain = self.peek()
        if chain is not None:
            self.advance()
        return chain

    def _ask_for_kick(self) -> None:
        self._store(self.device + 4 + 8 * self.size, struct.pack("<H", self.taken))

    def chain(self, head: int) -> Chain:
        """Return the chain that begins at descriptor ``head``. Raises BrokenQueue."""
        chain = Chain(head, self.dma)
        table, entries, index = self.desc, self.size, head
        in_indirect = False
        seen = total = 0
        while True:
            if index >= entries:
                raise BrokenQueue(f"descriptor {index} is outside of a table of {entries}")
            seen += 1
            if seen > CHAIN_MAX:
                raise BrokenQueue(f"a chain has more than {CHAIN_MAX} descriptors: is it a loop?")
            paddr, length, flags, following = struct.unpack("<QIHH", self._read(table + 16 * index, 16))
            if flags & INDIRECT:
                if in_indirect or flags & NEXT or not self.indirect or not length or length % 16:
                    raise BrokenQueue(f"an indirect table of {length} bytes where none may be")
                table, entries, index, in_indirect = paddr, length // 16, 0, True
                continue
            if flags & WRITE:
                chain.writable.append((paddr, length))
            elif chain.writable:
                raise BrokenQueue("a readable buffer behind a writable one")
            else:
                chain.readable.append((paddr, length))
            total += length
            if total > REQUEST_MAX_BYTES:
                raise BrokenQueue(f"a request of more than {REQUEST_MAX_BYTES} bytes")
            if not flags & NEXT:
                return chain
            index = following

    def push(self, head: int, written: int) -> None:
        """Give a chain back, with the number of bytes written to it."""
        at = self.device + 4 + 8 * (self.used % self.size)
        self._store(at, struct.pack("<II", head, written))
        self.used = (self.used + 1) & U16
        self._store(self.device + 2, struct.pack("<H", self.used))

    def signal(self) -> None:
        """Interrupt the driver, if it wants to hear of what was pushed since the last time."""
        if not self.ready:
            return
        old, new = self.signalled, self.used
        known = self.signalled_valid
        if known and old == new:
            return
        if self.event_idx:
            event = self._u16(self.driver + 4 + 2 * self.size)
            wanted = not known or (new - event - 1) & U16 < (new - old) & U16
        else:
            wanted = not self._u16(self.driver) & NO_INTERRUPT
        self.signalled, self.signalled_valid = new, 1
        if wanted:
            self.notify()

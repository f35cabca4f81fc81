"""The virtio block device over a block node.

A request takes effect when it is taken from its queue: a write's data leave the guest's memory then, a read's leave the
disk. So requests have one defined result, that of doing them one after another, however they overlap. The guest is told
a time later that depends on the request alone, or that the host took and the trace keeps; then read data reach its
memory.

Spec: Virtual I/O Device 1.2, section 5.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from machine.hw.blockproto import BlockError, BlockNode
from machine.hw.state import Ints, Saved, parse_int
from machine.hw.virtio.device import VirtioDevice
from machine.hw.virtio.queue import (
    CHAIN_MAX,
    QUEUE_MAX,
    REQUEST_MAX_BYTES,
    BrokenQueue,
    Chain,
)

SECTOR = 512
HEADER = 16
F_SEG_MAX, F_RO, F_BLK_SIZE, F_FLUSH, F_TOPOLOGY, F_MQ, F_DISCARD, F_WRITE_ZEROES = 2, 5, 6, 9, 10, 12, 13, 14
T_IN, T_OUT, T_FLUSH, T_GET_ID, T_DISCARD, T_WRITE_ZEROES = 0, 1, 4, 8, 11, 13
S_OK, S_IOERR, S_UNSUPP = 0, 1, 2
ID_BYTES = 20
SEGMENT = 16  # bytes of a discard or write-zeroes segment
MAX_SEGMENTS = 16
MAX_RANGE_SECTORS = 32 << 11  # 32 MiB in a segment: bounds the overlay's growth by one request
SEG_MAX = QUEUE_MAX - 2
QUEUES_MAX = 16
HELD_MAX_BYTES = 16 << 20  # of read data that wait for their time; a request above it waits for all others

LATENCY_NS = 20_000
NS_PER_KIB = 512  # 2 GB/s
FLUSH_NS = 50_000


class RequestError(Exception):
    """The guest asks for what this disk can't do. Never leaves the device."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that took effect and is not told yet.

    Args:
        head: its descriptor in queue ``queue``.
        data: what the guest gets besides the status.
        ranges: where to put both, as (paddr, bytes).
    """

    due_ns: int
    queue: int
    head: int
    status: int
    data: bytes
    ranges: list[tuple[int, int]]


class PendingList(Saved[list[Pending]]):
    """Requests in the order in which they took effect; saved as lists, data as hexadecimal text."""

    def initial(self) -> list[Pending]:
        return []

    def dump(self, value: list[Pending]) -> Any:
        return [[p.due_ns, p.queue, p.head, p.status, p.data.hex(), *map(list, p.ranges)] for p in value]

    def parse(self, data: Any, where: str) -> list[Pending]:
        if not isinstance(data, list) or len(data) > QUEUE_MAX * QUEUES_MAX:
            raise ValueError(f"state {where}: expected a list of at most {QUEUE_MAX * QUEUES_MAX} requests")
        return [self._parse_one(item, where) for item in data]

    @staticmethod
    def _parse_one(item: Any, where: str) -> Pending:
        if not isinstance(item, list) or not 5 < len(item) <= 5 + CHAIN_MAX:
            raise ValueError(f"state {where}: not a request")
        due_ns, queue, head, status, data, *places = item
        if not isinstance(data, str) or not all(isinstance(r, list) and len(r) == 2 for r in places):
            raise ValueError(f"state {where}: not a request")
        ranges = [(parse_int(paddr, 64, where), parse_int(size, 32, where)) for paddr, size in places]
        try:
            content = bytes.fromhex(data)
        except ValueError as error:
            raise ValueError(f"state {where}: not hexadecimal text") from error
        if not len(content) < sum(size for _, size in ranges) <= REQUEST_MAX_BYTES:
            raise ValueError(f"state {where}: a request of {len(content)} bytes without room for them")
        return Pending(
            parse_int(due_ns, 64, where),
            parse_int(queue, 8, where),
            parse_int(head, 16, where),
            parse_int(status, 8, where),
            content,
            ranges,
        )


class VirtioBlk(VirtioDevice):
    """One disk.

    Args:
        name: its name.
        node: the disk's data.
        serial: the serial number that the guest reads; empty: the name.
        queues: how many request queues it has.
        host_timed: requests take as long as they took the host, instead of a time of the model.
    """

    device_id = 2

    pending = PendingList()
    waiting = Ints(8, max_count=QUEUES_MAX)  # queues with requests to take, in the order of their kicks

    def __init__(
        self, name: str, node: BlockNode, serial: str = "", queues: int = 1, host_timed: bool = False
    ) -> None:
        super().__init__(name)
        self.host_timed = host_timed
        self.node = node
        self.queue_count = queues
        self.serial = (serial or name).encode()[:ID_BYTES].ljust(ID_BYTES, b"\0")
        self.sectors = node.size_bytes // SECTOR

    def features(self) -> int:
        bits = [F_SEG_MAX, F_BLK_SIZE, F_FLUSH, F_TOPOLOGY]
        bits += [F_RO] if self.node.readonly else [F_DISCARD, F_WRITE_ZEROES]
        bits += [F_MQ] if self.queue_count > 1 else []
        return sum(1 << bit for bit in bits)

    def config(self) -> bytes:
        geometry = bytes(4)
        topology = struct.pack(
            "<BBHI", 3, 0, 8, 0
        )  # physical blocks of 4 KiB, and so the least efficient I/O
        writeback_queues = struct.pack("<BxH", 0, self.queue_count if self.queue_count > 1 else 0)
        limits = (MAX_RANGE_SECTORS, MAX_SEGMENTS)
        return (
            struct.pack("<QII", self.sectors, 0, SEG_MAX)
            + geometry
            + struct.pack("<I", SECTOR)
            + topology
            + writeback_queues
            + struct.pack("<IIIIIBxxx", *limits, 1, *limits, 1)
        )

    def state_loaded(self) -> None:
        queues = [*self.waiting, *(p.queue for p in self.pending)]
        if max(queues, default=0) >= self.queue_count:
            raise ValueError(f"state {self.name}: queue {max(queues)} of {self.queue_count}")

    def kicked(self, queue: int) -> None:
        if queue not in self.waiting:
            self.waiting.append(queue)
        self._take()
        self._schedule()

    def _take(self) -> None:
        """Let waiting requests take effect, as many as there is room for."""
        in_use = {(p.queue, p.head) for p in self.pending}
        held = sum(len(p.data) for p in self.pending)
        while self.waiting:
            number = self.waiting[0]
            ring = self.transport.queues[number]
            chain = ring.peek()
            if chain is None:
                del self.waiting[0]
                continue
            if (number, chain.head) in in_use:
                raise BrokenQueue(f"descriptor {chain.head} is offered while it is in use")
            if held and held + chain.writable_bytes > HELD_MAX_BYTES:
                return
            ring.advance()
            request = self._submit(number, chain)
            self.pending.append(request)
            in_use.add((number, chain.head))
            held += len(request.data)

    def _schedule(self) -> None:
        self.transport.set_backend_deadline(min((p.due_ns for p in self.pending), default=None))

    def due(self) -> None:
        now = self.transport.now()
        ready = sorted((p for p in self.pending if p.due_ns <= now), key=lambda p: p.due_ns)
        self.pending = [p for p in self.pending if p.due_ns > now]
        for request in ready:
            chain = Chain(request.head, self.transport.dma, writable=request.ranges)
            chain.write(0, request.data)
            chain.write(chain.writable_bytes - 1, bytes((request.status,)))
            self.transport.queues[request.queue].push(request.head, len(request.data) + 1)
        for number in sorted({request.queue for request in ready}):
            self.transport.queues[number].signal()
        self._take()
        self._schedule()

    def _submit(self, number: int, chain: Chain) -> Pending:
        """Do a request and return what to tell the guest of it, and when.

        Replay: consumes an input where the host failed the request (block.md's D3) and where the host times it (D2).
        """
        kind, _, sector = struct.unpack("<IIQ", chain.read(0, HEADER))
        room = chain.writable_bytes - 1
        if room < 0:
            raise BrokenQueue("a block request has no room for its status")
        request = struct.pack("<HH", number, chain.head)
        status, data = self._execute(request, kind, sector, chain)
        latency = FLUSH_NS
        if self.host_timed:
            latency = int.from_bytes(self.transport.ask("latency", request)[:8], "little")
        elif kind != T_FLUSH:
            data_bytes = chain.readable_bytes - HEADER + room
            latency = LATENCY_NS + data_bytes * NS_PER_KIB // 1024
        due = self.transport.now() + max(1, self.transport.wires.latency(latency))
        if kind == T_FLUSH:  # it covers what was asked for before it
            due = max(due, *(p.due_ns for p in self.pending), 0)
        return Pending(due, number, chain.head, status, data, chain.writable)

    def _execute(self, request: bytes, kind: int, sector: int, chain: Chain) -> tuple[int, bytes]:
        """Return a request's status and the data for the guest."""
        room = chain.writable_bytes - 1
        errno = self.transport.wires.fault(self.name, request, 0)
        try:
            if errno:
                raise BlockError(errno, "the host failed it in the recording")
            if kind == T_IN:
                return S_OK, self._read(sector, room)
            if kind == T_GET_ID:
                return S_OK, self.serial[:room]
            return self._command(kind, sector, chain), b""
        except (RequestError, BlockError) as error:
            if isinstance(error, BlockError) and not errno:
                self.transport.wires.fault(self.name, request, error.errno)
            self.transport.guest_error(f"request of type {kind} at sector {sector}: {error}")
            return S_IOERR, b""

    def _check(self, sector: int, size: int) -> None:
        if size % SECTOR or sector + size // SECTOR > self.sectors:
            raise RequestError(f"{size} bytes at sector {sector} of {self.sectors}")

    def _read(self, sector: int, size: int) -> bytes:
        self._check(sector, size)
        return self.node.pread(sector * SECTOR, size)

    def _command(self, kind: int, sector: int, chain: Chain) -> int:
        size = chain.readable_bytes - HEADER
        if kind == T_FLUSH:
            self.node.flush()
            return S_OK
        if kind not in (T_OUT, T_DISCARD, T_WRITE_ZEROES):
            return S_UNSUPP
        if self.node.readonly:
            raise RequestError("the disk is read-only")
        if kind == T_OUT:
            self._check(sector, size)
            self.node.pwrite(sector * SECTOR, chain.read(HEADER, size))
            return S_OK
        return self._ranges(kind, chain.read(HEADER, size))

    def _ranges(self, kind: int, data: bytes) -> int:
        if not data or len(data) % SEGMENT or len(data) > SEGMENT * MAX_SEGMENTS:
            raise RequestError(f"{len(data)} bytes of segments")
        segments = list(struct.iter_unpack("<QII", data))
        for sector, count, flags in segments:
            if flags & ~1 or (kind == T_DISCARD and flags):
                return S_UNSUPP
            if count > MAX_RANGE_SECTORS:
                raise RequestError(f"a segment of {count} sectors")
            self._check(sector, count * SECTOR)
        for sector, count, _ in segments:
            if kind == T_DISCARD:
                self.node.discard(sector * SECTOR, count * SECTOR)
            else:
                self.node.write_zeroes(sector * SECTOR, count * SECTOR)
        return S_OK

"""The virtio block device over a block node.

A request completes a time after its kick that depends on the request alone; its data moves then, in one step.

Spec: Virtual I/O Device 1.2, section 5.2.
"""

from __future__ import annotations

import struct

from machine.hw.blockproto import BlockError, BlockNode
from machine.hw.state import Ints
from machine.hw.virtio.device import VirtioDevice
from machine.hw.virtio.queue import QUEUE_MAX, BrokenQueue, Chain

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

LATENCY_NS = 20_000
NS_PER_KIB = 512  # 2 GB/s
FLUSH_NS = 50_000


class RequestError(Exception):
    """The guest asks for what this disk can't do. Never leaves the device."""


class VirtioBlk(VirtioDevice):
    """One disk.

    Args:
        name: its name.
        node: the disk's data.
        serial: the serial number that the guest reads; empty: the name.
        queues: how many request queues it has.
    """

    device_id = 2

    due_ns = Ints(64, max_count=QUEUE_MAX * QUEUES_MAX)
    heads = Ints(16, max_count=QUEUE_MAX * QUEUES_MAX)
    rings = Ints(8, max_count=QUEUE_MAX * QUEUES_MAX)

    def __init__(self, name: str, node: BlockNode, serial: str = "", queues: int = 1) -> None:
        super().__init__(name)
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

    def kicked(self, queue: int) -> None:
        ring = self.transport.queues[queue]
        now = self.transport.now()
        while (chain := ring.pop()) is not None:
            if (queue, chain.head) in zip(self.rings, self.heads, strict=True):
                raise BrokenQueue(f"descriptor {chain.head} is offered while it is in use")
            due = now + self.transport.wires.latency(self._latency(chain))
            if self._kind(chain) == T_FLUSH:  # it covers what was asked for before it
                due = max(due, *self.due_ns, 0)
            self.due_ns.append(due)
            self.heads.append(chain.head)
            self.rings.append(queue)
        self._schedule()

    @staticmethod
    def _kind(chain: Chain) -> int:
        kind: int = struct.unpack("<I", chain.read(0, 4))[0]
        return kind

    def _latency(self, chain: Chain) -> int:
        data_bytes = chain.readable_bytes + chain.writable_bytes - HEADER - 1
        if self._kind(chain) == T_FLUSH:
            return FLUSH_NS
        return LATENCY_NS + max(data_bytes, 0) * NS_PER_KIB // 1024

    def _schedule(self) -> None:
        self.transport.set_backend_deadline(min(self.due_ns, default=None))

    def due(self) -> None:
        now = self.transport.now()
        ready = sorted((t, i) for i, t in enumerate(self.due_ns) if t <= now)
        requests = [(self.rings[i], self.heads[i]) for _, i in ready]
        left = [i for i, t in enumerate(self.due_ns) if t > now]
        self.due_ns = [self.due_ns[i] for i in left]
        self.heads = [self.heads[i] for i in left]
        self.rings = [self.rings[i] for i in left]
        for number, head in requests:
            ring = self.transport.queues[number]
            chain = ring.chain(head)  # read anew: a pending request is its head, nothing else
            ring.push(head, self._execute(number, chain))
        for number in sorted({number for number, _ in requests}):
            self.transport.queues[number].signal()
        self._schedule()

    def _execute(self, number: int, chain: Chain) -> int:
        """Do the request and write its status; return the number of bytes written to the chain.

        Replay: consumes an input where the host failed the request (block.md's D3).
        """
        kind, _, sector = struct.unpack("<IIQ", chain.read(0, HEADER))
        room = chain.writable_bytes - 1
        if room < 0:
            raise BrokenQueue("a block request has no room for its status")
        request = struct.pack("<HH", number, chain.head)
        written, status = 0, S_OK
        try:
            errno = self.transport.wires.fault(self.name, request, 0)
            if errno:
                raise BlockError(errno, "the host failed it in the recording")
            if kind == T_IN:
                chain.write(0, self._read(sector, room))
                written = room
            elif kind == T_GET_ID:
                written = min(room, ID_BYTES)
                chain.write(0, self.serial[:written])
            else:
                status = self._command(kind, sector, chain)
        except RequestError as error:
            self.transport.guest_error(f"request of type {kind} at sector {sector}: {error}")
            status = S_IOERR
        except BlockError as error:
            if not errno:
                self.transport.wires.fault(self.name, request, error.errno)
            self.transport.guest_error(f"request of type {kind} at sector {sector}: {error}")
            status = S_IOERR
        chain.write(room, bytes((status,)))
        return written + 1

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

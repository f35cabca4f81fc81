"""The block device: requests, errors, virtual time."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from machine.hw.blockproto import BlockError
from machine.hw.virtio import blk
from machine.hw.virtio.mmio import NEEDS_RESET
from tests.machine.hw.virtio.driver import Driver

SECTORS = 64
LONG_NS = 1_000_000


class MemoryDisk:
    """A block node in memory."""

    def __init__(self, readonly: bool = False) -> None:
        self.size_bytes = 512 * SECTORS
        self.readonly = readonly
        self.data = bytearray(i // 512 for i in range(self.size_bytes))
        self.flushes = 0
        self.broken = False

    def pread(self, offset: int, size: int) -> bytes:
        if self.broken:
            raise BlockError(5, "worn out")
        return bytes(self.data[offset : offset + size])

    def pwrite(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def flush(self) -> None:
        self.flushes += 1

    def discard(self, offset: int, size: int) -> None:
        self.write_zeroes(offset, size)

    def write_zeroes(self, offset: int, size: int) -> None:
        self.pwrite(offset, bytes(size))

    def save_state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        return

    def set_blob_store(self, store: object) -> None:
        raise AssertionError("the device never asks for a store")

    def close(self) -> None:
        return


class Rig(Driver):
    """A driver of one disk."""

    def __init__(self, readonly: bool = False, queues: int = 1) -> None:
        self.disk = MemoryDisk(readonly)
        super().__init__(blk.VirtioBlk("vda", self.disk, serial="SER-1", queues=queues))

    def request(
        self, kind: int, sector: int, data: bytes = b"", room: int = 0, first: int = 0, queue: int = 0
    ) -> list[int]:
        header = struct.pack("<IIQ", kind, 0, sector)
        readable = [header, data] if data else [header]
        at = self.chain(readable, [room, 1] if room else [1], first=first, queue=queue)
        self.wires.ram.write(at[-1], b"\xff")
        self.offer(first, queue)
        return at[len(readable) :]

    def held(self) -> int:
        """Return how many bytes of read data wait for their time."""
        return sum(len(request[4]) // 2 for request in self.dev.save_state()["backend"]["pending"])

    def finish(self, at: list[int]) -> int:
        self.wires.run_to(self.wires.vtime_ns + LONG_NS)
        return self.wires.ram.read(at[-1], 1)[0]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_configuration_tells_the_size(rig: Rig) -> None:
    assert rig.r(0x100) | rig.r(0x104) << 32 == SECTORS
    assert rig.r(0x114) == 512
    assert rig.dev.read(0x120, 1) == 0


def test_read_moves_data_at_its_time_not_before(rig: Rig) -> None:
    at = rig.request(blk.T_IN, 3, room=1024)
    cost = blk.LATENCY_NS + blk.NS_PER_KIB
    rig.wires.run_to(cost - 1)
    assert rig.used() == [] and not rig.line.level
    rig.wires.run_to(cost)
    assert rig.used() == [(0, 1025)] and rig.line.level
    assert rig.wires.ram.read(at[0], 1024) == bytes([3] * 512 + [4] * 512)
    assert rig.wires.ram.read(at[1], 1) == b"\0"


def test_a_write_takes_the_data_that_are_there_when_it_is_asked_for(rig: Rig) -> None:
    """block.md's D4. The payload was read when the request was due: what the guest put there since was written."""
    at = rig.chain([struct.pack("<IIQ", blk.T_OUT, 0, 5), b"\x77" * 512], [1])
    rig.offer(0)
    rig.wires.ram.write(at[1], b"\x55" * 512)
    assert rig.finish(at) == blk.S_OK
    assert rig.disk.data[5 * 512 : 6 * 512] == b"\x77" * 512


def test_a_request_is_what_it_was_when_it_was_asked_for(rig: Rig) -> None:
    """Header and descriptors were read once more when the request was due."""
    at = rig.request(blk.T_IN, 3, room=512)
    other = rig.alloc(512)
    rig.wires.ram.write(at[0] - 16, struct.pack("<IIQ", blk.T_IN, 0, 9))
    rig.descriptor(1, other, 512, 2)
    assert rig.finish(at) == blk.S_OK
    assert rig.wires.ram.read(at[0], 512) == b"\x03" * 512
    assert rig.wires.ram.read(other, 512) == bytes(512)


def test_requests_take_effect_in_the_order_in_which_they_are_asked_for() -> None:
    """block.md, 10.3. They took effect in the order of their due times, over all queues."""
    rig = Rig(queues=2)
    before = rig.request(blk.T_IN, 0, room=2048)
    wrote = rig.request(blk.T_OUT, 1, b"w" * 512, first=3, queue=1)
    zeroed = rig.request(blk.T_WRITE_ZEROES, 0, struct.pack("<QII", 2, 1, 0), first=0, queue=1)
    after = rig.request(blk.T_IN, 0, room=2048, first=3)
    rig.wires.run_to(LONG_NS)
    assert all(rig.wires.ram.read(at[-1], 1) == b"\0" for at in (before, wrote, zeroed, after))
    assert rig.wires.ram.read(before[0], 2048) == bytes(i // 512 for i in range(2048))
    expected = bytes(512) + b"w" * 512 + bytes(512) + b"\x03" * 512
    assert rig.wires.ram.read(after[0], 2048) == expected


def test_what_is_held_for_the_guest_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests beyond the bound stay in their queues, and are taken in the order of the kicks."""
    monkeypatch.setattr(blk, "HELD_MAX_BYTES", 2048)
    rig = Rig(queues=2)
    first = rig.request(blk.T_IN, 0, room=1024)
    large = rig.request(blk.T_IN, 8, room=4096, first=3)
    other = rig.request(blk.T_OUT, 8, b"n" * 512, queue=1)
    assert rig.held() == 1024 and rig.dev.save_state()["backend"]["waiting"] == [0, 1]
    rig.wires.run_to(blk.LATENCY_NS + blk.NS_PER_KIB)
    assert rig.used() == [(0, 1025)] and rig.held() == 4096
    assert rig.disk.data[8 * 512] == 8
    rig.wires.run_to(LONG_NS)
    assert rig.used() == [(3, 4097)] and rig.used(1) == [(0, 1)]
    assert rig.wires.ram.read(large[0], 4096) == bytes(8 + i // 512 for i in range(4096))
    assert rig.disk.data[8 * 512 : 9 * 512] == b"n" * 512
    assert [rig.wires.ram.read(at[-1], 1) for at in (first, large, other)] == [b"\0"] * 3


def test_time_depends_on_the_request_alone(rig: Rig) -> None:
    rig.request(blk.T_IN, 0, room=512)
    rig.wires.vtime_ns = 100
    rig.request(blk.T_IN, 40, room=512, first=3)
    first, second = (request[0] for request in rig.dev.save_state()["backend"]["pending"])
    assert second - first == 100


def test_batch_completes_in_order_with_one_kick(rig: Rig) -> None:
    for i, sector in enumerate((9, 8)):
        header = struct.pack("<IIQ", blk.T_IN, 0, sector)
        rig.chain([header], [512, 1], first=4 * i)
        rig.offer(4 * i, kick=False)
    rig.w(0x50, 0)
    rig.wires.run_to(LONG_NS)
    assert [head for head, _ in rig.used()] == [0, 4]


def test_flush_get_id_and_unknown(rig: Rig) -> None:
    assert rig.finish(rig.request(blk.T_FLUSH, 0)) == blk.S_OK
    assert rig.disk.flushes == 1
    at = rig.request(blk.T_GET_ID, 0, room=20)
    assert rig.finish(at) == blk.S_OK
    assert rig.wires.ram.read(at[0], 20) == b"SER-1".ljust(20, b"\0")
    assert rig.finish(rig.request(99, 0)) == blk.S_UNSUPP


@pytest.mark.parametrize(
    ("kind", "sector", "data", "room"),
    [
        (blk.T_IN, SECTORS, b"", 512),
        (blk.T_IN, SECTORS - 1, b"", 1024),
        (blk.T_IN, 2**63, b"", 512),
        (blk.T_IN, 0, b"", 100),
        (blk.T_OUT, 2**64 - 1, bytes(512), 0),
        (blk.T_OUT, 0, bytes(513), 0),
        (blk.T_DISCARD, 0, bytes(5), 0),
        (blk.T_DISCARD, 0, struct.pack("<QII", SECTORS, 1, 0), 0),
        (blk.T_WRITE_ZEROES, 0, struct.pack("<QII", 0, 0xFFFF_FFFF, 0), 0),
    ],
)
def test_request_out_of_range_is_an_io_error(
    rig: Rig, kind: int, sector: int, data: bytes, room: int
) -> None:
    before = bytes(rig.disk.data)
    assert rig.finish(rig.request(kind, sector, data, room)) == blk.S_IOERR
    assert rig.disk.data == before


def test_failing_disk_is_an_io_error(rig: Rig) -> None:
    rig.disk.broken = True
    assert rig.finish(rig.request(blk.T_IN, 0, room=512)) == blk.S_IOERR


def test_discard_and_write_zeroes(rig: Rig) -> None:
    segments = struct.pack("<QII", 2, 1, 0) + struct.pack("<QII", 4, 2, 1)
    assert rig.finish(rig.request(blk.T_WRITE_ZEROES, 0, segments)) == blk.S_OK
    assert rig.disk.data[2 * 512 : 7 * 512] == bytes(512) + b"\x03" * 512 + bytes(1024) + b"\x06" * 512
    assert rig.finish(rig.request(blk.T_DISCARD, 0, struct.pack("<QII", 6, 1, 0))) == blk.S_OK
    assert rig.disk.data[6 * 512] == 0
    assert rig.finish(rig.request(blk.T_DISCARD, 0, struct.pack("<QII", 6, 1, 1))) == blk.S_UNSUPP


def test_readonly_disk_says_so_and_refuses_writes() -> None:
    rig = Rig(readonly=True)
    rig.w(0x14, 0)
    assert rig.r(0x10) >> blk.F_RO & 1
    assert rig.finish(rig.request(blk.T_OUT, 0, bytes(512))) == blk.S_IOERR


def test_request_without_status_or_header_needs_a_reset(rig: Rig) -> None:
    rig.chain([b"abc"], [1])
    rig.offer(0)
    assert rig.r(0x70) & NEEDS_RESET


def test_descriptor_in_use_twice_needs_a_reset(rig: Rig) -> None:
    rig.request(blk.T_IN, 0, room=512)
    rig.offer(0)
    assert rig.r(0x70) & NEEDS_RESET


def test_pending_requests_survive_save_and_load(rig: Rig) -> None:
    """What a read found is part of the state: the disk may hold something else by the time it is told."""
    at = rig.request(blk.T_IN, 1, room=512)
    rig.request(blk.T_OUT, 1, b"n" * 512, first=3)
    state, deadlines = rig.dev.save_state(), rig.wires.clock.save_state()
    rig.w(0x70, 0)
    assert rig.wires.clock.next() is None
    rig.dev.load_state(json.loads(json.dumps(state)))
    rig.wires.clock.load_state(deadlines)
    assert rig.finish(at) == blk.S_OK
    assert rig.used() == [(0, 513), (3, 1)]
    assert rig.wires.ram.read(at[0], 512) == b"\x01" * 512
    assert rig.disk.data[512:1024] == b"n" * 512


@pytest.mark.parametrize(
    "bad",
    [
        [0, 1, 0, 0, "", [0, 1]],
        [0, 0, 0, 0, "", [0, 0]],
        [0, 0, 0, 0, "00", [0, 1]],
        [0, 0, 0, 0, "0", [0, 9]],
        [0, 0, 0, 0, 0, [0, 9]],
        [0, 0, 0, 0, "", [0, 1 << 27]],
        [0, 0, 0, 256, "", [0, 1]],
        [0, 0, 1 << 16, 0, "", [0, 1]],
        [0, 0, 0, 0, "", [0]],
        [0, 0, 0, 0, ""],
        7,
    ],
)
def test_a_damaged_request_in_a_state_is_refused(rig: Rig, bad: object) -> None:
    state = rig.dev.save_state()
    state["backend"]["pending"] = [bad]
    with pytest.raises(ValueError, match="state"):
        rig.dev.load_state(state)


def test_a_flush_ends_after_the_requests_before_it(rig: Rig) -> None:
    """A flush took its own time only, so it could end before a long write that was asked for first."""
    rig.disk.size_bytes = 1 << 20
    at = rig.request(blk.T_OUT, 0, bytes(SECTORS * 512))
    rig.wires.latency = lambda ns: ns + 500_000  # type: ignore[method-assign]
    slow = rig.request(blk.T_IN, 0, room=512, first=3)
    del rig.wires.latency
    flush = rig.request(blk.T_FLUSH, 0, first=6)
    rig.wires.run_to(LONG_NS)
    assert [head for head, _ in rig.used()] == [0, 3, 6]
    assert all(rig.wires.ram.read(a[-1], 1) == b"\0" for a in (at, slow, flush))


def test_several_queues_are_offered_and_served_each_by_itself() -> None:
    rig = Rig(queues=4)
    rig.w(0x14, 0)
    assert rig.r(0x10) >> blk.F_MQ & 1 and not Rig().r(0x10) >> blk.F_MQ & 1
    assert rig.dev.read(0x100 + 34, 2) == 4
    places = {q: rig.request(blk.T_IN, q + 1, room=512, queue=q) for q in range(4)}
    assert [request[1] for request in rig.dev.save_state()["backend"]["pending"]] == [0, 1, 2, 3]
    rig.wires.run_to(LONG_NS)
    for q, at in places.items():
        assert rig.used(q) == [(0, 513)]
        assert rig.wires.ram.read(at[0], 512) == bytes([q + 1] * 512)


def test_a_request_may_take_as_long_as_the_host_says() -> None:
    disk = MemoryDisk()
    rig = Driver(blk.VirtioBlk("vda", disk, host_timed=True))
    rig.wires.answer = (77_000).to_bytes(8, "little")
    rig.chain([struct.pack("<IIQ", blk.T_IN, 0, 3)], [512, 1])
    rig.offer(0)
    assert rig.wires.asked == [("vda", "latency", struct.pack("<HH", 0, 0))]
    rig.wires.answer = bytes(8)
    rig.chain([struct.pack("<IIQ", blk.T_FLUSH, 0, 0)], [1], first=3)
    rig.offer(3)
    rig.wires.run_to(76_999)
    assert rig.used() == []
    rig.wires.run_to(77_000)
    assert [head for head, _ in rig.used()] == [0, 3]


def test_the_serial_number_is_the_name_where_none_is_given() -> None:
    assert blk.VirtioBlk("vda", MemoryDisk()).serial == b"vda".ljust(20, b"\0")


def test_a_fault_of_the_host_is_told_and_a_known_one_is_not_tried_again(rig: Rig) -> None:
    rig.disk.broken = True
    assert rig.finish(rig.request(blk.T_IN, 0, room=512)) == blk.S_IOERR
    name = struct.pack("<HH", 0, 0)
    assert rig.wires.faults == [("vda", name, 0), ("vda", name, 5)]
    rig.disk.broken = False
    rig.wires.failing["vda", struct.pack("<HH", 0, 3)] = 28
    at = rig.request(blk.T_IN, 0, room=512, first=3)
    assert rig.finish(at) == blk.S_IOERR and rig.wires.ram.read(at[0], 512) == bytes(512)
    assert rig.wires.faults[2:] == [("vda", struct.pack("<HH", 0, 3), 0)]


def test_a_guests_mistake_is_no_fault_of_the_host(rig: Rig) -> None:
    assert rig.finish(rig.request(blk.T_IN, SECTORS, room=512)) == blk.S_IOERR
    assert [errno for _, _, errno in rig.wires.faults] == [0]

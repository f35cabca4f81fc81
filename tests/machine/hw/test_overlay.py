"""The overlay of a disk: what it shows, what it tells, and what a checkpoint of it costs."""

from __future__ import annotations

import errno
import os
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.block.swapfile import SwapFile
from machine.hw import clustermap
from machine.hw.blockproto import CLUSTER_BYTES, BlockError
from machine.hw.clusterstore import MEMORY_BYTES, ClusterStore
from machine.hw.overlay import OverlayDisk, content_hash

SIZE = 3 * CLUSTER_BYTES + 512
M = 1 << 20


class Base:
    """A base in memory; ``broken`` has the clusters that can't be read."""

    def __init__(self, data: bytes | int = SIZE) -> None:
        self.data = bytes(i >> 9 & 0xFF for i in range(data)) if isinstance(data, int) else data
        self.size_bytes = len(self.data)
        self.broken: set[int] = set()

    def cluster(self, index: int, length: int) -> bytes:
        if index in self.broken:
            raise BlockError(5, "worn out")
        return self.data[index * CLUSTER_BYTES :][:length]

    def identity(self) -> str:
        return content_hash(self.data).hex()

    def close(self) -> None:
        return


class Zeroes(Base):
    """A large base of zeroes."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(b"")
        self.size_bytes = size_bytes

    def cluster(self, index: int, length: int) -> bytes:
        return bytes(length)


class Store:
    """Blobs in memory; ``fetched`` and ``stored`` count bytes."""

    def __init__(self) -> None:
        self.blobs: dict[bytes, bytes] = {}
        self.stored = self.fetched = 0

    def put(self, data: bytes) -> bytes:
        self.stored += len(data)
        self.blobs[content_hash(data)] = data
        return content_hash(data)

    def get(self, digest: bytes) -> bytes:
        self.fetched += len(self.blobs[digest])
        return self.blobs[digest]


def test_writes_stay_in_the_overlay() -> None:
    base = Base()
    disk = OverlayDisk(base)
    disk.pwrite(CLUSTER_BYTES - 512, b"x" * 1024)
    data = base.data
    assert disk.pread(0, SIZE) == data[: CLUSTER_BYTES - 512] + b"x" * 1024 + data[CLUSTER_BYTES + 512 :]


def test_base_reads_are_told_once_for_each_cluster() -> None:
    told: list[tuple[int, int]] = []
    disk = OverlayDisk(Base(), base_read=lambda cluster, data: told.append((cluster, len(data))))
    disk.pread(0, 512)
    disk.pread(512, CLUSTER_BYTES)
    disk.pread(SIZE - 512, 512)
    disk.pwrite(2 * CLUSTER_BYTES, bytes(CLUSTER_BYTES))
    assert told == [(0, CLUSTER_BYTES), (1, CLUSTER_BYTES), (3, 512)]


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1), (0, -1)])
def test_range_outside_the_disk_is_a_block_error(offset: int, size: int) -> None:
    with pytest.raises(BlockError):
        OverlayDisk(Base()).pread(offset, size)


def test_readonly_disk_refuses_writes() -> None:
    with pytest.raises(BlockError) as caught:
        OverlayDisk(Base(), readonly=True).pwrite(0, b"x")
    assert caught.value.errno == 30


def test_a_write_that_fails_has_no_effect() -> None:
    """A write over three clusters had changed the first when the base under the last one could not be read."""
    base = Base()
    disk = OverlayDisk(base)
    before = disk.save_state()
    base.broken = {2}
    with pytest.raises(BlockError, match="worn out"):
        disk.pwrite(CLUSTER_BYTES - 512, bytes([9]) * (CLUSTER_BYTES + 1024))
    with pytest.raises(BlockError, match="worn out"):
        disk.write_zeroes(CLUSTER_BYTES, CLUSTER_BYTES + 1)
    assert disk.pread(0, 2 * CLUSTER_BYTES) == base.data[: 2 * CLUSTER_BYTES]
    assert disk.save_state() == before


@pytest.mark.parametrize("with_store", [False, True])
def test_state_comes_back(with_store: bool) -> None:
    store = Store() if with_store else None
    disk = OverlayDisk(Base())
    disk.set_blob_store(store)
    empty = disk.save_state()
    assert empty["root"] == ""
    disk.pwrite(200 * 512, b"one" * 512)
    first = disk.save_state()
    content = disk.pread(0, SIZE)
    disk.pwrite(0, b"two" * 512)
    disk.write_zeroes(SIZE - 512, 512)
    second = disk.save_state()
    assert bool(second["data"]) != with_store
    other = OverlayDisk(Base())
    other.set_blob_store(store)
    other.load_state(second)
    assert other.pread(0, SIZE) == disk.pread(0, SIZE)
    disk.pwrite(0, b"not saved")
    disk.load_state(first)
    assert disk.pread(0, SIZE) == content
    assert disk.save_state() == first
    disk.load_state(empty)
    assert disk.pread(0, SIZE) == Base().data and disk.save_state() == empty


def test_foreign_or_damaged_state_is_refused() -> None:
    disk = OverlayDisk(Base())
    disk.pwrite(0, b"data")
    good = disk.save_state()
    root, blobs = good["root"], good["data"]
    content = content_hash(disk.pread(0, CLUSTER_BYTES)).hex()

    def tree(entries: dict[int, bytes], level: int = 0) -> dict[str, Any]:
        store = Store()
        top = store.put(clustermap.encode(level, entries))
        import base64

        held = {name.hex(): base64.b64encode(data).decode() for name, data in store.blobs.items()}
        return {**good, "root": top.hex(), "data": blobs | held}

    for bad in (
        {},
        {**good, "version": 1},
        {**good, "root": content},
        {**good, "root": "zz" * 32},
        {**good, "root": root[:-2]},
        {**good, "data": {**blobs, content: "AAAA"}},
        {**good, "data": {**blobs, root: "!"}},
        {**good, "data": {}},
        tree({9: bytes.fromhex(content)}),
        tree({64: bytes.fromhex(content)}),
        tree({0: bytes.fromhex(root)}),
        tree({0: bytes.fromhex(root)}, level=1),
        tree({}),
    ):
        fresh = OverlayDisk(Base())
        with pytest.raises(ValueError, match=r"."):
            fresh.load_state(bad)
        assert fresh.pread(0, SIZE) == Base().data


def test_equal_overlays_have_equal_states_however_they_came_about() -> None:
    one, two = OverlayDisk(Zeroes(64 * M)), OverlayDisk(Zeroes(64 * M))
    for disk, order in ((one, range(0, 64, 3)), (two, reversed(range(0, 64, 3)))):
        disk.set_blob_store(Store())
        for i in order:
            disk.pwrite(i * M, bytes([i]) * 700)
            if disk is two:
                disk.save_state()
    assert one.save_state() == two.save_state()


@pytest.mark.parametrize("memory_bytes", [MEMORY_BYTES, 8 * CLUSTER_BYTES])
def test_a_checkpoint_costs_what_was_written_since_the_last_one(memory_bytes: int) -> None:
    """States listed every cluster of the overlay: a guest that had written a GiB made each one a MiB."""
    store = Store()
    disk = OverlayDisk(Zeroes(1 << 40), swap=SwapFile, memory_bytes=memory_bytes)
    disk.set_blob_store(store)
    for i in range(400):
        disk.pwrite(i * 50 * M, b"%d" % i)
    first = disk.save_state()
    assert len(str(first)) < 200
    store.stored = 0
    disk.pwrite(7 * 50 * M, b"again")
    second = disk.save_state()
    assert CLUSTER_BYTES < store.stored < CLUSTER_BYTES + 5 * 3000
    store.fetched = 0
    disk.load_state(first)
    assert store.fetched < CLUSTER_BYTES + 5 * 3000 and disk.pread(7 * 50 * M, 5) == b"7" + bytes(4)
    store.stored = 0
    disk.load_state(second)
    assert disk.save_state() == second and store.stored == 0


@pytest.mark.parametrize("memory_bytes", [MEMORY_BYTES, 2 * CLUSTER_BYTES])
def test_d10_a_thousand_states_and_random_jumps_between_them(memory_bytes: int) -> None:
    store, rnd = Store(), random.Random(9)
    disk = OverlayDisk(Zeroes(M), swap=SwapFile, memory_bytes=memory_bytes)
    disk.set_blob_store(store)
    marks: list[tuple[dict[str, Any], bytes]] = []
    for step in range(1000):
        disk.pwrite(rnd.randrange(M - 100), bytes([step & 0xFF]) * 100)
        marks.append((disk.save_state(), content_hash(disk.pread(0, M)) if step % 50 == 0 else b""))
    for _ in range(60):
        state, content = marks[rnd.randrange(0, 1000, 50)]
        disk.load_state(state)
        assert content_hash(disk.pread(0, M)) == content and disk.save_state() == state
        disk.pwrite(rnd.randrange(M), b"!")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, SIZE // 512 - 1), st.integers(1, 200), st.sampled_from("wzrsl")), max_size=16
    ),
    st.booleans(),
    st.sampled_from([1, 2, 100]),
)
def test_disk_behaves_as_an_array_of_bytes(
    operations: list[tuple[int, int, str]], with_store: bool, clusters: int
) -> None:
    base = Base()
    disk, model = (
        OverlayDisk(base, swap=SwapFile, memory_bytes=clusters * CLUSTER_BYTES),
        bytearray(base.data),
    )
    disk.set_blob_store(Store() if with_store else None)
    saved = (disk.save_state(), bytes(model))
    for number, (sector, count, kind) in enumerate(operations):
        offset, size = sector * 512, min(count * 512, SIZE - sector * 512)
        if kind == "r":
            assert disk.pread(offset, size) == model[offset : offset + size]
        elif kind == "s":
            saved = (disk.save_state(), bytes(model))
        elif kind == "l":
            disk.load_state(saved[0])
            model[:] = saved[1]
        else:
            data = bytes(size) if kind == "z" else bytes((number + 1,)) * size
            disk.write_zeroes(offset, size) if kind == "z" else disk.pwrite(offset, data)
            model[offset : offset + size] = data
    assert disk.pread(0, SIZE) == model
    disk.close()


def test_what_a_guest_writes_does_not_grow_in_memory() -> None:
    """An overlay was held in memory: a guest that wrote a GiB took as much."""
    disk = OverlayDisk(Zeroes(1 << 30), swap=SwapFile, memory_bytes=M)
    tracemalloc.start()
    try:
        for i in range(1024):
            disk.pwrite(i * CLUSTER_BYTES, i.to_bytes(2, "big") * (CLUSTER_BYTES // 2))
        assert tracemalloc.get_traced_memory()[1] < 3 * M
    finally:
        tracemalloc.stop()
    for i in (0, 17, 900, 1023):
        assert disk.pread(i * CLUSTER_BYTES + 40, 2) == i.to_bytes(2, "big")
    disk.close()


def test_a_swap_that_is_full_fails_the_write_which_then_had_no_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, real = OverlayDisk(Zeroes(M), swap=SwapFile, memory_bytes=2 * CLUSTER_BYTES), os.pwrite
    for i in range(5):
        disk.pwrite(i * CLUSTER_BYTES, b"%d" % i)

    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(BlockError, match="TMPDIR") as caught:
        disk.pwrite(2 * CLUSTER_BYTES - 1, b"xxx")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.setattr(os, "pwrite", real)
    assert [disk.pread(i * CLUSTER_BYTES, 1) for i in range(5)] == [b"%d" % i for i in range(5)]
    disk.pwrite(2 * CLUSTER_BYTES - 1, b"xxx")
    assert disk.pread(2 * CLUSTER_BYTES - 2, 4) == b"\0xxx"[:4]
    disk.close()


def test_places_in_the_swap_are_used_again() -> None:
    swap = SwapFile()
    store = ClusterStore(lambda: swap, CLUSTER_BYTES)
    for turn in range(50):
        for cluster in range(4):
            store.put({cluster: bytearray([turn]) * CLUSTER_BYTES})
    assert sorted(store) == [0, 1, 2, 3] and 2 in store and 9 not in store
    assert [store.get(c) for c in range(4)] == [bytes([49]) * CLUSTER_BYTES] * 4
    assert 0 < swap.size_bytes() <= 4 * CLUSTER_BYTES
    store.drop(0)
    assert store.get(0) is None
    store.close()

"""The request pipeline: catalogue P1 to P16."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.block import flags as F
from machine.block.drivers.blkdebug import BlkdebugNode
from machine.block.drivers.memory import MemoryNode
from machine.block.errors import BlockError, UnsupportedError
from machine.block.graph import Graph
from machine.block.node import is_allocated_above, status_above
from machine.block.requests import RequestTracker
from machine.block.sched import Scheduler

K = 1024


def debug(graph: Graph, size: Any = 1 << 20, **options: Any) -> tuple[BlkdebugNode, MemoryNode]:
    node = graph.run(
        graph.open(
            {"driver": "blkdebug", "discard": "unmap", "image": {"driver": "memory", "size": size}, **options}
        )
    )
    assert isinstance(node, BlkdebugNode) and isinstance(node.lower, MemoryNode)
    return node, node.lower


@settings(max_examples=60, deadline=None)
@given(
    align=st.sampled_from([1, 512, 4096]),
    size=st.sampled_from([16384, 16384 + 100]),
    ops=st.lists(
        st.tuples(
            st.sampled_from(["write", "zero", "read"]),
            st.integers(0, 16383),
            st.integers(0, 9000),
            st.integers(1, 255),
        ),
        max_size=12,
    ),
)
def test_p1_every_alignment_of_offset_and_length_matches_a_byte_model(
    align: int, size: int, ops: list[tuple[str, int, int, int]]
) -> None:
    graph = Graph()
    node, _ = debug(graph, size, align=align)
    model = bytearray(size)
    for kind, offset, length, fill in ops:
        length = min(length, size - offset)
        if kind == "write":
            graph.run(node.pwrite(offset, bytes([fill]) * length))
            model[offset : offset + length] = bytes([fill]) * length
        elif kind == "zero":
            graph.run(node.pwrite_zeroes(offset, length))
            model[offset : offset + length] = bytes(length)
        else:
            assert graph.run(node.read(offset, length)) == model[offset : offset + length]
    assert graph.run(node.read(0, size)) == model
    assert node.size_bytes == size


def test_p2_an_error_of_the_read_half_of_a_partial_write_fails_the_write(graph: Graph) -> None:
    rules = [{"event": "pwritev_rmw_tail", "iotype": "read", "once": True}]
    node, memory = debug(graph, align=512, **{"inject-error": rules})
    outer = graph.run(graph.open({"driver": "blkdebug", "align": 4096, "image": node}))
    assert isinstance(outer, BlkdebugNode)
    outer.inject = []
    with pytest.raises(BlockError) as caught:
        graph.run(_fire_then_write(node, outer))
    assert caught.value.errno == errno.EIO
    assert memory.contents() == bytes(1 << 20)


async def _fire_then_write(armed: BlkdebugNode, outer: BlkdebugNode) -> None:
    await armed.fire("pwritev_rmw_tail")
    await outer.pwrite(100, b"x" * 200)


def test_p3_two_unaligned_writes_in_one_block_serialise(graph: Graph) -> None:
    node, _ = debug(graph, align=512)
    node.set_break("pwritev_rmw_after_head", "A")

    async def main() -> None:
        first = graph.sched.spawn(node.pwrite(10, b"a" * 10))
        await node.wait_break("A")
        second = graph.sched.spawn(node.pwrite(30, b"b" * 10))
        for _ in range(5):
            await graph.sched.yield_now()
        assert not second.done
        node.resume("A")
        await first.join()
        await second.join()

    graph.run(main())
    expected = bytes(10) + b"a" * 10 + bytes(10) + b"b" * 10 + bytes(24)
    assert graph.run(node.read(0, 64)) == expected


def test_p4_aligned_plain_writes_do_not_wait_for_each_other(graph: Graph) -> None:
    memory = graph.run(graph.open({"driver": "memory", "size": 4096, "yields": 3}))
    waits = 0

    async def main() -> None:
        nonlocal waits
        tasks = [graph.sched.spawn(memory.pwrite(0, bytes([n]) * 512)) for n in (1, 2)]
        await graph.sched.yield_now()
        waits = len(memory.tracker.requests)
        for task in tasks:
            await task.join()

    graph.run(main())
    assert waits == 2


def test_p5_a_request_that_waits_itself_is_not_waited_for() -> None:
    sched = Scheduler()
    tracker = RequestTracker(sched)
    done: list[str] = []

    async def plain() -> None:
        request = tracker.begin(0, 512, "write")
        for _ in range(4):
            await sched.yield_now()
        tracker.finish(request)
        done.append("plain")

    async def serial(name: str, start: int, end: int) -> None:
        request = tracker.begin(start, end, "write")
        tracker.make_serialising(request, 512)
        await tracker.wait_serialising(request)
        done.append(name)
        tracker.finish(request)

    async def main() -> None:
        tasks = [
            sched.spawn(plain(), "B"),
            sched.spawn(serial("A", 0, 1024)),
            sched.spawn(serial("C", 512, 1024)),
        ]
        for task in tasks:
            await task.join()

    sched.run(main())
    assert done == ["C", "plain", "A"], "C overlaps A, but A waits for B: C must not wait"


def test_p6_requests_are_split_at_max_transfer_and_fua_follows_the_last_part(graph: Graph) -> None:
    node, memory = debug(graph, **{"max-transfer": 4096})
    sizes: list[int] = []
    flushes: list[int] = []
    real = memory.drv_write

    async def spy(offset: int, data: Any, flags: int) -> None:
        sizes.append(len(data))
        await real(offset, data, flags)

    async def flushed() -> None:
        flushes.append(len(sizes))

    memory.drv_write = spy  # type: ignore[method-assign]
    memory.drv_flush_disk = flushed  # type: ignore[method-assign]
    graph.run(node.pwrite(0, b"q" * 10000, F.FUA))
    assert sizes == [4096, 4096, 1808]
    assert flushes == [3]


def test_p7_zero_writes_have_head_middle_tail_and_fall_back(graph: Graph) -> None:
    node, memory = debug(graph, **{"opt-write-zero": 4096})
    pieces: list[tuple[int, int]] = []
    real = BlkdebugNode.drv_zeroes

    async def spy(offset: int, length: int, flags: int) -> None:
        pieces.append((offset, length))
        if length % 4096:
            raise UnsupportedError
        await real(node, offset, length, flags)

    graph.run(node.pwrite(0, b"\xff" * 20000))
    node.drv_zeroes = spy  # type: ignore[method-assign]
    graph.run(node.pwrite_zeroes(1000, 12000))
    assert pieces == [(1000, 3096), (4096, 8192), (12288, 712)]
    assert memory.contents()[:20000] == b"\xff" * 1000 + bytes(12000) + b"\xff" * 7000
    with pytest.raises(UnsupportedError):
        graph.run(node.pwrite_zeroes(1000, 100, F.NO_FALLBACK))


def test_p10_flush_is_skipped_when_nothing_was_written(graph: Graph) -> None:
    node, memory = debug(graph)
    count = 0

    async def flushed() -> None:
        nonlocal count
        count += 1
        await graph.sched.yield_now()

    memory.drv_flush_disk = flushed  # type: ignore[method-assign]

    async def main() -> None:
        await node.flush()
        assert count == 0
        await node.pwrite(0, b"x")
        for task in [graph.sched.spawn(node.flush()) for _ in range(4)]:
            await task.join()

    graph.run(main())
    assert count == 1


def test_p11_block_status_through_filters(graph: Graph) -> None:
    node, memory = debug(graph, 256 * K)
    graph.run(node.pwrite(64 * K, b"d"))
    status = graph.run(node.block_status(0, 256 * K))
    assert (status.flags & F.ST_ZERO, status.length) == (F.ST_ZERO, 64 * K)
    status = graph.run(node.block_status(64 * K, 192 * K))
    assert status.flags & F.ST_DATA and status.length == 64 * K and status.node is memory
    last = graph.run(node.block_status(128 * K, 1 << 30))
    assert last.flags & F.ST_EOF and last.length == 128 * K
    assert graph.run(node.block_status(256 * K, 1)).length == 0
    found, layer = graph.run(status_above(node, None, 64 * K, 10))
    assert layer is node and found.length == 10
    assert graph.run(is_allocated_above(node, node, False, 0, 10)) == (False, 10)


@pytest.mark.parametrize("mode", ["off", "on", "unmap"])
def test_p12_detect_zeroes(graph: Graph, mode: str) -> None:
    node, _ = debug(graph, **{"detect-zeroes": mode})
    seen: list[int] = []
    real = BlkdebugNode.drv_zeroes

    async def spy(offset: int, length: int, flags: int) -> None:
        seen.append(flags & F.MAY_UNMAP)
        await real(node, offset, length, flags)

    node.drv_zeroes = spy  # type: ignore[method-assign]
    graph.run(node.pwrite(0, bytes(70000)))
    assert seen == {"off": [], "on": [0], "unmap": [F.MAY_UNMAP]}[mode]


def test_p13_dirty_bits_are_set_even_when_the_write_failed(graph: Graph) -> None:
    from machine.block.dirty import DirtyBitmap

    node, _ = debug(graph, **{"inject-error": [{"event": "none", "iotype": "write"}]})
    bitmap = node.bitmaps.add(DirtyBitmap("b", node.size_bytes))
    with pytest.raises(BlockError):
        graph.run(node.pwrite(65536 * 3, b"x"))
    assert list(bitmap.dirty_ranges()) == [(65536 * 3, 65536)]


def test_p14_drain_nests_and_holds_back_the_backend(graph: Graph) -> None:
    memory = graph.run(graph.open({"driver": "memory", "size": 4096, "latency-ns": 1000}))
    backend = graph.run(graph.backend(memory))

    async def main() -> None:
        running = graph.sched.spawn(backend.write(0, b"1"))
        await graph.sched.yield_now()
        async with graph.drained(memory):
            assert running.done and not memory.tracker.requests
            async with graph.drained(memory):
                late = graph.sched.spawn(backend.write(1, b"2"))
                await graph.sched.sleep(5000)
            await graph.sched.sleep(5000)
            assert not late.done
        await late.join()

    graph.run(main())
    assert graph.run(backend.read(0, 2)) == b"12"


def test_p15_resize_updates_parents_and_bitmaps(graph: Graph) -> None:
    from machine.block.dirty import DirtyBitmap

    node, memory = debug(graph, 128 * K)
    raw = graph.run(graph.open({"driver": "raw", "file": node}))
    bitmap = raw.bitmaps.add(DirtyBitmap("b", raw.size_bytes))
    graph.run(memory.truncate(300 * K))
    assert (node.size_bytes, raw.size_bytes, bitmap.size, len(bitmap.cells)) == (300 * K,) * 3 + (5,)
    graph.run(raw.truncate(64 * K))
    assert memory.size_bytes == 64 * K and len(bitmap.cells) == 1


@pytest.mark.parametrize(
    ("offset", "length"), [(4096, 1), (4095, 2), (-1, 1), (1 << 62, 1), ((1 << 63) - 1, 1)]
)
def test_p16_requests_past_the_end_are_refused(graph: Graph, offset: int, length: int) -> None:
    null = graph.run(graph.open({"driver": "null-co", "size": 4096}))
    backend = graph.run(graph.backend(null))
    for call in (
        backend.read(offset, length),
        backend.write(offset, bytes(length)),
        null.pwrite(offset, bytes(length)),
    ):
        with pytest.raises(BlockError) as caught:
            graph.run(call)
        assert caught.value.errno == errno.EIO


def test_zero_length_requests_do_nothing(graph: Graph) -> None:
    node, _ = debug(graph, align=512)
    graph.run(node.pwrite(3, b""))
    graph.run(node.pwrite_zeroes(5, 0))
    assert graph.run(node.read(7, 0)) == b""
    assert node.write_gen == 0

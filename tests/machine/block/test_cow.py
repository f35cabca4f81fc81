"""The COW-request interface, and readers that wait for copies in flight: catalogue C and R."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from machine.block.drivers.blkdebug import BlkdebugNode
from machine.block.errors import BlockError, JobError
from machine.block.graph import Graph
from machine.block.jobs.backup import BackupJob
from machine.block.jobs.cow import CowRanges
from machine.block.jobs.job import JobState
from machine.block.sched import Scheduler

from .disks import C, memory
from .replication_util import Secondary


@pytest.mark.parametrize(
    ("sector", "count", "clusters"),
    [
        (0, 1, (0, 1)),
        (127, 1, (0, 1)),
        (127, 2, (0, 2)),
        (128, 128, (1, 2)),
        (255, 1, (1, 2)),
        (300, 1000, (2, 11)),
        (0, 0, (0, 0)),
        (1, 0, (0, 1)),
    ],
)
def test_c1_rounding(sector: int, count: int, clusters: tuple[int, int]) -> None:
    assert CowRanges(Scheduler(), C).round(sector * 512, count * 512) == clusters


def test_c2_c11_wait_returns_at_once_when_nothing_overlaps() -> None:
    sched = Scheduler()
    ranges = CowRanges(sched, C)
    sched.run(ranges.wait(0, 10 * C))
    ranges.begin(0, C)
    sched.run(ranges.wait(C, C))
    sched.run(ranges.wait(0, 0))


def test_c3_c4_c6_c7_wait_outlives_every_overlapping_holder() -> None:
    sched = Scheduler()
    ranges = CowRanges(sched, C)
    first, second = ranges.begin(0, 2 * C), ranges.begin(C, C)  # begin without wait may overlap
    trail: list[str] = []

    async def waiter() -> None:
        await ranges.wait(C, 1)
        trail.append("through")

    async def main() -> None:
        task = sched.spawn(waiter())
        await sched.yield_now()
        ranges.finish(second)
        await sched.yield_now()
        await sched.yield_now()
        assert trail == [], "the rescan finds the other holder"
        ranges.finish(first)
        await task.join()

    sched.run(main())
    assert trail == ["through"]


def test_c5_waiters_wake_in_order() -> None:
    sched = Scheduler()
    ranges = CowRanges(sched, C)
    held, trail = ranges.begin(0, C), list[int]()

    async def waiter(number: int) -> None:
        await ranges.wait(0, C)
        trail.append(number)

    async def main() -> None:
        tasks = [sched.spawn(waiter(n)) for n in range(4)]
        await sched.yield_now()
        ranges.finish(held)
        for task in tasks:
            await task.join()

    sched.run(main())
    assert trail == [0, 1, 2, 3]


def test_c9_c10_ranges_leave_the_done_map_alone_and_checkpoints_need_none(graph: Graph) -> None:
    source, target = memory(graph), memory(graph)
    job = BackupJob(graph, source, target, sync="none")
    held = job.cow_request_begin(0, C)
    assert job.done == bytes(4)
    with pytest.raises(JobError) as caught:
        job.do_checkpoint()
    assert caught.value.errno == errno.EBUSY
    job.cow_request_end(held)
    job.done[:] = b"\1" * 4
    job.do_checkpoint()
    assert job.done == bytes(4)
    full = BackupJob(graph, memory(graph), memory(graph), job_id="full")
    with pytest.raises(JobError, match="none"):
        full.do_checkpoint()


def parked(side: Secondary, node: str, event: str) -> BlkdebugNode:
    debug = side.debug(node)
    debug.set_break(event, "T")
    return debug


def test_r1_r3_guest_read_waits_for_a_copy_parked_before_its_write() -> None:
    side = Secondary(size=4 * C)
    side.start()
    assert side.nbd is not None
    debug = parked(side, "hidden", "write_aio")

    async def main() -> bytes:
        assert side.nbd is not None
        write = side.graph.sched.spawn(side.nbd.write(0, b"\x22" * C))
        await debug.wait_break("T")
        read = side.graph.sched.spawn(side.guest.read(0, C))
        apart = side.graph.sched.spawn(side.guest.read(2 * C, C))
        await apart.join()  # R3: another cluster does not wait
        assert not read.done
        debug.resume("T")
        data = await read.join()
        await write.join()
        return bytes(data)

    assert side.run(main()) == b"\x11" * C


def test_r2_r4_primary_write_waits_for_a_guest_read_below() -> None:
    side = Secondary(size=4 * C)
    side.start()
    memory_node = side.graph.node("sfile")
    gate: list[Any] = []
    real = memory_node.drv_read

    async def slow(offset: int, buf: memoryview, flags: int) -> None:
        if not gate:
            from machine.block.sched import CoEvent

            gate.append(CoEvent(side.graph.sched, "gate"))
            await gate[0].wait()
        await real(offset, buf, flags)

    memory_node.drv_read = slow  # type: ignore[method-assign]

    async def main() -> bytes:
        assert side.nbd is not None
        read = side.graph.sched.spawn(side.guest.read(0, 3 * C))
        while not gate:
            await side.graph.sched.yield_now()
        writes = [side.graph.sched.spawn(side.nbd.write(c * C, b"\x22" * C)) for c in (0, 2)]
        for _ in range(20):
            await side.graph.sched.yield_now()
        assert not any(w.done for w in writes)
        gate[0].set()
        data = bytes(await read.join())
        for write in writes:
            await write.join()
        return data

    assert side.run(main()) == b"\x11" * 3 * C
    assert side.read(0, 3 * C) == b"\x11" * 3 * C


def test_r7_reader_gets_old_data_when_the_copy_it_waited_for_failed() -> None:
    rules = [{"event": "write_aio", "state": 2, "iotype": "write", "once": True}]
    side = Secondary(size=4 * C, debug={"hidden": {"inject-error": rules}})
    side.start()
    debug = parked(side, "hidden", "write_aio")
    debug.state = 2

    async def main() -> bytes:
        assert side.nbd is not None
        write = side.graph.sched.spawn(side.nbd.write(0, b"\x22" * C))
        await debug.wait_break("T")
        read = side.graph.sched.spawn(side.guest.read(0, C))
        await side.graph.sched.yield_now()
        debug.resume("T")
        data = bytes(await read.join())
        with pytest.raises(BlockError):
            await write.join()
        return data

    assert side.run(main()) == b"\x11" * C


def test_r8_checkpoint_waits_for_a_copy_in_flight() -> None:
    side = Secondary(size=4 * C)
    side.start()
    debug = parked(side, "hidden", "write_aio")

    async def main() -> None:
        assert side.nbd is not None
        write = side.graph.sched.spawn(side.nbd.write(0, b"\x22" * C))
        await debug.wait_break("T")
        checkpoint = side.graph.sched.spawn(side.top.do_checkpoint())
        for _ in range(20):
            await side.graph.sched.yield_now()
        assert not checkpoint.done
        debug.resume("T")
        await checkpoint.join()
        await write.join()

    side.run(main())
    assert side.read(0, C) == b"\x22" * C and side.allocated(side.hidden) == []


def test_r11_cancelling_the_job_waits_for_readers_and_wakes_all(graph: Graph) -> None:
    job = BackupJob(graph, memory(graph), memory(graph), sync="none")
    job.start()

    async def main() -> None:
        held = job.cow_request_begin(0, C)
        waiter = graph.sched.spawn(job.wait_for_overlapping_requests(0, C))
        await graph.sched.yield_now()
        job.cancel()
        for _ in range(10):
            await graph.sched.yield_now()
        assert job.state not in (JobState.CONCLUDED, JobState.NULL)
        job.cow_request_end(held)
        await waiter.join()
        await job.wait()

    graph.run(main())
    assert not job.source.before_write and not job.ranges.in_flight


def test_r12_unaligned_write_whose_hook_copies_the_same_cluster(graph: Graph) -> None:
    disk = graph.run(
        graph.open({"driver": "blkdebug", "align": 4096, "image": {"driver": "memory", "size": 4 * C}})
    )
    target = memory(graph)
    job = BackupJob(graph, disk, target, sync="none")
    job.start()
    graph.run(disk.pwrite(100, b"x" * 10))
    assert job.done == b"\1\0\0\0"
    job.cancel()
    graph.run(job.wait())

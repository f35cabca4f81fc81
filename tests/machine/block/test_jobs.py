"""Jobs, the COW-request interface, fleecing and filters: catalogue C, R, J, P9 and section 14.5."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import Any

import pytest

from machine.block import flags as F
from machine.block.dirty import DirtyBitmap
from machine.block.drivers.blkdebug import BlkdebugNode
from machine.block.errors import BlockError, JobError
from machine.block.filters.cbw import CopyBeforeWriteNode
from machine.block.filters.quorum import QuorumNode
from machine.block.flags import Role
from machine.block.graph import Graph
from machine.block.jobs.backup import BackupJob
from machine.block.jobs.chain import CommitJob, StreamJob
from machine.block.jobs.cow import CowRanges
from machine.block.jobs.job import VERBS, Job, JobState, Transaction
from machine.block.jobs.mirror import MirrorJob
from machine.block.node import Node
from machine.block.qcow2.node import Qcow2Node
from machine.block.sched import Scheduler, SeededOrder

from .qcow2_util import memory_image
from .replication_util import K, M, Secondary

C = 64 * K


def memory(graph: Graph, size: int = 4 * C, fill: int = 0, **options: Any) -> Node:
    node = graph.run(graph.open({"driver": "memory", "size": size, **options}))
    if fill:
        graph.run(node.pwrite(0, bytes([fill]) * size))
    return node


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


@pytest.mark.parametrize("seed", range(10))
def test_j1_j9_full_backup_is_a_point_in_time_under_writes(seed: int) -> None:
    graph = Graph(Scheduler(SeededOrder(seed)))
    source, target = memory(graph, fill=1, yields=1), memory(graph, yields=1)
    backend = graph.run(graph.backend(source))
    job = BackupJob(graph, source, target)
    job.start()

    async def main() -> None:
        for step in range(8):
            await backend.write((step * 37 * K) % (3 * C), bytes([step + 2]) * 20 * K)
        await job.wait()

    graph.run(main())
    assert graph.run(target.read(0, 4 * C)) == b"\1" * 4 * C
    assert job.error is None


BITMAP_CASES = [
    # mode, outcome -> dirty clusters afterwards; the bitmap had 0 and 1, cluster 3 is written during the job
    ("on-success", "ok", {3}),
    ("on-success", "fail", {0, 1, 3}),
    ("always", "ok", {3}),
    ("always", "fail", {1, 3}),
    ("never", "ok", {0, 1, 3}),
    ("never", "fail", {0, 1, 3}),
]


@pytest.mark.parametrize(("mode", "outcome", "expected"), BITMAP_CASES)
def test_j5_bitmap_after_backup(graph: Graph, mode: str, outcome: str, expected: set[int]) -> None:
    source = memory(graph, fill=1)
    rules = [{"event": "none", "sector": C // 512, "iotype": "write"}] if outcome == "fail" else []
    target = graph.run(
        graph.open(
            {"driver": "blkdebug", "inject-error": rules, "image": {"driver": "memory", "size": 4 * C}}
        )
    )
    bitmap = source.bitmaps.add(DirtyBitmap("b", source.size_bytes))
    bitmap.set(0, 2 * C)
    job = BackupJob(graph, source, target, sync="bitmap", bitmap="b", bitmap_mode=mode)
    job.start()
    graph.run(source.pwrite(3 * C, b"\2" * C))
    graph.run(job.wait())
    assert (job.error is None) == (outcome == "ok")
    assert {o // C for start, n in bitmap.dirty_ranges() for o in range(start, start + n, C)} == expected
    data = graph.run(target.read(0, 4 * C))
    assert data[:C] == b"\1" * C and data[2 * C :] == bytes(2 * C), "only what the bitmap says is copied"


def test_j6_backup_refuses_what_can_not_work(graph: Graph) -> None:
    source = memory(graph)
    for target, options in (
        (source, {}),
        (memory(graph, C), {}),
        (memory(graph), {"sync": "incremental"}),
        (memory(graph), {"bitmap": "b"}),
        (memory(graph), {"compress": True}),
        (memory(graph), {"on_source_error": "hope"}),
    ):
        with pytest.raises(JobError):
            BackupJob(graph, source, target, **options)
    assert graph.jobs == []


def test_j7_stop_policy_pauses_and_resume_retries(graph: Graph) -> None:
    rules = [{"event": "none", "iotype": "write", "once": True, "errno": errno.ENOSPC}]
    target = graph.run(
        graph.open(
            {"driver": "blkdebug", "inject-error": rules, "image": {"driver": "memory", "size": 4 * C}}
        )
    )
    job = BackupJob(graph, memory(graph, fill=7), target, on_target_error="enospc")
    job.start()
    graph.run(job.wait_for(JobState.PAUSED))
    job.resume()
    graph.run(job.wait())
    assert job.error is None and graph.run(target.read(0, 4 * C)) == b"\7" * 4 * C


def test_j10_one_failure_fails_the_transaction(graph: Graph) -> None:
    rules = [{"event": "none", "iotype": "write"}]
    bad = graph.run(
        graph.open(
            {"driver": "blkdebug", "inject-error": rules, "image": {"driver": "memory", "size": 4 * C}}
        )
    )
    group = Transaction()
    options = {"transaction": group, "auto_dismiss": False}
    good = BackupJob(graph, memory(graph, fill=1), memory(graph), job_id="good", **options)  # type: ignore[arg-type]
    poor = BackupJob(graph, memory(graph, fill=1), bad, job_id="poor", **options)  # type: ignore[arg-type]
    for job in (good, poor):
        job.start()
    for job in (good, poor):
        graph.run(job.wait())
    assert poor.error is not None and good.cancelled
    assert ("JOB_STATUS_CHANGE", "aborting") in good.events
    good.dismiss()
    assert good.state is JobState.NULL


def overlay(graph: Graph, below: Node | None, size: int = 4 * C, name: str = "") -> Qcow2Node:
    from machine.block.qcow2.create import CreateOptions, create

    async def main() -> Qcow2Node:
        file = await graph.open({"driver": "memory"})
        file.monitor_owned = True
        await create(graph, file, CreateOptions(size=size))
        node = await graph.open({"driver": "qcow2", "node-name": name, "file": file, "backing": below})
        assert isinstance(node, Qcow2Node)
        return node

    return graph.run(main())


def chain(graph: Graph) -> tuple[Node, Qcow2Node, Qcow2Node, bytes]:
    base = memory(graph, fill=1)
    base.monitor_owned = True
    mid = overlay(graph, base)
    graph.run(mid.pwrite(C, b"\2" * C))
    top = overlay(graph, mid)
    graph.run(top.pwrite(2 * C, b"\3" * C))
    return base, mid, top, b"\1" * C + b"\2" * C + b"\3" * C + b"\1" * C


@pytest.mark.parametrize("to_base", [True, False])
def test_j11_stream_keeps_the_data_and_shortens_the_chain(graph: Graph, to_base: bool) -> None:
    base, mid, top, data = chain(graph)
    job = StreamJob(graph, top, base if to_base else None)
    with pytest.raises(BlockError, match="frozen"):
        graph.set_backing(top, None)
    job.start()
    graph.run(job.wait())
    assert job.error is None
    assert top.backing is (base if to_base else None) and mid.closed
    assert graph.run(top.read(0, 4 * C)) == data


def test_j12_commit_of_a_middle_layer(graph: Graph) -> None:
    base, mid, top, data = chain(graph)
    job = CommitJob(graph, top, mid, base)
    job.start()
    graph.run(job.wait())
    assert job.error is None and top.backing is base and mid.closed
    assert graph.run(top.read(0, 4 * C)) == data
    assert graph.run(base.read(C, C)) == b"\2" * C


@pytest.mark.parametrize("cancel", [False, True])
def test_j12_active_commit_pivots_or_leaves_a_consistent_base(graph: Graph, cancel: bool) -> None:
    base, _, top, data = chain(graph)
    backend = graph.run(graph.backend(top))
    job = MirrorJob(graph, top, base, active_commit=True)
    job.start()
    graph.run(job.wait_for(JobState.READY))
    graph.run(backend.write(0, b"\4" * 100))
    expected = b"\4" * 100 + data[100:]
    if cancel:
        job.cancel()
    else:
        job.complete()
    graph.run(job.wait())
    assert job.error is None
    assert (backend.node is base) is not cancel
    assert graph.run(base.read(0, 4 * C)) == expected == graph.run(backend.read(0, 4 * C))


@pytest.mark.parametrize("seed", range(8))
def test_j13_mirror_converges_under_writes_and_pivots(seed: int) -> None:
    graph = Graph(Scheduler(SeededOrder(seed)))
    source, target = memory(graph, 4 * C + 512, 5, yields=1), memory(graph, 4 * C + 512, yields=1)
    backend = graph.run(graph.backend(source))
    job = MirrorJob(graph, source, target)
    job.start()
    model = bytearray(b"\5" * (4 * C + 512))

    async def main() -> None:
        for step in range(30):
            at = step * 9973 % (4 * C)
            await backend.write(at, bytes([step]) * 500)
            model[at : at + 500] = bytes([step]) * 500
            if job.state is JobState.READY and not job._should_complete:
                job.complete()
        if job.alive and not job._should_complete:
            await job.wait_for(JobState.READY)
            job.complete()
        await job.wait()

    graph.run(main())
    assert backend.node is target
    assert graph.run(backend.read(0, len(model))) == model


def test_j14_verbs_are_refused_in_the_wrong_state(graph: Graph) -> None:
    calls: dict[str, Callable[[Job], None]] = {
        "cancel": Job.cancel,
        "pause": Job.pause,
        "resume": Job.resume,
        "complete": Job.complete,
        "finalize": Job.finalize,
        "dismiss": Job.dismiss,
        "set-speed": lambda job: job.set_speed(5),
    }
    job = Job(graph, "j")
    for state in JobState:
        for verb, call in calls.items():
            if state in VERBS[verb]:
                continue
            job.state = state
            if verb == "set-speed" and state is JobState.CREATED:
                continue
            with pytest.raises(JobError, match=verb):
                call(job)
    graph.jobs.clear()


def test_j15_speed_bounds_and_rate(graph: Graph) -> None:
    for speed in (-1, 1 << 63):
        with pytest.raises(JobError):
            Job(graph, f"s{speed}", speed=speed)
    graph.jobs.clear()
    job = BackupJob(graph, memory(graph, 16 * C, 3), memory(graph, 16 * C), speed=4 * C)
    job.start()
    graph.run(job.wait())
    assert 3_000_000_000 <= graph.sched.clock.now_ns() <= 5_000_000_000, "whole 100 ms slices are used up"


def test_j16_manual_finalize_and_dismiss(graph: Graph) -> None:
    job = BackupJob(graph, memory(graph), memory(graph), auto_finalize=False, auto_dismiss=False)
    job.start()
    graph.run(job.wait_for(JobState.PENDING))
    with pytest.raises(JobError):
        job.dismiss()
    job.finalize()
    graph.run(job.wait())
    assert job.state is JobState.CONCLUDED and job in graph.jobs
    job.dismiss()
    assert job not in graph.jobs


def test_p9_copy_on_read_copies_and_writes_zero_clusters_as_zero(graph: Graph) -> None:
    base = memory(graph)
    graph.run(base.pwrite(0, b"\x0b" * C))
    base.monitor_owned = True
    top = overlay(graph, base, name="over")
    cor = graph.run(graph.open({"driver": "copy-on-read", "file": "over"}))
    assert graph.run(cor.read(100, 2 * C)) == b"\x0b" * (C - 100) + bytes(C + 100)
    first, second = graph.run(top.block_status(0, C)), graph.run(top.block_status(C, C))
    assert first.flags & F.ST_DATA and second.flags & F.ST_ZERO and second.flags & F.ST_ALLOCATED
    assert not graph.run(top.block_status(3 * C, C)).flags & F.ST_ALLOCATED


FLEECE_BASE = [(0x5D, 0), (0xD5, M), (0xDC, 32 * M), (0xCD, 64 * M - C)]
FLEECE_OVER = [(0xAB, 0), (0xAD, M - C // 2), (0x1D, 32 * M + C // 2), (0xEA, 64 * M - 2 * C)]


def fleece_disk(graph: Graph) -> Node:
    disk = graph.run(graph.open({"driver": "memory", "size": 64 * M, "node-name": "disk"}))
    for fill, at in FLEECE_BASE:
        graph.run(disk.pwrite(at, bytes([fill]) * C))
    disk.monitor_owned = True
    return disk


def check_fleece(graph: Graph, view: Node, disk: Node) -> None:
    for fill, at in FLEECE_BASE:
        assert graph.run(view.read(at, C)) == bytes([fill]) * C
    assert graph.run(view.read(M - C // 2, C // 2)) == bytes(C // 2)
    assert graph.run(view.read(64 * M - 2 * C, C)) == bytes(C)
    for fill, at in FLEECE_OVER:
        assert graph.run(disk.read(at, C)) == bytes([fill]) * C
    assert graph.run(disk.read(M + C // 2, C // 2)) == b"\xd5" * (C // 2)
    assert graph.run(disk.read(32 * M, C // 2)) == b"\xdc" * (C // 2)
    assert graph.run(disk.read(64 * M - C, C)) == b"\xcd" * C


def test_fleecing_by_backup_without_sync_into_an_overlay(graph: Graph) -> None:
    disk = fleece_disk(graph)
    target = overlay(graph, disk, 64 * M)
    job = BackupJob(graph, disk, target, sync="none")
    job.start()
    for fill, at in FLEECE_OVER:
        graph.run(disk.pwrite(at, bytes([fill]) * C))
    check_fleece(graph, target, disk)
    job.cancel()
    graph.run(job.wait())
    assert job.events[-2][0] == "BLOCK_JOB_CANCELLED" or ("BLOCK_JOB_CANCELLED", "") in job.events


def cbw(graph: Graph, disk: Node, **options: Any) -> tuple[CopyBeforeWriteNode, Node]:
    target = {
        "driver": "blkdebug",
        "image": {"driver": "memory", "size": disk.size_bytes},
        **options.pop("debug", {}),
    }
    spec = {"driver": "copy-before-write", "node-name": "cbw", "file": disk.name, "target": target, **options}
    node = graph.run(graph.open(spec))
    assert isinstance(node, CopyBeforeWriteNode)
    return node, graph.run(graph.open({"driver": "snapshot-access", "file": "cbw"}))


def test_fleecing_by_filter(graph: Graph) -> None:
    node, view = cbw(graph, fleece_disk(graph))
    for fill, at in FLEECE_OVER:
        graph.run(node.pwrite(at, bytes([fill]) * C))
    check_fleece(graph, view, node)
    with pytest.raises(BlockError):
        graph.run(node.truncate(M))


@pytest.mark.parametrize("policy", ["break-guest-write", "break-snapshot"])
def test_fleecing_when_the_copy_fails(graph: Graph, policy: str) -> None:
    disk = memory(graph, 4 * C, 1, **{"node-name": "disk"})
    rules = {"inject-error": [{"event": "none", "iotype": "write", "once": True}]}
    node, view = cbw(graph, disk, debug=rules, **{"on-cbw-error": policy})
    if policy == "break-guest-write":
        with pytest.raises(BlockError):
            graph.run(node.pwrite(0, b"\2"))
        assert graph.run(view.read(0, C)) == b"\1" * C
        assert graph.run(node.read(0, 1)) == b"\1"
    else:
        graph.run(node.pwrite(0, b"\2"))
        with pytest.raises(BlockError) as caught:
            graph.run(view.read(C, 10))
        assert caught.value.errno == errno.EACCES


def quorum(
    graph: Graph, n: int, threshold: int, pattern: str, **options: Any
) -> tuple[QuorumNode, list[Node]]:
    children = [memory(graph, fill=1) for _ in range(n)]
    spec = {"driver": "quorum", "children": children, "vote-threshold": threshold, "read-pattern": pattern}
    node = graph.run(graph.open({**spec, **options}))
    assert isinstance(node, QuorumNode)
    return node, children


def test_quorum_votes_and_rewrites(graph: Graph) -> None:
    node, children = quorum(graph, 3, 2, "quorum", **{"rewrite-corrupted": True})
    graph.run(children[1].pwrite(0, b"bad"))
    assert graph.run(node.read(0, 3)) == b"\1\1\1"
    assert graph.run(children[1].read(0, 3)) == b"\1\1\1"
    graph.run(children[0].pwrite(0, b"x"))
    graph.run(children[1].pwrite(0, b"y"))
    with pytest.raises(BlockError, match="equal answers"):
        graph.run(node.read(0, 1))


def test_a_quorum_of_two_may_verify_instead_of_voting(graph: Graph) -> None:
    node, children = quorum(graph, 2, 2, "quorum", blkverify=True)
    graph.run(node.pwrite(5, b"both"))
    assert graph.run(node.read(4, 6)) == b"\1both\1"
    graph.run(children[1].pwrite(700, b"x"))
    with pytest.raises(BlockError, match="differ at 700"):
        graph.run(node.read(0, 1024))
    for n, threshold, more in ((3, 2, {}), (2, 1, {}), (2, 2, {"rewrite-corrupted": True})):
        with pytest.raises(BlockError):
            quorum(graph, n, threshold, "quorum", blkverify=True, **more)


def test_blkverify_holds_an_image_against_a_copy(graph: Graph) -> None:
    image = {"driver": "qcow2", "file": "disk"}
    graph.run(graph.close_node(memory_image(graph, size=M)))
    raw = memory(graph, M, 0)
    node = graph.run(graph.open({"driver": "blkverify", "test": image, "raw": raw.name}))
    rnd = random.Random(8)
    for _ in range(40):
        at, length = rnd.randrange(M - 70_000), rnd.randrange(1, 70_000)
        if rnd.random() < 0.3:
            graph.run(node.pwrite_zeroes(at, length))
        else:
            graph.run(node.pwrite(at, rnd.randbytes(length)))
        graph.run(node.read(max(0, at - 100), min(length + 200, M - at)))
    graph.run(raw.pwrite(4321, bytes([graph.run(raw.read(4321, 1))[0] ^ 1])))
    with pytest.raises(BlockError, match="differ at 4321"):
        graph.run(node.read(0, M))
    with pytest.raises(BlockError, match="'raw' is missing"):
        graph.run(graph.open({"driver": "blkverify", "test": raw.name}))


def test_quorum_fifo_reads_the_next_child_and_children_come_and_go(graph: Graph) -> None:
    node, children = quorum(graph, 2, 1, "fifo")
    children[0].closed = True
    assert graph.run(node.read(0, 2)) == b"\1\1"
    graph.run(node.pwrite(0, b"new"))
    children[0].closed = False
    node.remove_child(children[0])
    with pytest.raises(BlockError):
        node.remove_child(children[1])
    node.add_child(memory(graph, fill=9))
    assert len(node.members()) == 2 and Role.DATA in next(iter(node.children.values())).role

"""Mirror and backup with several copies in flight, write-blocking, transactions: catalogue J9, J10, J13, P9, 14.5."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest

from machine.block import flags as F
from machine.block.drivers.blkdebug import BlkdebugNode
from machine.block.errors import BlockError, JobError
from machine.block.graph import Graph
from machine.block.jobs import transaction as act
from machine.block.jobs.backup import BackupJob
from machine.block.jobs.job import JobState, Transaction
from machine.block.jobs.mirror import MirrorJob
from machine.block.node import Node
from machine.block.sched import Order, Scheduler, SeededOrder, explore

from . import disks
from .disks import FLEECE_BASE, FLEECE_OVER, C, cbw, fleece_disk, overlay


def memory(graph: Graph, size: int, fill: int = 0, yields: int = 0, name: str = "") -> Node:
    named = {"node-name": name} if name else {}
    node = disks.memory(graph, size, fill, **named)
    node.monitor_owned = True
    node.yields = yields  # type: ignore[attr-defined]
    return node


def run_guest(graph: Graph, source: Node, writes: list[tuple[int, int, int]]) -> None:
    """Write (offset, length, fill) one after the other in a task of its own."""

    async def guest() -> None:
        backend = await graph.backend(source, name="guest")
        for offset, length, fill in writes:
            await backend.write(offset, bytes([fill]) * length)
        backend.close()

    graph.sched.run_task(graph.sched.spawn(guest(), "guest"))


def random_writes(seed: int, size: int, count: int) -> list[tuple[int, int, int]]:
    rnd = random.Random(seed)
    out = []
    for i in range(count):
        length = rnd.choice((512, 5000, C, 3 * C))
        out.append((rnd.randrange(size - length), length, i + 1 & 0xFF))
    return out


@pytest.mark.parametrize("mode", ["background", "write-blocking"])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("alignment", [1, 4096])
def test_j13_a_mirror_of_a_written_disk_ends_equal(mode: str, seed: int, alignment: int) -> None:
    graph = Graph(Scheduler(SeededOrder(seed)))
    size = 24 * C + 512 * 9
    file = memory(graph, size, 7, yields=3, name="low")
    source = graph.run(graph.open({"driver": "blkdebug", "image": "low", "align": alignment}))
    target = memory(graph, size, yields=5)
    job = MirrorJob(graph, source, target, copy_mode=mode, operations=5)
    job.start()
    run_guest(graph, source, random_writes(seed, size, 40))
    graph.run(job.wait_for(JobState.READY))
    job.complete()
    graph.run(job.wait())
    assert job.error is None and job.pivoted
    assert graph.run(target.read(0, size)) == graph.run(file.read(0, size))


def test_j13_write_blocking_keeps_a_ready_target_equal_at_every_write() -> None:
    graph = Graph()
    source, target = memory(graph, 8 * C, 1), memory(graph, 8 * C)
    job = MirrorJob(graph, source, target, copy_mode="write-blocking")
    job.start()
    graph.run(job.wait_for(JobState.READY))
    backend = graph.run(graph.backend(source))
    for offset, length, fill in random_writes(3, 8 * C, 30):
        graph.run(backend.write(offset, bytes([fill]) * length))
        assert graph.run(target.read(offset, length)) == bytes([fill]) * length
    graph.run(backend.write_zeroes(C, C))
    assert graph.run(target.read(0, 8 * C)) == graph.run(source.read(0, 8 * C))
    assert job.state is JobState.READY and job._bitmap.count() == 0
    job.complete()
    graph.run(job.wait())
    assert job.pivoted and source.after_write == []


def test_j13_write_blocking_fails_the_job_and_not_the_guest() -> None:
    graph = Graph()
    source = memory(graph, 4 * C, 1)
    target = memory(graph, 4 * C, name="t")
    poor = graph.run(graph.open({"driver": "blkdebug", "image": "t"}))
    job = MirrorJob(graph, source, poor, copy_mode="write-blocking")
    job.start()
    graph.run(job.wait_for(JobState.READY))
    assert isinstance(poor, BlkdebugNode)
    poor.armed.append(poor._inject_rule({"event": "none", "iotype": "write"}))
    backend = graph.run(graph.backend(source))
    graph.run(backend.write(100, b"guest"))
    graph.run(job.wait())
    assert job.error is not None and not job.pivoted and source.after_write == []
    assert graph.run(source.read(100, 5)) == b"guest" and backend.node is source
    assert graph.run(target.read(0, 4 * C)) == b"\1" * 4 * C


def test_j13_every_order_of_a_copy_and_two_writes_ends_equal() -> None:
    """A copy that read before a write must not win over the write's own."""

    def one(order: Order) -> None:
        graph = Graph(Scheduler(order))
        source, target = memory(graph, 2 * C, 1, yields=1), memory(graph, 2 * C, yields=1)
        job = MirrorJob(graph, source, target, copy_mode="write-blocking", operations=2)
        job.start()
        tasks = [
            graph.sched.spawn(source.pwrite(at, bytes([fill]) * 3000), f"w{fill}")
            for at, fill in ((C - 1500, 2), (C - 500, 3))
        ]
        for task in tasks:
            graph.sched.run_task(task)
        graph.run(job.wait_for(JobState.READY))
        job.complete()
        graph.run(job.wait())
        assert job.pivoted
        assert graph.run(target.read(0, 2 * C)) == graph.run(source.read(0, 2 * C))

    for order in explore(600):
        one(order)


@pytest.mark.parametrize("mode", ["background", "write-blocking"])
def test_j13_a_target_with_clusters_above_the_granularity(mode: str) -> None:
    """Part of a target's cluster, written alone, would be filled from the target's own backing file."""
    graph = Graph()
    source = memory(graph, 16 * C, 5)
    file = graph.run(graph.open({"driver": "memory"}))
    from machine.block.qcow2.create import CreateOptions, create

    graph.run(create(graph, file, CreateOptions(size=16 * C, cluster_size=4 * C)))
    wrong = memory(graph, 16 * C, 0xEE, name="wrong")
    target = graph.run(graph.open({"driver": "qcow2", "file": file, "backing": wrong}))
    job = MirrorJob(graph, source, target, granularity=4096, copy_mode=mode)
    job.start()
    run_guest(graph, source, [(C + 100, 10, 9), (9 * C, 512, 8)])
    graph.run(job.wait_for(JobState.READY))
    run_guest(graph, source, [(13 * C, 100, 3)])
    job.complete()
    graph.run(job.wait())
    assert job.pivoted and graph.run(target.read(0, 16 * C)) == graph.run(source.read(0, 16 * C))


def test_j13_operations_are_in_flight_together_and_a_pause_waits_for_them() -> None:
    graph = Graph()
    source, target = memory(graph, 200 * C, 3, yields=60), memory(graph, 200 * C)
    job = MirrorJob(graph, source, target, granularity=C, operations=16)
    job._step = C
    most = 0

    async def watch() -> None:
        nonlocal most
        while job.alive and job.state is not JobState.READY:
            most = max(most, len(job._workers))
            await graph.sched.yield_now()

    job.start()
    graph.sched.spawn(watch(), "watch")
    for _ in range(40):
        graph.sched.step()
    job.pause()
    graph.run(job.wait_for(JobState.PAUSED))
    assert len(job._workers) == 0
    job.resume()
    graph.run(job.wait_for(JobState.READY))
    assert most == 16
    job.cancel()
    graph.run(job.wait())
    assert graph.run(target.read(0, 200 * C)) == b"\3" * 200 * C


@pytest.mark.parametrize("options", [{"copy_mode": "later"}, {"operations": 0}, {"operations": 17}], ids=str)
def test_a_mirror_refuses_what_it_does_not_know(options: dict[str, Any]) -> None:
    graph = Graph()
    with pytest.raises(JobError):
        MirrorJob(graph, memory(graph, C), memory(graph, C), **options)
    assert graph.jobs == []


@pytest.mark.parametrize("seed", range(8))
def test_j9_a_backup_with_workers_keeps_its_point_in_time(seed: int) -> None:
    graph = Graph(Scheduler(SeededOrder(seed)))
    size = 40 * C + 1000
    source, target = memory(graph, size, yields=3), memory(graph, size, yields=2)
    run_guest(graph, source, random_writes(seed, size, 20))
    frozen = graph.run(source.read(0, size))
    job = BackupJob(graph, source, target, workers=8)
    job.start()
    run_guest(graph, source, random_writes(seed + 100, size, 40))
    graph.run(job.wait())
    assert job.error is None and graph.run(target.read(0, size)) == frozen


def test_backup_workers_are_bounded() -> None:
    graph = Graph()
    with pytest.raises(JobError, match="1 to 64"):
        BackupJob(graph, memory(graph, C), memory(graph, C), workers=65)


# Transactions


def test_j10_bitmaps_change_and_a_backup_starts_at_one_point() -> None:
    graph = Graph(Scheduler(SeededOrder(2)))
    disk, target = memory(graph, 8 * C, 1, yields=4), memory(graph, 8 * C)
    group = Transaction()
    start = act.StartJob(
        disk, lambda g: BackupJob(graph, disk, target, sync="bitmap", bitmap="old", transaction=g), group
    )
    graph.run(act.run_transaction(graph, [act.AddBitmap(disk, "old")]))
    run_guest(graph, disk, [(0, C, 2), (5 * C, 10, 3)])
    graph.run(
        act.run_transaction(
            graph,
            [
                act.AddBitmap(disk, "new"),
                act.AddBitmap(disk, "sum", disabled=True),
                act.MergeBitmaps(disk, "sum", [(disk, "old")]),
                start,
            ],
        )
    )
    run_guest(graph, disk, [(7 * C, C, 9), (0, 100, 8)])
    assert start.job is not None
    graph.run(start.job.wait())
    assert start.job.error is None
    assert list(disk.bitmaps.get("new").dirty_ranges()) == [(0, C), (7 * C, C)]
    assert list(disk.bitmaps.get("sum").dirty_ranges()) == [(0, C), (5 * C, C)]
    expected = b"\2" * C + bytes(4 * C) + b"\3" * 10 + b"\1" * (C - 10) + bytes(2 * C)
    assert graph.run(target.read(0, 8 * C)) == expected


@pytest.mark.parametrize("bad", ["missing", "exists", "job"])
def test_j10_an_action_that_fails_undoes_the_others(bad: str) -> None:
    graph = Graph()
    disk = memory(graph, 4 * C)
    graph.run(act.run_transaction(graph, [act.AddBitmap(disk, "a"), act.AddBitmap(disk, "b")]))
    run_guest(graph, disk, [(C, C, 1)])
    graph.run(act.run_transaction(graph, [act.ClearBitmap(disk, "b")]))
    before = [(b.name, bytes(b.cells), b.enabled) for b in disk.bitmaps]
    target = memory(graph, 4 * C)
    last: dict[str, act.Action] = {
        "missing": act.RemoveBitmap(disk, "nobody"),
        "exists": act.AddBitmap(disk, "a"),
        "job": act.StartJob(disk, lambda g: BackupJob(graph, disk, disk)),
    }
    with pytest.raises(BlockError):
        graph.run(
            act.run_transaction(
                graph,
                [
                    act.AddBitmap(disk, "c"),
                    act.EnableBitmap(disk, "a", on=False),
                    act.MergeBitmaps(disk, "b", [(disk, "a")]),
                    act.ClearBitmap(disk, "a"),
                    act.StartJob(disk, lambda g: BackupJob(graph, disk, target, job_id="x")),
                    last[bad],
                ],
            )
        )
    assert [(b.name, bytes(b.cells), b.enabled) for b in disk.bitmaps] == before
    assert disk.before_write == []


def test_removed_bitmaps_come_back_when_a_transaction_fails() -> None:
    graph = Graph()
    disk = memory(graph, 4 * C)
    graph.run(act.run_transaction(graph, [act.AddBitmap(disk, "a", granularity=4096)]))
    with pytest.raises(BlockError):
        graph.run(act.run_transaction(graph, [act.RemoveBitmap(disk, "a"), act.ClearBitmap(disk, "a")]))
    assert disk.bitmaps.get("a").granularity == 4096


# Copy on read, fleecing


def test_p9_copy_on_read_and_a_write_at_the_same_time_end_with_the_write() -> None:
    """In every order, the copy of a cluster must not put old data over what a write brought meanwhile."""

    def one(order: Order) -> None:
        graph = Graph(Scheduler(order))
        base = memory(graph, 2 * C, 0xB, yields=1)
        base.monitor_owned = True
        top = overlay(graph, base, 2 * C, name="over")
        cor = graph.run(graph.open({"driver": "copy-on-read", "file": "over"}))
        reader = graph.sched.spawn(cor.read(0, 2 * C), "reader")
        writer = graph.sched.spawn(cor.pwrite(C - 700, b"\xcc" * 1400), "writer")
        seen = graph.sched.run_task(reader)
        graph.sched.run_task(writer)
        new = b"\x0b" * (C - 700) + b"\xcc" * 1400 + b"\x0b" * (C - 700)
        assert graph.run(top.read(0, 2 * C)) == new
        assert set(seen) <= {0xB, 0xCC} and seen[: C - 700] == b"\x0b" * (C - 700)

    for order in explore(400):
        one(order)


def test_fleecing_with_a_bitmap_shows_what_it_marks_and_nothing_else() -> None:
    graph = Graph()
    disk = fleece_disk(graph)
    graph.run(act.run_transaction(graph, [act.AddBitmap(disk, "some", disabled=True)]))
    bitmap = disk.bitmaps.get("some")
    for _, at in FLEECE_BASE[:2]:
        bitmap.set(at, C)
    node, view = cbw(graph, disk, bitmap={"node": "disk", "name": "some"})
    for fill, at in FLEECE_OVER:
        graph.run(node.pwrite(at, bytes([fill]) * C))
    for fill, at in FLEECE_BASE[:2]:
        assert graph.run(view.read(at, C)) == bytes([fill]) * C
    for _, at in FLEECE_BASE[2:]:
        with pytest.raises(BlockError) as caught:
            graph.run(view.read(at, C))
        assert caught.value.errno == errno.EACCES
    for fill, at in FLEECE_OVER:
        assert graph.run(node.read(at, C)) == bytes([fill]) * C
    assert not graph.run(node.target.block_status(FLEECE_BASE[3][1], C)).flags & F.ST_DATA


@pytest.mark.parametrize("policy", ["break-guest-write", "break-snapshot"])
def test_a_copy_that_takes_longer_than_cbw_timeout_counts_as_failed(policy: str) -> None:
    graph = Graph()
    memory(graph, 4 * C, 1, name="disk")
    slow = {"driver": "null-co", "size": 4 * C, "latency-ns": 5_000_000_000}
    spec = {"driver": "copy-before-write", "node-name": "f", "file": "disk", "target": slow}
    node = graph.run(graph.open({**spec, "on-cbw-error": policy, "cbw-timeout": 2}))
    view = graph.run(graph.open({"driver": "snapshot-access", "file": "f"}))
    began = graph.sched.clock.now_ns()
    if policy == "break-guest-write":
        with pytest.raises(BlockError) as caught:
            graph.run(node.pwrite(0, b"\2" * C))
        assert caught.value.errno == errno.ETIMEDOUT
        assert graph.run(node.read(0, C)) == b"\1" * C
    else:
        graph.run(node.pwrite(0, b"\2" * C))
        assert graph.run(node.read(0, C)) == b"\2" * C
        with pytest.raises(BlockError):
            graph.run(view.read(0, C))
    assert graph.sched.clock.now_ns() - began == 2_000_000_000


def test_limits_of_a_throttle_group_change_for_all_members() -> None:
    graph = Graph()
    one = {"driver": "throttle", "throttle-group": "g", "limits": {"iops-total": 1}}
    first = graph.run(graph.open({**one, "file": {"driver": "memory", "size": C}}))
    for _ in range(2):
        graph.run(first.read(0, 1))
    task = graph.sched.spawn(first.read(0, 1), "slow")
    graph.sched.settle()
    began = graph.sched.clock.now_ns()
    more = {**one, "limits": {"iops-total": 1000}, "file": {"driver": "memory", "size": C}}
    second = graph.run(graph.open(more))
    graph.sched.run_task(task)
    for _ in range(50):
        graph.run(second.read(0, 1))
    assert graph.sched.clock.now_ns() - began < 100_000_000

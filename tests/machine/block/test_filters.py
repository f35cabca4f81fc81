"""Filters, and fleecing with them and by backup: catalogue P9 and section 14.5."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest

from machine.block import flags as F
from machine.block.errors import BlockError
from machine.block.filters.quorum import QuorumNode
from machine.block.flags import Role
from machine.block.graph import Graph
from machine.block.jobs.backup import BackupJob
from machine.block.node import Node
from machine.block.sched import Scheduler, SeededOrder

from .disks import FLEECE_BASE, FLEECE_OVER, C, cbw, fleece_disk, memory, overlay
from .qcow2_util import memory_image
from .replication_util import M


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


@pytest.mark.parametrize("align", [1, 512])
@pytest.mark.parametrize("seed", range(12))
def test_fleecing_shows_one_point_in_time_while_reads_and_writes_meet(seed: int, align: int) -> None:
    """A read of the view that is still under way in the source holds up a write to it."""
    graph = Graph(Scheduler(SeededOrder(seed)))
    disk = memory(graph, 8 * C, 0x11, align=align, yields=2, growable=False)
    target = overlay(graph, disk, 8 * C)
    job = BackupJob(graph, disk, target, sync="none")
    job.start()
    graph.sched.settle()
    rnd = random.Random(seed)

    async def write() -> None:
        for _ in range(12):
            length = rnd.randrange(1, 2 * C)
            await disk.pwrite(rnd.randrange(8 * C - length), bytes([rnd.randrange(256)]) * length)

    async def read() -> None:
        for _ in range(12):
            length = rnd.randrange(1, 3 * C)
            data = await target.read(rnd.randrange(8 * C - length), length)
            assert data.count(0x11) == length

    async def meet() -> None:
        for task in [graph.sched.spawn(work(), "user") for work in (write, write, read, read, read)]:
            await task.join()

    graph.run(meet())
    job.cancel()
    graph.run(job.wait())

"""Modes and ends of jobs: catalogue J2, J3, J4, J8, J11, J12, J13."""

from __future__ import annotations

from typing import Any

import pytest

from machine.block import flags as F
from machine.block.dirty import DirtyBitmap
from machine.block.graph import Graph
from machine.block.jobs.backup import BackupJob
from machine.block.jobs.chain import CommitJob, StreamJob
from machine.block.jobs.job import JobState
from machine.block.jobs.mirror import MirrorJob
from machine.block.node import Node
from machine.block.qcow2.node import Qcow2Node

from . import disks
from .disks import C

SIZE = 6 * C


def memory(graph: Graph, fill: int = 0, size: int = SIZE) -> Node:
    return disks.memory(graph, size, fill)


def faulty(graph: Graph, fill: int = 0, **rule: Any) -> Node:
    """A memory disk behind a blkdebug node with one rule that is always armed."""
    below = memory(graph, fill)
    return graph.run(
        graph.open({"driver": "blkdebug", "image": below, "inject-error": [{"event": "none", **rule}]})
    )


def overlay(graph: Graph, below: Node | None, size: int = SIZE, **writes: int) -> Qcow2Node:
    """A qcow2 overlay; ``c2=7`` fills cluster 2 with 7."""
    node = disks.overlay(graph, below, size)
    for name, fill in writes.items():
        graph.run(node.pwrite(int(name[1:]) * C, bytes([fill]) * C))
    return node


def clusters(graph: Graph, node: Node) -> list[int]:
    """The first byte of every cluster."""
    return [graph.run(node.read(at, 1))[0] for at in range(0, node.size_bytes, C)]


def held(graph: Graph, node: Node) -> set[int]:
    """The clusters that a layer holds itself."""
    return {
        at // C
        for at in range(0, node.size_bytes, C)
        if graph.run(node.block_status(at, C)).flags & F.ST_ALLOCATED
    }


def finish(graph: Graph, job: Any) -> None:
    job.start()
    graph.run(job.wait())


def test_j2_top_copies_what_the_top_layer_holds(graph: Graph) -> None:
    source = overlay(graph, memory(graph, 1), c2=7, c4=8)
    target = memory(graph)
    finish(graph, BackupJob(graph, source, target, sync="top"))
    assert clusters(graph, target) == [0, 0, 7, 0, 8, 0]


def test_j3_none_copies_only_what_is_written_and_cancel_is_its_good_end(graph: Graph) -> None:
    source, target = memory(graph, 5), memory(graph)
    job = BackupJob(graph, source, target, sync="none")
    job.start()
    graph.run(source.pwrite(3 * C + 10, b"new"))
    graph.run(source.pwrite(3 * C + 20, b"newer"))
    job.cancel()
    graph.run(job.wait())
    assert job.error is None and ("BLOCK_JOB_CANCELLED", "") in job.events
    assert clusters(graph, target) == [0, 0, 0, 5, 0, 0]
    graph.run(source.pwrite(0, b"after"))
    assert clusters(graph, target)[0] == 0


def test_j4_incremental_copies_the_difference_each_time(graph: Graph) -> None:
    source, target = memory(graph, 1), memory(graph, 1)
    bitmap = source.bitmaps.add(DirtyBitmap("b", SIZE))
    for step in (2, 3):
        graph.run(source.pwrite(step * C, bytes([step * 16]) * C))
        assert bitmap.count() == C
        finish(graph, BackupJob(graph, source, target, sync="incremental", bitmap="b"))
        assert bitmap.count() == 0 and clusters(graph, target) == clusters(graph, source)


@pytest.mark.parametrize("mode", ["on-success", "always", "never"])
def test_j8_a_cancelled_bitmap_backup_loses_no_dirty_cluster(graph: Graph, mode: str) -> None:
    source, target = memory(graph, 1), memory(graph)
    bitmap = source.bitmaps.add(DirtyBitmap("b", SIZE))
    bitmap.set(0, 3 * C)
    job = BackupJob(graph, source, target, sync="bitmap", bitmap="b", bitmap_mode=mode, speed=1)
    job.start()
    graph.sched.settle()
    graph.run(source.pwrite(5 * C, b"x"))
    job.cancel(force=True)
    graph.run(job.wait())
    dirty = {o // C for start, n in bitmap.dirty_ranges() for o in range(start, start + n, C)}
    copied = {i for i, byte in enumerate(clusters(graph, target)) if byte}
    assert dirty >= {0, 1, 2, 5} - (copied if mode == "always" else set())
    assert not bitmap.busy


def test_j8_source_errors_by_policy(graph: Graph) -> None:
    for policy, fails in (("report", True), ("ignore", False), ("stop", False)):
        source, target = faulty(graph, 4, iotype="read", once=True, sector=2 * C // 512), memory(graph)
        job = BackupJob(graph, source, target, job_id=policy, on_source_error=policy)
        job.start()
        if policy == "stop":
            graph.run(job.wait_for(JobState.PAUSED))
            job.resume()
        graph.run(job.wait())
        assert (job.error is not None) is fails
        if not fails:
            assert clusters(graph, target) == [4] * 6


def test_j11_stream_with_ignored_errors_keeps_the_backing(graph: Graph) -> None:
    base = faulty(graph, 4, iotype="read", once=True, sector=2 * C // 512)
    mid = overlay(graph, base, c1=9)
    top = overlay(graph, mid)
    job = StreamJob(graph, top, None, on_source_error="ignore")
    finish(graph, job)
    assert job.error is not None and top.backing is mid
    assert clusters(graph, top) == [4, 9, 4, 4, 4, 4]


def test_j11_stream_without_a_layer_between_does_nothing(graph: Graph) -> None:
    base = memory(graph, 4)
    top = overlay(graph, base)
    job = StreamJob(graph, top, base)
    finish(graph, job)
    assert job.error is None and top.backing is base and held(graph, top) == set()


def test_j12_commit_grows_a_shorter_base(graph: Graph) -> None:
    base = overlay(graph, None, 2 * C, c0=1, c1=1)
    mid = overlay(graph, base, c4=6)
    top = overlay(graph, mid, c5=7)
    job = CommitJob(graph, top, mid, base)
    finish(graph, job)
    assert job.error is None and base.size_bytes == SIZE
    assert clusters(graph, top) == [1, 1, 0, 0, 6, 7] and clusters(graph, base) == [1, 1, 0, 0, 6, 0]


def test_j12_a_failed_commit_leaves_the_chain(graph: Graph) -> None:
    base = faulty(graph, 1, iotype="write")
    mid = overlay(graph, base, c4=6)
    top = overlay(graph, mid, c5=7)
    job = CommitJob(graph, top, mid, base)
    finish(graph, job)
    assert job.error is not None and top.backing is mid
    assert clusters(graph, top) == [1, 1, 1, 1, 6, 7]
    graph.set_backing(top, mid)  # thawed


@pytest.mark.parametrize(
    ("sync", "expected"), [("full", [1, 1, 7, 1, 1, 1]), ("top", [0, 0, 7, 0, 0, 0]), ("none", [0] * 6)]
)
def test_j13_mirror_modes(graph: Graph, sync: str, expected: list[int]) -> None:
    source = overlay(graph, memory(graph, 1), c2=7)
    target = memory(graph)
    backend = graph.run(graph.backend(source))
    job = MirrorJob(graph, source, target, sync=sync)
    job.start()
    graph.run(job.wait_for(JobState.READY))
    assert clusters(graph, target) == expected
    graph.run(backend.write(5 * C, b"\x09"))
    job.cancel()
    graph.run(job.wait())
    assert clusters(graph, target) == [*expected[:5], 9]
    assert backend.node is source


def test_j13_mirror_of_an_empty_disk_becomes_ready(graph: Graph) -> None:
    job = MirrorJob(graph, memory(graph, size=0), memory(graph, size=0), auto_complete=True)
    finish(graph, job)
    assert job.error is None and job.pivoted


def test_j13_an_error_on_the_target_ends_the_mirror_and_changes_nothing(graph: Graph) -> None:
    source, target = memory(graph, 3), faulty(graph, iotype="write")
    backend = graph.run(graph.backend(source))
    job = MirrorJob(graph, source, target)
    finish(graph, job)
    assert job.error is not None and backend.node is source and not list(source.bitmaps)

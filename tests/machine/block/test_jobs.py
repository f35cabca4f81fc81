"""Jobs: catalogue J."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from machine.block.dirty import DirtyBitmap
from machine.block.errors import BlockError, JobError
from machine.block.graph import Graph
from machine.block.jobs.backup import BackupJob
from machine.block.jobs.chain import CommitJob, StreamJob
from machine.block.jobs.job import VERBS, Job, JobState, Transaction
from machine.block.jobs.mirror import MirrorJob
from machine.block.node import Node
from machine.block.qcow2.node import Qcow2Node
from machine.block.sched import Scheduler, SeededOrder

from .disks import C, memory, overlay
from .replication_util import K


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

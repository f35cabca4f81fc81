"""Disks in recordings: catalogue D2, D5, D6, D7, D9 with a guest that reads and writes; what a checkpoint keeps."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from machine.config import DriveConfig
from machine.errors import ImageError
from machine.hw.blockproto import CLUSTER_BYTES, Base, BlockError
from machine.hw.overlay import OverlayDisk
from traces.copying import pack_trace, trim_trace
from traces.errors import TraceError
from traces.reader import TraceReader
from workbench.cli import run
from workbench.replay.diagnosis import diagnose
from workbench.replay.errors import Diverged
from workbench.replay.recorder import RecordLimits, RecordResult
from workbench.replay.replayer import Replayer
from workbench.session import Session

from . import disk_guest

SIZE = disk_guest.BLOCKS * 4096


@pytest.fixture
def drive(tmp_path: Path) -> DriveConfig:
    path = tmp_path / "disk.raw"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return DriveConfig(str(path))


class Slow:
    """A base that counts, may fail a cluster's reads, and may do something before each."""

    def __init__(self, base: Base, failing: dict[int, list[int]] | None = None, delay_s: float = 0) -> None:
        self.delay_s = delay_s
        self.base = base
        self.size_bytes = base.size_bytes
        self.failing = failing or {}
        self.reads = 0

    def cluster(self, index: int, length: int) -> bytes:
        self.reads += 1
        time.sleep(self.delay_s)
        left = self.failing.get(index)
        if left and (errno := left.pop(0)):
            raise BlockError(errno, "worn out")
        return self.base.cluster(index, length)

    def identity(self) -> str:
        return self.base.identity()

    def close(self) -> None:
        self.base.close()


def record(
    out: Path, drive: DriveConfig, failing: dict[int, list[int]] | None = None, delay_s: float = 0
) -> RecordResult:
    made = disk_guest.recorder(out, drive)
    node = made.board.drives["drive0"]  # type: ignore[attr-defined]
    assert isinstance(node, OverlayDisk)
    node.base = Slow(node.base, failing, delay_s)
    result = made.run(timeout_s=60)
    made.board.engine.close()
    return result


def verify(path: Path) -> tuple[int, int]:
    """Replay and return the position of the end and how many requests failed."""
    with TraceReader.open(path) as trace, Replayer(trace) as replayer:
        assert replayer.verify().digests > 10
        failures = disk_guest.build()[1]["failures"]
        read = replayer.playback.board.engine.read_phys(failures, 8)
        return trace.final_icount, int.from_bytes(read, "little")


def test_d2_d5_a_run_does_not_depend_on_the_host_and_leaves_the_image_alone(
    tmp_path: Path, drive: DriveConfig
) -> None:
    before = Path(drive.file).read_bytes()
    one = record(tmp_path / "one.trace", drive)
    two = record(tmp_path / "two.trace", drive, delay_s=0.003)
    assert one.reason == "poweroff" and one.icount == two.icount
    assert verify(tmp_path / "one.trace") == (one.icount, 0)
    with TraceReader.open(tmp_path / "one.trace") as a, TraceReader.open(tmp_path / "two.trace") as b:
        assert [row.digest for row in a.checkpoints()] == [row.digest for row in b.checkpoints()]
    assert Path(drive.file).read_bytes() == before


@pytest.mark.parametrize("backend", ["jit", "interp"])
def test_a_guest_may_use_its_buffers_again_before_it_is_told(
    tmp_path: Path, drive: DriveConfig, backend: str
) -> None:
    """block.md's D4 and 10.3. A payload was read when its request was due: what the guest put there since was written.

    Checkpoints fall between asking and telling; each must have the same future, and going back must find the same past.
    """
    path = tmp_path / "run.trace"
    limits = RecordLimits(rolling_steps=1 << 12, checkpoint_every=1)
    made = disk_guest.recorder(path, drive, disk_guest.OVERLAPPING, limits=limits, backend=backend)
    result = made.run(timeout_s=60)
    made.board.engine.close()
    failures = disk_guest.build(disk_guest.OVERLAPPING)[1]["failures"]
    rnd = random.Random(5)
    with TraceReader.open(path) as trace:
        between = [
            row
            for row in trace.checkpoints()
            if len(trace.checkpoint_state(row.id)["devices"]["drive0"]["backend"]["pending"]) == 2
        ]
        assert len(between) > disk_guest.ROUNDS
        for row in rnd.sample(between, 6):
            with Replayer(trace, backend, from_checkpoint=row.id) as replayer:
                assert replayer.verify().icount == result.icount
                assert replayer.playback.board.engine.read_phys(failures, 8) == bytes(8)
        with Replayer(trace, backend) as replayer:
            for row in rnd.sample(between, 12):
                replayer.goto(row.icount - 1 - rnd.randrange(2000))
                replayer.goto(row.icount)
                assert replayer.playback.whole()[0] == row.digest


def test_requests_may_take_as_long_as_they_took_the_host(tmp_path: Path, drive: DriveConfig) -> None:
    """block.md's D2: recorded completion. Each request's time is an input, and all that a replay needs."""
    path, packed = tmp_path / "run.trace", tmp_path / "packed.trace"
    result = record(path, replace(drive, timing="host"), {3: [5]}, delay_s=0.001)
    assert result.reason == "poweroff"
    with TraceReader.open(path) as trace:
        rows = [row for row in trace.inputs() if row.kind == "latency"]
        assert len(rows) == disk_guest.ROUNDS * 2 + disk_guest.ROUNDS // 16
        took = [int.from_bytes(row.payload, "little") for row in rows]
        assert all(0 < ns <= 10**9 for ns in took) and len(set(took)) > 10
        assert sum(ns >= 1_000_000 for ns in took) >= 10  # what the slow base had to be read for
        pack_trace(trace, packed)
        between = [
            row
            for row in trace.checkpoints()
            if trace.checkpoint_state(row.id)["devices"]["drive0"]["backend"]["pending"]
        ]
        for row in between[:: max(1, len(between) // 4)]:
            with Replayer(trace, from_checkpoint=row.id) as replayer:
                assert replayer.verify().icount == result.icount
    assert verify(path)[0] == result.icount
    Path(drive.file).unlink()
    assert verify(packed)[0] == result.icount


def test_d6_what_nodes_over_the_image_do_is_not_seen_by_the_guest(tmp_path: Path, drive: DriveConfig) -> None:
    """A slow, throttled chain of nodes under the disk gives the trace that the plain file gives."""
    chain = replace(
        drive,
        file='json:{"driver":"throttle","throttle-group":"slow","limits":{"iops-total":20},"file":{"driver":"copy-on-read",'
        f'"file":{{"driver":"file","filename":"{drive.file}"}}}}}}',
    )
    plain, slow = tmp_path / "plain.trace", tmp_path / "slow.trace"
    assert record(plain, drive).icount == record(slow, chain).icount
    with TraceReader.open(plain) as a, TraceReader.open(slow) as b:
        assert [row.digest for row in a.checkpoints()] == [row.digest for row in b.checkpoints()]


def test_d7_d9_a_host_error_is_recorded_and_replays_without_the_host(
    tmp_path: Path, drive: DriveConfig
) -> None:
    """A read that failed in the recording succeeded in the replay, which then diverged."""
    path, packed = tmp_path / "run.trace", tmp_path / "packed.trace"
    failing = {cluster: [5, 0, 28] for cluster in range(0, 32, 2)}
    record(path, drive, failing)
    with TraceReader.open(path) as trace:
        faults = [row for row in trace.inputs() if row.kind == "fault"]
        assert len(faults) >= 4 and {row.source for row in faults} == {"drive0"}
        assert {int.from_bytes(row.payload[4:], "little") for row in faults} == {5, 28}
        pack_trace(trace, packed)
    assert verify(path)[1] == len(faults)
    Path(drive.file).unlink()
    assert verify(packed)[1] == len(faults)


def test_a_host_error_in_a_replay_stops_it_with_the_place(tmp_path: Path, drive: DriveConfig) -> None:
    path = tmp_path / "run.trace"
    record(path, drive)
    with TraceReader.open(path) as trace, Replayer(trace) as replayer:
        node = replayer.playback.board.drives["drive0"]  # type: ignore[attr-defined]
        node.base = Slow(node.base, {5: [5]})
        with pytest.raises(Diverged, match=r"drive0 can't be read here \(errno 5\)"):
            replayer.verify()


def test_an_image_is_opened_once(tmp_path: Path, drive: DriveConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was opened once for its hash and once more for the run: a server that ends with its first client was gone."""
    import machine.drives

    opened: list[str] = []
    first = machine.drives._open_base

    def count(drive: DriveConfig) -> Base:
        opened.append(drive.file)
        return first(drive)

    monkeypatch.setattr(machine.drives, "_open_base", count)
    record(tmp_path / "run.trace", drive)
    assert opened == [drive.file]


def test_a_checkpoint_names_its_disk_by_one_hash(tmp_path: Path, drive: DriveConfig) -> None:
    path, part = tmp_path / "run.trace", tmp_path / "part.trace"
    result = record(path, drive)
    with TraceReader.open(path) as trace:
        states = [trace.checkpoint_state(row.id)["drives"]["drive0"] for row in trace.checkpoints()]
        assert all(len(state["root"]) in (0, 64) and not state["data"] for state in states)
        assert len({state["root"] for state in states}) > 5
        middle = result.icount // 2
        trim_trace(trace, part, middle, result.icount - 1000)
    with TraceReader.open(part) as trace, Replayer(trace) as replayer:
        assert replayer.verify().digests > 5


def test_going_back_brings_the_disk_back(tmp_path: Path, drive: DriveConfig) -> None:
    path = tmp_path / "run.trace"
    result = record(path, drive)
    rnd = random.Random(3)
    with Session.open(path) as session:
        places = [rnd.randrange(result.icount) for _ in range(12)]
        seen = []
        for place in sorted(places):
            session.goto(place)
            seen.append((place, session.digest()))
        rnd.shuffle(seen)
        for place, digest in seen:
            session.goto(place)
            assert session.digest() == digest


def test_another_image_is_refused(tmp_path: Path, drive: DriveConfig) -> None:
    path = tmp_path / "run.trace"
    record(path, drive)
    file = Path(drive.file)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with TraceReader.open(path) as trace, pytest.raises(ImageError, match="the image that was recorded"):
        Replayer(trace)


def test_a_changed_image_is_reported_with_where_the_run_reads_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was refused in one line, and nothing said whether that matters to the run."""
    file, path = tmp_path / "disk.raw", tmp_path / "run.trace"
    # the guest reads two megabytes of three
    whole = random.Random(1).randbytes(SIZE + (1 << 20))
    file.write_bytes(whole)
    record(path, DriveConfig(str(file)))
    with TraceReader.open(path) as trace:
        read = sorted(trace.disk_reads("drive0"))
    assert len(read) > 2 and max(read) < SIZE // CLUSTER_BYTES

    def report_of(clusters: list[int]) -> dict[str, Any]:
        data = bytearray(whole)
        for cluster in clusters:
            data[cluster * CLUSTER_BYTES] ^= 1
        file.write_bytes(data)
        assert run(["trace", "verify", str(path)]) == 3
        shown = capsys.readouterr().err
        found: dict[str, Any] = json.loads(Path(f"{path}.divergence.json").read_text())
        assert found["kind"] == "image" and f"drive0: {file} has content" in found["what"]
        assert f"workbench: {found['what']}" in shown and "trace pack" in shown
        for each in (data, whole):
            assert hashlib.blake2b(each, digest_size=32).hexdigest() in found["what"]
        return found

    unnoticed = report_of([SIZE // CLUSTER_BYTES])
    assert "the run read nothing of what changed" in unnoticed["what"] and unnoticed["step"] is None
    steps = {cluster: report_of([cluster])["step"] for cluster in read[:3]}
    assert len(set(steps.values())) == 3
    first = min(steps, key=lambda cluster: steps[cluster])
    together = report_of(read[:3])
    assert together["step"] == together["first_bad"] == steps[first]
    assert f"bytes from {first * CLUSTER_BYTES:#x} on" in together["what"]
    file.write_bytes(whole[:-512])
    assert run(["trace", "verify", str(path)]) == 3
    assert f"has {len(whole) - 512} bytes" in capsys.readouterr().err


def test_an_image_that_changes_while_it_is_replayed_is_blamed(tmp_path: Path, drive: DriveConfig) -> None:
    path, file = tmp_path / "run.trace", Path(drive.file)
    record(path, drive)
    with TraceReader.open(path) as trace:
        with Replayer(trace) as replayer:
            data = bytearray(file.read_bytes())
            file.write_bytes(bytes(len(data)))
            with pytest.raises(Diverged) as caught:
                replayer.verify()
        report = diagnose(trace, caught.value, "jit")
    assert report.kind == "image" and report.step is not None


def test_a_damaged_map_is_refused(tmp_path: Path, drive: DriveConfig) -> None:
    path = tmp_path / "run.trace"
    record(path, drive)
    with TraceReader.open(path) as trace:
        state = trace.checkpoint_state(trace.checkpoints()[-1].id)
    with sqlite3.connect(path) as db:
        root = bytes.fromhex(state["drives"]["drive0"]["root"])
        assert db.execute("UPDATE blobs SET codec = 'raw' WHERE hash = ?", (root,)).rowcount == 1
    db.close()
    with (
        TraceReader.open(path) as trace,
        Replayer(trace) as replayer,
        pytest.raises(TraceError, match="blob"),
    ):
        replayer.goto(trace.final_icount)

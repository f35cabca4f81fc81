"""Parts of traces and packed traces replay as the whole one does there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from machine.config import DriveConfig, Images, MachineConfig
from machine.hw.blockproto import BlockError
from tests.workbench.replay.guest import LIMITS, record
from traces.copying import export_rows, export_text, pack_trace, trim_trace
from traces.errors import PositionError, TraceWriteError
from traces.reader import TraceReader
from traces.writer import TraceWriter
from workbench.guests import builtin
from workbench.replay.recorder import Recorder
from workbench.replay.replayer import Replayer
from workbench.session import Session


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("boot") / "boot.trace"
    record(path)
    return path


@pytest.mark.parametrize(
    ("low", "high"), [(0, 300_000), (400_000, 700_000), (500_001, 500_001), (900_000, None)]
)
def test_a_part_is_the_same_run(boot: Path, tmp_path: Path, backend: str, low: int, high: int | None) -> None:
    part = tmp_path / "part.trace"
    before = hashlib.sha256(boot.read_bytes()).digest()
    with TraceReader.open(boot) as trace:
        last = trace.final_icount if high is None else high
        done = trim_trace(trace, part, low, last)
    assert done.start_icount <= low
    assert done.final_icount == last
    with TraceReader.open(part) as trace, Replayer(trace, backend) as replayer:
        assert trace.verify() == done.blobs
        assert trace.clean
        result = replayer.verify()
        assert (result.icount, result.steps) == (last, last - done.start_icount)
        assert result.digests >= 1
    with Session.open(boot, backend) as whole, Session.open(part, backend) as some:
        assert (some.start, some.end, some.cursor) == (done.start_icount, last, done.start_icount)
        for at in (done.start_icount, (done.start_icount + last) // 2, last):
            whole.goto(at)
            some.goto(at)
            assert whole.digest() == some.digest()
        some.goto("end")
        assert some.reverse_cont().icount == done.start_icount
        assert some.reverse_stepi().reason == "start"
    assert hashlib.sha256(boot.read_bytes()).digest() == before


def test_a_part_of_a_part_and_what_is_none(boot: Path, tmp_path: Path, backend: str) -> None:
    part, inner = tmp_path / "part.trace", tmp_path / "inner.trace"
    with TraceReader.open(boot) as trace:
        trim_trace(trace, part, 300_000, 800_000)
    with TraceReader.open(part) as trace:
        for low, high in ((0, 500_000), (500_000, 900_000), (600_000, 500_000)):
            with pytest.raises(PositionError):
                trim_trace(trace, inner, low, high)
        with pytest.raises(PositionError, match="the trace itself"):
            trim_trace(trace, part, 400_000, 500_000)
        trim_trace(trace, inner, 500_000, 600_000)
    with TraceReader.open(inner) as trace, Replayer(trace, backend) as replayer:
        assert replayer.verify().icount == 600_000


def test_a_packed_trace_needs_no_disk_image(tmp_path: Path, backend: str) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(range(256)) * 4096)
    path, packed = tmp_path / "run.trace", tmp_path / "packed.trace"
    config = MachineConfig(
        memory_bytes=32 << 20, append="safe", drives=(DriveConfig(file=str(disk), readonly=True),)
    )
    recorder = Recorder(config, Images(kernel=builtin.read_image()), path, limits=LIMITS)
    recorder._note_read("drive0", 3, disk.read_bytes()[3 * 65536 : 4 * 65536])
    recorder.run(timeout_s=60)
    recorder.board.engine.close()
    with TraceReader.open(path) as trace:
        pack_trace(trace, packed)
    disk.unlink()
    with TraceReader.open(packed) as trace, Replayer(trace, backend) as replayer:
        assert trace.clean and trace.verify() > 1
        result = replayer.verify()
        assert result.icount == trace.final_icount
        held = replayer.playback.board.drives["drive0"]  # type: ignore[attr-defined]
        assert held.size_bytes == 1 << 20
        assert held.pread(3 * 65536, 65536) == bytes(range(256)) * 256
        with pytest.raises(BlockError, match="never read"):
            held.pread(0, 512)


def test_what_is_dumped_is_json_and_readable(boot: Path) -> None:
    with TraceReader.open(boot) as trace:
        rows = [json.loads(json.dumps(row)) for row in export_rows(trace)]
        lines = list(export_text(export_rows(trace)))
        assert sum(row["table"] == "console" for row in rows) == len(list(trace.console()))
        assert sum(row["table"] == "inputs" for row in rows) == trace.input_count()
    assert len(lines) == len(rows)
    assert any(line.startswith("console: ") and "all tasks ended" in line for line in lines)


def test_bookmarks_stay(boot: Path, tmp_path: Path) -> None:
    path = tmp_path / "boot.trace"
    path.write_bytes(boot.read_bytes())
    with Session.open(path) as session:
        assert session.bookmark("here", 1234, "where it was") == 1234
        assert session.bookmarks_kept
        with pytest.raises(PositionError):
            session.bookmark("nowhere", session.end + 1)
    with Session.open(path) as session:
        assert session.parse_position("@here") == 1234
        assert [mark.note for mark in session.trace.bookmarks() if mark.name == "here"] == ["where it was"]
    assert [p.name for p in tmp_path.iterdir()] == ["boot.trace"]
    path.chmod(0o444)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.access", lambda *args: False)
        with pytest.raises(TraceWriteError, match="read-only"):
            TraceWriter.amend(path)
        with Session.open(path) as session:
            session.bookmark("mine", 7)
            assert not session.bookmarks_kept
            assert session.parse_position("@mine") == 7

"""The thread that writes a trace: what waits for it, and what its failures do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from machine.tcg.ramfold import RamFold
from traces.errors import TraceWriteError
from traces.pagesets import Based
from traces.reader import TraceReader
from traces.writer import TraceWriter
from workbench.replay import tracelog
from workbench.replay.tracelog import TraceLog

PAGES = 200


class Disk(TraceWriter):
    """A writer whose disk does nothing until it is let go, or is full."""

    free: threading.Event
    full = False

    def add_pages(
        self,
        names: bytes,
        data: bytes | bytearray | memoryview,
        at: Sequence[int],
        based: Based | None = None,
    ) -> None:
        assert self.free.wait(60)
        if self.full:
            raise TraceWriteError("the disk is full")
        super().add_pages(names, data, at, based)


class Source:
    """Pages that hold their own numbers, and the buffers that they were copied to."""

    def __init__(self) -> None:
        self.buffers: list[int] = []
        self.waits = threading.Event()

    def copy(self, pages: Sequence[int], out: memoryview) -> None:
        self.buffers.append(id(out))
        for at, page in enumerate(pages):
            out[at * 4096 : (at + 1) * 4096] = page.to_bytes(8, "little") * 512
        if len(self.buffers) == tracelog._MAX_BUFFERS:
            self.waits.set()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(tracelog, "_BUFFER_PAGES", 4)
    monkeypatch.setattr(tracelog, "_FEW_PAGES", 0)
    made = Disk.create(tmp_path / "t.trace")
    assert isinstance(made, Disk)
    made.free = threading.Event()
    return made


def test_pages_that_wait_for_a_slow_disk_are_bounded(disk: Disk) -> None:
    """A checkpoint's pages were once copied all at once, however many there were, and three such could wait."""
    log, source = TraceLog(disk, RamFold(PAGES), 1 << 30, 10), Source()
    recorder = threading.Thread(
        target=log.checkpoint, args=(0, 0, {}, range(1, PAGES), source.copy, 1), daemon=True
    )
    recorder.start()
    assert source.waits.wait(60)
    recorder.join(0.2)
    assert recorder.is_alive()  # it waits for the disk with what fits the buffers
    assert len(source.buffers) == len(set(source.buffers)) == tracelog._MAX_BUFFERS < PAGES / 4
    disk.free.set()
    recorder.join(60)
    assert not recorder.is_alive()
    log.close(0)
    assert len(set(source.buffers)) == tracelog._MAX_BUFFERS
    with TraceReader.open(disk.path) as trace:
        pages = trace.checkpoint_pages(1)
        assert sorted(pages) == list(range(1, PAGES))
        assert all(trace.blob(name) == page.to_bytes(8, "little") * 512 for page, name in pages.items())


def test_a_recorder_that_waits_hears_of_a_full_disk(disk: Disk) -> None:
    log, source = TraceLog(disk, RamFold(PAGES), 1 << 30, 10), Source()
    disk.full = True
    threading.Timer(0.1, disk.free.set).start()
    with pytest.raises(TraceWriteError, match="full"):
        log.checkpoint(0, 0, {}, range(1, PAGES), source.copy, 1)
        log.flush()
    log.abandon()
    assert not disk.path.exists()

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
    closed = False

    def close(self, final_icount: int) -> None:
        super().close(final_icount)
        self.closed = True

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


class Numbered:
    """Pages that hold their own numbers."""

    def __init__(self, pages: Sequence[int]) -> None:
        self.left = list(pages)
        self.closed = False

    def read(self, out: memoryview) -> Sequence[int]:
        n = len(out) // 4096
        part, self.left = self.left[:n], self.left[n:]
        for at, page in enumerate(part):
            out[at * 4096 : (at + 1) * 4096] = contents(page)
        return part

    def close(self) -> None:
        self.closed = True


def contents(page: int) -> bytes:
    return page.to_bytes(8, "little") * 512


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(tracelog, "_BUFFER_PAGES", 4)
    made = Disk.create(tmp_path / "t.trace")
    assert isinstance(made, Disk)
    made.free = threading.Event()
    return made


def test_checkpoints_that_wait_for_a_slow_disk_are_few(disk: Disk) -> None:
    log = TraceLog(disk, RamFold(PAGES), 1 << 30, 10)
    most = tracelog._MAX_WAITING

    def record() -> None:
        for n in range(most + 1):
            log.checkpoint(n, n, {}, Numbered(range(1 + n, PAGES)), 1)

    recorder = threading.Thread(target=record, daemon=True)
    recorder.start()
    recorder.join(0.5)
    assert recorder.is_alive()
    disk.free.set()
    recorder.join(60)
    assert not recorder.is_alive()
    log.close(most)
    with TraceReader.open(disk.path) as trace:
        pages = trace.checkpoint_pages(1)
        assert sorted(pages) == list(range(1, PAGES))
        assert all(trace.blob(name) == contents(page) for page, name in pages.items())


def test_a_recorder_that_waits_hears_of_a_full_disk(disk: Disk) -> None:
    log, pages = TraceLog(disk, RamFold(PAGES), 1 << 30, 10), Numbered(range(1, PAGES))
    disk.full = True
    threading.Timer(0.1, disk.free.set).start()
    with pytest.raises(TraceWriteError, match="full"):
        log.checkpoint(0, 0, {}, pages, 1)
        log.flush()
    assert pages.closed  # a guest could be waiting for them
    log.abandon()
    assert not disk.path.exists()


def test_the_machine_may_go_while_the_trace_is_ended(disk: Disk) -> None:
    log, called = TraceLog(disk, RamFold(PAGES), 1 << 30, 10), threading.Event()
    log.checkpoint(0, 0, {}, Numbered(range(1, PAGES)), 1)

    def meanwhile() -> None:
        assert not disk.closed
        called.set()
        disk.free.set()

    log.close(0, meanwhile)
    assert called.is_set() and disk.closed
    with TraceReader.open(disk.path) as trace:
        assert trace.clean and trace.final_icount == 0

"""A machine starts on images that are still being checked; of a damaged one it shows nothing."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from traces import ahead
from traces.blobs import BlobPacker
from traces.errors import TraceError
from traces.reader import TraceReader
from workbench.replay.replayer import Replayer

from .guest import record


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of the built-in guest."""
    return record(tmp_path_factory.mktemp("sound") / "t.trace", seed=1).path


@pytest.fixture
def late_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is checked in the thread: whoever waits for checks makes them."""
    monkeypatch.setattr(ahead.ImagesAhead, "_fetch", _read_alone)


def _read_alone(self: ahead.ImagesAhead, wanted: dict[bytes, threading.Event]) -> None:
    for name, tried in wanted.items():
        self._load(name)
        tried.set()


def damage(trace: Path, changed: bytes, by: bytes) -> None:
    """Change some bytes of the kernel, in a frame that decompresses."""
    db = sqlite3.connect(trace)
    with TraceReader.open(trace) as reader:
        kernel = reader.image("kernel")
        name = next(row.hash for row in reader.images() if row.role == "kernel")
    assert kernel is not None and kernel.count(changed)
    packed = BlobPacker().pack(kernel.replace(changed, by))
    with db:
        db.execute("UPDATE blobs SET codec = ?, data = ? WHERE hash = ?", (packed.codec, packed.stored, name))
    db.close()


def copy_of(trace: Path, tmp_path: Path) -> Path:
    made = tmp_path / "damaged.trace"
    made.write_bytes(trace.read_bytes())
    return made


@pytest.mark.usefixtures("late_checks")
@pytest.mark.parametrize("what", ["text", "code", "start"])
def test_a_damaged_kernel_is_refused_before_the_guest_prints(sound: Path, tmp_path: Path, what: str) -> None:
    """Its text would be printed, or the run would be called a divergence, or the kernel no kernel."""
    printed: list[bytes] = []
    with TraceReader.open(sound) as reader, Replayer(reader) as replayer:
        replayer.playback.console = lambda port, data, icount: printed.append(data)
        replayer.run_to(reader.final_icount)
        kernel = reader.image("kernel")
    assert kernel is not None
    first = b"".join(printed)[15:20]
    changed = {"text": first, "code": kernel[0x1000:0x1040], "start": kernel[:64]}[what]
    trace = copy_of(sound, tmp_path)
    damage(trace, changed, bytes(len(changed)) if what != "text" else first.swapcase()[::-1])
    printed.clear()

    def replay() -> None:
        with Replayer(reader, console=lambda port, data, icount: printed.append(data)) as replayer:
            replayer.run_to(reader.final_icount)

    with TraceReader.open(trace) as reader:
        reader.prefetch_images()
        with pytest.raises(TraceError, match="does not match its hash"):
            replay()
    assert not printed


@pytest.mark.usefixtures("late_checks")
def test_a_damaged_kernel_is_told_by_whatever_looks_first(sound: Path, tmp_path: Path) -> None:
    trace = copy_of(sound, tmp_path)
    with TraceReader.open(trace) as reader:
        kernel = reader.image("kernel")
    assert kernel is not None
    damage(trace, kernel[-64:], b"\xff" * 64)
    with TraceReader.open(trace) as reader:
        reader.prefetch_images()
        with Replayer(reader) as replayer:
            for look in (lambda: replayer.run_to(0), replayer.playback.digest, lambda: replayer.goto(1)):
                with pytest.raises(TraceError, match="does not match its hash"):
                    look()

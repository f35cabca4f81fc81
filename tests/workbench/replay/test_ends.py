"""Recordings that end while the guest waits for input: what they hold replays to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.config import Images, MachineConfig
from traces.reader import TraceReader
from workbench.replay.recorder import Recorder
from workbench.replay.replayer import Replayer


class Typist:
    """Types a piece of text at each wait, and ends the recording with the piece of that number, or behind the last."""

    def __init__(self, pieces: list[bytes], end_with: int) -> None:
        self.at_end = False
        self.recorder: Recorder | None = None
        self._pieces = pieces
        self._end_with = end_with
        self._typed = 0

    def poll(self, timeout_s: float = 0.0) -> bytes:
        if not timeout_s:
            return b""
        assert self.recorder is not None
        if self._typed == self._end_with:
            self.recorder.interrupt()
        data = self._pieces[self._typed] if self._typed < len(self._pieces) else b""
        self._typed += 1
        return data


@pytest.mark.parametrize("end_with", [0, 1, 2, 3])
def test_a_recording_ended_by_what_also_types_replays_to_its_end(
    tmp_path: Path, echo_elf: bytes, end_with: int
) -> None:
    """A key and the end came in one read: the wait was logged, and the last checkpoint lay behind it."""
    source = Typist([b"a", b"b", b"z"], end_with)
    config = MachineConfig(memory_bytes=16 << 20, bios="none", idle="ask")
    recorder = Recorder(config, Images(kernel=echo_elf), tmp_path / "echo.trace", source=source)
    source.recorder = recorder
    result = recorder.run(timeout_s=30)
    recorder.board.engine.close()
    with TraceReader.open(result.path) as trace, Replayer(trace) as replayer:
        assert replayer.verify().icount == result.icount
        typed = b"".join(row.payload for row in trace.inputs() if row.kind == "rx")
    assert typed == b"abz"[: end_with + 1]

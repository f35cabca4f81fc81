"""Records a guest while somebody types: each text is typed when the console shows what it answers."""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from machine.config import Images, MachineConfig
from traces.reader import TraceReader
from workbench.guests.initramfs import CpioArchive
from workbench.replay.recorder import Recorder, RecordResult
from workbench.replay.replayer import Replayer

if TYPE_CHECKING:
    from workbench.guests.fetch import Guest


class Typist:
    """A console source with a script of (pattern, answer)."""

    def __init__(self, script: Sequence[tuple[str, str]]) -> None:
        self.script = [(re.compile(pattern.encode()), answer.encode()) for pattern, answer in script]
        self.at_end = not script
        self.seen = b""
        self._new = b""

    def show(self, data: bytes) -> None:
        self.seen += data
        self._new += data

    def poll(self, timeout_s: float = 0.0) -> bytes:
        match = self.script[0][0].search(self._new) if self.script else None
        if match is None:
            time.sleep(timeout_s)
            return b""
        self._new = self._new[match.end() :]
        answer = self.script.pop(0)[1]
        self.at_end = not self.script
        return answer


@dataclass(frozen=True)
class Recorded:
    """A run, and all that its console showed."""

    path: Path
    result: RecordResult
    text: str


def images_with(guest: Guest, scripts: Mapping[str, str]) -> Images:
    """Return a guest's kernel and initramfs, with these files in its root beside what it has."""
    archive = CpioArchive()
    for name, text in scripts.items():
        archive.add_file(name, text.encode())
    initrd = guest.initrd.read_bytes() + gzip.compress(archive.to_bytes(), mtime=0)
    return Images(kernel=guest.kernel.read_bytes(), initrd=initrd)


def record(
    path: Path,
    config: MachineConfig,
    images: Images,
    script: Sequence[tuple[str, str]] = (),
    until: str | None = None,
    seed: int = 1,
) -> Recorded:
    """Record until the guest ends the run or the console shows ``until``; a guest that hangs ends it too."""
    typist = Typist(script)
    # Somebody who types makes idle time an input: a position in it has more than one virtual time.
    idle = "ask" if script else config.idle
    config = replace(config, options={"entropy": "seed"}, seed=seed, idle=idle)
    recorder = Recorder(config, images, path, source=typist if script else None, echo=typist.show)
    result = recorder.run(until_regex=until, timeout_s=1500)
    recorder.board.engine.close()
    text = typist.seen.decode("utf-8", "replace").replace("\r", "")
    assert result.reason != "timeout", text[-2000:]
    assert not typist.script, text[-2000:]
    return Recorded(path, result, text)


def key_line(recorded: Recorded, pattern: str) -> str:
    """Return the line of the console that shows what the test is about. It must be there."""
    match = re.search(f".*{pattern}.*", recorded.text)
    assert match is not None, recorded.text[-2000:]
    return match.group().strip()


def verify(recorded: Recorded) -> str:
    """Replay, compare every digest, and say how many."""
    with TraceReader.open(recorded.path) as trace, Replayer(trace) as replayer:
        verified = replayer.verify()
    assert verified.icount == recorded.result.icount
    return str(verified)

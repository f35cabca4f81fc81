"""A recording that is cut off at any moment opens and replays to its last commit.

Two ways to be cut off: the process is killed, and the power is lost. A killed process loses nothing that it
committed. Of a lost power SQLite's files show what the disk had not been told to keep: the end of the log is missing
or torn, or, where the log was just being moved into the database, pages there are half the old and half the new.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from traces.reader import TraceReader
from workbench.replay.replayer import Replayer

ROOT = Path(__file__).parents[3]
BATCHES = 8
MOMENTS = 25  # in a batch
Lose = Callable[["Cut", random.Random], tuple[bytes, bytes, int]]
#: Smallest unit that a disk writes as a whole, in bytes.
SECTOR = 512

#: Takes lines of JSON: where to record, and at which of the file system's events to die. A fork of it records, and
#: says the position of every commit.
RECORDERS = """
import json, os, signal, sys
sys.path.insert(0, {root!r})
from machine.config import Images, MachineConfig
from traces.writer import TraceWriter
from workbench.guests import builtin
from workbench.replay.recorder import Recorder, RecordLimits

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def commit(self, real=TraceWriter.commit):
    real(self)
    say("committed", self._db.execute("SELECT value FROM meta WHERE key = 'final_icount'").fetchone()[0])

def die_at(left):
    def event(name, args):
        nonlocal left
        if name in ("sqlite3.connect", "os.rename", "os.remove"):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    return event

def record(path, die):
    TraceWriter.commit = commit
    config = MachineConfig(memory_bytes=32 << 20, append="safe spin=4000")
    limits = RecordLimits(rolling_steps=1 << 18, checkpoint_every=3, max_checkpoints=12)
    recorder = Recorder(config, Images(kernel=builtin.read_image()), path, limits=limits)
    say("recorder", os.getpid())
    if die is not None:
        sys.addaudithook(die_at(die))
    recorder.run()

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        record(**json.loads(line))
        os._exit(0)
    os.waitpid(pid, 0)
    say("ended", pid)
"""


@dataclass(frozen=True)
class Told:
    """What a recorder said before it ended: how many commits, and the position of the last one (-1: none)."""

    commits: int
    icount: int


class Recorders:
    """Recordings in processes of their own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def _read(self) -> tuple[str, int]:
        assert self._process.stdout is not None
        word, number = self._process.stdout.readline().split()
        return word, int(number)

    def record(self, path: Path, die: int | None = None, kill_at: int = -1, after_s: float = 0.0) -> Told:
        """Record.

        Args:
            die: the recorder dies by itself at this event of the file system, None for never.
            kill_at: it is killed when it has told of so many commits, and ``after_s`` has passed; -1 for never.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"path": str(path), "die": die}) + "\n")
        self._process.stdin.flush()
        (said, pid), told = self._read(), Told(0, -1)
        assert said == "recorder"
        while True:
            if told.commits == kill_at:
                time.sleep(after_s)
                with suppress(ProcessLookupError):  # it has ended by itself
                    os.kill(pid, signal.SIGKILL)
            said, number = self._read()
            if said == "ended":
                return told
            told = Told(told.commits + 1, number)


@contextmanager
def recorders() -> Iterator[Recorders]:
    with subprocess.Popen(
        [sys.executable, "-c", RECORDERS.format(root=str(ROOT))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        yield Recorders(process)


def replayed(path: Path, backend: str) -> int:
    """Check a trace and replay it to its last commit; returns the position, -1 where there is no trace."""
    if not path.exists():
        return -1
    with TraceReader.open(path) as trace:
        trace.verify()
        with Replayer(trace, backend) as replayer:
            assert replayer.verify().icount == trace.final_icount
        return trace.final_icount


def test_killed_before_its_first_commit(tmp_path: Path) -> None:
    """A recorder that died early left a file with the trace's name that could not be replayed.

    One dies at each event of the file system, until one gets through.
    """
    ends: list[int] = []
    with recorders() as them:
        while not ends or ends[-1] <= 0:
            path = tmp_path / f"{len(ends)}.trace"
            told = them.record(path, die=len(ends))
            ends.append(replayed(path, "jit"))
            assert ends[-1] >= told.icount
    assert ends[0] == -1
    assert 0 in ends
    assert ends == sorted(ends)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_killed_at_random_moments(batch: int, tmp_path: Path, backend: str) -> None:
    choose = random.Random(batch)
    with recorders() as them:
        commits = them.record(tmp_path / "whole.trace").commits
        assert commits > MOMENTS
        for moment in range(MOMENTS):
            path = tmp_path / f"{moment}.trace"
            told = them.record(path, kill_at=choose.randrange(commits), after_s=choose.uniform(0, 0.01))
            assert replayed(path, backend) >= told.icount
            for left in tmp_path.iterdir():
                left.unlink()


@dataclass(frozen=True)
class Cut:
    """Files of a killed recording, and the commits that their log holds: ``(bytes of the log, position)``."""

    database: bytes
    log: bytes
    commits: list[tuple[int, int]]


#: Of a write-ahead log and of a frame in it, in bytes. Spec: SQLite file format, sections 4.1 and 4.2.
LOG_HEADER, FRAME_HEADER = 32, 24


def frames(log: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield ``(offset behind it, page number, pages of the database after a commit or 0, contents)``."""
    page_bytes, salt = struct.unpack_from(">I", log, 8)[0], log[16:24]
    at = LOG_HEADER
    while at + FRAME_HEADER + page_bytes <= len(log) and log[at + 8 : at + 16] == salt:
        number, pages = struct.unpack_from(">II", log, at)
        end = at + FRAME_HEADER + page_bytes
        yield end, number, pages, log[at + FRAME_HEADER : end]
        at = end


def position(folder: Path, database: bytes, log: bytes) -> int:
    """Return how far a database with this log says that it goes."""
    path = folder / "probe.trace"
    path.write_bytes(database)
    path.with_name("probe.trace-wal").write_bytes(log)
    with TraceReader.open(path) as trace:
        return trace.final_icount


def cut_recording(folder: Path, them: Recorders, kill_at: int) -> Cut:
    path = folder / "cut.trace"
    them.record(path, kill_at=kill_at)
    database, log = path.read_bytes(), path.with_name("cut.trace-wal").read_bytes()
    ends = [end for end, _, pages, _ in frames(log) if pages]
    known = [*ends[:: max(1, len(ends) // 8)], ends[-1]]
    return Cut(database, log, [(end, position(folder, database, log[:end])) for end in known])


def lose_log(cut: Cut, choose: random.Random) -> tuple[bytes, bytes, int]:
    """The end of the log is missing, or not what was written; what lies before it is there."""
    at = choose.randrange(LOG_HEADER, len(cut.log))
    log = bytearray(cut.log[:at])
    for sector in range(at - at % SECTOR + SECTOR, len(cut.log), SECTOR):
        size = min(SECTOR, len(cut.log) - sector)
        kind = choose.choice(("written", "zeros", "other", "missing"))
        if kind == "missing":
            break
        log += bytes(sector - len(log))
        log += {"written": cut.log[sector : sector + size], "zeros": bytes(size)}.get(
            kind, choose.randbytes(size)
        )
    return cut.database, bytes(log), max((n for end, n in cut.commits if end <= at), default=0)


def lose_database(cut: Cut, choose: random.Random) -> tuple[bytes, bytes, int]:
    """The log is being moved into the database: sectors of its pages are there or not, the file is long or not."""
    database = bytearray(cut.database)
    last = max(end for end, _, pages, _ in frames(cut.log) if pages)
    for end, number, _, data in frames(cut.log):
        at = (number - 1) * len(data)
        if end > last or choose.random() < 0.3:
            continue
        for sector in range(0, len(data), SECTOR):
            if choose.random() < 0.7:
                database += bytes(max(0, at + sector - len(database)))
                database[at + sector : at + sector + SECTOR] = data[sector : sector + SECTOR]
    return bytes(database), cut.log, cut.commits[-1][1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("lose", [lose_log, lose_database])
@pytest.mark.parametrize("batch", range(BATCHES // 2))
def test_power_lost_at_random_moments(batch: int, lose: Lose, tmp_path: Path, backend: str) -> None:
    choose = random.Random(batch)
    with recorders() as them:
        commits = them.record(tmp_path / "whole.trace").commits
        cut = cut_recording(tmp_path, them, choose.randrange(commits // 2, commits))
        while len(cut.commits) < 8:  # the log has just begun anew
            cut = cut_recording(tmp_path, them, choose.randrange(commits // 2, commits))
    path = tmp_path / "torn.trace"
    for _ in range(MOMENTS):
        database, log, least = lose(cut, choose)
        path.write_bytes(database)
        path.with_name("torn.trace-wal").write_bytes(log)
        assert replayed(path, backend) >= least

"""A recording that is cut off at any moment opens and replays to its last commit.

Two ways to be cut off: the process is killed, and the power is lost, after which the last pages of the database
and of its log are torn or missing.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from traces.errors import TraceError
from traces.reader import TraceReader
from workbench.replay.replayer import Replayer

ROOT = Path(__file__).parents[3]
MOMENTS = 25
RECORD = """
import sys
sys.path.insert(0, {root!r})
from machine.config import Images, MachineConfig
from workbench.guests import builtin
from workbench.replay.recorder import Recorder, RecordLimits
config = MachineConfig(memory_bytes=32 << 20, append="safe spin=20000")
limits = RecordLimits(rolling_steps=1 << 18, checkpoint_every=3, max_checkpoints=12)
recorder = Recorder(config, Images(kernel=builtin.read_image()), sys.argv[1], limits=limits)
print("running", flush=True)
recorder.run()
"""


def killed_recording(path: Path, after_s: float) -> None:
    """Record for a while and kill the recorder."""
    child = subprocess.Popen(
        [sys.executable, "-c", RECORD.format(root=str(ROOT)), str(path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert child.stdout is not None
    assert child.stdout.readline().strip() == b"running"
    time.sleep(after_s)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()


def replayed(path: Path, backend: str) -> int | None:
    """Replay a trace to its last commit; returns the position, or None where there is no trace yet."""
    if not path.exists():
        return None
    with TraceReader.open(path) as trace:
        trace.verify()
        if "semantics" not in trace.meta:  # killed before the first commit
            with pytest.raises(TraceError, match="before anything was written"):
                Replayer(trace, backend)
            return None
        with Replayer(trace, backend) as replayer:
            result = replayer.verify()
            assert result.icount == trace.final_icount
        return trace.final_icount


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path, backend: str) -> None:
    choose = random.Random(1)
    ends = []
    for moment in range(MOMENTS):
        path = tmp_path / f"{moment}.trace"
        killed_recording(path, choose.uniform(0, 0.8))
        ends.append(replayed(path, backend))
        for left in tmp_path.iterdir():
            left.unlink()
    assert len({end for end in ends if end}) > 3  # fewer moments fall behind a commit on a busy host


@pytest.mark.slow
def test_power_lost_at_random_moments(tmp_path: Path, backend: str) -> None:
    choose = random.Random(2)
    source = tmp_path / "source.trace"
    killed_recording(source, 0.9)
    whole = replayed(source, backend)
    assert whole
    wal = source.with_name(source.name + "-wal")
    assert wal.exists() and wal.stat().st_size > 100_000
    ends, refused = [], 0
    for moment in range(MOMENTS):
        folder = tmp_path / str(moment)
        folder.mkdir()
        torn = folder / "torn.trace"
        shutil.copyfile(source, torn)
        log = folder / "torn.trace-wal"
        shutil.copyfile(wal, log)
        _tear(log, choose)
        try:
            end = replayed(torn, backend)
        except TraceError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert end is not None and end <= whole
            ends.append(end)
        shutil.rmtree(folder)
    assert refused == 0
    assert len(set(ends)) > 3  # a commit each 200 ms at the most


def _tear(log: Path, choose: random.Random) -> None:
    """Do to a log what a lost power does: the end is missing, or its last sectors are not what was written."""
    data = bytearray(log.read_bytes())
    cut = choose.randrange(len(data) // 20, len(data))
    if choose.random() < 0.5:
        data = data[:cut]
    else:
        for at in range(cut - cut % 512, len(data), 512):
            if choose.random() < 0.7:
                data[at : at + 512] = bytes(512) if choose.random() < 0.5 else choose.randbytes(512)
    log.write_bytes(bytes(data))

"""Recordings of the built-in guest: how they end, what they hold, and that they replay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from machine.config import Images, MachineConfig
from machine.errors import MachineError
from traces.reader import TraceReader
from workbench.errors import UsageError
from workbench.replay.errors import Diverged
from workbench.replay.recorder import Recorder
from workbench.replay.replayer import Replayer

from .guest import record, recorder

ROOT = Path(__file__).resolve().parents[3]


def verify(path: Path, backend: str = "jit") -> int:
    """Return how many digests of a trace a replay met."""
    with TraceReader.open(path) as trace, Replayer(trace, backend) as replayer:
        result = replayer.verify()
        assert result.icount == trace.final_icount
        return result.digests


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("boot") / "boot.trace"
    assert record(path).reason == "poweroff"
    return path


def test_a_boot_replays_on_both_backends_and_from_every_checkpoint(boot: Path) -> None:
    assert verify(boot, "jit") == verify(boot, "interp") > 20
    with TraceReader.open(boot) as trace:
        for checkpoint in trace.checkpoints():
            with Replayer(trace, from_checkpoint=checkpoint.id) as replayer:
                assert replayer.icount == checkpoint.icount
                assert replayer.verify().steps == trace.final_icount - checkpoint.icount


def test_the_trace_tells_what_ran(boot: Path) -> None:
    with TraceReader.open(boot) as trace:
        assert trace.clean
        assert trace.meta["end_reason"] == "poweroff"
        text = b"".join(row.data for row in trace.console())
        assert b"workbench guest" in text
        assert text.rstrip().endswith(b"powering off")
        assert {b.name for b in trace.bookmarks()} == {"poweroff"}
        assert trace.verify() > 10
        assert {i.kind for i in trace.inputs()} == {"wallclock", "entropy"}


def test_a_replay_prints_what_the_recording_printed(boot: Path) -> None:
    heard: list[tuple[bytes, int]] = []
    with TraceReader.open(boot) as trace:
        with Replayer(trace, console=lambda port, data, icount: heard.append((data, icount))) as replayer:
            replayer.run_to(trace.final_icount)
        rows = [(row.data, row.icount) for row in trace.console()]
    assert b"".join(data for data, _ in heard) == b"".join(data for data, _ in rows)
    assert heard[-1][1] == rows[-1][1]


def test_until_ends_at_the_text_and_fail_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    result = record(path, until_regex=r"boot: done .*", fail_regex="never printed")
    assert (result.reason, result.matched[:10]) == ("until", "boot: done")
    verify(path)
    result = record(path, until_regex="never printed", fail_regex="^.*vm: Sv39")
    assert result.reason == "fail_pattern"
    verify(path)
    with pytest.raises(UsageError, match="not a regular expression"):
        record(path, until_regex="(")


@pytest.mark.parametrize("steps", [1, 2, 32_768, 100_001])
def test_a_limit_of_steps_is_exact(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "t.trace"
    result = record(path, steps=steps)
    assert (result.reason, result.icount) == ("steps", steps)
    assert verify(path) >= 1


def test_a_kernel_that_is_none_leaves_no_trace_behind(tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    with pytest.raises(MachineError):
        Recorder(MachineConfig(memory_bytes=32 << 20), Images(kernel=b"not a kernel"), path)
    assert not path.exists()


class Typist:
    """Types into the console once the guest has said something."""

    def __init__(self, lines: list[tuple[bytes, bytes]]) -> None:
        self.lines = lines
        self.heard = b""
        self.at_end = False

    def echo(self, data: bytes) -> None:
        self.heard += data

    def poll(self, timeout_s: float = 0.0) -> bytes:
        if self.lines and self.lines[0][0] in self.heard:
            return self.lines.pop(0)[1]
        if timeout_s:
            time.sleep(min(timeout_s, 0.002))
        return b""


def test_typed_input_replays_at_its_positions(tmp_path: Path) -> None:
    path = tmp_path / "typed.trace"
    typist = Typist([(b"boot:", b"hello\r"), (b"vm: Sv39", b"more text\r\n"), (b"boot: done", b"x" * 40)])
    made = recorder(path, idle="ask", source=typist, echo=typist.echo)
    assert made.run(timeout_s=60).reason == "poweroff"
    with TraceReader.open(path) as trace:
        typed = [i for i in trace.inputs() if i.kind == "rx"]
        assert b"".join(i.payload for i in typed) == b"hello\rmore text\r\n" + b"x" * 40
        assert [i.asked for i in typed] == [0] * len(typed)
    assert verify(path) == verify(path, "interp") > 20


def test_a_console_beside_time_that_jumps_is_refused(tmp_path: Path) -> None:
    """What was typed in a wait came at a virtual time that no position has: the replay took it at another one."""
    path = tmp_path / "typed.trace"
    with pytest.raises(UsageError, match='idle="ask"'):
        recorder(path, idle="jump", source=Typist([]))
    assert not path.exists()


def test_a_changed_input_is_a_divergence_with_positions(tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    record(path)
    with TraceReader.open(path) as trace:
        replayer = Replayer(trace)
        playback = replayer.playback
        playback.board.engine.set_reg(0, "x9", 0xDEAD)
        with pytest.raises(Diverged) as caught:
            replayer.run_to(trace.final_icount)
        replayer.close()
    assert caught.value.exit_code == 4
    assert caught.value.last_good < caught.value.first_bad
    assert caught.value.registers or "in RAM" in str(caught.value)
    assert "\n" not in str(caught.value)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from machine.config import Images, MachineConfig
from workbench.guests import builtin
from workbench.replay.recorder import Recorder, RecordLimits
image = Images(kernel=builtin.read_image())
config = MachineConfig(memory_bytes=32 << 20, append="safe echo", idle="ask")
class Waits:
    at_end = False
    def poll(self, timeout_s=0.0):
        import time
        time.sleep(min(timeout_s, 0.01))
        return b""
recorder = Recorder(config, image, sys.argv[1], source=Waits(), limits=RecordLimits(1 << 15, 3))
print("running", flush=True)
while True:
    recorder.run()
"""


def test_a_killed_recording_replays_to_its_last_commit(tmp_path: Path) -> None:
    path = tmp_path / "killed.trace"
    code = KILLED.format(root=str(ROOT))
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert child.stdout is not None
    assert child.stdout.readline() == b"running\n"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _progress(path) < 100_000:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with TraceReader.open(path) as trace:
        clean, final = trace.clean, trace.final_icount
    assert final >= 100_000
    assert not clean
    assert verify(path) >= 1


def _progress(path: Path) -> int:
    try:
        with TraceReader.open(path) as trace:
            return trace.final_icount
    except Exception:  # noqa: BLE001 - it is being made
        return 0

"""Law 6: in chaos mode every choice is an input, and a seed is a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.config import Images, MachineConfig
from traces.reader import TraceReader
from workbench.guests import builtin
from workbench.replay.recorder import Recorder, RecordLimits
from workbench.replay.replayer import Replayer

LIMITS = RecordLimits(rolling_steps=1 << 15, checkpoint_every=3)


def record(path: Path, seed: int, backend: str, chaos: bool = True) -> int:
    config = MachineConfig(
        memory_bytes=32 << 20, append="safe", seed=seed, chaos=chaos, options={"entropy": "seed"}
    )
    images = Images(kernel=builtin.read_image())
    recorder = Recorder(config, images, path, limits=LIMITS, backend=backend)
    result = recorder.run(timeout_s=60)
    recorder.board.engine.close()
    assert result.reason == "poweroff"
    return result.icount


def digests(path: Path) -> list[tuple[int, bytes]]:
    with TraceReader.open(path) as trace:
        return [(row.icount, row.digest) for row in trace.checkpoints()]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_chaotic_run_replays_on_both_back_ends_and_from_its_checkpoints(
    tmp_path: Path, seed: int, backend: str
) -> None:
    path = tmp_path / "chaos.trace"
    end = record(path, seed, backend)
    with TraceReader.open(path) as trace:
        assert sum(row.kind == "strike" for row in trace.inputs()) > 3
        for other in ("jit", "interp"):
            with Replayer(trace, other) as made:
                assert made.verify().icount == end
        for checkpoint in trace.checkpoints()[::4]:
            with Replayer(trace, backend, from_checkpoint=checkpoint.id) as made:
                assert made.verify().icount == end


def test_the_same_seed_is_the_same_run_and_another_is_another(tmp_path: Path, backend: str) -> None:
    runs = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        path = tmp_path / f"{name}.trace"
        record(path, seed, backend)
        runs.append(digests(path))
    assert runs[0] == runs[1] != runs[2]


def test_without_chaos_nothing_strikes(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "quiet.trace"
    record(path, 1, backend, chaos=False)
    with TraceReader.open(path) as trace:
        assert not [row for row in trace.inputs() if row.source == "chaos"]

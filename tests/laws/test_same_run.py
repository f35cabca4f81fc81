"""The laws of the machine, on the built-in guest: whatever is done to a run, it stays the same run.

One recording; its replays are cut, stopped, restored, stripped of their caches, run by the other back end or one
instruction at a time, and have to meet every digest of the recording, up to the last one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from machine.config import Images, MachineConfig
from traces.reader import TraceReader
from workbench.bench.switches import switch_names
from workbench.guests import builtin
from workbench.replay.recorder import Recorder, RecordLimits
from workbench.replay.replayer import Replayer

WINDOW = 100_000


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory, backend: str) -> Iterator[TraceReader]:
    path = tmp_path_factory.mktemp("laws") / "boot.trace"
    config = MachineConfig(memory_bytes=32 << 20, append="safe", seed=1, options={"entropy": "seed"})
    limits = RecordLimits(rolling_steps=1 << 14, checkpoint_every=4)
    recorder = Recorder(
        config, Images(kernel=builtin.read_image()), Path(path), backend=backend, limits=limits
    )
    assert recorder.run(timeout_s=60).reason == "poweroff"
    recorder.board.engine.close()
    with TraceReader.open(path) as opened:
        yield opened


@pytest.fixture
def replayer(trace: TraceReader, backend: str) -> Iterator[Replayer]:
    with Replayer(trace, backend) as made:
        yield made


def all_digests(trace: TraceReader) -> int:
    """Return how many digests a whole replay compares."""
    return len(trace.digests()) + len(trace.checkpoints()) + int("end_digest" in trace.meta)


def test_a_plain_replay_meets_every_digest(trace: TraceReader, replayer: Replayer) -> None:
    steps = int(trace.meta["rolling_steps"])
    assert [row.icount for row in trace.digests()] == list(range(steps, trace.final_icount, steps))
    assert len(trace.checkpoints()) > 2
    assert replayer.verify().digests == all_digests(trace)


def busiest(trace: TraceReader) -> int:
    """Return the checkpoint behind which most traps are taken."""
    places = [c for c in trace.checkpoints() if c.icount + WINDOW <= trace.final_icount]
    taken = [trace.checkpoint_state(c.id)["harts"][0]["traps"] for c in trace.checkpoints()]
    gained = [later - now for now, later in pairwise(taken)]
    return max(zip(gained, places, strict=False), key=lambda pair: pair[0])[1].icount


@pytest.mark.parametrize("longest", [1, 2, 3, 7, 64])
def test_blocks_of_any_length_give_the_same_run(trace: TraceReader, replayer: Replayer, longest: int) -> None:
    engine = replayer.playback.board.engine
    engine.translator.set_tb_max(longest)
    engine.translator.drop_code()
    assert replayer.verify().digests == all_digests(trace)


def test_blocks_cut_anew_on_the_way_give_the_same_run(trace: TraceReader, replayer: Replayer) -> None:
    choose = random.Random(1)
    engine = replayer.playback.board.engine
    for row in trace.digests():
        engine.translator.set_tb_max(choose.randint(1, 40))
        engine.translator.set_hot_runs(choose.choice((0, 1, 2, 50)))
        engine.translator.drop_code()
        replayer.run_to(row.icount)
    assert replayer.verify().icount == trace.final_icount
    assert replayer.playback.compared == len(trace.digests())


def test_stops_at_random_positions_change_nothing(trace: TraceReader, replayer: Replayer) -> None:
    choose = random.Random(2)
    for position in sorted(choose.sample(range(trace.final_icount), 3000)):
        replayer.run_to(position)
        assert replayer.icount == position
    assert replayer.verify().icount == trace.final_icount
    assert replayer.playback.compared == len(trace.digests())


def test_caches_dropped_at_random_change_nothing(trace: TraceReader, replayer: Replayer) -> None:
    choose = random.Random(3)
    engine = replayer.playback.board.engine
    for position in sorted(choose.sample(range(trace.final_icount), 1500)):
        replayer.run_to(position)
        choose.choice((engine.translator.drop_tlb, engine.translator.drop_code))()
    assert replayer.verify().icount == trace.final_icount
    assert replayer.playback.compared == len(trace.digests())


@pytest.mark.parametrize("size", [0, 3000, 20_000])
def test_a_block_cache_without_room_changes_nothing(
    trace: TraceReader, replayer: Replayer, size: int
) -> None:
    """To translate one instruction flushed the block that the run loop still held."""
    choose = random.Random(6)
    engine = replayer.playback.board.engine
    engine.translator.set_cache_bytes(size)
    for position in sorted(choose.sample(range(trace.final_icount), 300)):
        replayer.run_to(position)
    assert replayer.verify().icount == trace.final_icount
    assert engine.translator.stat("tb_flushes") > 100


def test_every_checkpoint_leads_to_the_same_end(trace: TraceReader, backend: str) -> None:
    ends = set()
    for checkpoint in trace.checkpoints():
        with Replayer(trace, backend, from_checkpoint=checkpoint.id) as made:
            assert made.verify().steps == trace.final_icount - checkpoint.icount
            ends.add(made.playback.digest())
    assert len(ends) == 1


def test_restoring_back_and_forth_changes_nothing(trace: TraceReader, replayer: Replayer) -> None:
    choose = random.Random(5)
    for _ in range(40):
        replayer.goto(choose.randrange(trace.final_icount))
        if choose.random() < 0.5:
            replayer.playback.keep()
    replayer.goto(0)
    assert replayer.verify().digests == all_digests(trace)


@pytest.mark.parametrize("other", ["jit", "interp"])
def test_both_backends_run_the_same_run(trace: TraceReader, other: str) -> None:
    with Replayer(trace, other) as made:
        assert made.verify().digests == all_digests(trace)


@pytest.mark.parametrize("name", switch_names())
def test_every_switch_of_the_translator_leaves_the_run_alone(
    trace: TraceReader, backend: str, name: str
) -> None:
    with Replayer(trace, backend) as made:
        engine = made.playback.board.engine
        engine.translator.set_switch(
            name, not engine.translator.switches()[name] and engine.translator.has_jit
        )
        assert made.verify().digests == all_digests(trace)


def test_one_step_at_a_time_over_a_window_of_interrupts(trace: TraceReader, replayer: Replayer) -> None:
    engine = replayer.playback.board.engine
    start = busiest(trace)
    replayer.goto(start)
    traps = engine.get_reg(0, "traps")
    for position in range(start + 1, start + WINDOW + 1):
        replayer.run_to(position)
    assert replayer.icount == start + WINDOW
    assert engine.get_reg(0, "traps") > traps + 100
    compared = replayer.playback.compared
    assert compared >= WINDOW >> 14
    replayer.verify()
    assert replayer.icount == trace.final_icount

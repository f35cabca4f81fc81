"""The laws of the machine, backwards: N steps back and N forward lead to the same state, wherever that is.

On the built-in guest here, and by ``test_linux`` on Debian's boot.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from machine.config import Images, MachineConfig
from traces.reader import TraceReader
from workbench.guests import builtin
from workbench.replay.recorder import Recorder, RecordLimits
from workbench.replay.replayer import Replayer
from workbench.session import Session

#: Steps back and forth: one by one, and the last number at once.
COUNTS = (1, 10, 1000)


class Typist:
    """Types a line whenever the guest waits for one; in between it is idle."""

    def __init__(self, lines: int) -> None:
        self._lines = [b"exit\r", *(b"line %d\r" % n for n in range(lines))]
        self.at_end = False

    def poll(self, timeout_s: float = 0.0) -> bytes:
        if not timeout_s:
            return b""
        time.sleep(0.001)
        return self._lines.pop() if self._lines else b""


@pytest.fixture(scope="module", params=["jump", "ask"])
def trace(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, backend: str
) -> Iterator[TraceReader]:
    path = tmp_path_factory.mktemp("laws") / "boot.trace"
    asks = request.param == "ask"
    config = MachineConfig(
        memory_bytes=32 << 20,
        append="safe echo" if asks else "safe",
        idle=request.param,
        seed=1,
        options={"entropy": "seed"},
    )
    limits = RecordLimits(rolling_steps=1 << 16, checkpoint_every=4)
    images, source = Images(kernel=builtin.read_image()), Typist(6) if asks else None
    recorder = Recorder(config, images, path, backend=backend, limits=limits, source=source)
    assert recorder.run(timeout_s=60).reason == "poweroff"
    recorder.board.engine.close()
    with TraceReader.open(path) as opened:
        yield opened


def idle_places(trace: TraceReader) -> list[int]:
    """Return positions at which every hart waits, and from which virtual time jumps: one of each stretch of the run."""
    found = []
    low, high = trace.start_icount + COUNTS[-1], trace.final_icount - COUNTS[-1]
    cuts = [low + (high - low) * i // 10 for i in range(11)]
    with Replayer(trace) as made:
        playback, engine = made.playback, made.playback.board.engine
        for first, last in pairwise(cuts):
            made.goto(first)
            node, warped = playback.keep(), engine.warp_ns
            made.run_to(last)
            if engine.warp_ns == warped:
                continue
            while first + 1 < last:
                middle = (first + last) // 2
                playback.restore(node)
                made.run_to(middle)
                if engine.warp_ns == warped:
                    node, first = playback.keep(), middle
                else:
                    last = middle
            found.append(first)
    return found


def go_back_and_forth(session: Session, position: int) -> None:
    """Hold the state at a position against what is there after N steps back and forth, and forth and back."""
    session.goto(position)
    before = session.regs(), session.digest()
    for count in COUNTS:
        for first, second in (
            (session.reverse_stepi, session.stepi),
            (session.stepi, session.reverse_stepi),
        ):
            if count == COUNTS[-1]:
                first(count)
            else:
                for _ in range(count):
                    first()
            away = session.cursor
            for _ in range(1 if count == COUNTS[-1] else count):
                second(count if count == COUNTS[-1] else 1)
            assert abs(away - position) == count
            assert session.cursor == position
            assert (session.regs(), session.digest()) == before, (position, count)


def test_back_and_forth_in_idle_changes_nothing(trace: TraceReader, backend: str) -> None:
    """A position in idle is the one before virtual time jumps, with the jump still to come."""
    found = idle_places(trace)
    assert found
    with Session.open(trace.path, backend=backend) as session:
        for position in found:
            session.goto(position)
            sched = session.board.engine.save_sched()
            waits, stopped = sched[5::3], sched[6::3]
            assert all(w or s for w, s in zip(waits, stopped, strict=True))
            for near in (position - 1, position, position + 1):
                go_back_and_forth(session, near)


@pytest.mark.timeout(1200)  # on four harts of Linux, beside other work
def test_back_and_forth_at_random_positions_changes_nothing(trace: TraceReader, backend: str) -> None:
    choose = random.Random(8)
    low, high = trace.start_icount + COUNTS[-1], trace.final_icount - COUNTS[-1]
    with Session.open(trace.path, backend=backend) as session:
        for position in choose.sample(range(low, high), 100):
            go_back_and_forth(session, position)

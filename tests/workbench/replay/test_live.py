"""Sessions on a recording that goes on: pause, look back, come back to now, go on."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from traces.reader import TraceReader
from workbench.replay.recorder import RecordLimits
from workbench.replay.replayer import Replayer
from workbench.session import Session

from .guest import record, recorder


def verified(path: Path, backend: str) -> tuple[int, int]:
    with TraceReader.open(path) as trace, Replayer(trace, backend) as replayer:
        trace.verify()
        result = replayer.verify()
        return result.icount, result.digests


@pytest.mark.parametrize("seed", range(4))
def test_a_recording_with_pauses_is_one_run(tmp_path: Path, backend: str, seed: int) -> None:
    path = tmp_path / "live.trace"
    made = recorder(path, backend=backend)
    made.start()
    choose = random.Random(seed)
    with Session.attach(made, backend) as session:
        assert (session.live, session.cursor, session.end) == (True, 0, 0)
        while session.live and len(session.trace.checkpoints()) < 60:
            now = session.end
            stop = session.stepi(choose.choice((1, 7, 3000, 100_000)))
            assert session.cursor == session.end or stop.reason != "step"
            assert session.end > now
            digest = session.digest()
            session.goto(choose.randrange(session.end))
            session.reverse_stepi(min(5, session.cursor))
            session.goto("end")
            assert session.digest() == digest
            if session.end > 900_000:
                assert session.cont().reason == "end"
        assert not session.live
        assert session.stepi().reason == "end"
    made.abandon()
    end, digests = verified(path, backend)
    with TraceReader.open(path) as trace:
        assert trace.clean and trace.meta["end_reason"] == "poweroff"
        assert digests > len(trace.digests())
        assert end == trace.final_icount


def test_stoppers_stop_a_recording_where_they_stop_its_replay(tmp_path: Path, backend: str) -> None:
    made = recorder(tmp_path / "live.trace", backend=backend)
    made.start()
    with Session.attach(made, backend) as session:
        point = session.add_breakpoint(session.sym("pool_put"))
        watch = session.add_watchpoint(session.sym("ticks"), 8)
        text = session.add_catch("console", "polite: 64")
        seen = []
        while (stop := session.cont()).reason != "end":
            seen.append((stop.icount, stop.stopper, stop.detail))
        assert {number for _, number, _ in seen} == {point.number, watch.number, text.number}
        assert [at for at, _, _ in seen] == sorted(at for at, _, _ in seen)
        session.goto("start")
        again = []
        while (stop := session.cont()).reason != "end":
            again.append((stop.icount, stop.stopper, stop.detail))
        assert again == seen


def test_a_write_to_now_is_an_input_and_replays(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "live.trace"
    made = recorder(path, backend=backend)
    made.start()
    with Session.attach(made, backend) as session:
        session.stepi(300_000)
        written = session.write_phys(session.translate(session.sym("ticks")) or 0, (77).to_bytes(8, "little"))
        assert written.branch is None
        assert session.read_mem(session.sym("ticks"), 8)[0] == 77
        session.stepi()
        assert session.read_mem(session.sym("ticks"), 8)[0] == 77
        rows = [row for row in session.trace.inputs() if row.source == "debugger"]
        assert [(row.icount, row.kind, row.asked) for row in rows] == [(300_000, "ram", 0)]
        past = session.goto(200_000).icount
        assert session.write_reg("s11", 5).branch is not None  # of the past: a branch, as of any run
        assert session.cursor == past
    made.stop()
    assert verified(path, backend)[0] > 300_000


def test_an_interrupt_pauses_the_recording(tmp_path: Path, backend: str) -> None:
    made = recorder(tmp_path / "live.trace", append="safe spin=100000", backend=backend)
    made.start()
    with Session.attach(made, backend) as session:
        timer = threading.Timer(0.2, session.interrupt)
        timer.start()
        stop = session.cont()
        timer.join()
        assert stop.reason in ("interrupted", "end")
        assert session.cursor == session.end > 0
        digest = session.digest()
        session.reverse_stepi(10)
        session.stepi(10)
        assert session.digest() == digest
    made.abandon()


def test_pauses_change_nothing_of_the_run(tmp_path: Path, backend: str) -> None:
    plain = tmp_path / "plain.trace"
    record(plain)
    ends = []
    paused = tmp_path / "paused.trace"
    made = recorder(paused, backend=backend)
    made.on_pause = lambda: ends.append(made.commit_here())
    made.pause()
    result = made.run(timeout_s=60)
    made.board.engine.close()
    assert ends == [0]
    assert result.reason == "poweroff"
    with TraceReader.open(plain) as a, TraceReader.open(paused) as b:
        assert a.meta["end_reason"] == b.meta["end_reason"]
    assert verified(paused, backend)[0] == result.icount


def test_the_end_is_reached_from_its_checkpoint_alone(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "boot.trace"
    end = record(path, backend=backend).icount
    with TraceReader.open(path) as trace:
        last = trace.checkpoints()[-1]
        assert last.icount == end
        with Replayer(trace, backend) as whole:
            whole.run_to(end)
            digest = whole.playback.digest()
        with Replayer(trace, backend, from_checkpoint=last.id) as there:
            assert there.icount == end
            assert there.playback.digest() == digest
            assert there.verify().digests == 2


def test_checkpoints_that_are_thinned_away_are_not_missed(tmp_path: Path, backend: str) -> None:
    """A long recording gave up checkpoints that its session still went by: going back then ended in an error."""
    path = tmp_path / "long.trace"
    limits = RecordLimits(rolling_steps=1 << 14, checkpoint_every=1, max_checkpoints=4)
    made = recorder(path, backend=backend, limits=limits)
    made.start()
    made.advance(100_000)
    seen: dict[int, str] = {}
    with Session.attach(made, backend=backend) as session:
        for _ in range(6):
            for share in (1, 3, 7):
                session.goto(session.end * share // 8)
                seen[session.cursor] = session.digest()
            session.goto("end")
            session.stepi(150_000)
            assert len(session.playback.tree.files()) <= limits.max_checkpoints
        for at, digest in seen.items():
            session.goto(at)
            assert session.digest() == digest
    made.stop()
    made.board.engine.close()
    with Session.open(path, backend=backend) as session:
        for at, digest in seen.items():
            session.goto(at)
            assert session.digest() == digest

"""A second machine that helps to search changes nothing but how long it takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.replay import search
from workbench.replay.errors import Diverged
from workbench.replay.plan import Plan
from workbench.replay.playback import Playback
from workbench.replay.scout import Scout
from workbench.replay.timeline import Timeline
from workbench.session import Session, Stop

from .guest import LIMITS, record, recorder

SEED = 3


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run for ever: where hits lie between checkpoints decides who finds them and what is left in memory."""
    path = tmp_path_factory.mktemp("boot") / "boot.trace"
    record(path, seed=SEED)
    return path


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every search ask for help, and leave checkpoints as a long one does."""
    monkeypatch.setattr(search, "_WORTH_A_SCOUT", 1)
    monkeypatch.setattr(search, "_WORTH_MAKING_ONE", 0)
    monkeypatch.setattr(search, "_SPACING", 1 << 14)
    monkeypatch.setattr(search, "_SPACING_SHARE", 1 << 20)


def open_with(boot: Path, backend: str, scouts: int) -> Session:
    session = Session.open(boot, backend=backend)
    session.timeline.close()
    session.timeline = Timeline(session.playback, scouts)
    return session


@pytest.fixture
def session(boot: Path, backend: str) -> Iterator[Session]:
    with open_with(boot, backend, 1) as opened:
        yield opened


STOPPERS: list[Callable[[Session], Any]] = [
    lambda s: s.add_breakpoint(s.sym("pool_put")),
    lambda s: s.add_breakpoint(s.sym("pool_put"), condition="0"),
    lambda s: s.add_watchpoint(s.sym("ticks"), 8),
    lambda s: s.add_watchpoint(s.sym("ticks"), 8, condition="$value == 1"),
    lambda s: s.add_catch("satp"),
    lambda s: (s.add_catch("interrupt"), s.add_watchpoint(s.sym("ticks"), 8, "a")),
]


def backwards(session: Session, most: int = 12) -> list[Stop]:
    session.goto("end")
    stops: list[Stop] = []
    while len(stops) < most and (stop := session.reverse_cont()).reason != "start":
        stops.append(stop)
    return stops


@pytest.mark.parametrize("add", STOPPERS)
def test_two_machines_find_what_one_finds(boot: Path, backend: str, add: Callable[[Session], Any]) -> None:
    with open_with(boot, backend, 0) as alone:
        add(alone)
        expected = backwards(alone)
        digest = alone.digest()
    for _ in range(3):
        with open_with(boot, backend, 1) as helped:
            add(helped)
            assert backwards(helped) == expected
            assert helped.digest() == digest


def test_the_second_machine_takes_part(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first one held up in the newest region, the other one searches all the rest."""
    original, free = search._scan, threading.Event()
    who: list[tuple[bool, int]] = []

    def held(playback: Playback, plan: Plan, part: Any) -> Any:
        first = playback is session.playback
        if first:
            assert free.wait(60)
        found = original(playback, plan, part)
        who.append((first, part.low))
        if not first and part.low <= session.start:
            free.set()
        return found

    monkeypatch.setattr(search, "_scan", held)
    session.add_breakpoint(session.sym("pool_put"), condition="0")
    session.goto("end")
    assert session.reverse_cont().reason == "start"
    assert [first for first, _ in who].count(True) == 1
    others = [low for first, low in who if not first]
    assert len(others) > 2 and others == sorted(others, reverse=True)


def test_a_checkpoint_of_the_second_machine_is_taken_over(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, free = search._scan, threading.Event()

    def held(playback: Playback, plan: Plan, part: Any) -> Any:
        if playback is session.playback:
            assert free.wait(60)
            return original(playback, plan, part)
        found = original(playback, plan, part)
        if found is None or any(found) or part.low <= session.start:
            free.set()
        return found

    monkeypatch.setattr(search, "_scan", held)
    session.add_watchpoint(session.sym("ticks"), 8, condition="$value == 1")
    session.goto("end")
    offered: list[Any] = []
    adopt = session.playback.tree.adopt

    def noted(loose: Any) -> None:
        offered.append(loose)
        adopt(loose)

    monkeypatch.setattr(session.playback.tree, "adopt", noted)
    stop = session.reverse_cont()
    assert len(offered) == 1 and offered[0].icount <= stop.icount
    digest = session.digest()
    session.goto("start")
    session.goto(stop.icount)
    assert session.digest() == digest


def test_a_hit_stops_whoever_is_at_older_regions(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second machine stands in an older region for ever, until it is interrupted."""
    original, entered = search._scan, threading.Event()

    def held(playback: Playback, plan: Plan, part: Any) -> Any:
        if playback is session.playback:
            assert entered.wait(60)
            return original(playback, plan, part)
        entered.set()
        while not playback.interrupted:
            threading.Event().wait(0.001)
        return None

    session.add_watchpoint(session.sym("ticks"), 8)
    session.goto("end")
    expected = session.reverse_cont()
    monkeypatch.setattr(search, "_scan", held)
    session.add_watchpoint(session.sym("ticks"), 8, condition="$value")
    session.goto(expected.icount + 1)  # so that the newest region, which is the session's own, has the hit
    assert session.reverse_cont().icount == expected.icount


def test_an_interrupt_reaches_both_machines(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one has nothing left to search and waits for the second, which never ends."""
    original, busy = search._scan, threading.Event()

    def held(playback: Playback, plan: Plan, part: Any) -> Any:
        if playback is session.playback:
            assert busy.wait(60)
            return original(playback, plan, part)
        busy.set()
        while not playback.interrupted:
            threading.Event().wait(0.001)
        return None

    monkeypatch.setattr(search, "_scan", held)
    session.add_breakpoint(session.sym("pool_put"), condition="0")
    session.goto("end")
    timer = threading.Timer(0.5, session.interrupt)
    timer.start()
    stop = session.reverse_cont()
    timer.join()
    assert (stop.reason, session.cursor) == ("interrupted", session.end)
    monkeypatch.setattr(search, "_scan", original)
    assert session.reverse_cont().reason == "start"


def test_what_goes_wrong_in_a_region_that_counts_is_told(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, failed = search._scan, threading.Event()

    def held(playback: Playback, plan: Plan, part: Any) -> Any:
        if playback is session.playback:
            assert failed.wait(60)
            return original(playback, plan, part)
        failed.set()
        raise Diverged("the rolling digest differs", 1, 2)

    monkeypatch.setattr(search, "_scan", held)
    session.add_breakpoint(session.sym("pool_put"), condition="0")
    session.goto("end")
    with pytest.raises(Diverged):
        session.reverse_cont()
    scout = session.timeline._search._scout
    assert scout is not None and not scout.ready  # what failed is not gone on with
    monkeypatch.setattr(search, "_scan", original)
    session.add_watchpoint(session.sym("ticks"), 8)
    session.goto("end")
    assert session.reverse_cont().reason == "watchpoint"


def test_without_a_second_machine_the_first_searches_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Playback) -> Playback:
        raise MemoryError

    monkeypatch.setattr(Playback, "twin", refused)
    session.add_watchpoint(session.sym("ticks"), 8, condition="$value == 1")
    assert len(backwards(session)) == 1


def test_a_live_recording_is_searched_up_to_now(tmp_path: Path, backend: str) -> None:
    made = recorder(tmp_path / "live.trace", backend=backend, limits=LIMITS)
    made.start()
    made.advance(400_000)
    with Session.attach(made, backend=backend) as session:
        session.timeline.close()
        session.timeline = Timeline(session.playback, 1)
        point = session.add_breakpoint(session.sym("pool_put"), condition="0")
        assert session.reverse_cont().reason == "start"
        session.goto("end")
        session.delete_stopper(point.number)
        session.stepi(300_000)
        session.add_watchpoint(session.sym("ticks"), 8)
        found = session.reverse_cont().icount
        assert session.end == 700_000
    made.stop()
    made.board.engine.close()
    with open_with(tmp_path / "live.trace", backend, 0) as alone:
        alone.add_watchpoint(alone.sym("ticks"), 8)
        alone.goto(700_000)
        assert alone.reverse_cont().icount == found


def test_a_scout_that_is_never_asked_makes_no_machine(boot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_WORTH_MAKING_ONE", 1 << 60)
    with open_with(boot, "interp", 1) as session:
        session.add_watchpoint(session.sym("ticks"), 8)
        backwards(session)
        scout = session.timeline._search._scout
        assert isinstance(scout, Scout) and scout._playback is None

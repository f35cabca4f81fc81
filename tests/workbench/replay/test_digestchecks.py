"""Rolling digests that are compared beside the replay: nothing is said too late, and the first that differs is it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from traces.reader import TraceReader
from traces.rows import DigestRow
from workbench.replay.digestchecks import DigestChecks
from workbench.replay.errors import Diverged
from workbench.replay.replayer import Replayer

from .guest import record

GOOD, BAD = bytes(32), bytes(31) + b"x"


class Rolling:
    """A digest that is worked out once it may be."""

    def __init__(self, digest: bytes = GOOD, free: bool = True, error: Exception | None = None) -> None:
        self.digest, self.error = digest, error
        self.free = threading.Event()
        if free:
            self.free.set()

    def work_out(self) -> tuple[bytes, bytes]:
        assert self.free.wait(60)
        if self.error is not None:
            raise self.error
        return self.digest, b"{}"


def row(icount: int) -> DigestRow:
    return DigestRow(icount, GOOD, b"")


@pytest.fixture
def gate() -> Any:
    return SimpleNamespace(last_good=0)


@pytest.fixture
def checks(gate: Any) -> Iterator[Any]:
    made: Any = DigestChecks(SimpleNamespace(digest_detail=lambda row: {}), gate)  # type: ignore[arg-type]
    yield made
    made.close()


def test_the_machine_does_not_wait(checks: Any, gate: Any) -> None:
    slow = Rolling(free=False)
    checks.begin(row(10), slow)
    assert (checks.compared, gate.last_good) == (0, 0)
    slow.free.set()
    checks.settle()
    assert (checks.compared, gate.last_good) == (1, 10)
    checks.settle()
    assert checks.compared == 1


def test_a_digest_that_differs_is_told_with_the_next_one(checks: Any, gate: Any) -> None:
    checks.begin(row(10), Rolling())
    checks.begin(row(20), Rolling(BAD))
    with pytest.raises(Diverged, match="in RAM, no register differs") as caught:
        checks.begin(row(30), Rolling())
    assert (caught.value.last_good, caught.value.first_bad) == (10, 20)
    checks.settle()  # it was told once
    assert (checks.compared, gate.last_good) == (1, 10)


def test_what_goes_wrong_in_the_thread_comes_to_the_caller(checks: Any) -> None:
    checks.begin(row(10), Rolling(error=MemoryError("no room")))
    with pytest.raises(MemoryError, match="no room"):
        checks.settle()
    checks.begin(row(10), Rolling())
    checks.settle()
    assert checks.compared == 1


def test_a_wait_that_is_interrupted_loses_nothing(checks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Rolling(free=False)
    checks.begin(row(10), slow)
    with monkeypatch.context() as patch:
        patch.setattr(checks._check.done, "wait", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            checks.settle()
    slow.free.set()
    checks.begin(row(20), Rolling(BAD))
    with pytest.raises(Diverged) as caught:
        checks.settle()
    assert (caught.value.last_good, caught.value.first_bad, checks.compared) == (10, 20, 1)


def test_the_thread_ends(checks: Any) -> None:
    checks.begin(row(10), Rolling())
    thread = checks._thread
    checks.close()
    assert not thread.is_alive()


def test_of_two_things_that_differ_the_first_is_told(tmp_path: Path) -> None:
    """While a digest is being compared the replay asks for another input: the digest's position comes before."""
    path = tmp_path / "t.trace"
    record(path)
    for tampered in (True, False):
        with TraceReader.open(path) as trace, Replayer(trace) as replayer:
            playback = replayer.playback
            before, at = playback._stops[:2]
            if tampered:
                playback._digests[at] = playback._digests[at]._replace(digest=BAD)
            run = playback.board.run

            def later(until: int | None, *, run: Any = run, playback: Any = playback, at: int = at) -> Any:
                if playback.icount >= at:
                    raise Diverged("it asks for another input", playback.gate.last_good, at + 1)
                return run(until)

            playback.board.run = later  # type: ignore[method-assign]
            with pytest.raises(Diverged) as caught:
                replayer.run_to(trace.final_icount)
        found = caught.value
        expected = ("rolling digest", before, at) if tampered else ("another input", at, at + 1)
        assert expected[0] in found.what and (found.last_good, found.first_bad) == expected[1:]

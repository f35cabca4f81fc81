"""A replay that is another run is looked into: the first step that differs, and whose fault it is."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from traces.reader import TraceReader
from workbench.replay.diagnosis import diagnose
from workbench.replay.errors import Diverged
from workbench.replay.parts import BoardLike, build_board
from workbench.replay.replayer import Replayer

from .guest import record

_AT = 500_123
#: RAM that the guest has no use for.
UNUSED = 0x8000_0000 + 0x1400 * 4096


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    path = tmp_path / "boot.trace"
    record(path)
    return path


def diverged(trace: TraceReader, backend: str, factory: Any) -> Diverged:
    with pytest.raises(Diverged) as caught, Replayer(trace, backend, board_factory=factory) as replayer:
        replayer.verify()
    return caught.value


def faulty(backend: str, change: Any) -> Any:
    """Return a maker of boards whose named back end does something wrong at one step."""

    def factory(*args: Any) -> BoardLike:
        board = build_board(*args)
        if args[5] == backend:
            run = board.run

            def wrong(until: int | None, *more: Any) -> Any:
                if board.icount <= _AT and until is not None and until > _AT:
                    stop = run(_AT, *more)
                    if board.icount != _AT:
                        return stop
                    run(_AT + 1, *more)
                    change(board)
                return run(until, *more)

            board.run = wrong  # type: ignore[method-assign]
        return board

    return factory


def test_the_translator_is_blamed_with_the_step(boot: Path, tmp_path: Path, backend: str) -> None:
    def change(board: Any) -> None:
        board.engine.write_phys(UNUSED, b"wrong")

    factory = faulty("jit", change)
    with TraceReader.open(boot) as trace:
        error = diverged(trace, "jit", factory)
        assert error.last_good <= _AT < error.first_bad
        report = diagnose(trace, error, "jit", factory)
    assert (report.kind, report.step) == ("translator", _AT)
    assert report.differing is not None and list(report.differing) == ["RAM page 0x1400"]
    out = tmp_path / "report.json"
    report.write(out)
    assert json.loads(out.read_text())["step"] == _AT
    assert str(_AT) in str(report) and "\n" not in str(report)


def test_a_device_that_depends_on_the_host_is_blamed(boot: Path, backend: str) -> None:
    count = iter(range(1, 1000))

    def change(board: Any) -> None:
        board.engine.write_phys(UNUSED, bytes([next(count)]))

    factory = faulty("jit", change)
    with TraceReader.open(boot) as trace:
        report = diagnose(trace, diverged(trace, "jit", factory), "jit", factory)
    assert report.kind == "device"


def test_damage_a_wrong_row_and_another_version_are_told_apart(boot: Path, backend: str) -> None:
    with TraceReader.open(boot) as trace:
        rows = trace.digests()
    db = sqlite3.connect(boot)
    middle = rows[len(rows) // 2]
    db.execute("UPDATE digests SET digest = ? WHERE icount = ?", (bytes(32), middle.icount))
    db.commit()
    with TraceReader.open(boot) as trace:
        error = diverged(trace, "jit", build_board)
        assert error.first_bad == middle.icount
        assert diagnose(trace, error, "jit").kind == "row"
    db.execute("UPDATE digests SET digest = ? WHERE icount > ?", (bytes(32), middle.icount))
    db.commit()
    with TraceReader.open(boot) as trace:
        assert diagnose(trace, error, "jit").kind == "version"
    db.execute("UPDATE inputs SET payload = x'00' WHERE id = 1")
    db.commit()
    db.close()
    with TraceReader.open(boot) as trace:
        assert diagnose(trace, error, "jit").kind == "damage"

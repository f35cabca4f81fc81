"""The demo finds, by itself, what the guest's source says is wrong."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from workbench.guests import demo
from workbench.session import Session


@pytest.fixture(scope="module")
def failing_boot(tmp_path_factory: pytest.TempPathFactory) -> demo.Boot:
    return demo.hunt(tmp_path_factory.mktemp("demo") / "demo.trace")


def test_hunt_needs_several_boots_and_keeps_only_the_failing_one(failing_boot: demo.Boot) -> None:
    assert 1 < failing_boot.tried < 200
    assert [path.name for path in failing_boot.trace.parent.iterdir()] == ["demo.trace"]


def test_cause_is_the_store_of_pool_put_with_a_timer_interrupt_before_it(failing_boot: demo.Boot) -> None:
    with Session.open(failing_boot.trace) as session:
        finding = demo.investigate(session)
        assert finding.cause.symbol.startswith("pool_put+")
        assert re.match(r"(c\.)?sd ", finding.cause.text)
        assert finding.interrupted.startswith("pool_put+")
        assert finding.interrupt.icount < finding.cause.icount < finding.damage.icount < finding.panic.icount
        session.goto(finding.cause.icount)
        assert demo.pool_is_sound(session)
        session.stepi()
        assert not demo.pool_is_sound(session)
        session.goto(finding.interrupt.icount)
        assert session.reg("scause") == (1 << 63) | 5


def test_report_names_message_store_and_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    assert demo.run(batch=True, out=out) == 0
    text = out.getvalue()
    assert "panic: tick record" in text and "<- broke the state" in text
    assert re.search(r"workbench debug demo\.trace -c 'goto \d+'", text)
    assert (tmp_path / "demo.trace").exists()


@pytest.mark.parametrize("value", [0, 1, 37, 99])
def test_first_bad_finds_the_one_change(value: int) -> None:
    class Cursor:
        cursor = 0

        def goto(self, position: int) -> None:
            self.cursor = position

    found = demo.first_bad(Cursor(), 0, 100, lambda s: s.cursor <= value)  # type: ignore[arg-type]
    assert found == value + 1

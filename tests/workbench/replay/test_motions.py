"""Stepping by instruction and line, in a context: there and back again, past interrupts and calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.errors import CommandError
from workbench.session import Session

from .guest import record


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("boot") / "boot.trace"
    record(path)
    return path


@pytest.fixture
def session(boot: Path, backend: str) -> Iterator[Session]:
    with Session.open(boot, backend=backend) as opened:
        yield opened


def to(session: Session, name: str) -> int:
    """Go to the first time a function is called."""
    point = session.add_breakpoint(session.sym(name), temporary=True)
    session.goto("start")
    assert session.cont().stopper == point.number
    return session.cursor


@pytest.mark.parametrize(("over", "by"), [(False, "insn"), (True, "insn"), (True, "line")])
def test_reverse_steps_undo_steps(session: Session, over: bool, by: str) -> None:
    places = [to(session, "pool_put")]
    forward, backward = (session.next, session.reverse_next) if over else (session.step, session.reverse_step)
    for _ in range(25):
        assert forward(by=by).reason == "step"
        places.append(session.cursor)
    assert places == sorted(set(places))
    back = [session.cursor]
    for _ in range(25):
        assert backward(by=by).reason == "step"
        back.append(session.cursor)
    assert back[::-1] == places


def interrupt_before(session: Session) -> int:
    """Go to before the entry of the last interrupt that came in a task; returns the position."""
    session.goto("end")
    point = session.add_catch("interrupt", temporary=True)
    stop = session.reverse_cont()
    assert stop.stopper == point.number
    return stop.icount


def test_steps_pass_over_interrupts_unless_told_otherwise(session: Session) -> None:
    before = interrupt_before(session)
    pc, sp = session.reg("pc"), session.reg("sp")
    session.stepi()
    assert session.reg("pc") == session.reg("stvec")
    session.goto(before)
    session.step(into_traps=True)
    assert (session.cursor, session.reg("pc")) == (before + 1, session.reg("stvec"))
    session.goto(before)
    stop = session.step()
    assert stop.icount > before + 50
    assert session.reg("sp") == sp
    assert session.reg("pc") != pc
    assert session.symbols.find(session.reg("pc"))[0] == session.symbols.find(pc)[0]  # type: ignore[index]
    after = stop.icount
    session.reverse_step()
    assert session.reg("pc") == pc  # behind the interrupt, which is no step of its own
    assert before < session.cursor < after
    session.reverse_step()
    assert session.cursor == before - 1  # the instruction before the interrupted one
    session.step()
    assert session.cursor == before
    session.step()
    assert session.cursor == after


def test_a_system_call_is_one_step(session: Session) -> None:
    session.goto("start")
    session.add_catch("syscall", temporary=True)
    assert session.cont().reason == "catch"
    session.reverse_stepi()
    pc, priv, here = session.reg("pc"), session.reg("priv"), session.cursor
    assert priv == 0
    session.step()
    assert (session.reg("pc"), session.reg("priv")) == (pc + 4, 0)
    assert session.cursor > here + 20
    session.reverse_step()
    assert (session.cursor, session.reg("pc")) == (here, pc)


def test_finish_and_its_reverse_are_the_two_ends_of_a_call(session: Session) -> None:
    entry = to(session, "pool_put")
    caller = session.reg("ra")
    session.next(6)
    session.finish()
    assert session.reg("pc") == caller
    inside = to(session, "irq_save")
    assert inside > entry or inside != entry
    stop = session.reverse_finish()
    assert stop.icount == inside - 1
    session.stepi()
    assert session.cursor == inside


def test_stepping_by_line_stops_at_lines_and_goes_into_functions(session: Session) -> None:
    to(session, "kmain")
    seen = []
    for _ in range(12):
        session.step(by="line")
        line = session.lines.at(session.reg("pc"))
        assert line is not None
        seen.append((line.file, line.line))
    assert len({file for file, _ in seen}) > 1
    to(session, "kmain")
    for _ in range(6):
        session.next(by="line")
        line = session.lines.at(session.reg("pc"))
        assert line is not None and line.file.endswith("main.c")


@pytest.mark.parametrize("over", [False, True])
def test_long_lines_are_left_as_short_ones_are(
    session: Session, over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def walk() -> list[int]:
        to(session, "pool_put")
        places = []
        for _ in range(15):
            (session.next if over else session.step)(by="line")
            places.append(session.cursor)
        for _ in range(10):
            (session.reverse_next if over else session.reverse_step)(by="line")
            places.append(session.cursor)
        return places

    patient = walk()
    monkeypatch.setattr("workbench.replay.motions._PATIENCE", 2)
    assert walk() == patient


def test_until_and_a_stopper_on_the_way(session: Session) -> None:
    to(session, "kmain")
    target = session.sym("pool_put")
    assert session.until(target).reason == "step"
    assert session.reg("pc") == target
    assert session.reverse_until(session.sym("kmain")).pc == session.sym("kmain")
    point = session.add_breakpoint(session.sym("drivers_init"))
    stop = session.until(target)
    assert (stop.reason, stop.stopper, stop.pc) == ("breakpoint", point.number, point.address)


def test_ends_of_history_end_motions(session: Session) -> None:
    session.goto("end")
    assert session.step().reason == "end"
    assert session.next(by="line").reason == "end"
    session.goto("start")
    assert session.reverse_step().reason == "start"
    assert session.reverse_next(by="line").reason == "start"
    with pytest.raises(CommandError, match="insn or line"):
        session.step(by="page")

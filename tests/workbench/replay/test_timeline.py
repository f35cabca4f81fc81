"""The cursor goes both ways: what is seen at a position does not depend on how it was reached."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from traces.errors import PositionError
from workbench.replay.errors import EvalError, MemoryAccessError
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


def test_every_way_to_a_position_gives_the_same_state(session: Session) -> None:
    choose = random.Random(4)
    seen: dict[int, str] = {}
    for position in sorted(choose.sample(range(session.end), 25)):
        session.goto(position)
        seen[position] = session.digest()
    for position in choose.sample(sorted(seen), len(seen)):
        assert session.goto(position).reason == "goto"
        assert session.digest() == seen[position]
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_back_and_forth_is_where_it_was(session: Session, steps: int) -> None:
    choose = random.Random(steps)
    for position in choose.sample(range(steps, session.end - steps), 10):
        session.goto(position)
        registers, digest = session.regs(), session.digest()
        for _ in range(steps if steps < 100 else 1):
            assert session.reverse_stepi(1 if steps < 100 else steps).reason == "step"
        assert session.cursor == position - steps
        for _ in range(steps if steps < 100 else 1):
            assert session.stepi(1 if steps < 100 else steps).reason == "step"
        assert (session.cursor, session.regs(), session.digest()) == (position, registers, digest)


@pytest.mark.parametrize("names", [["pool_put"], ["trap_entry", "sched_yield"], ["trap_return"], ["kmain"]])
def test_reverse_continue_finds_the_hits_of_continue_in_reverse(session: Session, names: list[str]) -> None:
    for name in names:
        session.add_breakpoint(session.eval(name))
    forward = []
    while (stop := session.cont()).reason == "breakpoint":
        assert stop.pc == session.reg("pc")
        forward.append((stop.icount, stop.pc, session.digest()))
    assert (stop.reason, stop.icount) == ("end", session.end)
    assert forward
    backward = []
    while (stop := session.reverse_cont()).reason == "breakpoint":
        backward.append((stop.icount, stop.pc, session.digest()))
    assert (stop.reason, stop.icount) == ("start", 0)
    assert backward[::-1] == forward


def test_the_ends_of_history_say_so(session: Session) -> None:
    assert session.reverse_stepi().reason == "start"
    assert session.reverse_cont().reason == "start"
    assert session.reverse_stepi(5).reason == "start"
    assert session.stepi(3).reason == "step"
    assert session.reverse_stepi(5).reason == "start"
    assert session.cont().reason == "end"
    assert session.cursor == session.end
    assert session.stepi().reason == "end"
    assert session.cont().reason == "end"
    assert session.reverse_stepi(2).reason == "step"
    assert session.stepi(5).reason == "end"
    with pytest.raises(PositionError):
        session.goto(session.end + 1)
    with pytest.raises(PositionError):
        session.goto(-1)


def test_a_breakpoint_inside_a_long_step_stops_it_both_ways(session: Session) -> None:
    point = session.add_breakpoint(session.eval("kmain"))
    hit = session.cont().icount
    assert point.hits == 1
    session.goto(hit - 50)
    stop = session.stepi(100)
    assert (stop.reason, stop.icount, stop.stopper, str(stop.detail)) == (
        "breakpoint",
        hit,
        point.number,
        str(point.number),
    )
    session.goto(hit + 50)
    assert session.reverse_stepi(100).icount == hit
    session.enable_breakpoint(point.number, False)
    session.goto(hit + 50)
    assert session.reverse_stepi(100).icount == hit - 50


def test_a_temporary_breakpoint_is_gone_after_its_hit(session: Session) -> None:
    session.add_breakpoint(session.eval("kmain"), temporary=True)
    assert session.cont().reason == "breakpoint"
    assert session.breakpoints == []
    assert session.cont().reason == "end"


def test_stepping_back_is_quick_once_there(session: Session) -> None:
    session.goto(session.end)
    session.reverse_stepi()
    began = time.process_time()
    for _ in range(100):
        session.reverse_stepi()
    assert (time.process_time() - began) / 100 < 0.010
    assert session.cursor == session.end - 101


def test_an_interrupt_stops_a_motion_with_the_session_whole(session: Session) -> None:
    for delay in (0.0, 0.001, 0.01):
        session.goto(0)
        timer = threading.Timer(delay, session.interrupt)
        timer.start()
        stop = session.goto(session.end)
        timer.join()
        at, digest = session.cursor, session.digest()
        assert stop.reason in ("goto", "interrupted")
        session.goto(0)
        session.goto(at)
        assert session.digest() == digest


def test_positions_by_virtual_time_percent_and_bookmark(session: Session) -> None:
    assert session.parse_position("@poweroff") == session.end
    assert session.parse_position("50%") == session.end // 2
    here = session.goto("30%").icount
    vtime_ns = session.board.vtime_ns
    assert session.parse_position(f"{vtime_ns}ns") == here
    session.goto("90%")
    position = session.parse_position("0.5ms")
    assert session.cursor == int(session.end * 0.9)
    session.goto(position)
    assert session.board.vtime_ns >= 500_000
    session.reverse_stepi()
    assert session.board.vtime_ns < 500_000
    session.bookmark("mine", 77)
    assert session.parse_position("@mine") == 77


def test_expressions_registers_and_memory(session: Session) -> None:
    session.add_breakpoint(session.eval("kmain"))
    session.cont()
    pc = session.reg("pc")
    assert session.eval("$pc") == session.eval("kmain") == pc
    assert session.eval("kmain + 2*(3 - 0x1) - -4") == pc + 8
    assert session.eval("1_000") == 1000
    for bad in ("", "1 +", "(1", "nobody", "$nothing", "1 2", "1 / 0", "0x", "(" * 200 + "1" + ")" * 200):
        with pytest.raises(EvalError):
            session.eval(bad)
    assert session.read_mem(pc, 8) == session.read_phys(session.translate(pc) or 0, 8)
    with pytest.raises(MemoryAccessError):
        session.read_phys(0, 8)
    with pytest.raises(MemoryAccessError):
        session.read_mem(pc, 1 << 40)
    assert session.sql("select count(*) n from checkpoints")[0]["n"] > 5

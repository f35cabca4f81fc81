"""What stops motions: found the same forwards and backwards, with what it did, and found again without a search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.replay import search
from workbench.replay.errors import EvalError
from workbench.session import Session, Stop

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


def all_hits(session: Session, backwards: bool) -> list[Stop]:
    session.goto("end" if backwards else "start")
    stops = []
    while (stop := session.reverse_cont() if backwards else session.cont()).reason not in ("start", "end"):
        stops.append(stop)
    return stops[::-1] if backwards else stops


CATCHES: list[tuple[str, Any]] = [
    ("trap", None),
    ("trap", 15),
    ("interrupt", None),
    ("interrupt", 5),
    ("syscall", None),
    ("priv", None),
    ("satp", None),
    ("csr", "sie"),
    ("csr", "stimecmp"),
    ("mmio", "uart0"),
    ("mmio", None),
]


@pytest.mark.parametrize(("what", "arg"), CATCHES)
def test_catches_find_the_same_in_both_directions(session: Session, what: str, arg: Any) -> None:
    number = session.add_catch(what, arg).number
    low = session.goto("60%").icount
    forwards: list[Stop] = []
    while len(forwards) < 40 and (stop := session.cont()).reason == "catch":
        assert stop.stopper == number
        assert stop.detail is not None and stop.detail.icount == stop.icount - 1
        forwards.append(stop)
    assert forwards or what == "csr"
    session.goto(forwards[-1].icount if forwards else low)
    backwards: list[Stop] = []
    while (stop := session.reverse_cont()).reason == "catch" and stop.icount >= low:
        backwards.append(stop)
    assert [s.icount for s in backwards][::-1] == [s.icount - 1 for s in forwards]
    assert [s.detail for s in backwards][::-1] == [s.detail for s in forwards]


def test_a_watchpoint_names_the_last_writer_both_ways(session: Session) -> None:
    cell = session.sym("ticks")
    point = session.add_watchpoint(cell, 8)
    forwards = all_hits(session, backwards=False)
    assert len(forwards) > 3
    for stop in forwards:
        assert stop.detail is not None and stop.detail.value is not None and stop.detail.old is not None
        assert (stop.reason, stop.detail.address, stop.detail.size, stop.detail.access) == (
            "watchpoint",
            cell,
            8,
            "w",
        )
    values = [(s.detail.old, s.detail.value) for s in forwards if s.detail]
    assert all(new == old + 1 for old, new in values[1:] if old is not None and new is not None)
    backwards = all_hits(session, backwards=True)
    assert [s.icount for s in backwards] == [s.icount - 1 for s in forwards]
    assert [s.detail for s in backwards] == [s.detail for s in forwards]
    session.goto(forwards[-1].icount)
    assert int.from_bytes(session.read_mem(cell, 8), "little") == values[-1][1]
    stop = session.reverse_cont()
    assert stop.pc == forwards[-1].detail.pc if forwards[-1].detail else False
    assert int.from_bytes(session.read_mem(cell, 8), "little") == values[-1][0]
    assert point.hits == 2 * len(forwards) + 1


def test_reads_physical_ranges_and_conditions(session: Session) -> None:
    cell = session.sym("ticks")
    paddr = session.translate(cell)
    assert paddr is not None
    by_vaddr = session.add_watchpoint(cell, 8, "w")
    hits = [s.icount for s in all_hits(session, backwards=False)]
    session.delete_stopper(by_vaddr.number)
    by_paddr = session.add_watchpoint(paddr, 8, "w", physical=True)
    assert [s.icount for s in all_hits(session, backwards=False)] == hits
    session.delete_stopper(by_paddr.number)
    third = session.add_watchpoint(cell, 8, "w", condition="$value == 3")
    found = all_hits(session, backwards=True)
    assert [s.detail.value for s in found if s.detail] == [3]
    session.delete_stopper(third.number)
    session.add_watchpoint(cell, 8, "a")
    assert len(all_hits(session, backwards=False)) > len(hits)


def test_a_physical_breakpoint_is_met_where_its_virtual_one_is(session: Session) -> None:
    address = session.sym("pool_put")
    paddr = session.translate(address, "x")
    assert paddr is not None
    point = session.add_breakpoint(address)
    expected = all_hits(session, backwards=False)
    session.delete_stopper(point.number)
    point = session.add_breakpoint(paddr, physical=True)
    for backwards in (False, True):
        found = all_hits(session, backwards)
        assert [(s.icount, s.pc) for s in found] == [(s.icount, address) for s in expected]
    session.delete_stopper(point.number)
    session.add_breakpoint(paddr, physical=True, condition=f"$paddr == {paddr:#x} && $addr != {address:#x}")
    assert not all_hits(session, backwards=True)


def test_a_condition_asks_registers_and_memory_at_the_hit(session: Session) -> None:
    address = session.sym("pool_put")
    session.add_breakpoint(address)
    everything = all_hits(session, backwards=False)
    args = []
    for stop in everything:
        session.goto(stop.icount)
        args.append(session.reg("a0"))
    wanted = args[len(args) // 2]
    point = session.add_breakpoint(address, condition=f"$a0 == {wanted:#x} && *(u8 *)$pc == *(u8 *)pool_put")
    session.enable_stopper(point.number - 1, False)
    expected = [s.icount for s, a in zip(everything, args, strict=True) if a == wanted]
    assert [s.icount for s in all_hits(session, backwards=False)] == expected
    assert [s.icount for s in all_hits(session, backwards=True)] == expected
    code = bytes([0x26, 0, 10, 0x25]) + wanted.to_bytes(8, "big") + bytes([0x13, 0x27])
    session.delete_stopper(point.number)
    session.add_breakpoint(address, condition=[b"\x22\x00\x27", code])
    assert [s.icount for s in all_hits(session, backwards=True)] == expected


def test_ignored_hits_and_temporary_stoppers(session: Session) -> None:
    address = session.sym("pool_put")
    point = session.add_breakpoint(address)
    hits = [s.icount for s in all_hits(session, backwards=False)]
    session.delete_stopper(point.number)
    point = session.add_breakpoint(address, hits_ignored=2, temporary=True)
    session.goto("start")
    assert session.cont().icount == hits[2]
    assert point.hits == 3
    assert session.stoppers == []
    point = session.add_breakpoint(address, hits_ignored=2)
    session.goto("end")
    assert session.reverse_cont().icount == hits[-3]


def test_two_stoppers_at_one_step_both_count(session: Session) -> None:
    address = session.sym("pool_put")
    one, two = session.add_breakpoint(address), session.add_breakpoint(address)
    stop = session.cont()
    assert (stop.stopper, one.hits, two.hits) == (one.number, 1, 1)
    session.goto("end")
    assert session.reverse_cont().stopper == one.number
    assert (one.hits, two.hits) == (2, 2)


def test_console_texts_stop_where_they_are_complete(session: Session) -> None:
    text = "sched: task"
    rows = [row.icount for row in session.trace.console() if text.encode() in row.data]
    assert len(rows) > 2
    point = session.add_catch("console", text)
    assert [s.icount for s in all_hits(session, backwards=False)] == rows
    assert [s.icount for s in all_hits(session, backwards=True)] == rows
    assert point.hits == 2 * len(rows)
    assert session.goto(f'console:"{text}"').icount == rows[0]


def test_a_search_is_not_done_twice(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.add_watchpoint(session.sym("ticks"), 8, condition="$value == 1")
    session.goto("end")
    first = session.reverse_cont()
    scans = 0
    original = search._scan

    def counted(*args: Any) -> list[int | None] | None:
        nonlocal scans
        scans += 1
        return original(*args)

    monkeypatch.setattr(search, "_scan", counted)
    session.goto("end")
    assert session.reverse_cont() == first
    assert scans == 0
    session.goto("80%")
    assert session.reverse_cont() == first
    assert scans == 0
    assert session.reverse_cont().reason == "start"
    scans = 0
    session.goto(first.icount)
    assert session.reverse_cont().reason == "start"
    assert scans == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda s: s.add_watchpoint(0, 0),
        lambda s: s.add_watchpoint(0, 8, "x"),
        lambda s: s.add_watchpoint((1 << 64) - 4, 8),
        lambda s: s.add_catch("nothing"),
        lambda s: s.add_catch("console", ""),
        lambda s: s.add_catch("csr", "nothing"),
        lambda s: s.add_catch("reg", "x0"),
        lambda s: s.add_catch("mmio", "nothing"),
        lambda s: s.add_breakpoint(0, condition="1 +"),
    ],
)
def test_what_cannot_stop_is_refused(session: Session, wrong: Any) -> None:
    with pytest.raises(EvalError):
        wrong(session)
    assert session.stoppers == []

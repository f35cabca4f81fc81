"""Breakpoints with conditions, watchpoints and catches, as commands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workbench.errors import CommandError
from workbench.repl.shell import Shell

BASE = 0x8000_0000
STORE_TO = BASE + 0x1000


@pytest.fixture
def shell(session: Any) -> Shell:
    return Shell(session)


def value(shell: Shell, line: str) -> Any:
    return json.loads(shell.run_line(line + " --json"))


def test_watch_stops_behind_the_store_and_backwards_before_it(shell: Shell, session: Any) -> None:
    assert "Watchpoint 1: writes of 16 bytes at 0x80001000 <message>" in shell.run_line("watch message")
    stop = value(shell, "c")
    assert (stop["reason"], stop["stopper"], stop["position"]) == ("watchpoint", 1, 3)
    shell.run_line("goto 6")
    assert value(shell, "rc")["position"] == 2


@pytest.mark.parametrize(
    ("line", "address", "size", "what"),
    [
        ("watch message", STORE_TO, 16, "w"),
        ("watch *(int*)&message", STORE_TO, 4, "w"),
        ("watch *(unsigned long *)message", STORE_TO, 8, "w"),
        ("rwatch 0x80001000 2", STORE_TO, 2, "r"),
        ("awatch message + 8", STORE_TO + 8, 8, "a"),
        ("watch -l *message", STORE_TO, 8, "w"),
    ],
)
def test_places_to_watch(shell: Shell, session: Any, line: str, address: int, size: int, what: str) -> None:
    shell.run_line(line)
    point = session.stoppers[0]
    assert (point.address, point.size, point.what) == (address, size, what)


def test_registers_and_csrs_are_watched_by_name(shell: Shell, session: Any) -> None:
    shell.run_line("watch $a0")
    shell.run_line("watch $satp if $value != 0")
    assert [(p.what, p.arg, p.condition) for p in session.stoppers] == [
        ("reg", "x10", None),
        ("csr", "satp", "$value != 0"),
    ]
    with pytest.raises(CommandError, match="only writes"):
        shell.run_line("rwatch $a0")


def test_conditions_and_physical_addresses_reach_the_session(shell: Shell, session: Any) -> None:
    shell.run_line("break *0x80000020 if $a0 == 3 && $priv == 1")
    shell.run_line("watch -p 0x80001000 4")
    assert "physical 0x80000020" in shell.run_line("hb -p 0x80000020")
    point, watched, by_paddr = session.stoppers
    assert (by_paddr.physical, by_paddr.address) == (True, BASE + 0x20)
    assert (point.address, point.condition) == (BASE + 0x20, "$a0 == 3 && $priv == 1")
    assert (watched.physical, watched.size) == (True, 4)
    assert "if $a0 == 3" in shell.run_line("info breakpoints")
    with pytest.raises(CommandError, match="condition is missing"):
        shell.run_line("break leaf if")
    with pytest.raises(CommandError, match="physical address is needed"):
        shell.run_line("break -p")


def test_catches_take_an_argument_and_a_condition(shell: Shell, session: Any) -> None:
    shell.run_line("catch syscall openat if $a2 == 0")
    shell.run_line('catch console "what if it panics"')
    shell.run_line("catch trap")
    assert [(p.what, p.arg, p.condition) for p in session.stoppers] == [
        ("syscall", "openat", "$a2 == 0"),
        ("console", "what if it panics", None),
        ("trap", None, None),
    ]
    with pytest.raises(CommandError):
        shell.run_line("catch")


def test_all_kinds_share_one_numbering(shell: Shell, session: Any) -> None:
    for line in ("b leaf", "watch message", "catch trap"):
        shell.run_line(line)
    assert [row["kind"] for row in value(shell, "info b")] == ["breakpoint", "watchpoint", "catch"]
    shell.run_line("disable 2")
    shell.run_line("delete 1")
    shell.run_line("ignore 3 10")
    assert [(p.number, p.enabled, p.hits_ignored) for p in session.stoppers] == [(2, False, 0), (3, True, 10)]
    for line in ("ignore 9 1", "ignore 2", "delete 1", "watch", "watch nowhere"):
        with pytest.raises(CommandError):
            shell.run_line(line)

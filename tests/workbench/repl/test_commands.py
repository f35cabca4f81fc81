"""The REPL's commands over a hand-made run: what they do, say, and give as JSON."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from workbench import tracetables
from workbench.errors import CommandError
from workbench.repl.context import Quit
from workbench.repl.registry import GROUPS, all_commands
from workbench.repl.shell import Shell

BASE = 0x8000_0000


@pytest.fixture
def shell(session: Any) -> Shell:
    return Shell(session)


def value(shell: Shell, line: str) -> Any:
    return json.loads(shell.run_line(line + " --json"))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("c", "continue"),
        ("cont", "continue"),
        ("rc", "reverse-continue"),
        ("reverse-c", "reverse-continue"),
        ("rsi", "reverse-stepi"),
        ("b loop", "break"),
        ("i r", "info registers"),
        ("info reg", "info registers"),
        ("info br", "info breakpoints"),
        ("x/4i $pc", "x"),
        ("p/x 1", "print"),
        ("disas", "disassemble"),
        ("d", "delete"),
        ("dis", "disable"),
        ("bt", "backtrace"),
        ("h", "help"),
    ],
)
def test_names_and_unique_prefixes_resolve_as_gdb_does(line: str, name: str) -> None:
    assert all_commands().resolve(line)[0].name == name


@pytest.mark.parametrize("line", ["re", "info", "info s", "xyzzy", "co"])
def test_what_is_ambiguous_or_unknown_is_told(line: str) -> None:
    with pytest.raises(CommandError):
        all_commands().resolve(line)


def test_every_command_has_a_summary_that_fits_a_line_and_a_known_group() -> None:
    for entry in all_commands().commands:
        assert entry.group in GROUPS
        assert 10 < len(entry.summary) <= 110, entry.name
        assert entry.summary.endswith("."), entry.name


def test_help_lists_every_command_and_tells_about_each(shell: Shell) -> None:
    listed = {row["name"] for row in value(shell, "help")}
    for entry in all_commands().commands:
        assert entry.name in listed
        assert entry.help.replace("``", "'") in shell.run_line(f"help {entry.name}")
    assert "info registers" in shell.run_line("help info")


def test_steps_there_and_back_end_where_they_began(shell: Shell, session: Any) -> None:
    before = shell.run_line("info registers all")
    assert value(shell, "si 10")["position"] == 10
    assert value(shell, "rsi 10")["position"] == 0
    assert shell.run_line("info registers all") == before


def test_stop_tells_position_mode_symbol_and_instruction(shell: Shell) -> None:
    text = shell.run_line("si")
    assert "position 1 of 600 · hart 0 · M" in text
    assert f"=> {BASE + 4:#x} <loop+0x4>: jal" in text


def test_empty_line_repeats_a_motion_and_nothing_else(shell: Shell, session: Any) -> None:
    shell.run_line("si")
    shell.run_line("")
    assert session.cursor == 2
    shell.run_line("p 1")
    assert shell.execute("") is None
    assert session.cursor == 2


def test_breakpoints_stop_in_both_directions(shell: Shell, session: Any) -> None:
    assert "Breakpoint 1 at 0x80000020 <leaf>" in shell.run_line("b leaf")
    assert value(shell, "c 3")["position"] == 14
    assert value(shell, "rc")["position"] == 8
    shell.run_line("disable 1")
    assert value(shell, "c")["reason"] == "end"
    shell.run_line("enable")
    assert value(shell, "rc")["position"] == 596
    assert value(shell, "info b")[0]["where"] == "0x80000020 <leaf>"
    shell.run_line("delete")
    assert shell.run_line("info breakpoints") == "No breakpoints.\n"


def test_ends_of_history_are_told_in_gdbs_words(shell: Shell) -> None:
    assert "No more reverse-execution history" in shell.run_line("rc")
    assert "end of the trace" in shell.run_line("c")


def test_temporary_breakpoint_is_gone_after_its_hit(shell: Shell, session: Any) -> None:
    shell.run_line("tb *0x80000020")
    shell.run_line("c")
    assert session.cursor == 2 and session.breakpoints == []


@pytest.mark.parametrize("line", ["b nowhere", "b *0x80000001", "delete 9", "enable x"])
def test_breakpoint_that_makes_no_sense_is_refused(shell: Shell, line: str) -> None:
    with pytest.raises(CommandError):
        shell.run_line(line)


def test_next_steps_over_a_call_and_leaves_no_breakpoint(shell: Shell, session: Any) -> None:
    shell.run_line("si")
    assert value(shell, "n")["pc"] == f"{BASE + 8:#x}"
    assert session.cursor == 4
    assert session.breakpoints == []


def test_next_stops_at_a_breakpoint_inside_the_call(shell: Shell, session: Any) -> None:
    shell.run_line("si")
    shell.run_line("b leaf")
    assert value(shell, "n")["pc"] == f"{BASE + 0x20:#x}"
    assert [point.number for point in session.breakpoints] == [1]


def test_finish_runs_to_the_return_address(shell: Shell, session: Any) -> None:
    shell.run_line("goto 2")
    assert value(shell, "finish")["position"] == 4


def test_until_runs_to_a_place(shell: Shell, session: Any) -> None:
    assert value(shell, "until leaf")["position"] == 2
    assert value(shell, "advance *0x80000008")["position"] == 4
    with pytest.raises(CommandError, match="a place is needed"):
        shell.run_line("until")


def test_goto_takes_positions_and_refuses_what_is_none(shell: Shell, session: Any) -> None:
    assert value(shell, "goto end")["position"] == 600
    assert value(shell, "goto -100")["position"] == 500
    shell.run_line("bookmark here a note")
    shell.run_line("goto start")
    assert value(shell, "goto @here")["position"] == 500
    for line in ("goto", "goto 601", "goto soon"):
        with pytest.raises(CommandError):
            shell.run_line(line)


def test_registers_by_group_and_name(shell: Shell) -> None:
    shell.run_line("si")
    rows = value(shell, "info registers a0 pc mstatus $sp")
    assert [row["register"] for row in rows] == ["a0", "pc", "mstatus", "sp"]
    assert [row["value"] for row in rows][:3] == [1, BASE + 4, 0xA_0000_1800]
    assert len(value(shell, "info registers")) == 33
    assert {"sstatus", "mcause"} <= {row["register"] for row in value(shell, "info registers csr")}
    with pytest.raises(CommandError, match="no register 'a9'"):
        shell.run_line("info registers a9")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("p 255", "= 0xff (255)"),
        ("p/d 0xffffffffffffffff", "= -1"),
        ("p/t 5", "= 0b101"),
        ("p/o 8", "= 0o10"),
        ("p /x 16", "= 0x10"),
        ("p/c 65", "= 65 'A'"),
        ("p/a 0x80000022", "= 0x80000022 <leaf+0x2>"),
        ("p leaf", "= 0x80000020 <leaf>"),
    ],
)
def test_print_formats(shell: Shell, line: str, text: str) -> None:
    assert shell.run_line(line) == text + "\n"


@pytest.mark.parametrize("line", ["p", "p/y 1", "p nowhere", "p $nope"])
def test_print_refuses_what_is_no_expression(shell: Shell, line: str) -> None:
    with pytest.raises(CommandError):
        shell.run_line(line)


def test_examine_shows_units_strings_and_instructions(shell: Shell) -> None:
    assert value(shell, "x/2xw 0x80000000") == [0x00150513, 0x01C000EF]
    assert value(shell, "x/2xb $pc") == [0x13, 0x05]
    listed = value(shell, "x/3i loop")
    assert [row["address"] for row in listed] == ["0x80000000", "0x80000004", "0x80000008"]
    assert listed[0]["text"] == "addi a0, a0, 1"
    # without an address it goes on where it stopped, in the same format
    assert value(shell, "x")[0]["address"] == "0x8000000a"


def test_examined_strings_are_safe_for_the_terminal(shell: Shell) -> None:
    text = shell.run_line("x/s message")
    assert "hello" in text and "\x1b" not in text


@pytest.mark.parametrize("line", ["x/4xg 0", "x/0x $pc", "x/99999999999x $pc", "x/4k $pc", "x", "x/i 0x10"])
def test_examine_refuses_what_it_cannot_show(shell: Shell, line: str) -> None:
    with pytest.raises(CommandError):
        shell.run_line(line)


def test_disassemble_lists_the_function_at_the_cursor_and_marks_the_pc(shell: Shell) -> None:
    shell.run_line("si")
    lines = shell.run_line("disas").splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("=> 0x80000004 <loop+0x4>:  jal")
    assert len(shell.run_line("disas leaf").splitlines()) == 2
    assert len(shell.run_line("disas 0x80000000, +8").splitlines()) == 2
    with pytest.raises(CommandError):
        shell.run_line("disas loop, +99999999")


def test_where_and_digest_tell_the_cursor(shell: Shell) -> None:
    shell.run_line("goto 2")
    told = value(shell, "where")
    assert (told["position"], told["symbol"], told["mode"]) == (2, "leaf", "M")
    assert value(shell, "digest") == f"{2:032x}"


def test_harts_are_listed_and_selected(shell: Shell, session: Any) -> None:
    assert [row["hart"] for row in value(shell, "info harts")] == [0, 1]
    shell.run_line("set hart 1")
    assert session.hart == 1
    for line in ("hart 2", "set nothing", "set hart x", "set $a0 ="):
        with pytest.raises(CommandError):
            shell.run_line(line)


def test_displayed_expressions_follow_motions_only(shell: Shell) -> None:
    shell.run_line("display $a0")
    shell.run_line("si")
    assert shell.after_motion() == "1: $a0 = 0x1 (1)\n"
    shell.run_line("where")
    assert shell.after_motion() == ""
    shell.run_line("undisplay")
    shell.run_line("si")
    assert shell.after_motion() == ""


def test_python_has_the_session_and_its_errors_are_one_line(shell: Shell) -> None:
    assert shell.run_line("py session.cursor + 1") == "1\n"
    shell.run_line("!x = 5")
    assert shell.run_line("!print(x); y = x") == "5\n"
    with pytest.raises(CommandError, match="ZeroDivisionError"):
        shell.run_line("py 1/0")
    with pytest.raises(CommandError, match="SystemExit"):
        shell.run_line("py raise SystemExit")


def test_sql_gives_rows(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def asking(session: Any) -> Any:
        return SimpleNamespace(asker=SimpleNamespace(table=partial(tracetables.query, session.trace)))

    monkeypatch.setattr("workbench.query.api.Trace.of", asking)
    assert value(shell, "sql select 1")[0] == {"one": 1, "two": "select 1"}
    assert shell.run_line("sql select 1 --csv").splitlines()[0] == "one,two"


def test_monitor_refuses_commands_that_touch_the_host(shell: Shell) -> None:
    for line in ("py 1", "!1", "open x.trace", "symbol-file x"):
        assert "not through gdb" in shell.monitor(line)
    assert "position 0" in shell.monitor("where")


def test_comments_are_passed_over_and_quit_ends_a_script(shell: Shell) -> None:
    out: list[str] = []
    shell.run_script(["# nothing", "where", "quit", "p 1"], out.append)
    assert "position" in "".join(out) and "= 0x1" not in "".join(out)
    with pytest.raises(Quit):
        shell.run_line("q")


def test_without_a_trace_commands_say_how_to_open_one() -> None:
    shell = Shell(None)
    with pytest.raises(CommandError, match="'open FILE'"):
        shell.run_line("where")
    assert "Moving through the run" in shell.run_line("help")
    assert shell.run_line("py 1 + 1") == "2\n"


def test_backtrace_follows_frame_pointers(
    shell: Shell, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(address: int, number: int) -> None:
        at = address - BASE
        session.memory[at : at + 8] = number.to_bytes(8, "little")

    first, second = BASE + 0x3100, BASE + 0x3200
    put(first - 8, BASE + 8)
    put(first - 16, second)
    put(second - 8, 0)
    put(second - 16, 0)
    plain = session.reg
    monkeypatch.setattr(session, "reg", lambda name: first if name == "x8" else plain(name))
    shell.run_line("goto 2")
    rows = value(shell, "bt")
    assert [row["where"] for row in rows] == ["leaf", "loop+0x8"]


def test_overview_of_help_fits_80_columns(session: Any) -> None:
    lines = Shell(session).run_line("help").splitlines()
    assert len(lines) > 80
    assert all(len(line) <= 80 for line in lines if line.startswith("  ") and len(line.split("  ")[1]) < 28)
    assert "``" not in Shell(session).run_line("help watch")

"""Command lines: formats, pipes, files, blocks; scripts; what a line is in the library."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import AnswerNo, CommandError, InputError
from workbench.repl.lines import Line, blocks, parse_line
from workbench.repl.prompt import goes_on
from workbench.repl.shell import Shell

BASE = 0x8000_0000


@pytest.fixture
def shell(session: Any) -> Shell:
    return Shell(session)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("where --json", Line("where", "json")),
        ("console | head -3", Line("console", pipe="head -3")),
        ("console --csv | grep a || true", Line("console", "csv", pipe="grep a || true")),
        ("console > out.txt", Line("console", file="out.txt")),
        ("console >> out.txt", Line("console", file="out.txt", append=True)),
        ('catch console "a | b > c"', Line('catch console "a | b > c"')),
        ("si --python", Line("si", library=True)),
    ],
)
def test_line_is_taken_apart(line: str, expected: Line) -> None:
    assert parse_line(line) == expected


def test_operators_of_expressions_are_not_pipes_or_files() -> None:
    assert parse_line("p $a0 | 3", expressive=True) == Line("p $a0 | 3")
    assert parse_line("p $a0 > 3", expressive=True) == Line("p $a0 > 3")
    assert parse_line("sql select a || b from t", expressive=True) == Line("sql select a || b from t")
    assert parse_line("p $a0 | cat", expressive=True) == Line("p $a0", pipe="cat")
    assert parse_line("py 1 | 2 > 1", plain=True) == Line("py 1 | 2 > 1")


@pytest.mark.parametrize("line", ["console |", "console >", "console >> "])
def test_pipe_or_file_that_is_missing_is_told(line: str) -> None:
    with pytest.raises(CommandError, match="is needed behind"):
        parse_line(line)


@given(st.text(max_size=60), st.booleans(), st.booleans())
def test_any_line_is_parsed_or_refused(line: str, expressive: bool, plain: bool) -> None:
    with contextlib.suppress(CommandError):
        assert isinstance(parse_line(line, expressive, plain), Line)


def test_output_goes_through_a_program(shell: Shell) -> None:
    assert shell.run_line("info registers | head -1").split() == ["register", "value", "means"]
    with pytest.raises(CommandError, match="exit code 3"):
        shell.run_line("where | exit 3")


def test_output_goes_to_a_file(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    assert shell.run_line(f"echo one > {path}") == ""
    shell.run_line(f"echo two >> {path}")
    assert path.read_text() == "one\ntwo\n"
    with pytest.raises(CommandError, match="can't be written"):
        shell.run_line(f"echo x > {tmp_path}/no/such")


def test_gdb_may_not_use_pipes_and_files(shell: Shell, tmp_path: Path) -> None:
    assert "not for gdb" in shell.monitor(f"where > {tmp_path}/x")
    assert "not for gdb" in shell.monitor("where | cat")
    assert "not through gdb" in shell.monitor(f"source {tmp_path}/x")
    assert list(tmp_path.iterdir()) == []


def test_blocks_are_gathered_up_to_end() -> None:
    lines = ["si", "py", "  if True:", "      x = 1", "end", "where"]
    assert list(blocks(lines)) == ["si", "py\nif True:\n    x = 1", "where"]
    with pytest.raises(CommandError, match="'end' is missing"):
        list(blocks(["sql", "select 1"]))


def test_script_runs_python_blocks(shell: Shell) -> None:
    out: list[str] = []
    shell.run_script(["py", "for i in range(2):", "    print('n', i)", "end"], out.append)
    assert "".join(out) == "n 0\nn 1\n"


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("py for i in range(3):", True),
        ("!f(", True),
        ("py 1 + 1", False),
        ("py for i in x:\n    i\n", False),
        ("sql select (", True),
        ("sql select a,", True),
        ("sql select 1", False),
        ("where", False),
        ("py )", False),
    ],
)
def test_prompt_knows_when_a_line_goes_on(text: str, more: bool) -> None:
    assert goes_on(text) is more


def test_expect_ends_a_script_that_is_wrong(shell: Shell, session: Any) -> None:
    out: list[str] = []
    with pytest.raises(AnswerNo, match=r"expect: .a0 is 0 at position 0"):
        shell.run_script(["expect $pc", "expect $a0", "si"], out.append)
    assert session.cursor == 0
    assert AnswerNo.exit_code == 1


def test_source_runs_commands_and_python(shell: Shell, session: Any, tmp_path: Path) -> None:
    script = tmp_path / "go.wb"
    script.write_text("si 2\necho there\n")
    assert shell.run_line(f"source {script}").endswith("there\n")
    assert session.cursor == 2
    python = tmp_path / "go.py"
    python.write_text("session.goto(7)\nfound = session.cursor\n")
    shell.run_line(f"source {python}")
    assert shell.run_line("py found") == "7\n"
    script.write_text(f"source {script}\n")
    with pytest.raises(CommandError, match="16 deep"):
        shell.run_line(f"source {script}")
    with pytest.raises(InputError):
        shell.run_line("source /no/such/file")


def test_hooks_run_after_motions_alone(shell: Shell) -> None:
    shell.run_line("hook stop p $a0")
    out: list[str] = []
    shell.run_script(["where", "si"], out.append)
    assert "".join(out).endswith("= 0x1 (1)\n") and "".join(out).count("= 0x1") == 1
    for line in ("hook stop si", "hook", "hook start p 1"):
        if line == "hook":
            assert "p $a0" in shell.run_line(line)
            continue
        with pytest.raises(CommandError):
            shell.run_line(line)
    shell.run_line("unhook 1")
    assert shell.run_line("hook") == "No hooks.\n"


def test_habits_of_other_debuggers_work(shell: Shell, session: Any) -> None:
    shell.run_line("!tt 50")
    assert session.cursor == 300
    shell.run_line("b leaf")
    shell.run_line("g-")
    assert session.cursor == 296
    assert "position 296" in shell.run_line("when")
    shell.run_line("restart")
    assert session.cursor == 0


def test_library_calls_are_printed_instead_of_run(shell: Shell, session: Any) -> None:
    assert shell.run_line("c --python") == "session.cont()\n"
    assert shell.run_line("goto 50% --python") == "session.goto('50%')\n"
    assert shell.run_line("c 2 --python") == "for _ in range(2):\n    session.cont()\n"
    assert shell.run_line("!tt 50 --python") == "session.goto('50%')\n"
    break_ = "session.add_breakpoint(session.sym('leaf'), condition='$a0 == 3')\n"
    assert shell.run_line("b leaf if $a0 == 3 --python") == break_
    watch = "session.add_watchpoint(0x80400000, 4, 'w', condition='$value == 2')\n"
    assert shell.run_line("watch 0x80400000 4 if $value == 2 --python") == watch
    assert shell.run_line("x/2gx $sp --python") == "session.read_mem(session.reg('sp'), 16)\n"
    shell.run_line("b leaf")
    assert shell.run_line("delete --python") == "session.delete_stopper(1)\n"
    session.delete_stopper(1)
    asked = "from workbench import Trace\nTrace.of(session).cmd('display $a0')\n"
    assert shell.run_line("display $a0 --python") == asked
    assert session.cursor == 0 and not session.stoppers
    with pytest.raises(CommandError, match="a count must be at least 1"):
        shell.run_line("si 0 --python")


@pytest.mark.parametrize(
    "line", ["syscalls who", "hart 9", "rwatch $a0", "watch", "delay-input 1", "delay-interrupt", "step 0"]
)
def test_library_calls_are_refused_where_the_command_would_be(shell: Shell, line: str) -> None:
    """Each row took its line apart anew, and printed calls for what its command has no meaning for."""
    with pytest.raises(CommandError) as refused:
        shell.run_line(line)
    with pytest.raises(CommandError) as printed:
        shell.run_line(f"{line} --python")
    assert str(printed.value) == str(refused.value)


def test_apropos_finds_by_name_and_by_help(shell: Shell) -> None:
    text = shell.run_line("apropos WATCH")
    assert "rwatch" in text and "delete" in text
    assert "Nothing has" in shell.run_line("apropos xyzzy")

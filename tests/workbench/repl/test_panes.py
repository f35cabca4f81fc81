"""What is shown after a stop: panes, toolbar, progress, source lines, colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from workbench.errors import CommandError
from workbench.lines import Row
from workbench.repl.app import App
from workbench.repl.colours import Colours
from workbench.repl.panes import note_registers
from workbench.repl.progress import progress_line
from workbench.repl.shell import Shell
from workbench.repl.toolbar import Toolbar
from workbench.sources import Sources

BASE = 0x8000_0000


@pytest.fixture
def shell(session: Any) -> Shell:
    return Shell(session)


def test_panes_fit_80_columns_and_have_no_escapes(shell: Shell) -> None:
    text = shell.run_line("context registers code stack backtrace")
    assert [line.split()[1] for line in text.splitlines() if line.startswith("──")] == [
        "registers",
        "code",
        "stack",
        "backtrace",
    ]
    assert "\x1b" not in text
    registers = text.split("── code")[0]
    assert max(map(len, registers.splitlines())) < 80


def test_registers_that_changed_are_marked(shell: Shell) -> None:
    note_registers(shell.context)
    shell.run_line("si")
    text = shell.run_line("context registers")
    assert "  a0 0000000000000001*" in text
    assert "  ra 0000000080000008 " in text
    assert "*" not in shell.run_line("goto 0 ").partition("──")[2]


def test_code_is_listed_from_the_symbol_on(shell: Shell) -> None:
    shell.run_line("goto 4")
    lines = shell.run_line("context code").splitlines()
    assert lines[1].startswith("   0x80000000 <loop>")
    assert any(line.startswith("=> 0x80000008") for line in lines)


def test_panes_are_chosen_by_name(shell: Shell) -> None:
    shell.run_line("context only code")
    assert shell.context.panes == ("code",)
    assert list(json.loads(shell.run_line("context --json"))) == ["code"]
    shell.run_line("context off")
    assert not shell.context.panes
    for line in ("context nonsense", "context only", "context only x"):
        with pytest.raises(CommandError):
            shell.run_line(line)


def test_motions_show_panes_on_a_terminal(session: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with create_pipe_input() as pipe:
        pipe.send_text("where\nsi\nquit\n")
        App(session, input=pipe, output=DummyOutput(), panes=True).run()
    assert capsys.readouterr().out.count("── registers") == 1


def test_toolbar_tells_share_time_and_kind(shell: Shell) -> None:
    shell.run_line("goto 300")
    text = Toolbar(shell.context).text()
    assert text.startswith("50.0 % · 0.000000 s") and text.endswith("replay")
    assert Toolbar(Shell(None).context).text() == ""


def test_progress_has_a_speed_only_forwards() -> None:
    bar = "██████░░░░░░ 50 % · position 500"
    assert progress_line(500, 1000, 200, 0.5) == f"{bar} · 0 M steps/s · 1 s to the end · Ctrl-C stops"
    assert "steps/s" not in progress_line(500, 1000, -200, 0.5)


def test_colours_leave_the_text_as_it_is() -> None:
    text = "── code ──\n=> 0x1 <f>: nop\n  a0 0000000000000001*"
    shown = Colours().of(text, "context")
    assert shown != text
    import re

    assert re.sub(r"\x1b\[[0-9;]*m", "", shown) == text


def test_source_files_are_found_by_the_end_of_their_path(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "main.c").write_text("one\ntwo\nthree\n")
    sources = Sources(tmp_path)
    assert sources.lines("/build/of/kernel/sub/main.c", 2, 9) == [(2, "two"), (3, "three")]
    assert sources.lines("main.c", 1, 2) == []
    sources.folders.append(tmp_path / "sub")
    assert sources.lines("main.c", 1, 1) == []
    sources.forget()
    assert sources.lines("../main.c", -5, 1) == [(1, "one")]


def test_list_and_stops_show_source_lines(
    shell: Shell, session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop.c").write_text("int a;\nint loop(void)\n{\n")
    monkeypatch.chdir(tmp_path)
    session.lines.add([Row(BASE, "/src/loop.c", 2, True), Row(BASE + 0x0E, "", 0, True)])
    assert "/src/loop.c:2   int loop(void)" in shell.run_line("si")
    assert "=>     2 int loop(void)" in shell.run_line("list")
    assert json.loads(shell.run_line("list loop.c:2 --json"))["line"] == 2
    assert "=>     2 int loop(void)" in shell.run_line("context source")
    assert "loop.c" in shell.run_line("info line loop")
    assert "at 0x80000000" in shell.run_line("b loop.c:2")
    shell.run_line(f"directory {tmp_path}")
    for line in ("list leaf", "b loop.c:9", "list loop.c:9", "directory /no/such", "info line leaf"):
        with pytest.raises(CommandError):
            shell.run_line(line)

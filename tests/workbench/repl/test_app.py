"""The REPL's application: a pipe for a terminal, prompts, completion, Ctrl-C."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from workbench.errors import CommandError
from workbench.repl.app import App, interruptible, run_commands
from workbench.repl.completion import candidates
from workbench.repl.shell import Shell
from workbench.symbols import Symbol

BASE = 0x8000_0000


def test_lines_typed_on_a_terminal_run_until_quit(session: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with create_pipe_input() as pipe:
        pipe.send_text("si 3\nnonsense\n\nwhere\nquit\n")
        code = App(session, input=pipe, output=DummyOutput()).run()
    told = capsys.readouterr()
    assert code == 0
    assert "position 3 of 600" in told.out
    assert "error: no command 'nonsense'" in told.err


def test_end_of_input_leaves(session: Any) -> None:
    with create_pipe_input() as pipe:
        pipe.send_text("\x04")
        assert App(session, input=pipe, output=DummyOutput()).run() == 0


def test_prompt_has_position_hart_mode_and_symbol(session: Any) -> None:
    session.goto(1)
    assert App(session).prompt() == "(1 h0 M loop+0x4) "
    assert App(None).prompt() == "(workbench) "


def test_without_a_terminal_lines_come_from_the_pipe(
    session: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("si\nwhere\n"))
    assert App(session).run() == 0
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("p nowhere\n"))
    assert App(session).run() == 1


def test_commands_end_at_the_first_that_fails(session: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError):
        run_commands(session, ["si", "p nowhere", "si"])
    assert session.cursor == 1


def test_ctrl_c_interrupts_a_motion_and_the_session_stays(session: Any) -> None:
    shell = Shell(session)

    def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert session._interrupted.wait(5)

    session.on_cont = press
    before = signal.getsignal(signal.SIGINT)
    with interruptible(shell):
        assert "Interrupted." in shell.run_line("c")
    assert signal.getsignal(signal.SIGINT) is before
    session.on_cont = lambda: None
    assert "end of the trace" in shell.run_line("c")
    assert threading.current_thread() is threading.main_thread()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("reverse-c", ["reverse-continue"]),
        ("info reg", ["registers"]),
        ("b le", ["leaf"]),
        ("b *le", ["leaf"]),
        ("p $mst", ["$mstatus"]),
        ("x/4i lo", ["loop"]),
        ("info registers sep", ["sepc"]),
        ("goto e", ["end"]),
        ("sql select * from chec", ["checkpoints"]),
        ("help reverse-s", ["reverse-step", "reverse-stepi"]),
        ("xyzzy a", []),
        ("catch sys", ["syscall"]),
        ("context st", ["stack"]),
        ("rvc", ["reverse-continue"]),
        ("b eaf", ["leaf"]),
    ],
)
def test_completion_follows_from_what_a_command_declares(
    session: Any, line: str, expected: list[str]
) -> None:
    assert candidates(Shell(session).context, line)[1] == expected


def test_files_complete(session: Any, tmp_path: Any) -> None:
    (tmp_path / "one.trace").touch()
    (tmp_path / "sub").mkdir()
    shell = Shell(session)
    assert candidates(shell.context, f"open {tmp_path}/o")[1] == [f"{tmp_path}/one.trace"]
    assert candidates(shell.context, f"open {tmp_path}/")[1] == [f"{tmp_path}/one.trace", f"{tmp_path}/sub/"]


def test_startup_file_runs_before_the_first_prompt(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "workbench").mkdir()
    (tmp_path / "workbench" / "startup").write_text("context only code\npy\nmine = 42\nend\n")
    with create_pipe_input() as pipe:
        pipe.send_text("py mine\nquit\n")
        app = App(session, input=pipe, output=DummyOutput())
        assert app.run() == 0
    assert app.shell.context.panes == ("code",)
    assert "42" in capsys.readouterr().out


def test_pipes_and_files_work_at_the_prompt(
    session: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with create_pipe_input() as pipe:
        pipe.send_text(f"info harts | wc -l\nwhere > {tmp_path}/out\nwhere --python\nquit\n")
        App(session, input=pipe, output=DummyOutput()).run()
    out = capfd.readouterr().out
    assert out.split()[0] == "4"
    assert "session.cursor" in out and "position" not in out
    assert "position 0 of 600" in (tmp_path / "out").read_text()


def test_completion_finds_its_way_among_many_symbols(session: Any) -> None:
    names = [f"symbol_{number}_{number * 7919 % 100_003}" for number in range(150_000)]
    session.symbols.add(Symbol(BASE + 0x10_0000 + 4 * i, 4, name, "func") for i, name in enumerate(names))
    context = Shell(session).context
    candidates(context, "b symbol_1")
    candidates(context, "b 99_78")
    assert candidates(context, "b symbol_777")[1]
    assert candidates(context, "b 149999_")[1] == [names[149_999]]

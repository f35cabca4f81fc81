"""Configuration, aliases, hooks, panes on another terminal, colours, notebooks."""

from __future__ import annotations

import os
import pty
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from workbench.errors import CommandError, InputError
from workbench.output import Record, Table, Text
from workbench.repl.app import App
from workbench.repl.colours import Colours, escape
from workbench.repl.settings import Settings, load_settings, parse_settings
from workbench.repl.shell import Shell


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "workbench").mkdir()
    return tmp_path / "workbench" / "config.toml"


def test_without_a_file_the_defaults_hold(config: Path) -> None:
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[repl", "can't be read"),
        ("[repl]\nkeys = 'ed'", r"repl\.keys: 'ed' means nothing; there are emacs, vi"),
        ("[repl]\npanes = ['nothing']", "nothing"),
        ("[repl]\npanes = 'code'", "a list of texts was expected"),
        ("[rebl]\n", "'rebl' means nothing; there are aliases"),
        ("[colours]\nsky = 'ansiblue'", "'sky' means nothing"),
        ("[hooks]\nleap = ['where']", "'leap' means nothing"),
        ("aliases = 3", r"\[aliases\] was expected to be a table"),
    ],
)
def test_what_means_nothing_is_told_with_its_place(config: Path, text: str, why: str) -> None:
    config.write_text(text)
    with pytest.raises(InputError, match=why) as told:
        load_settings()
    assert str(config) in str(told.value)


def test_configuration_reaches_the_prompt(
    session: Any, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(
        "[repl]\nkeys = 'vi'\npanes = ['code']\n[aliases]\nww = 'where --json'\n[hooks]\nstop = ['echo stopped']\n"
    )
    with create_pipe_input() as pipe:
        pipe.send_text("si\rww\r\x1bddiquit\r")  # vi: escape, delete the line, insert
        app = App(session, input=pipe, output=DummyOutput())
        assert app.run() == 0
    assert app.shell.context.panes == ("code",)
    out = capsys.readouterr().out
    assert "stopped" in out and '"position": 1' in out


def test_aliases_stand_for_beginnings_of_lines(session: Any) -> None:
    shell = Shell(session)
    shell.run_line("alias at = x/1i")
    assert shell.run_line("at leaf").startswith("   0x80000020 <leaf>")
    assert "x/1i" in shell.run_line("alias")
    for line in ("alias goto = where", "alias x", "alias a b = where", "alias a = nonsense"):
        with pytest.raises(CommandError):
            shell.run_line(line)


def test_hooks_follow_stops_inputs_and_bookmarks(session: Any) -> None:
    inputs: list[Any] = []
    session.trace.sql = lambda text, params=(): (["1"], inputs)
    session.trace.bookmarks = lambda: [SimpleNamespace(icount=7)]
    shell = Shell(session)
    for happening in ("stop", "input", "bookmark"):
        shell.run_line(f"hook {happening} echo {happening}!")
    shell.run_line("si")
    assert shell.after_motion() == "stop!\n"
    inputs.append((1,))
    shell.run_line("si")
    assert shell.after_motion() == "stop!\ninput!\n"
    inputs.clear()
    shell.run_line("goto 7")
    assert shell.after_motion() == "stop!\nbookmark!\n"


def test_panes_are_drawn_on_another_terminal(
    session: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = pty.openpty()
    with create_pipe_input() as pipe:
        pipe.send_text(f"context to {os.ttyname(theirs)}\nsi\ncontext to {tmp_path / 'file'}\nsi\nquit\n")
        (tmp_path / "file").touch()
        App(session, input=pipe, output=DummyOutput(), panes=True, settings=Settings(panes=("code",))).run()
    drawn = os.read(ours, 1 << 16).decode()
    os.close(ours)
    os.close(theirs)
    assert drawn.startswith("\x1b[H") and "── code" in drawn
    told = capsys.readouterr()
    assert "── code" not in told.out and "that is no terminal" in told.err


def test_colours_are_those_that_are_configured() -> None:
    plain = "── code ──\n=> 0x80000000 <loop>:  addi a0"
    assert "\x1b[33m<loop>\x1b[0m" in Colours().of(plain, "asm")
    assert "\x1b[38;2;255;136;0m<loop>" in Colours({"symbol": "#ff8800"}).of(plain, "asm")
    assert Colours(dict.fromkeys(("heading", "current", "symbol", "mnemonic"), "")).of(plain, "asm") == plain
    assert Colours().of(plain, "") == plain
    assert escape("ansibrightred") == "\x1b[91m" and escape("nothing") == ""


def test_devices_pane_has_registers_of_a_machine(builtin_image: bytes, tmp_path: Path) -> None:
    from machine.config import Images, MachineConfig
    from workbench.replay.recorder import Recorder
    from workbench.session import Session

    path = tmp_path / "x.trace"
    recorder = Recorder(MachineConfig(memory_bytes=32 << 20), Images(kernel=builtin_image), path)
    recorder.run(steps=200_000)
    recorder.board.engine.close()
    with Session.open(path) as session:
        session.goto("end")
        rows = Shell(session).run_line("context devices").splitlines()[1:]
    assert any(row.split()[:2] == ["plic", "0xc000000"] for row in rows)
    assert any(row.startswith("uart0") and "0x10000000" in row for row in rows)
    assert all(len(row) < 80 for row in rows)


def test_results_show_themselves_in_a_notebook() -> None:
    table = Table(("name", "at"), [("<b>", 255)], {"at": "hex"})
    assert (
        table._repr_html_()
        == "<table><tr><th>name</th><th>at</th></tr><tr><td>&lt;b&gt;</td><td>0xff</td></tr></table>"
    )
    assert "<th>n</th><td>1</td>" in Record({"n": 1})._repr_html_()
    assert Text("a < b")._repr_html_() == "<pre>a &lt; b</pre>"


def test_commands_are_python_too(builtin_image: bytes, tmp_path: Path) -> None:
    from machine.config import Images, MachineConfig
    from workbench import Trace
    from workbench.replay.recorder import Recorder

    path = tmp_path / "x.trace"
    recorder = Recorder(MachineConfig(memory_bytes=32 << 20), Images(kernel=builtin_image), path)
    recorder.run(steps=1000)
    recorder.board.engine.close()
    with Trace.open(path) as trace:
        trace.cmd("si 10")
        assert trace.cursor == 10
        result = trace.cmd("info checkpoints")
        assert isinstance(result, Table) and "<table>" in result._repr_html_()


def test_settings_are_toml(config: Path) -> None:
    config.write_text('[repl]\npager = "more"\n')
    assert load_settings().pager == "more" == parse_settings(tomllib.loads(config.read_text()), "x").pager

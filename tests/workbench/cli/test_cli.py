"""The command line's contract: exit codes, one line an error, data on stdout; without a machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from workbench.cli import cli, run
from workbench.cli.debug import parse_listen
from workbench.errors import UsageError

ROOT = Path(__file__).parents[3]


def invoke(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(arguments)
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.fixture(autouse=True)
def no_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_DEBUG", raising=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("record",),
        ("record", "-o", "x.trace"),
        ("record", "--netdev", "user", "-o", "x.trace"),
        ("run", "--kernel"),
        ("run", "--kernel", "k", "--memory", "lots"),
        ("run", "--kernel", "k", "--smp", "0"),
        ("run", "--kernel", "k", "--smp", "17"),
        ("run", "--kernel", "k", "--cpu", "rv64,x=on"),
        ("run", "--kernel", "k", "--cpu", "rv64,v=1"),
        ("run", "--kernel", "k", "--drive", "format=raw"),
        ("run", "--kernel", "k", "--drive", "file=x,bus=usb"),
        ("run", "--kernel", "k", "--drive", "file=x,if=ide"),
        ("run", "--kernel", "k", "--backend", "magic"),
        ("run", "--kernel", "k", "-M", "pc"),
        ("run", "--initrd", "i"),
        ("query",),
        ("trace", "nonsense"),
        ("gdbserver", "x.trace", "--listen", "nowhere"),
        ("--nonsense",),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = invoke(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("workbench: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "missing.trace", "select 1"),
        ("trace", "info", "missing.trace"),
        ("replay", "missing.trace"),
        ("debug", "missing.trace", "-c", "where"),
        ("missing.trace",),
        ("run", "--kernel", "missing"),
        ("run", "--kernel", os.devnull),
        ("debug", "missing.trace", "-x", "missing.gdb"),
    ],
)
def test_input_that_cannot_be_used_is_one_line_and_exit_code_3(
    arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = invoke(capsys, *arguments)
    assert (code, out) == (3, "")
    assert err.startswith("workbench: error: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_file_that_is_no_trace_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "text.trace"
    path.write_text("not a database\n" * 100)
    code, out, err = invoke(capsys, "trace", "info", str(path))
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "text.trace" in err


class OwnError(Exception):
    """An error of another package, with a code of its own."""

    exit_code = 4


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (OwnError("two\nlines"), 4, "workbench: error: two lines\n"),
        (RuntimeError("broken"), 70, "workbench: error: bug: RuntimeError: broken; --debug shows where\n"),
        (KeyboardInterrupt(), 130, "\nworkbench: error: interrupted\n"),
    ],
)
def test_every_error_has_its_exit_code_and_line(
    error: BaseException,
    code: int,
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setitem(cli.commands, "fail", click.Command("fail", callback=fail))
    assert invoke(capsys, "fail") == (code, "", text)


def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_DEBUG", "")
    code, _, err = invoke(capsys, "--debug", "trace", "info", "missing.trace")
    assert code == 3
    assert "Traceback" in err


def test_help_lists_the_commands() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "workbench", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    names = "record run replay debug gdbserver query trace hunt img nbd guest demo doctor bench".split()
    for name in names:
        assert f"  {name} " in done.stdout


#: What a command line may not import on its way to what it was asked for.
HEAVY = {
    "help": "machine machine.tcg.engine traces sqlite3 zstandard capstone prompt_toolkit pygments elftools pytest",
    "record": "traces.reader workbench.session workbench.query workbench.kernel workbench.gdbstub workbench.repl"
    " workbench.bench workbench.cli.img workbench.cli.nbd workbench.cli.bench workbench.cli.trace machine.block"
    " capstone prompt_toolkit pygments elftools pytest sqlite_utils socket shutil tempfile csv",
    "run": "traces.rows traces.reader workbench.cli.debug sqlite3 zstandard hashlib difflib traceback html json base64",
}


@pytest.mark.parametrize("what", HEAVY)
def test_nothing_is_imported_that_is_not_needed(what: str, tmp_path: Path) -> None:
    """A recording is to begin at once: the modules of every command were once imported first."""
    kernel = str(ROOT / "workbench/guests/builtin/builtin.elf")
    line = {
        "help": ["--help"],
        "record": [
            "record",
            "-o",
            str(tmp_path / "t.trace"),
            "--kernel",
            kernel,
            "--no-input",
            "--steps",
            "1000",
        ],
        "run": ["run", "--kernel", kernel, "-m", "128M", "--no-input", "--steps", "1000"],
    }[what]
    code = (
        f"import sys; from workbench.cli import run; run({line!r});"
        f"print([m for m in {HEAVY[what].split()!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "t.trace").exists() == (what == "record")


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    def walk(command: click.Command, path: tuple[str, ...]) -> None:
        code, out, _ = invoke(capsys, *path, "--help")
        assert code == 0 and "Usage:" in out
        assert command.help, path
        walked.append(path)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                walk(below, (*path, name))

    walked: list[tuple[str, ...]] = []
    walk(cli, ())
    assert len(walked) > 40


def test_doctor_names_what_is_missing_and_what_mends_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = invoke(capsys, "doctor", "--json")
    rows = json.loads(out)
    assert code in (0, 6)
    assert code == (6 if any(row["state"] == "missing" for row in rows) else 0)
    assert all(row["mend"] for row in rows if row["state"] != "ok")
    assert {"click", "translator core"} <= {row["what"] for row in rows}


@pytest.mark.parametrize(("has_jit", "kinds"), [(True, "JIT and interpreter"), (False, "interpreter only")])
def test_doctor_tells_whether_this_host_has_a_code_generator(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, has_jit: bool, kinds: str
) -> None:
    """It asked the class instead of a machine, and said that every host had one."""
    translator = pytest.importorskip("machine.tcg.translator", reason="the translator's core is not built")
    monkeypatch.setattr(translator.Translator, "has_jit", has_jit)
    _, out, _ = invoke(capsys, "doctor", "--json")
    assert f"built, {kinds}," in out


def test_output_to_a_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -m workbench --help | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:1234", ("127.0.0.1", 1234)),
        (":0", ("127.0.0.1", 0)),
        ("99", ("127.0.0.1", 99)),
        ("[::1]:5", ("::1", 5)),
    ],
)
def test_listen_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["", "host", "host:", ":65536", ":²", "a:-1"])
def test_listen_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_listen(text)

"""The documentation: reference pages are current, everything has help and an example, and every example runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest

from workbench.errors import WorkbenchError
from workbench.output import Table, Text
from workbench.reference.commandline import SHELLS, commands, completion
from workbench.reference.pages import pages
from workbench.repl.context import Quit
from workbench.repl.registry import all_commands
from workbench.repl.shell import Shell
from workbench.session import Session

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
#: Commands whose example is about a Linux kernel, or asks for a file that only its user has.
LINUX = {"dmesg", "lsmod", "ps", "ptype-print", "vmmap", "syscalls", "switches", "mounts"}
FILES = {"open", "source", "diff", "directory", "symbol-file"}


@pytest.fixture(scope="module")
def trace(panic_trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(panic_trace, tmp_path_factory.mktemp("docs") / "demo.trace"))


@pytest.fixture
def shell(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """Return a shell in ``pool_put``, on a copy of the trace."""
    own = shutil.copy(trace, tmp_path)
    monkeypatch.chdir(tmp_path)
    with Session.open(own) as session:
        session.goto("50%")
        session.add_breakpoint(session.sym("pool_put"))
        session.reverse_cont()
        shell = Shell(session)
        for line in ("display ticks", "hook stop where", "bookmark here"):
            shell.run_line(line)
        yield shell


@pytest.mark.slow
def test_reference_pages_are_current() -> None:
    made = pages()
    folder = DOCS / "reference"
    stale = [
        name
        for name, text in made.items()
        if not (folder / name).exists() or (folder / name).read_text() != text
    ]
    assert not stale, "`make docs` writes them anew"
    assert {path.name for path in folder.iterdir()} == set(made)


def test_every_command_of_the_repl_has_help_and_an_example() -> None:
    for entry in all_commands().commands:
        assert entry.summary.endswith((".", ";", ":")), entry.name
        assert entry.examples, f"{entry.name}: a line 'Example: …' in its docstring is missing"
        for example in entry.examples:
            assert all_commands().resolve(example)[0] is entry or entry.name == "quit", example


def test_every_table_has_help() -> None:
    from traces.queries import declared

    assert len(declared()) >= 8
    assert all((query.function.__doc__ or "").strip() for query in declared().values())


def test_every_command_of_the_command_line_has_help() -> None:
    found = dict(commands())
    assert {"record", "dap", "trace verify", "img info"} <= set(found)
    for name, command in found.items():
        assert command.help, name
        options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        assert all(option.help for option in options), (name, [o.name for o in options if not o.help])


@pytest.mark.parametrize(
    "name",
    [
        c.name
        for c in all_commands().commands
        if c.name not in LINUX | FILES and c.run.__module__.startswith("workbench")
    ],
)
def test_examples_of_the_help_run(shell: Shell, name: str) -> None:
    (entry,) = [each for each in all_commands().commands if each.name == name]
    for example in entry.examples:
        try:
            shell.run_line(example)
        except Quit:
            assert name == "quit"
        except WorkbenchError as error:
            # what the guest does not have here is said; that the example is understood is what counts
            assert name in ("drop-input", "delay-input", "delay-interrupt", "until", "reverse-until", "pt"), (
                error
            )


#: Commands that only the REPL has: what it shows, and what it keeps.
OWN = {
    *("alias", "apropos", "context", "directory", "disassemble", "display", "down", "echo", "frame", "help"),
    *(
        "hook",
        "ignore",
        "list",
        "open",
        "ptype",
        "quit",
        "source",
        "undisplay",
        "unhook",
        "up",
        "whatis",
        "x",
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        c.name
        for c in all_commands().commands
        if c.name not in FILES and c.run.__module__.startswith("workbench")
    ],
)
def test_examples_of_the_help_have_calls_of_the_library_that_do_the_same(shell: Shell, name: str) -> None:
    """What ``--python`` prints runs, and leaves the cursor and the breakpoints that the command leaves."""
    (entry,) = [each for each in all_commands().commands if each.name == name]
    session = shell.context.session
    for example in entry.examples:
        before = session.cursor
        code = shell.run_line(f"{example} --python")
        compile(code, example, "exec")
        assert (".cmd(" in code) == (name in OWN), code
        assert session.cursor == before
        if name in LINUX | OWN | {"delete"}:  # what is deleted once is not there again
            continue
        shown, error = left_by(session, partial(shell.run_line, example))
        session.goto(before)
        again, same = left_by(session, partial(exec, code, {"session": session}))
        assert (again, error is None) == (shown, same is None), (code, error, same)


def left_by(session: Session, does: Callable[[], object]) -> tuple[object, Exception | None]:
    """Do something; return where it leads and what stops are set, which are taken away, and its error."""
    error = None
    known = {point.number for point in session.stoppers}
    try:
        does()
    except (WorkbenchError, AssertionError) as caught:
        error = caught
    new = [point for point in session.stoppers if point.number not in known]
    found = [(p.kind, p.text, p.condition, p.temporary) for p in new]
    for point in new:
        session.delete_stopper(point.number)
    return (session.cursor, [p.enabled for p in session.stoppers], found), error


@pytest.mark.slow
def test_calls_of_the_library_ask_linux_the_same(debian_guest: object, tmp_path: Path) -> None:
    """Examples about a Linux kernel, as calls of the library, find what the commands find."""
    options = debian_guest.options("console=ttyS0 wb.poweroff")  # type: ignore[attr-defined]
    path = tmp_path / "boot.trace"
    command = [sys.executable, "-m", "workbench", "record", "-o", str(path), *options, "--no-input"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    with Session.open(path) as session:
        session.goto("90%")
        shell = Shell(session)
        for name in sorted(LINUX):
            (entry,) = [each for each in all_commands().commands if each.name == name]
            (example,) = entry.examples
            *imports, call = shell.run_line(f"{example} --python").splitlines()
            names: dict[str, object] = {"session": session}
            exec("\n".join(imports), names)
            found = eval(call, names)
            shown = shell.execute(example)
            if isinstance(shown, Table):
                assert isinstance(found, list) and len(found) == len(shown.rows), call
            else:
                assert isinstance(shown, Text)
                assert str(shown.value if name == "ptype-print" else shown.text.splitlines()[-1]) in str(
                    found
                )


def fenced(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def test_commands_of_the_guide_for_scripts_run(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = fenced("guide-scripts.md", "repl")
    assert len(found) >= 3
    with Session.open(trace) as session:
        shell = Shell(session)
        out: list[str] = []
        for block in found:
            shell.run_script(block.splitlines(), out.append)
    text = "".join(out)
    assert "True" in text and "task tickd" in text and '"where": "tick_drain' in text


def test_python_of_the_guide_for_scripts_runs(trace: Path, tmp_path: Path) -> None:
    (code,) = fenced("guide-scripts.md", "python")
    shutil.copy(trace, tmp_path / "demo.trace")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert " panic " in done.stdout


def test_configuration_of_the_guide_is_one() -> None:
    from workbench.repl.settings import parse_settings

    (text,) = fenced("guide-scripts.md", "toml")
    settings = parse_settings(tomllib.loads(text), "guide")
    assert settings.keys == "vi" and settings.aliases == {"pool": "p *pool.free"}


@pytest.mark.slow
def test_guide_for_linux_leads_to_the_missing_driver(debian_guest: object, tmp_path: Path) -> None:
    guest = debian_guest.folder  # type: ignore[attr-defined]
    path = tmp_path / "noroot.trace"
    append = "console=ttyS0 root=/dev/vda1 panic=-1"
    machine = ["--kernel", str(guest / "Image"), "--append", append, "--no-input", "--fail", "Kernel panic"]
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "record", "-o", str(path), *machine],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 1, done.stderr
    out: list[str] = []
    with Session.open(path) as session:
        shell = Shell(session)
        for block in fenced("guide-linux.md", "repl"):
            shell.run_script(block.splitlines(), out.append)
        for name in sorted(LINUX - {"switches", "mounts"}):
            (entry,) = [each for each in all_commands().commands if each.name == name]
            for example in entry.examples:
                out.append(shell.run_line(example))
    text = "".join(out)
    assert "VFS: Unable to mount root fs" in text and "mount_root_generic" in text
    assert '"/dev/root"' in text and "No modules are loaded." in text


@pytest.mark.slow
@pytest.mark.fetched("debian-riscv64/vmlinux")
def test_guide_for_linux_shows_what_a_session_in_source_lines_prints(
    debian_guest: Any, tmp_path: Path
) -> None:
    path, folder = tmp_path / "boot.trace", debian_guest.folder
    machine = ["--kernel", folder / "Image", "--initrd", folder / "initrd.cpio.gz", "--no-input"]
    command = [sys.executable, "-m", "workbench"]
    options = {
        "env": {**os.environ, "PYTHONPATH": str(ROOT)},
        "capture_output": True,
        "text": True,
        "timeout": 280,
    }
    record = [*command, "record", "-o", path, *machine, "--append", "console=ttyS0 wb.poweroff"]
    done: Any = subprocess.run(list(map(str, record)), check=True, **options)  # type: ignore[call-overload]
    (script,), (shown,) = (fenced("guide-linux.md", kind) for kind in ("repl-debug", "text"))
    lines = [part for line in script.splitlines() for part in ("-c", line)]
    debug = [*command, "debug", str(path), "--symbols", str(folder / "vmlinux"), *lines]
    done = subprocess.run(debug, check=True, **options)  # type: ignore[call-overload]
    assert _without_numbers(done.stdout) == _without_numbers(shown)


def _without_numbers(text: str) -> list[str]:
    """Return the lines of a session, without what differs between two boots."""
    return [re.sub(r"0x[0-9a-f]+|[0-9_]{2,}|\s+", " ", line).strip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("shell_name", SHELLS)
def test_completion_scripts_complete_commands(shell_name: str) -> None:
    assert "_WORKBENCH_COMPLETE" in completion(shell_name)


def test_shell_completion_answers() -> None:
    asked = {"_WORKBENCH_COMPLETE": "bash_complete", "COMP_WORDS": "workbench rep", "COMP_CWORD": "1"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **asked}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.argv[0] = 'workbench'; from workbench.cli import main; main()",
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "plain,replay" in done.stdout, done.stderr


def test_names_of_commands_in_prose_exist() -> None:
    """Every ``workbench COMMAND`` of the documentation is one."""
    known = {*dict(commands()), "T"}
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for word in re.findall(r"(?:`|^    )workbench ([a-z]+)\b", page.read_text(), re.MULTILINE):
            assert word in known, (page.name, word)

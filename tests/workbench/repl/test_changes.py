"""Commands that change the run: what they ask of the session, and real branches of the built-in guest."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import CommandError
from workbench.repl.shell import Shell
from workbench.replay.settings import FIXED, SETTINGS
from workbench.session import Session

BASE = 0x8000_0000


@pytest.fixture
def shell(session: Any) -> Shell:
    return Shell(session)


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("set $a0 = 5", ("reg", 0, "x10", 5)),
        ("set var $pc = leaf", ("reg", 0, "pc", BASE + 0x20)),
        ("set *(u32 *)message = 0x01020304", ("mem", BASE + 0x1000, b"\x04\x03\x02\x01")),
        ("set {u8}0x80001001 = 0x1ff", ("mem", BASE + 0x1001, b"\xff")),
        ("set *0x80001000 = 1", ("mem", BASE + 0x1000, b"\x01" + bytes(7))),
        ("send ls -l", ("inject", b"ls -l\n")),
        (r"send \x03", ("inject", b"\x03\n")),
        ("drop-input 3", ("drop", 3)),
        ("delay-input 3 500", ("delay", 3, 500)),
        ("delay-interrupt 500", ("interrupt", 500)),
        ("delay-interrupt never", ("interrupt", None)),
        ("drop-input uart0", ("drop", "uart0")),
        ("set quantum 5_000", ("configure", "quantum", "5_000")),
        ("set chaos 7", ("configure", "chaos", "7")),
        ("set entropy seed", ("configure", "entropy", "seed")),
    ],
)
def test_changes_reach_the_session(shell: Shell, session: Any, line: str, written: tuple[Any, ...]) -> None:
    assert shell.run_line(line) == "branch at 0\n"
    assert session.written == [written]


@pytest.mark.parametrize(
    "line",
    [
        "set $a0",
        "set = 1",
        "set {nothing}0 = 1",
        "set *(u8 *)0x10 = 1",
        "drop-input",
        "delay-input 3",
        "delay-interrupt",
        "set quantum 0",
        "set quantum many",
        "set chaos on",
        "set entropy dice",
        "set seed 5",
        "branch diff",
    ],
)
def test_changes_that_mean_nothing_are_refused(shell: Shell, session: Any, line: str) -> None:
    with pytest.raises(CommandError):
        shell.run_line(line)
    assert session.written == []


@pytest.mark.parametrize("name", FIXED)
def test_what_a_machine_is_made_of_takes_a_new_recording(shell: Shell, session: Any, name: str) -> None:
    with pytest.raises(CommandError, match=f"record anew with {FIXED[name]}"):
        shell.run_line(f"set {name} 1")
    assert session.written == []


def test_settings_are_listed_with_their_values(recorded: Path) -> None:
    with Session.open(recorded) as opened:
        text = Shell(opened).run_line("info settings")
    for name in (*SETTINGS, *FIXED):
        assert re.search(rf"^{name} ", text, re.MULTILINE), text
    assert re.search(r"^quantum +100000 +STEPS ", text, re.MULTILINE)


@pytest.fixture(scope="module")
def recorded(builtin_image: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("changes")
    kernel, trace = folder / "builtin.elf", folder / "guest.trace"
    kernel.write_bytes(builtin_image)
    command = [sys.executable, "-m", "workbench", "record", "-o", str(trace), "--kernel", str(kernel)]
    subprocess.run([*command, "--append", "safe", "--no-input"], check=True, capture_output=True, timeout=120)
    return trace


def test_write_opens_a_branch_and_the_trace_stays_as_it_is(recorded: Path) -> None:
    from workbench.session import Session

    before = hashlib.sha256(recorded.read_bytes()).hexdigest()
    with Session.open(recorded) as session:
        shell = Shell(session)
        shell.run_line("b tick_record")
        shell.run_line("c")
        shell.run_line("delete")
        told = json.loads(shell.run_line("set ticks = 1000 --json"))
        assert Path(told["branch"]).is_file()
        assert shell.run_line("p *(u32 *)&ticks") == "= 0x3e8 (1000)\n"
        shell.run_line("c")
        assert int(json.loads(shell.run_line("p *(u32 *)&ticks --json"))) > 1000
    with Session.open(recorded) as session:
        shell = Shell(session)
        (row,) = json.loads(shell.run_line("branch --json"))
        assert row["leaves at"] == told["position"]
        assert f"differ from position {told['position']:_} on" in shell.run_line(f"diff {row['branch']}")
        assert "The same run" in shell.run_line(f"diff {recorded}")
        with pytest.raises(CommandError):
            shell.run_line("diff")
        shell.run_line(f"branch {row['branch']}")
        assert shell.context.session.trace.meta["parent"]
        shell.run_line("branch parent")
        assert shell.context.session.trace.path == recorded
        shell.context.session.close()
    assert hashlib.sha256(recorded.read_bytes()).hexdigest() == before

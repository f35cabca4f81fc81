"""The process as a shell sees it: streams that are closed or full, signals at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

WORKBENCH = (sys.executable, "-m", "workbench")
FOR_EVER = "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c"


def wait_for(what: Callable[[], object]) -> None:
    """Wait until something is so; the test's own time limit is the end of it."""
    while not what():
        time.sleep(0.02)


@pytest.fixture
def trace(builtin_path: Path, tmp_path: Path) -> Path:
    path = tmp_path / "short.trace"
    command = (
        *WORKBENCH,
        "record",
        "-o",
        str(path),
        "--kernel",
        str(builtin_path),
        "-m",
        "32M",
        "--no-input",
    )
    subprocess.run((*command, "--steps", "400000"), check=True, capture_output=True)
    return path


def shell(line: str) -> subprocess.CompletedProcess[str]:
    line = line.replace("workbench", " ".join(WORKBENCH))
    return subprocess.run(line, shell=True, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "query {} 'select 1'",
        "trace info {}",
        "debug {} -c where",
        "replay {}",
        "replay --verify {}",
    ],
)
@pytest.mark.parametrize("where", ["> /dev/full", ">&-"])
def test_output_that_cannot_be_written_is_one_line_and_exit_code_3(
    trace: Path, command: str, where: str
) -> None:
    """A full disk behind stdout was called a bug, and a stdout that was closed showed a traceback."""
    done = shell(f"workbench {command.format(trace)} {where}")
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("workbench: error: standard output: can't be written: ")
    assert done.stderr.count("\n") == 1


def test_a_recording_whose_console_has_no_room_ends_with_a_trace(builtin_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "full.trace"
    options = f"--kernel {builtin_path} --append safe -m 32M --no-input"
    done = shell(f"workbench record -o {path} {options} > /dev/full")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert "standard output: can't be written" in done.stderr
    assert shell(f"workbench replay --verify {path}").returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_locale_without_the_characters_of_the_output_is_no_error(trace: Path, encoding: str) -> None:
    """In the C locale, without Python's leave to make it UTF-8, every output with a dot or an ellipsis was a bug."""
    done = shell(
        f"PYTHONUTF8=0 PYTHONIOENCODING={encoding} workbench debug {trace} -c where -c help > /dev/null"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_trace_whose_name_is_not_utf8_is_used_as_any_other(trace: Path) -> None:
    named = trace.with_name(os.fsdecode(b"b\xff\xfe.trace"))
    trace.rename(named)
    for command in (["replay", "--verify"], ["query"], ["trace", "console"]):
        last = ["select count(*) from traps"] if command == ["query"] else []
        done = subprocess.run(
            (*WORKBENCH, *command, named, *last), capture_output=True, check=False, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, b"")
    listing = subprocess.run(
        (*WORKBENCH, "query", named, "select '\udcff'"), capture_output=True, check=False
    )
    assert (listing.returncode, listing.stderr.count(b"\n")) == (2, 1)


def _hears_ctrl_c() -> None:
    """Undo what a shell does to what it runs in the background: Ctrl-C is ignored there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ends_by(number: int, begun: Callable[[], object], *arguments: str) -> tuple[int, str]:
    """Start the program, send this process alone a signal when it has begun; return exit code and stderr."""
    process = subprocess.Popen(
        (*WORKBENCH, *arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hears_ctrl_c,
    )
    try:
        wait_for(lambda: process.poll() is not None or begun())
        process.send_signal(number)
        _, told = process.communicate(timeout=30)
        return process.returncode, told
    finally:
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_query_that_never_ends_is_interrupted(trace: Path, number: int) -> None:
    """SQLite did not let Python see the signal before the statement's end."""
    began = time.monotonic()
    code, told = ends_by(number, lambda: time.monotonic() - began > 1.5, "query", str(trace), FOR_EVER)
    assert code == 130
    assert told.strip() == "workbench: error: interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_hunt_that_is_interrupted_leaves_nothing_half_done(
    long_elf: bytes, tmp_path: Path, number: int, jobs: str
) -> None:
    """It went on until its runs had ended, and left their traces."""
    kernel, out = tmp_path / "long.elf", tmp_path / "found"
    kernel.write_bytes(long_elf)
    machine = ("--kernel", str(kernel), "--bios", "none", "-m", "16M")
    options = ("-o", str(out), "--runs", "8", "--jobs", jobs, "--fail", "nothing")
    code, told = ends_by(number, lambda: any(out.glob("*.trace")), "hunt", *machine, *options)
    assert code == 130, told
    assert "Traceback" not in told
    assert list(out.iterdir()) == []


def test_ctrl_c_while_the_program_is_imported_is_no_traceback() -> None:
    code = "import sys, workbench.__main__ as w; sys.modules['workbench.cli'] = Stop(); w.main()"
    stop = "class Stop:\n def __getattr__(self, name): raise KeyboardInterrupt\n"
    done = subprocess.run(
        [sys.executable, "-c", stop + code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "workbench: error: interrupted\n")

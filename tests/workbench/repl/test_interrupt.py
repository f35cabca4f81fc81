"""Ctrl-C on a real machine: motions end soon in both directions, and the session is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from traces.errors import TraceError
from workbench.errors import WorkbenchError
from workbench.repl.app import interruptible
from workbench.repl.shell import Shell, pipe_through
from workbench.session import Session

STEPS = 1_000_000_000


@pytest.fixture(scope="module")
def shell(long_elf: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A run of 10^9 steps that all do the same."""
    folder = tmp_path_factory.mktemp("long")
    kernel, trace = folder / "long.elf", folder / "long.trace"
    kernel.write_bytes(long_elf)
    command = [sys.executable, "-m", "workbench", "record", "-o", str(trace), "--kernel", str(kernel)]
    limits = ["--bios", "none", "-m", "16M", "--no-input", "--steps", str(STEPS)]
    subprocess.run([*command, *limits], check=True, capture_output=True, timeout=120)
    with Session.open(trace) as session:
        yield Shell(session)


def pressed(shell: Shell, line: str, after_s: float) -> tuple[str, float]:
    """Run a line, press Ctrl-C in it; return what it said, and how long after the key."""
    at = [0.0]

    def press() -> None:
        at[0] = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(after_s, press)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # for a key that comes too late
    timer.start()
    try:
        with interruptible(shell):
            told = shell.run_line(line)
    except (WorkbenchError, TraceError) as error:
        told = str(error)
    took = time.monotonic() - at[0]
    timer.join()
    signal.signal(signal.SIGINT, before)
    return told, took


@pytest.mark.parametrize(
    ("start", "line"),
    [
        ("start", "c"),
        ("end", "rc"),
        ("start", "si 900000000"),
        ("start", "until 0x80f00000"),
    ],
)
def test_ctrl_c_ends_a_motion_soon_and_leaves_the_session_whole(shell: Shell, start: str, line: str) -> None:
    shell.run_line(f"goto {start}")
    shell.run_line("watch 0x80100000 8")
    before = shell.context.session.digest()
    told, took = pressed(shell, line, 0.15)
    shell.run_line("delete")
    assert "nterrupted" in told
    assert took < 0.5  # 100 ms is what is promised on a machine of one's own
    shell.run_line(f"goto {start}")
    assert shell.context.session.digest() == before
    assert shell.run_line("goto 1234567 --json").count("1234567") == 1


def test_time_is_found_after_a_motion_was_interrupted(shell: Shell) -> None:
    """A search for a virtual time once took the interrupt of the motion before it for its own and went astray."""
    shell.run_line("goto 0.25s")
    expected = shell.context.session.cursor
    shell.run_line("goto start")
    pressed(shell, "si 900000000", 0.1)
    shell.run_line("goto 0.25s")
    assert shell.context.session.cursor == expected


def test_ctrl_c_belongs_to_the_pager_while_it_has_the_terminal() -> None:
    """The REPL took the terminal back while the pager still read its keys."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert pipe_through(f"kill -INT {os.getpid()}; sleep 0.1; cat", "text") == "text"
        with pytest.raises(KeyboardInterrupt):
            pipe_through("kill -INT $$", "text")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)

"""The command line on real machines: a tiny guest is recorded, replayed, queried, debugged."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.cli import run

pytest.importorskip("machine.tcg.engine", reason="the translator's core is not built")

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "WORKBENCH_DEBUG": "", "PROMPT_TOOLKIT_NO_CPR": "1"}
COMMAND = [sys.executable, "-m", "workbench"]


def workbench(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    options.setdefault("stdin", subprocess.DEVNULL)
    if "input" in options:
        del options["stdin"]
    return subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False, **options
    )


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory, tiny_elf: bytes) -> Path:
    """Return the trace of the tiny kernel's whole run."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.elf").write_bytes(tiny_elf)
    out = folder / "tiny.trace"
    done = workbench(
        "record", "-o", out, "--kernel", folder / "tiny.elf", "--bios", "none", "-m", "16M", "--no-input"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace("\r", "") == "hello\n"
    assert "the guest switched off" in done.stderr
    return out


def invoke(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_replay_prints_the_console_and_verifies(trace: Path) -> None:
    for backend in ("jit", "interp"):
        done = workbench("replay", trace, "--verify", "--backend", backend)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("hello\n")
        assert re.search(r"^verified: [1-9]\d* digests, [1-9]\d* steps$", done.stdout, re.MULTILINE)


def test_replay_from_each_checkpoint_and_to_a_position(
    trace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", str(trace), "--verify", "--from-each"]) == 0
    assert "verified: " in capfd.readouterr().out
    assert run(["replay", str(trace), "--to", "2"]) == 0
    assert capfd.readouterr().out == ""
    assert run(["replay", str(trace), "--to", "999999999"]) == 2
    assert "position" in capfd.readouterr().err


def test_run_needs_no_trace_and_knows_until_fail_and_steps(kernel: Path) -> None:
    options = ("--kernel", kernel, "--bios", "none", "-m", "16M", "--no-input")
    assert workbench("run", *options).returncode == 0
    assert workbench("run", *options, "--until", "hel+o").returncode == 0
    missed = workbench("run", *options, "--until", "goodbye")
    assert missed.returncode == 1 and "was not met" in missed.stderr
    assert workbench("run", *options, "--fail", "hello").returncode == 1
    stopped = workbench("run", *options, "--steps", "100")
    assert stopped.returncode == 0 and "100 steps" in stopped.stderr
    assert workbench("run", *options, "--until", "(").returncode == 2


def test_timeout_is_exit_code_124_and_the_trace_is_whole(tmp_path: Path) -> None:
    endless = tmp_path / "endless.elf"
    from_conftest = _endless_elf()
    endless.write_bytes(from_conftest)
    out = tmp_path / "endless.trace"
    options = ("--kernel", endless, "--bios", "none", "-m", "16M", "--no-input", "--timeout", "1")
    done = workbench("record", "-o", out, *options)
    assert done.returncode == 124, done.stderr
    verified = workbench("replay", out, "--verify")
    assert verified.returncode == 0, verified.stderr
    info = json.loads(workbench("trace", "info", out, "--json").stdout)
    assert info["clean"] is True
    assert info["final_icount"] > 0 and info["config.harts"] == 1  # numbers: they were texts of numbers


def _endless_elf() -> bytes:
    """Return a kernel that jumps to itself: a segment header and ``j .``."""
    import struct

    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 243, 1, 0x8000_0000, 64, 0, 5, 64, 56, 1, 64, 0, 0)
    header += struct.pack("<IIQQQQQQ", 1, 5, 120, 0x8000_0000, 0x8000_0000, 4, 4, 4096)
    return header + struct.pack("<I", 0x6F)


def test_bad_machines_are_one_line(kernel: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("this is no kernel\n" * 40)
    out = tmp_path / "x.trace"
    for options, code in (
        (("--kernel", text), 3),
        (("--kernel", kernel, "--bios", "none", "--initrd", tmp_path / "nothing"), 3),
        (("--kernel", kernel, "--bios", "none", "--drive", f"file={tmp_path}/nothing"), 3),
        (("--kernel", kernel, "--bios", tmp_path / "nothing"), 3),
    ):
        done = workbench("record", "-o", out, *options, "--no-input")
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert re.fullmatch(r"workbench: error: .+\n", done.stderr)
        assert not out.exists()


def test_query_has_three_formats(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "select key, value from meta where key = 'arch'"
    assert json.loads(invoke(capsys, "query", trace, sql, "--json")[1]) == [
        {"key": "arch", "value": "riscv64"}
    ]
    rows = list(csv.reader(io.StringIO(invoke(capsys, "query", trace, sql, "--csv")[1])))
    assert rows == [["key", "value"], ["arch", "riscv64"]]
    assert "arch  riscv64" in invoke(capsys, "query", trace, sql, "--table")[1]
    code, out, err = invoke(capsys, "query", trace, "delete from meta")
    assert code != 0 and out == "" and err.count("\n") == 1
    assert invoke(capsys, "query", trace, "selec 1")[0] == 2


def test_trace_commands_tell_what_is_in_it(trace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", "info", str(trace), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["clean"] is True and told["inputs"] >= 1
    assert run(["trace", "verify", str(trace)]) == 0
    assert capfd.readouterr().out.startswith("whole: ")
    assert run(["trace", "console", str(trace)]) == 0
    assert capfd.readouterr().out == "hello\n"
    assert run(["trace", "console", str(trace), "--json"]) == 0
    assert [row["data"] for row in json.loads(capfd.readouterr().out)] == ["hello\n"]
    assert run(["trace", "inputs", str(trace), "--csv"]) == 0
    assert capfd.readouterr().out.startswith("id,icount,")


def test_debug_goes_to_the_end_and_back_with_all_registers_the_same(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = []
    for n in (1, 10, 1000):
        lines = ["goto 50%", "digest", f"rsi {n}", f"si {n}", "digest"]
        arguments = [part for line in lines for part in ("-c", line)]
        code, out, err = invoke(capsys, "debug", trace, *arguments)
        assert (code, err) == (0, "")
        digests += re.findall(r"^[0-9a-f]{32,}$", out, re.MULTILINE)
    assert len(digests) == 6 and len(set(digests)) == 1


def test_trace_alone_means_debug_and_reads_commands_from_a_pipe(trace: Path) -> None:
    done = workbench(trace, input="b spin\nc\nwhere\ninfo breakpoints\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Breakpoint 1 at 0x8" in done.stdout and "<spin>" in done.stdout


def test_script_file_runs_and_a_failing_command_is_exit_code_1(trace: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("# a comment\nb off\nc\n\ninfo registers pc\n")
    done = workbench("debug", trace, "-x", script, "-c", "p nowhere", "-c", "where")
    assert done.returncode == 1
    assert "<off>" in done.stdout
    assert re.fullmatch(r"workbench: error: .*nowhere.*\n", done.stderr)


@pytest.mark.skipif(shutil.which("gdb-multiarch") is None, reason="needs gdb-multiarch")
def test_gdb_goes_both_ways_on_a_recorded_run(trace: Path, tmp_path: Path) -> None:
    arguments = [*COMMAND, "gdbserver", str(trace), "--listen", "127.0.0.1:0", "--once"]
    server = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        assert server.stderr is not None
        where = server.stderr.readline().strip().removeprefix("listening on ")
        gdb = ["gdb-multiarch", "-nx", "-batch", str(trace.with_name("tiny.elf"))]
        for line in (
            f"target remote {where}",
            "break *spin",
            "continue",
            "continue",
            "reverse-continue",
            'printf "first %d\\n", $t1',
            "delete",
            "reverse-stepi",
            "info symbol $pc",
            "reverse-continue",
            "continue",
            "info symbol $pc",
        ):
            gdb += ["-ex", line]
        done = subprocess.run(gdb, capture_output=True, text=True, timeout=60, check=False)
        assert "first 2000" in done.stdout, done.stdout + done.stderr
        assert done.stdout.count("No more reverse-execution history") == 2
        assert "off" in done.stdout.splitlines()[-2]
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.wait()


# -- a real terminal


class Terminal:
    """A process on a pseudo-terminal."""

    def __init__(self, *arguments: str | Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            command = [*COMMAND, *map(str, arguments)]
            os.execve(command[0], command, {**ENVIRONMENT, "TERM": "xterm"})
        self.text = ""

    def send(self, data: bytes) -> None:
        os.write(self.fd, data)

    def until(self, pattern: str, timeout_s: float = 30.0) -> None:
        """Read until a pattern shows in what has not been matched yet."""
        deadline = time.monotonic() + timeout_s
        while not (match := re.search(pattern, self.text)):
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.text[-2000:]!r}"
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""
            assert data, f"ended without {pattern!r}: {self.text[-2000:]!r}"
            self.text += data.decode("utf-8", "replace")
        self.text = self.text[match.end() :]

    def wait(self) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            ready, _, _ = select.select([self.fd], [], [], 0.05)
            if ready:
                try:
                    os.read(self.fd, 4096)
                except OSError:
                    continue
        raise AssertionError("it did not end")

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_console_keys_end_debug_and_send(tmp_path: Path, echo_elf: bytes, terminals: list[Terminal]) -> None:
    kernel, out = tmp_path / "echo.elf", tmp_path / "echo.trace"
    kernel.write_bytes(echo_elf)
    terminal = Terminal("record", "-o", out, "--kernel", kernel, "--bios", "none", "-m", "16M")
    terminals.append(terminal)
    terminal.until(">")
    terminal.send(b"ab")
    terminal.until("ab")
    terminal.send(b"\x03\x01\x01")  # Ctrl-C and an escaped Ctrl-A are the guest's
    terminal.until("\x03\x01")
    terminal.send(b"\x01c")
    terminal.until("stands still; 'quit' goes on")
    terminal.until(r"M [^)]*\)")
    terminal.send(b"info inputs\r")
    terminal.until("uart0")
    terminal.send(b"goto start\r")
    terminal.until(r"\(0 h0 M _start\)")
    terminal.send(b"goto end\r")
    terminal.until(r"\([1-9]\d* h0 M [^)]*\)")
    terminal.send(b"send typed\r")
    terminal.until("input before the next step")
    terminal.send(b"quit\r")
    terminal.until("the recording goes on")
    terminal.until("typed")
    terminal.send(b"z")
    terminal.until("z")
    terminal.send(b"\x01x")
    terminal.until(r"ended by Ctrl-A x")
    assert terminal.wait() == 0
    assert workbench("replay", out, "--verify").returncode == 0
    typed = workbench(
        "query", out, "select hex(payload) x from inputs where kind = 'rx' order by id", "--csv"
    ).stdout
    assert "".join(typed.split()[1:]) == b"ab\x03\x01typed\nz".hex().upper()


def test_bytes_piped_in_are_console_input_and_replay_the_same(tmp_path: Path, echo_elf: bytes) -> None:
    kernel, out = tmp_path / "echo.elf", tmp_path / "echo.trace"
    kernel.write_bytes(echo_elf)
    options = ("--kernel", kernel, "--bios", "none", "-m", "16M", "--until", "q", "--timeout", "30")
    done = workbench("record", "-o", out, *options, input="piped q")
    assert done.returncode == 0, done.stderr
    assert ">piped q" in done.stdout
    assert ">piped q" in workbench("replay", out, "--verify").stdout


def test_ctrl_c_without_a_terminal_ends_the_recording_in_order(tmp_path: Path, long_elf: bytes) -> None:
    kernel, out = tmp_path / "long.elf", tmp_path / "long.trace"
    kernel.write_bytes(long_elf)
    command = [
        *COMMAND,
        "record",
        "-o",
        str(out),
        "--kernel",
        str(kernel),
        "--bios",
        "none",
        "-m",
        "16M",
        "--no-input",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == "h"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in err
    assert workbench("replay", out, "--verify").returncode == 0

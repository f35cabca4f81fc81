"""The command line on the built-in guest, as a newcomer would use it: every step in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from traces.errors import TraceError
from traces.reader import TraceReader

ROOT = Path(__file__).parents[2]


def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "workbench", *arguments]
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def run(*arguments: str, code: int = 0, typed: str = "", timeout_s: float = 120) -> str:
    process = start(*arguments, stdin=subprocess.PIPE)
    out, err = process.communicate(typed, timeout=timeout_s)
    assert process.returncode == code, f"{arguments}: exit {process.returncode}\n{out}\n{err}"
    return out if code == 0 else err


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, builtin_image: bytes) -> str:
    path = tmp_path_factory.mktemp("guest") / "builtin.elf"
    path.write_bytes(builtin_image)
    return str(path)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory, kernel: str, backend: str) -> str:
    path = str(tmp_path_factory.mktemp("trace") / "boot.trace")
    machine = ["--kernel", kernel, "-m", "32M", "--append", "safe", "--seed", "3", "--backend", backend]
    assert "all tasks ended" in run(
        "record", "-o", path, *machine, "--no-input", "--until", "all tasks ended"
    )
    return path


@pytest.mark.parametrize("replayer", ["jit", "interp"])
def test_replay_verifies_twice_on_either_back_end(trace: str, replayer: str) -> None:
    first, second = (run("replay", "--verify", trace, "--backend", replayer) for _ in range(2))
    assert re.search(r"verified: \d+ digests, \d+ steps", first)
    assert first == second


def test_reverse_steps_and_steps_come_back_to_the_same_digest(trace: str) -> None:
    for steps in (1, 10, 1000):
        commands = ["goto 60%", "digest", f"rsi {steps}", f"si {steps}", "digest", "where"]
        out = run("debug", trace, *(part for command in commands for part in ("-c", command)))
        digests = re.findall(r"\b[0-9a-f]{64}\b", out)
        assert len(digests) == 2 and digests[0] == digests[1]


def test_query_answers_in_json(trace: str) -> None:
    rows = json.loads(run("query", trace, "select source, kind from inputs order by id", "--json"))
    assert {"source": "board", "kind": "entropy"} in rows
    assert {"source": "rtc", "kind": "wallclock"} in rows


def test_same_seed_same_boot_and_another_seed_another(kernel: str, tmp_path: Path) -> None:
    def console(seed: int) -> str:
        return run(
            "run", "--kernel", kernel, "-m", "32M", "--append", "safe", "--seed", str(seed), "--no-input"
        )

    assert console(1) == console(1) != console(2)


def test_typed_lines_are_replayed_at_their_positions(kernel: str, tmp_path: Path) -> None:
    path = str(tmp_path / "echo.trace")
    machine = ["--kernel", kernel, "-m", "32M", "--append", "safe echo", "--seed", "3"]
    recorder = start("record", "-o", path, *machine, "--timeout", "60", stdin=subprocess.PIPE)
    assert recorder.stdin is not None and recorder.stdout is not None
    heard = ""
    for answer, text in (("type a line", "hello\r"), ("olleh", "exit\r"), ("all tasks ended", "")):
        while answer not in heard:
            line = recorder.stdout.readline()
            assert line, heard
            heard += line
        recorder.stdin.write(text)
        recorder.stdin.flush()
    recorder.stdin.close()
    assert recorder.wait(60) == 0
    rows = json.loads(
        run("query", path, "select cast(payload as text) t from inputs where kind = 'rx'", "--json")
    )
    assert "".join(row["t"] for row in rows) == "hello\rexit\r"
    out = run("replay", "--verify", path)
    assert "5 characters: olleh" in out and "verified:" in out


def committed(path: Path) -> int:
    """Return the last position that a recording has committed, 0 before there is one."""
    try:
        with TraceReader.open(path) as reader:
            return reader.final_icount
    except TraceError:
        return 0


def test_a_killed_recording_opens_says_so_and_replays(kernel: str, tmp_path: Path) -> None:
    path = tmp_path / "killed.trace"
    machine = ["--kernel", kernel, "-m", "32M", "--append", "safe spin=100000", "--seed", "3", "--no-input"]
    recorder = start("record", "-o", str(path), *machine)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not committed(path):
        time.sleep(0.2)
    recorder.send_signal(signal.SIGKILL)
    recorder.communicate()
    assert re.search(r"clean\s+no", run("trace", "info", str(path)))
    assert "verified:" in run("replay", "--verify", str(path))


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["record", "-o", "x.trace", "--kernel", "/nonexistent"], 3, "/nonexistent"),
        (["record", "-o", "x.trace", "--kernel", __file__], 3, "kernel"),
        (["replay", __file__], 3, "trace"),
        (["replay", "/nonexistent.trace"], 3, "/nonexistent.trace"),
        (["guest", "fetch", "plan9"], 2, "debian-riscv64"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_bad_input_gets_one_line_and_its_exit_code(
    arguments: list[str], code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    err = run(*arguments, code=code).strip()
    assert text in err and err.count("\n") == 0 and "Traceback" not in err
    assert err.startswith("workbench: error: ")

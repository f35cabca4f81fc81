"""A replicated pair as two processes over NBD: the COLO topology of block.md 9.1, catalogue R-b and R-c
among ourselves."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

K, M = 1 << 10, 1 << 20


class Side:
    """A ``workbench replicate`` process."""

    def __init__(self, *args: str) -> None:
        command = [sys.executable, "-c", "from workbench.cli import main; main()", "replicate", *args]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(self, line: str) -> list[str]:
        """Send a command and return its answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer: list[str] = []
        while (text := self.process.stdout.readline().rstrip("\n")) != "ok":
            assert text or self.process.poll() is None, f"{line}: the process ended"
            answer.append(text)
        return answer

    def end(self) -> int:
        """Close the input and return the exit status."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        code = self.process.wait(20)
        self.process.stdout.close()
        return code


def test_a_pair_of_processes_replicates_checkpoints_and_fails_over(tmp_path: Path) -> None:
    ours, theirs, sock = tmp_path / "primary.raw", tmp_path / "secondary.raw", tmp_path / "sock"
    for path in (ours, theirs):
        path.write_bytes(b"\x11" * M)
    hidden, active = ("--hidden", str(tmp_path / "h.qcow2")), ("--active", str(tmp_path / "a.qcow2"))
    second = Side("secondary", "-f", "raw", *hidden, *active, "--listen", f"unix:{sock}", str(theirs))
    for _ in range(300):
        if sock.exists():
            break
        time.sleep(0.02)
    assert second.say("read 0 512")[0].startswith("error"), "nothing is shown before the start"
    assert second.say("start") == ["running"]
    first = Side("primary", "-f", "raw", "--peer", f"nbd+unix:///disk?socket={sock}", str(ours))
    assert first.say("start") == ["running"]
    first.say("write -q -P 0x22 0 128k")
    assert first.say("read -q -P 0x22 0 128k") == []
    assert second.say("read -q -P 0x11 0 128k") == [], "the secondary's guest sees the last checkpoint"
    assert second.say("checkpoint") == ["running"]
    assert second.say("read -q -P 0x22 0 128k") == []
    first.say("write -q -P 0x33 0 64k")
    second.say("write -q -P 0x44 512k 64k")
    assert second.say("failover") == ["done"]
    assert second.say("read -q -P 0x22 0 128k") == [] and second.say("read -q -P 0x44 512k 64k") == []
    assert second.end() == 0
    assert theirs.read_bytes() == b"\x22" * 128 * K + b"\x11" * 384 * K + b"\x44" * 64 * K + b"\x11" * 448 * K
    first.say("write -q -P 0x55 1000 24")
    assert first.say("status")[0].startswith("running: ") and "I/O error" in first.say("status")[0]
    assert first.say("failover") == ["done"] and first.say("status") == ["done"]
    assert first.say("read -q -P 0x55 1000 24") == []
    assert first.end() == 0
    assert ours.read_bytes()[1000:1024] == b"\x55" * 24

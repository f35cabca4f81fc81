"""A replicated pair as two processes over NBD: the COLO topology of block.md 9.1, catalogue R-b and R-c
among ourselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from machine.block.graph import Graph
from machine.block.jobs.mirror import MirrorJob

from .sockets import wait_listening

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


class Pair:
    """Files and socket of a pair; sides are started on them in either role."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disks = [folder / "one.raw", folder / "two.raw"]
        for path in self.disks:
            path.write_bytes(b"\x11" * M)

    def secondary(self, disk: Path, sock: str) -> Side:
        buffers = ("--hidden", str(self.folder / "h.qcow2"), "--active", str(self.folder / "a.qcow2"))
        side = Side("secondary", "-f", "raw", *buffers, "--listen", f"unix:{self.folder / sock}", str(disk))
        wait_listening(self.folder / sock)
        return side

    def primary(self, disk: Path, sock: str) -> Side:
        return Side(
            "primary", "-f", "raw", "--peer", f"nbd+unix:///disk?socket={self.folder / sock}", str(disk)
        )


def test_a_pair_of_processes_replicates_checkpoints_and_fails_over(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    ours, theirs = pair.disks
    second = pair.secondary(theirs, "sock")
    assert second.say("read 0 512")[0].startswith("error"), "nothing is shown before the start"
    assert second.say("start") == ["running"]
    first = pair.primary(ours, "sock")
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


def test_t35_after_failover_and_resync_the_roles_are_swapped(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    one, two = pair.disks
    second, first = pair.secondary(two, "sock1"), pair.primary(one, "sock1")
    assert second.say("start") == first.say("start") == ["running"]
    first.say("write -q -P 0x22 0 128k")
    assert second.say("checkpoint") == ["running"]
    first.say("write -q -P 0x33 0 64k")  # lost with the primary: no checkpoint follows
    first.process.kill()
    first.process.communicate()
    second.say("write -q -P 0x44 512k 64k")
    assert second.say("failover") == ["done"] and second.end() == 0

    graph = Graph()
    source, target = (graph.run(graph.open({"driver": "file", "filename": str(path)})) for path in (two, one))
    job = MirrorJob(graph, source, target, auto_complete=True)
    job.start()
    graph.run(job.wait())
    assert job.error is None and job.pivoted
    graph.run(graph.close())
    assert one.read_bytes() == two.read_bytes()

    second, first = pair.secondary(one, "sock2"), pair.primary(two, "sock2")
    assert second.say("start") == first.say("start") == ["running"]
    first.say("write -q -P 0x55 0 64k")
    assert second.say("read -q -P 0x22 0 128k") == [], "the buffers of the first round are empty"
    assert second.say("checkpoint") == ["running"]
    assert second.say("read -q -P 0x55 0 64k") == [] and second.say("read -q -P 0x22 64k 64k") == []
    first.say("write -q -P 0x66 0 1M")
    assert second.say("failover") == ["done"] and second.end() == 0
    assert one.read_bytes() == b"\x55" * 64 * K + b"\x22" * 64 * K + b"\x11" * 384 * K + b"\x44" * 64 * K + (
        b"\x11" * 448 * K
    )
    assert first.say("failover") == ["done"] and first.end() == 0

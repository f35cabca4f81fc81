"""A stock lldb on a recording, as far as it goes: it is told roles of registers, the target and regions of memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.session import Session

pytestmark = [pytest.mark.requires("lldb"), pytest.mark.slow]


@pytest.fixture(scope="module")
def kernel(builtin_image: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lldb") / "builtin.elf"
    path.write_bytes(builtin_image)
    return path


@pytest.fixture(scope="module")
def trace(kernel: Path) -> Path:
    out = kernel.with_name("guest.trace")
    command = [sys.executable, "-m", "workbench", "record", "-o", str(out), "--kernel", str(kernel)]
    subprocess.run([*command, "--append", "safe", "--no-input"], check=True, capture_output=True, timeout=300)
    return out


def run_lldb(kernel: Path, trace: Path, script: list[str]) -> str:
    """Run lldb's commands on a served trace; return all that it printed."""
    command = [sys.executable, "-m", "workbench", "gdbserver", str(trace), "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    address = server.stderr.readline().split()[-1]
    path = trace.with_suffix(".lldb")
    path.write_text("\n".join([f"target create {kernel}", f"gdb-remote {address}", *script]) + "\n")
    try:
        done = subprocess.run(
            ["lldb", "--no-use-colors", "--no-lldbinit", "--batch", "-s", str(path)],
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        assert server.wait(60) == 0  # lldb kills what it is done with
        return done.stdout + done.stderr
    finally:
        server.kill()


def test_lldb_stops_steps_reads_and_writes(kernel: Path, trace: Path) -> None:
    with Session.open(trace) as session:
        ticks = session.sym("ticks")
    script = [
        "register read pc satp",
        "breakpoint set -n pool_get",
        "continue",
        "process plugin packet monitor where",
        "thread backtrace",
        "thread step-inst",
        "process plugin packet send bs",
        "process plugin packet monitor where",
        "breakpoint disable",
        f"watchpoint set expression -s 8 -- {ticks:#x}",
        "continue",
        "memory region 0x80200000",
        "print $a0 - $a0 + 5",
        "register write a0 7",
        "register read a0",
    ]
    text = run_lldb(kernel, trace, script)
    assert re.search(r"pc = 0x0*80200000 .*_start", text), text
    assert re.search(r"stop reason = breakpoint 1\.\d+\n.*pool_get", text), text
    before, after = re.findall(r"position ([\d_]+) of", text)
    assert before == after != "0"
    assert "stop reason = instruction step into" in text
    assert re.search(r"Watchpoint 1 hit:\nold value: 0\nnew value: 1", text), text
    assert re.search(r"\[0x0*80200000-0x[0-9a-f]+\) rwx", text), text
    assert "= 5" in text
    assert "a0 = 0x0000000000000007" in text, text

"""Debian's own kernel, recorded, replayed and walked backwards: the whole house on a billion steps."""

from __future__ import annotations

import random
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_builtin import run, start

if TYPE_CHECKING:
    from workbench.guests.fetch import Guest

pytestmark = pytest.mark.slow

OPENSBI = (
    Path("/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin"),
    Path("/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin"),
)


def record(guest: Guest, path: Path, *options: str) -> str:
    machine = guest.options("console=ttyS0 wb.poweroff")
    return run("record", "-o", str(path), *machine, "--no-input", "--timeout", "600", *options)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory, debian_guest: Guest) -> Path:
    path = tmp_path_factory.mktemp("linux") / "boot.trace"
    out = record(debian_guest, path)
    assert "workbench: init reached" in out and "reboot: Power down" in out
    return path


@pytest.mark.parametrize("bios", ["builtin", "opensbi"])
@pytest.mark.parametrize("backend", ["jit", "interp"])
def test_boots_to_init_and_replays_on_the_other_back_end(
    debian_guest: Guest, tmp_path: Path, bios: str, backend: str
) -> None:
    firmware = next((path for path in OPENSBI if path.exists()), None)
    if bios == "opensbi" and firmware is None:
        pytest.skip("opensbi is not installed")
    options = ["--bios", str(firmware)] if bios == "opensbi" else []
    path = tmp_path / "boot.trace"
    out = record(debian_guest, path, "--backend", backend, *options)
    assert "workbench: init reached" in out and "reboot: Power down" in out
    other = {"jit": "interp", "interp": "jit"}[backend]
    assert "verified:" in run("replay", "--verify", str(path), "--backend", other)


@pytest.mark.parametrize(("vlen", "harts"), [(128, 1), (256, 4)])
def test_linux_finds_and_uses_vectors(debian_guest: Guest, tmp_path: Path, vlen: int, harts: int) -> None:
    """The kernel copies to and from user memory with them: what it copied last is in the registers."""
    from workbench.session import Session

    path = tmp_path / "boot.trace"
    machine = debian_guest.options("console=ttyS0 wb.sh=cat /proc/cpuinfo")
    cpu = ["--cpu", f"rv64,v=on,vlen={vlen}", "--smp", str(harts)]
    out = run("record", "-o", str(path), *machine, *cpu, "--no-input", "--timeout", "600")
    assert len(re.findall(r"(?m)^isa\s*: rv64imafdcv_", out)) == harts
    for backend in ("jit", "interp"):
        assert "verified:" in run("replay", "--verify", str(path), "--backend", backend)
    with Session.open(path) as session:
        session.goto(session.end)
        states = [session.regs(hart) for hart in range(harts)]
        assert any(state["vl"] and state["v0"] and not state["vtype"] >> 63 for state in states)


def test_replay_is_exact_twice(trace: Path) -> None:
    pattern = r"verified: \d+ digests, \d+ steps"
    first, second = (re.search(pattern, run("replay", "--verify", str(trace))) for _ in range(2))
    assert first is not None and second is not None and first.group() == second.group()


def test_back_and_forth_at_random_positions_changes_nothing(trace: Path) -> None:
    from workbench.session import Session

    chosen = random.Random(2)
    with Session.open(trace) as session:
        for steps in (1, 10, 1000):
            for _ in range(10):
                session.goto(chosen.randrange(session.start + steps, session.end - steps))
                registers, digest = session.regs(), session.digest()
                session.reverse_stepi(steps)
                session.stepi(steps)
                assert (session.regs(), session.digest()) == (registers, digest), session.cursor


@pytest.mark.requires("gdb-multiarch")
def test_gdb_goes_back_to_the_hit_before(trace: Path, debian_guest: Guest) -> None:
    symbols = debian_guest.system_map.read_text()
    match = re.search(r"^([0-9a-f]+) \w do_sys_openat2$", symbols, re.MULTILINE)
    assert match is not None
    server = start("gdbserver", str(trace), "--listen", "127.0.0.1:0", "--once")
    try:
        assert server.stderr is not None
        where = re.search(r"127\.0\.0\.1:(\d+)", server.stderr.readline())
        assert where is not None
        script = [
            "set pagination off",
            "set arch riscv:rv64",
            f"target remote 127.0.0.1:{where.group(1)}",
            f"hbreak *0x{match.group(1)}",
            "continue",
            "continue",
            "p/x $pc",
            "p/x $ra",
            "continue",
            "reverse-continue",
            "p/x $pc",
            "p/x $ra",
            "delete",
            "reverse-stepi",
            "stepi",
            "p/x $sstatus",
            "reverse-continue",
            "kill",
        ]
        arguments = [part for line in script for part in ("-ex", line)]
        done = subprocess.run(
            ["gdb-multiarch", "-q", "-batch", *arguments],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        server.terminate()
        server.communicate()
    values = re.findall(r"^\$\d+ = (0x[0-9a-f]+)", done.stdout, re.MULTILINE)
    assert values[0:2] == values[2:4], done.stdout + done.stderr
    assert int(values[0], 16) == int(match.group(1), 16)
    assert "No more reverse-execution history" in done.stdout


def test_a_killed_boot_replays_to_its_last_commit(debian_guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "killed.trace"
    # A guest that does not switch itself off is still running however fast the host is.
    recorder = start("record", "-o", str(path), *debian_guest.options("console=ttyS0"), "--no-input")
    assert recorder.stdout is not None
    while "Memory:" not in recorder.stdout.readline():
        assert recorder.poll() is None
    time.sleep(0.5)
    recorder.kill()
    recorder.communicate()
    assert re.search(r"clean\s+no", run("trace", "info", str(path)))
    assert "verified:" in run("replay", "--verify", str(path))

"""Plug-ins, in a process of their own: the example is installed as pip would leave it, and used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.rvasm import assemble
from tests.workbench.conftest import BASE, elf

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "plugin"
PROGRAM = """
    li t0, 0x4000000
    li t1, 7
    sw t1, 0(t0)
    li t1, 9
    sw t1, 0(t0)
    lw a0, 4(t0)
    li t0, 0x100000
    li t1, 0x5555
    sw t1, 0(t0)
here:
    j here
"""


class Installed:
    """A folder of packages with a plug-in in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
        shutil.copy(EXAMPLE / "doorbell.py", folder)
        self.entries("workbench-doorbell", project["entry-points"]["workbench"])

    def entries(self, package: str, points: dict[str, str]) -> None:
        info = self.folder / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        rows = "".join(f"{name} = {module}\n" for name, module in points.items())
        (info / "entry_points.txt").write_text(f"[workbench]\n{rows}")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder}{os.pathsep}{ROOT}"
        return subprocess.run(
            [sys.executable, "-m", "workbench", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


def test_example_is_a_device_a_command_and_a_query_in_under_80_lines() -> None:
    assert sum(len(path.read_text().splitlines()) for path in EXAMPLE.iterdir() if path.is_file()) < 80
    text = (EXAMPLE / "doorbell.py").read_text()
    assert all(f"\n@{word}(" in text for word in ("device", "query", "command"))


def test_plugin_adds_a_device_a_command_and_a_query(installed: Installed) -> None:
    code, _ = assemble(PROGRAM, BASE)
    (installed.folder / "ring.elf").write_bytes(elf(code, {"_start": 0}))
    machine = ("--kernel", "ring.elf", "--bios", "none", "-m", "16M", "--device", "doorbell")
    done = installed.run("record", "-o", "ring.trace", *machine, "--no-input")
    assert done.returncode == 0, done.stderr
    lines = ("doorbell --json", "goto end", "doorbell", "sql select value from rings --csv")
    done = installed.run("debug", "ring.trace", *(word for line in lines for word in ("-c", line)))
    assert '"rung": 0' in done.stdout and "rung  2" in done.stdout and "last  9" in done.stdout, done.stderr
    assert done.stdout.endswith("value\n7\n9\n")


@pytest.mark.slow
def test_plugins_device_replays_and_its_rows_may_lie_beside_the_trace(installed: Installed) -> None:
    code, _ = assemble(PROGRAM, BASE)
    (installed.folder / "ring.elf").write_bytes(elf(code, {"_start": 0}))
    machine = ("--kernel", "ring.elf", "--bios", "none", "-m", "16M", "--device", "doorbell")
    assert installed.run("record", "-o", "ring.trace", *machine, "--no-input").returncode == 0
    assert installed.run("replay", "--verify", "ring.trace").returncode == 0
    counted = installed.run("query", "--read-only", "ring.trace", "select count(*) n from rings", "--csv")
    assert counted.stdout == "n\n2\n", counted.stderr
    assert "doorbell" in installed.run("doctor").stdout


@pytest.mark.slow
def test_trace_with_a_device_needs_its_plugin(installed: Installed) -> None:
    code, _ = assemble(PROGRAM, BASE)
    (installed.folder / "ring.elf").write_bytes(elf(code, {"_start": 0}))
    machine = ("--kernel", "ring.elf", "--bios", "none", "-m", "16M", "--device", "doorbell")
    assert installed.run("record", "-o", "ring.trace", *machine, "--no-input").returncode == 0
    shutil.rmtree(installed.folder / "workbench_doorbell-1.0.dist-info")
    done = installed.run("replay", "ring.trace")
    assert done.returncode not in (0, 70)
    assert "no device 'doorbell'" in done.stderr and "install the plug-in" in done.stderr


@pytest.mark.slow
def test_plugin_that_can_not_be_loaded_is_named_in_one_line(installed: Installed) -> None:
    (installed.folder / "broken.py").write_text("1 / 0\n")
    installed.entries("workbench-broken", {"broken": "broken"})
    done = installed.run("debug", "no.trace", "-c", "where")
    assert done.returncode == 3
    done = installed.run("doctor")
    assert "broken" in done.stdout
    pipe = subprocess.run(
        [sys.executable, "-m", "workbench"],
        cwd=installed.folder,
        env={**os.environ, "PYTHONPATH": f"{installed.folder}{os.pathsep}{ROOT}"},
        input="help\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert pipe.returncode == 3
    assert "plug-in broken (broken) can't be loaded: ZeroDivisionError" in pipe.stderr
    assert "Traceback" not in pipe.stderr

"""A core is run with the sources that it was built from, and with no others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from machine.tcg import sources

ROOT = Path(sources.__file__).parents[2]
CORE = import_module("machine.tcg._core")


def age(core: Path, seconds: int) -> None:
    """Make a file older than its neighbours."""
    then = core.stat().st_mtime_ns - seconds * 10**9
    os.utime(core, ns=(then, then))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a core that is older than every source by its time, and of just these by their contents."""
    shutil.copytree(ROOT / "machine", tmp_path / "machine")
    shutil.copy(ROOT / "setup.py", tmp_path)
    age(tmp_path / "machine/tcg" / Path(str(CORE.__file__)).name, 10**8)
    return tmp_path


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=checkout, capture_output=True, text=True, timeout=60
    )


IMPORT = ("-c", "import machine.tcg.engine as e; print(e.__file__)")


def test_core_knows_the_sources_that_it_was_built_from() -> None:
    assert sources.digest() == CORE.lib.WB_SOURCES


def test_sources_with_a_later_time_and_the_same_contents_are_the_cores(checkout: Path) -> None:
    done = run(checkout, *IMPORT)
    assert done.stdout.strip() == str(checkout / "machine/tcg/engine.py"), done.stderr


@pytest.mark.parametrize("name", ["cdef.h", "core/run.c", "guest/riscv/insn16.decode", "build.py"])
def test_core_that_is_older_than_a_source_is_refused(checkout: Path, name: str) -> None:
    with (checkout / "machine/tcg" / name).open("a") as file:
        file.write("\n")
    assert "StaleCoreError: _core" in run(checkout, *IMPORT).stderr


START = ("--bios", "none", "--kernel", str(ROOT / "workbench/bench/kernels/start.elf"), "--no-input")


@pytest.mark.parametrize(
    "command", [("demo", "--batch"), ("run", *START), ("record", "-o", "t.trace", *START)], ids=lambda c: c[0]
)
def test_command_line_refuses_an_older_core_in_one_line(checkout: Path, command: tuple[str, ...]) -> None:
    """After `git pull` without `make build`, an older core ran and failed somewhere, or recorded in silence."""
    for package in ("traces", "workbench"):
        (checkout / package).symlink_to(ROOT / package)
    with (checkout / "machine/tcg/core/run.c").open("a") as file:
        file.write("\n")
    done = run(checkout, "-m", "workbench", *command)
    assert (done.returncode, done.stdout) == (6, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("workbench: error: _core") and line.endswith("run `make build`")
    (row,) = (
        row
        for row in run(checkout, "-m", "workbench", "doctor").stdout.splitlines()
        if "translator core" in row
    )
    assert "missing" in row and "make build" in row


def test_source_that_is_gone_is_a_difference(checkout: Path) -> None:
    (checkout / "machine/tcg/core/interp.c").unlink()
    assert "StaleCoreError" in run(checkout, *IMPORT).stderr


def test_installed_package_is_one_build(checkout: Path) -> None:
    """pip gives all files of a package their times in any order; what it installs is never older than itself."""
    (checkout / "setup.py").unlink()
    (checkout / "machine/tcg/cdef.h").write_text("")
    assert run(checkout, *IMPORT).returncode == 0

"""The benchmark's kernels: built from their sources, and doing on us the work they do on QEMU."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from machine.config import Images, MachineConfig
from workbench.bench.kernels import KERNELS, build, kernel_path
from workbench.runner import Runner

QUICK = ("start", "mix", "vector")


def console_of(name: str) -> str:
    """Run a kernel to its power-off and return what it printed."""
    shown = bytearray()
    config = MachineConfig(memory_bytes=16 << 20, bios="none", cpu=KERNELS[name].cpu)
    runner = Runner(config, Images(kernel=kernel_path(name).read_bytes()), echo=shown.extend)
    assert runner.run(timeout_s=60).reason == "poweroff"
    runner.board.engine.close()
    return shown.decode()


@pytest.mark.requires("riscv64-linux-gnu-gcc")
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_is_what_the_source_builds(name: str, tmp_path: Path) -> None:
    build.build(name, tmp_path / "rebuilt.elf")
    version = subprocess.run([build.COMPILER, "-dumpfullversion"], capture_output=True, text=True, check=True)
    if not version.stdout.startswith("12."):
        pytest.skip("the checked-in kernels are built by version 12 of the compiler")
    assert (tmp_path / "rebuilt.elf").read_bytes() == kernel_path(name).read_bytes()


@pytest.mark.parametrize("name", QUICK)
def test_kernel_prints_its_name_and_result(name: str) -> None:
    label, printed, result = console_of(name).split()
    assert (label, printed) == ("kernel", name)
    assert int(result, 16) != 0


@pytest.mark.slow
@pytest.mark.requires("qemu-system-riscv64")
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_has_the_result_that_qemu_finds(name: str) -> None:
    qemu = str(shutil.which("qemu-system-riscv64"))
    command = [
        qemu,
        "-M",
        "virt",
        "-m",
        "16M",
        "-nographic",
        "-bios",
        "none",
        "-kernel",
        str(kernel_path(name)),
        "-cpu",
        KERNELS[name].cpu,
    ]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True
    )
    assert console_of(name).split() == done.stdout.split()

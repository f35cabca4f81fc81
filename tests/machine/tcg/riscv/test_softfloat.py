"""Soft floating point against the host's unit: results and flags of every operation and rounding mode."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from tests.conftest import requires

HERE = Path(__file__).parent
RISCV = Path(__file__).parents[4] / "machine" / "tcg" / "guest" / "riscv"


@pytest.fixture(scope="module")
def against_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    requires("gcc")
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or " fma " not in (cpuinfo.read_text() if cpuinfo.exists() else ""):
        pytest.skip("the comparison needs an x86-64 host with FMA")
    program = tmp_path_factory.mktemp("softfloat") / "softfloat_host"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-frounding-math", "-mfma", f"-I{RISCV}"]
    sources = [HERE / "softfloat_host.c", RISCV / "softfloat.c"]
    subprocess.run(["gcc", *flags, *sources, "-lm", "-o", program], check=True)
    return program


def compare(program: Path, rounds: int, seed: int) -> int:
    done = subprocess.run([program, str(rounds), str(seed)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    checked, _, differ = done.stdout.partition(" comparisons, ")
    assert differ == "0 differ\n"
    return int(checked)


def test_results_and_flags_are_those_of_the_host(against_host: Path) -> None:
    assert compare(against_host, rounds=60_000, seed=1) > 10_000_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", (2, 3))
def test_results_and_flags_are_those_of_the_host_for_long(against_host: Path, seed: int) -> None:
    assert compare(against_host, rounds=500_000, seed=seed) > 80_000_000

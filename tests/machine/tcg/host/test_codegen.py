"""Host code and the interpreter give a guest the same state, for random IR."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
TCG = ROOT / "machine" / "tcg"


@pytest.fixture(scope="session")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fuzzing program, built against the back end and the interpreter."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    program = tmp_path_factory.mktemp("codegen") / "fuzz"
    sources = [*sorted(Path(__file__).parent.glob("fuzz*.c")), *sorted((TCG / "host").glob("*.c"))]
    sources += [TCG / "core" / name for name in ("hostmem.c", "interp.c", "ir.c", "opt.c", "words.c")]
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-Wshadow", f"-I{TCG}"]
    subprocess.run([compiler, *flags, *map(str, sources), "-o", str(program)], check=True)
    return program


def run_fuzz(program: Path, seed: int, rounds: int) -> None:
    result = subprocess.run([str(program), str(seed), str(rounds)], capture_output=True, text=True)
    if result.returncode == 77:
        pytest.skip(result.stdout.strip())
    assert result.returncode == 0, result.stdout[:4000]
    assert result.stdout == f"{rounds} rounds of 4 blocks agree\n"


def test_random_blocks_run_as_in_the_interpreter(fuzz: Path) -> None:
    run_fuzz(fuzz, seed=1, rounds=20_000)


@pytest.mark.slow
def test_many_random_blocks_run_as_in_the_interpreter(fuzz: Path) -> None:
    run_fuzz(fuzz, seed=1_000_000, rounds=400_000)

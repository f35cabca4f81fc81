"""What is no kernel: harts against one hart, start-up to power-off, the compiler's time for the C core."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.bench.kernels import kernel_path
from workbench.bench.measure import MEMORY, Contender, environment, interleave, run_once

HARTS = 4
#: What each figure may be at most; the issue of the machine's speed sets them.
SMP_AT_MOST, START_AT_MOST_S, COMPILE_AT_MOST_S = 1.3, 0.3, 10.0
ROOT = Path(__file__).resolve().parents[2]


def run_smp(rounds: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure the kernel ``smp`` on one hart and on four: CPU time by guest instruction, four over one.

    Raises:
        BenchError: a contender failed.
    """
    image = ("--bios", "none", "--kernel", str(kernel_path("smp")), "-m", MEMORY, "--no-input")
    ours = (sys.executable, "-m", "workbench", "run", *image)
    ways = [Contender(f"smp {n}", (*ours, "--smp", str(n)), b"kernel smp ") for n in (1, HARTS)]
    qemu = shutil.which("qemu-system-riscv64")
    if qemu:
        peer: tuple[str, ...] = (qemu, "-M", "virt", "-m", MEMORY, "-nographic", "-bios", "none")
        peer += ("-kernel", str(kernel_path("smp")), "-icount", "shift=0", "-smp", str(HARTS))
        ways.append(Contender(f"qemu -icount smp {HARTS}", peer, b"kernel smp "))
    figures = {k: f.summary() for k, f in interleave(ways, rounds, progress).items()}
    one, four = figures["smp 1"], figures[f"smp {HARTS}"]
    ratio = (four["cpu_s"] / four["steps"]) / (one["cpu_s"] / one["steps"])
    rows = {f"smp {HARTS} / smp 1, CPU by step": (ratio, SMP_AT_MOST, "times")}
    return _result("smp4", rows) | {"runs": figures}


def run_start(rounds: int, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure ``record`` of a kernel that does nothing, power-off included: more than the first instruction takes.

    Raises:
        BenchError: the recording failed.
    """
    image = ("--bios", "none", "--kernel", str(kernel_path("start")), "-m", MEMORY, "--no-input")
    command = (sys.executable, "-m", "workbench", "record", "-o", str(work / "start.trace"), *image)
    found = interleave([Contender("record start", command, b"kernel start ")], rounds, progress)
    figures = found["record start"].summary()
    rows = {
        "record, start to power-off, CPU": (figures["cpu_s"], START_AT_MOST_S, "s"),
        "record, start to power-off, wall": (figures["wall_s"], START_AT_MOST_S, "s"),
    }
    return _result("start-up", rows)


def run_compile(progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure the C core's compilation on one core, once, from a checkout.

    Raises:
        BenchError: it does not compile.
    """
    if not (ROOT / "setup.py").exists():
        return _result("compile", {})
    progress("compile: the C core")
    with tempfile.TemporaryDirectory(prefix="workbench-compile-") as folder:
        command = (
            sys.executable,
            "setup.py",
            "-q",
            "build_ext",
            "--build-lib",
            folder,
            "--build-temp",
            folder,
        )
        env = environment(folder) | {"MAKEFLAGS": "-j1"}
        # As before every first round: Python's byte code is there, that of cffi and setuptools too.
        run_once(Contender("setup.py", (sys.executable, "setup.py", "--name"), b"workbench"), env, cwd=ROOT)
        sample = run_once(Contender("compile", command, b""), env, cwd=ROOT)
    return _result("compile", {"C core, CPU of one compilation": (sample.cpu_s, COMPILE_AT_MOST_S, "s")})


def _result(name: str, rows: dict[str, tuple[float, float, str]]) -> dict[str, Any]:
    figures = {
        what: {"value": round(value, 3), "at_most": limit, "unit": unit, "met": value <= limit}
        for what, (value, limit, unit) in rows.items()
    }
    return {"benchmark": name, "figures": figures}

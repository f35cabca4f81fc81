"""Host instructions a guest instruction, counted by callgrind: the same in every run, whatever else the host does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from workbench.bench.kernels import kernel_path
from workbench.bench.measure import MEMORY, TIMEOUT_S, BenchError, environment

#: Guest instructions that are counted of each kernel: its beginning, translation included.
STEPS = 20_000_000
_TOTAL = re.compile(r"^totals: ([0-9]+)$", re.MULTILINE)
_RAN = re.compile(rb"\b([0-9][0-9_]*) steps")


def host_per_guest(name: str, cache: str) -> float:
    """Count what the C core and its generated code execute for a kernel's first STEPS, by step.

    Args:
        name: one of KERNELS.
        cache: a folder for Python's byte code.

    Raises:
        BenchError: the run failed; callgrind must be installed (Debian: apt install valgrind).
    """
    with tempfile.TemporaryDirectory(prefix="workbench-count-") as folder:
        out = Path(folder) / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", "--smc-check=all", "--toggle-collect=mach_run"]
        command += [f"--callgrind-out-file={out}", sys.executable, "-m", "workbench", "run", "--bios", "none"]
        command += ["--kernel", str(kernel_path(name)), "-m", MEMORY, "--no-input", "--steps", str(STEPS)]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment(cache),
            timeout=TIMEOUT_S,
            check=False,
        )
        ran = _RAN.findall(done.stderr)
        total = _TOTAL.search(out.read_text()) if out.exists() else None
    if not ran or total is None or not int(ran[-1]):
        tail = done.stderr[-200:].decode(errors="replace").replace("\n", " | ")
        raise BenchError(f"counting the instructions of {name} failed with {done.returncode}: … {tail}")
    return int(total[1]) / int(ran[-1])


def run(names: Sequence[str], progress: Callable[[str], None]) -> dict[str, float]:
    """Count for these kernels; return host instructions a guest instruction, nothing where there is no valgrind.

    Raises:
        BenchError: a run failed.
    """
    found: dict[str, float] = {}
    if shutil.which("valgrind"):
        with tempfile.TemporaryDirectory(prefix="workbench-bench-") as cache:
            for name in (n for n in names if n != "start"):
                found[name] = round(host_per_guest(name, cache), 2)
                progress(f"{name}: {found[name]} host instructions a guest instruction")
    return found

"""What is left to the physical limit: the kernels' C compiled for the host, beside ours and QEMU's, in turn."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workbench.bench.bare import contenders
from workbench.bench.kernels import KERNELS
from workbench.bench.kernels.build import GUEST_ONLY, HOST_COMPILER, build_native
from workbench.bench.measure import BenchError, Contender, interleave

NATIVE = "native"


def run(names: Sequence[str], rounds: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure these kernels natively, on ours and on QEMU's plain TCG where it is installed.

    Args:
        names: of KERNELS; what is of no host is left out, and `start`, which the others are measured less, comes in.

    Returns:
        ``kernels``: for each, ``cpu_s`` of ``native``, ``ours`` and ``qemu``, less start-up, and how many ``times`` the
        native's seconds the others take.

    Raises:
        BenchError: there is no compiler here, or a run failed.
    """
    if shutil.which(HOST_COMPILER) is None:
        raise BenchError(f"bench native needs {HOST_COMPILER}: apt install {HOST_COMPILER}")
    cpu = {}
    with tempfile.TemporaryDirectory(prefix="workbench-native-") as folder:
        for name in dict.fromkeys(("start", *(n for n in names if n in KERNELS and n != GUEST_ONLY))):
            program = Path(folder) / name
            build_native(name, program)
            ways = contenders(name, shutil.which("qemu-system-riscv64"))
            ways = [w for w in ways if w.name in ("ours", "qemu")]
            ways.append(Contender(NATIVE, (str(program),), f"kernel {name} ".encode()))
            found = interleave(ways, rounds, lambda text, name=name: progress(f"{name}: {text}"))  # type: ignore[misc]
            cpu[name] = {who: figures.summary()["cpu_s"] for who, figures in found.items()}
    start = cpu.pop("start")
    return {"benchmark": NATIVE, "kernels": {name: net(cpu[name], start) for name in cpu}}


def net(cpu: dict[str, float], start: dict[str, float]) -> dict[str, Any]:
    """Return CPU seconds less start-up, and the others' over the native's; None where that cannot be told."""
    seconds = {who: round(cpu[who] - start[who], 3) for who in cpu}
    limit = seconds[NATIVE]
    times = {
        who: round(taken / limit, 2) if limit > 0 and taken > 0 else None
        for who, taken in seconds.items()
        if who != NATIVE
    }
    return {"cpu_s": seconds, "times": times}

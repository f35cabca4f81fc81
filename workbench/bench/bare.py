"""The bare-metal kernels: each a fresh process, ours and QEMU's in turn."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

from workbench.bench.kernels import KERNELS, kernel_path
from workbench.bench.measure import MEMORY, Contender, interleave


def contenders(name: str, qemu: str | None) -> list[Contender]:
    """Return the ways to run a kernel, ours first; QEMU's only where it is installed."""
    expect = f"kernel {name} ".encode()
    cpu = KERNELS[name].cpu
    image = ("--bios", "none", "--kernel", str(kernel_path(name)), "--cpu", cpu, "-m", MEMORY, "--no-input")
    found = [Contender("ours", (sys.executable, "-m", "workbench", "run", *image), expect)]
    if qemu:
        peer: tuple[str, ...] = (qemu, "-M", "virt", "-m", MEMORY, "-nographic", "-bios", "none")
        peer += ("-kernel", str(kernel_path(name)), "-cpu", cpu)
        found += [
            Contender("qemu", peer, expect),
            Contender("qemu -icount", (*peer, "-icount", "shift=0"), expect),
        ]
    return found


def _labelled(progress: Callable[[str], None], name: str) -> Callable[[str], None]:
    return lambda text: progress(f"{name}: {text}")


def run(names: Sequence[str], rounds: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure these kernels; return figures by kernel, with ratios of wall and CPU times (above 1: ours is faster).

    ``net_ratios`` are of CPU times less those of the kernel `start`, which is start and stop alone; with `start`
    among the names only.

    Raises:
        BenchError: a contender failed.
    """
    peer = shutil.which("qemu-system-riscv64")
    kernels: dict[str, Any] = {}
    for name in names:
        found = interleave(contenders(name, peer), rounds, _labelled(progress, name))
        figures = {k: f.summary() for k, f in found.items()}
        ours = figures["ours"]
        ratios, of_cpu = (
            {k: round(f[time] / ours[time], 2) for k, f in figures.items() if k != "ours"}
            for time in ("wall_s", "cpu_s")
        )
        kernels[name] = {"figures": figures, "ratios": ratios, "cpu_ratios": of_cpu}
    for found in kernels.values():
        found["net_ratios"] = net_ratios(found["figures"], kernels.get("start", {}).get("figures"))
    return {"benchmark": "kernels", "kernels": kernels}


def net_ratios(figures: dict[str, Any], start: dict[str, Any] | None) -> dict[str, float | None]:
    """Return each peer's CPU time over ours, each less its own start-up; None where that cannot be told."""
    ratios: dict[str, float | None] = {}
    for peer in (k for k in figures if k != "ours"):
        theirs, ours = (
            (figures[who]["cpu_s"] - start[who]["cpu_s"] if start else 0.0) for who in (peer, "ours")
        )
        ratios[peer] = round(theirs / ours, 2) if theirs > 0 and ours > 0 else None
    return ratios

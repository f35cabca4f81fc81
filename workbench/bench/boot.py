"""The boot benchmark: Debian's kernel to power-off, under QEMU and under us, running, recording, replaying."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.bench.measure import BenchError, Contender, interleave

MEMORY = "512M"
APPEND = "console=ttyS0 wb.poweroff"
INIT_LINE = b"workbench: init reached"


def contenders(kernel: Path, initrd: Path, work: Path, qemu: str | None) -> list[Contender]:
    """Return the ways to boot, ours first; QEMU's only where it is installed."""
    boot = ("--kernel", str(kernel), "--initrd", str(initrd), "--append", APPEND, "-m", MEMORY, "--no-input")
    ours = (sys.executable, "-m", "workbench")
    trace = str(work / "boot.trace")
    found = [
        Contender("run", (*ours, "run", *boot), INIT_LINE),
        Contender("record", (*ours, "record", "-o", trace, *boot), INIT_LINE),
        Contender("replay", (*ours, "replay", trace), INIT_LINE),
    ]
    if qemu:
        peer: tuple[str, ...] = (
            qemu,
            "-M",
            "virt",
            "-m",
            MEMORY,
            "-nographic",
            "-no-reboot",
            "-kernel",
            str(kernel),
        )
        peer += ("-initrd", str(initrd), "-append", APPEND)
        log = str(work / "qemu.rr")
        found += [
            Contender("qemu", peer, INIT_LINE),
            Contender("qemu -icount", (*peer, "-icount", "shift=0"), INIT_LINE),
            Contender("qemu rr=record", (*peer, "-icount", f"shift=0,rr=record,rrfile={log}"), INIT_LINE),
        ]
    return found


def run(rounds: int, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure; return the figures and the ratios (above 1: ours is faster).

    Raises:
        BenchError: the guest is not here, or a contender failed.
    """
    from workbench.guests.fetch import cached

    guest = cached("debian-riscv64")
    if guest is None:
        raise BenchError("the boot benchmark needs Debian's guest: workbench guest fetch debian-riscv64")
    folder = guest.folder
    ways = contenders(folder / "Image", folder / "initrd.cpio.gz", work, shutil.which("qemu-system-riscv64"))
    figures = {name: f.summary() for name, f in interleave(ways, rounds, progress).items()}
    wall = {name: f["wall_s"] for name, f in figures.items()}
    ratios = {
        "record / run (cost)": wall["record"] / wall["run"],
        "record / replay": wall["record"] / wall["replay"],
    }
    for peer in ("qemu", "qemu -icount", "qemu rr=record"):
        if peer in wall:
            ratios[f"{peer} / record"] = wall[peer] / wall["record"]
    return {"benchmark": "boot", "figures": figures, "ratios": {k: round(v, 3) for k, v in ratios.items()}}

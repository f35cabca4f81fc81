"""Linux benchmarks: Debian's kernel to power-off, and a shell script of forks and maps, under QEMU and under us."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.bench.measure import BenchError, Contender, interleave

MEMORY = "512M"
BOOT = "console=ttyS0 wb.poweroff"
BOOT_LINE = b"workbench: init reached"
#: fork, exec, pipes, page faults and maps: what a shell script does most.
SHELL = (
    "console=ttyS0 wb.sh=i=0; while test $i -lt 100; do busybox cat /proc/self/maps | busybox wc -l >/dev/null; "
    "(busybox true); i=$((i+1)); done; echo shell: all $i done"
)
SHELL_LINE = b"shell: all 100 done"


def contenders(
    kernel: Path, initrd: Path, work: Path, qemu: str | None, append: str, expect: bytes
) -> list[Contender]:
    """Return the ways to boot, ours first; QEMU's only where it is installed."""
    boot = ("--kernel", str(kernel), "--initrd", str(initrd), "--append", append, "-m", MEMORY)
    ours = (sys.executable, "-m", "workbench")
    trace = str(work / "boot.trace")
    found = [
        Contender("run", (*ours, "run", *boot, "--no-input"), expect),
        Contender("record", (*ours, "record", "-o", trace, *boot, "--no-input"), expect),
        Contender("replay", (*ours, "replay", trace), expect),
    ]
    if qemu:
        peer: tuple[str, ...] = (qemu, "-M", "virt", "-m", MEMORY, "-nographic", "-no-reboot")
        peer += ("-kernel", str(kernel), "-initrd", str(initrd), "-append", append)
        log = str(work / "qemu.rr")
        found += [
            Contender("qemu", peer, expect),
            Contender("qemu -icount", (*peer, "-icount", "shift=0"), expect),
            Contender("qemu rr=record", (*peer, "-icount", f"shift=0,rr=record,rrfile={log}"), expect),
        ]
    return found


def run(name: str, rounds: int, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure ``boot`` or ``shell``; return the figures and the ratios (above 1: ours is faster).

    Raises:
        BenchError: the guest is not here, or a contender failed.
    """
    from workbench.guests.fetch import cached

    guest = cached("debian-riscv64")
    if guest is None:
        raise BenchError(f"bench {name} needs Debian's guest: workbench guest fetch debian-riscv64")
    folder = guest.folder
    append, expect = (BOOT, BOOT_LINE) if name == "boot" else (SHELL, SHELL_LINE)
    peer = shutil.which("qemu-system-riscv64")
    ways = contenders(folder / "Image", folder / "initrd.cpio.gz", work, peer, append, expect)
    figures = {k: f.summary() for k, f in interleave(ways, rounds, progress).items()}
    pairs = [("record", "run"), ("record", "replay")]
    pairs += [(rival, "record") for rival in ("qemu", "qemu -icount", "qemu rr=record") if rival in figures]
    ratios, of_cpu = (
        {f"{a} / {b}": round(figures[a][time] / figures[b][time], 2) for a, b in pairs}
        for time in ("wall_s", "cpu_s")
    )
    return {"benchmark": name, "figures": figures, "ratios": ratios, "cpu_ratios": of_cpu}

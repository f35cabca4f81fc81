"""What each switch of the translator is worth: CPU time and host instructions with it off, over those with all on."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from workbench.bench.count import STEPS, count_each
from workbench.bench.kernels import kernel_path
from workbench.bench.measure import Contender, interleave

#: Kernels that need more of the processor than rv64 has.
CPU = {"vector": "rv64,v=on"}


def switch_names() -> list[str]:
    """Return the translator's switches, in their order."""
    from machine.tcg._core import ffi, lib

    names: list[str] = []
    while (name := lib.wb_switch_name(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    return names


def run(
    names: Sequence[str], switches: Sequence[str], rounds: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Measure these kernels with each switch off in turn.

    Returns:
        by kernel: ``cpu_s`` and ``host_per_guest`` with all on, and for each switch, in ``off``, how many times
        more ``cpu`` time (medians of interleaved rounds) and host instructions (``count``) it takes without. The
        counts are callgrind's, of the kernel's first STEPS; None where there is no valgrind.

    Raises:
        BenchError: a run failed.
    """
    table = {}
    for name in names:
        cpu = _times(name, switches, rounds, progress)
        counts: list[int | None] = [None] * (1 + len(switches))
        if shutil.which("valgrind"):
            progress(f"{name}: counting host instructions")
            with tempfile.TemporaryDirectory(prefix="workbench-bench-") as cache:
                counts = list(count_each(kernel_child(name), switches, cache))
        on, *off = counts
        table[name] = {
            "cpu_s": cpu["all on"],
            "host_per_guest": on and round(on / STEPS, 2),
            "off": {
                switch: {
                    "cpu": round(cpu[switch] / cpu["all on"], 2),
                    "count": count and on and round(count / on, 2),
                }
                for switch, count in zip(switches, off, strict=True)
            },
        }
    return {"benchmark": "switches", "steps_counted": STEPS, "kernels": table}


def kernel_child(name: str) -> tuple[str, ...]:
    """Return the command that runs a kernel with the switches that are named behind it off."""
    command = (sys.executable, "-m", "workbench.bench.child", str(kernel_path(name)))
    return (*command, "--cpu", CPU[name]) if name in CPU else command


def _times(
    name: str, switches: Sequence[str], rounds: int, progress: Callable[[str], None]
) -> dict[str, float]:
    command, expect = kernel_child(name), f"kernel {name} ".encode()
    ways = [Contender("all on", command, expect)]
    ways += [Contender(s, (*command, s), expect) for s in switches]
    found = interleave(ways, rounds, lambda text: progress(f"{name}: {text}"))
    return {k: f.summary()["cpu_s"] for k, f in found.items()}

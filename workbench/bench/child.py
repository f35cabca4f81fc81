"""Runs of a bare-metal kernel with switches of the translator off: a process of ``bench switches``.

``python -m workbench.bench.child KERNEL [--cpu CPU] [SWITCH…]`` runs it to its end with these switches off.
``python -m workbench.bench.child KERNEL [--cpu CPU] --each STEPS [SWITCH…]`` runs its first steps with all switches on,
then with each of these off alone, each time on a new machine: so callgrind can count them in one process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from machine.config import Images, MachineConfig
from workbench.errors import WorkbenchError
from workbench.runner import Runner


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def run(kernel: Path, cpu: str, off: Sequence[str], steps: int | None) -> None:
    """Run a kernel, show its console and print how many steps it took.

    Raises:
        WorkbenchError: it ended neither by switching off nor after ``steps``.
    """
    config = MachineConfig(memory_bytes=128 << 20, bios="none", cpu=cpu)
    runner = Runner(config, Images(kernel=kernel.read_bytes()), echo=_show)
    for switch in off:
        runner.board.engine.set_switch(switch, False)
    result = runner.run(steps=steps)
    runner.board.engine.close()
    if result.reason not in (("poweroff",) if steps is None else ("poweroff", "steps")):
        raise WorkbenchError(f"kernel {kernel} ended as {result.reason}")
    _show(f"{result.icount} steps\n".encode())


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(
        description="Run a bare-metal kernel with switches of the translator off."
    )
    parser.add_argument("kernel", type=Path)
    parser.add_argument("--cpu", default="rv64")
    parser.add_argument(
        "--each", type=int, metavar="STEPS", help="these first steps, with each switch off in turn"
    )
    parser.add_argument("switches", nargs="*")
    given = parser.parse_intermixed_args()
    if given.each is None:
        run(given.kernel, given.cpu, given.switches, None)
        return
    for off in ([], *([switch] for switch in given.switches)):
        run(given.kernel, given.cpu, off, given.each)


if __name__ == "__main__":
    main()

"""A kernel's first steps, once for each setting of the translator's switches: a process of ``bench switches``.

``python -m workbench.bench.child KERNEL STEPS SETTING…`` prints a line for each setting: the process that ran it, the
steps it took, its CPU seconds. A setting is ``all on`` or the switch that is off.

Every run is a fork of this process with a machine of its own, so it finds memory as all the others do, and Python's
start is paid once. Nothing asks the host: runs are cut into slices by steps alone, so the same blocks are made
and the same instructions executed each time.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from machine.board import Board, StopReason
from machine.config import Images, MachineConfig
from machine.inputs import NullGate
from workbench.bench.kernels import KERNELS, kernel_path
from workbench.bench.measure import BenchError

ALL_ON = "all on"
MEMORY_BYTES = 128 << 20


class _Silent:
    def write(self, port: str, data: bytes, icount: int, vtime_ns: int) -> None:
        """Show nothing."""


def run(kernel: str, image: bytes, steps: int, setting: str) -> tuple[int, float]:
    """Run a kernel's first steps; return how many it took (fewer where it ends before) and their CPU seconds.

    Raises:
        BenchError: it ended otherwise.
        ValueError: there is no such switch.
    """
    config = MachineConfig(memory_bytes=MEMORY_BYTES, bios="none", cpu=KERNELS[kernel].cpu)
    board = Board(config, Images(kernel=image), NullGate(), _Silent())
    board.reset()
    if setting != ALL_ON:
        board.engine.translator.set_switch(setting, False)
    board.engine.translator.drop_code()  # as setting a switch does: what is in every count weighs in none
    began = time.process_time()
    stop = board.run(steps)
    took = time.process_time() - began
    if stop.reason not in (StopReason.UNTIL, StopReason.POWEROFF):
        raise BenchError(f"kernel {kernel} ended as {stop.reason.value} after {board.icount} steps")
    return board.icount, took


def run_apart(kernel: str, image: bytes, steps: int, setting: str) -> bool:
    """Run it in a fork, which prints its line, or what went wrong; return whether all went well."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return os.waitpid(process, 0)[1] == 0
    taken, cpu_s = run(kernel, image, steps, setting)
    sys.stdout.write(f"{os.getpid()} {taken} {cpu_s:.6f}\n")
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description="Run a kernel's first steps with switches off in turn.")
    parser.add_argument("kernel", choices=[*KERNELS])
    parser.add_argument("steps", type=int)
    parser.add_argument("settings", nargs="+", help=f"{ALL_ON!r}, or the switch that is off")
    given = parser.parse_args()
    image = kernel_path(given.kernel).read_bytes()
    for setting in given.settings:
        if not run_apart(given.kernel, image, given.steps, setting):
            sys.exit(f"workbench: error: kernel {given.kernel}, {setting}: no result")


if __name__ == "__main__":
    main()

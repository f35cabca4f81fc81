"""One run of a bare-metal kernel with switches of the translator off: a process of ``bench --switches``.

``python -m workbench.bench.child KERNEL [SWITCH…]``
"""

from __future__ import annotations

import sys
from pathlib import Path

from machine.config import Images, MachineConfig
from workbench.errors import WorkbenchError
from workbench.runner import Runner


def main(kernel: str, *off: str) -> None:
    """Run a kernel to its power-off and print its console and the engine's counters.

    Raises:
        WorkbenchError: it did not end by switching off.
    """
    config = MachineConfig(memory_bytes=128 << 20, bios="none")

    def show(data: bytes) -> None:
        sys.stdout.buffer.write(data)

    runner = Runner(
        config,
        Images(kernel=Path(kernel).read_bytes()),
        echo=show,
    )
    for switch in off:
        runner.board.engine.set_switch(switch, False)
    result = runner.run()
    if result.reason != "poweroff":
        raise WorkbenchError(f"kernel {kernel} ended as {result.reason}")
    show(f"{result.icount} steps\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])

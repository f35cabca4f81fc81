"""Names of generated code for `perf`, whose reports read them from ``/tmp/perf-PID.map``.

Written when a machine is closed or the process ends, where ``WORKBENCH_PERF_MAP`` is set. A block is called by the
guest's pc of its first instruction, or by its symbol of the Linux kernel that the machine's memory has. What was made
before the last flush of all code has no name. While it writes, the process calls itself ``perf-map``, so that a report
can leave this work out.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from machine.tcg.probes import NEVER

#: Where perf looks.
FOLDER = Path("/tmp")
COMM: Final = Path("/proc/self/comm")
SHARED: Final = "workbench: entry, exits, slow paths of loads and stores"

_begun: set[Path] = set()


def watch(engine: Any) -> None:
    """Write the names of an engine's code before it is gone.

    Replay: reads the state only, and after the run.
    """
    engine.on_close = lambda: write(engine)
    atexit.register(engine.close)


def write(engine: Any) -> Path:
    """Add the names of an engine's code to this process' file, and return it."""
    path = FOLDER / f"perf-{os.getpid()}.map"
    with _called("perf-map"):
        if path not in _begun:
            path.unlink(missing_ok=True)  # of an earlier process of this number
            path.touch(exist_ok=False)
            _begun.add(path)
        with path.open("a") as out:
            out.writelines(f"{start:x} {size:x} {name}\n" for start, size, name in named(engine))
    return path


def named(engine: Any) -> Iterator[tuple[int, int, str]]:
    """Yield host address, bytes and name of an engine's generated code."""
    from workbench.kernel.symbols import symbols_in_memory
    from workbench.symbols import Symbols

    symbols = Symbols(symbols_in_memory(engine))
    for start, size, pc in engine.translator.code_map():
        yield start, size, SHARED if pc == NEVER else f"guest {symbols.format(pc) or hex(pc)}"


@contextmanager
def _called(name: str) -> Iterator[None]:
    """Give this process another name for a while."""
    before = COMM.read_text().strip()
    COMM.write_text(name)
    try:
        yield
    finally:
        COMM.write_text(before)

"""Starts a stock gdb that is attached to a session, and serves it until it ends."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import guests
from workbench.errors import MissingToolError
from workbench.gdbstub.server import Server

if TYPE_CHECKING:
    from workbench.session import Session

#: In the order in which they are tried.
PROGRAMS = ("gdb-multiarch", "riscv64-linux-gnu-gdb", "riscv64-unknown-elf-gdb", "gdb")


def find_gdb(given: str | None = None) -> str:
    """Return the path of a gdb that knows riscv.

    Raises:
        MissingToolError: there is none, or the one that was given is none.
    """
    for name in (given,) if given else PROGRAMS:
        path = shutil.which(name)
        if path and (given or name != "gdb" or _knows_riscv(path)):
            return path
    what = f"--gdb {given}: no such program" if given else "no gdb that knows riscv is installed"
    raise MissingToolError(f"{what}; 'apt install gdb-multiarch' brings one")


def _knows_riscv(path: str) -> bool:
    command = [path, "-nx", "-batch", "-ex", "set architecture riscv:rv64"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode == 0 and "Undefined item" not in done.stderr


def run_gdb(
    session: Session,
    monitor: Callable[[str], str],
    program: str | None = None,
    arguments: Sequence[str] = (),
) -> int:
    """Run gdb on a session, on this terminal; return its exit code.

    Args:
        session: what is debugged. monitor: runs a line of ``monitor`` and returns its text.
        program: the gdb to run. arguments: more options for it.

    Raises:
        MissingToolError: there is no gdb.
    """
    path = find_gdb(program)
    helpers = files("workbench.gdbstub") / "helpers.py"
    with Server(session, "127.0.0.1", 0, monitor) as server, as_file(helpers) as script:
        sources = Path(
            guests.__file__
        ).parent  # where the built-in guest's line tables say that its files are
        setup = [
            "set architecture riscv:rv64",
            f"directory {sources}",
            f"target remote {server.address}",
            f"source {script}",
        ]
        command = [path, "-q", *(part for line in setup for part in ("-ex", line)), *arguments]
        child = subprocess.Popen(command)
        # Ctrl-C is gdb's, which passes it on through the connection
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        watcher = threading.Thread(target=_stop_behind, args=(child, server), daemon=True)
        watcher.start()
        try:
            server.serve()
        finally:
            watcher.join()
            signal.signal(signal.SIGINT, previous)
        return child.returncode


def _stop_behind(child: subprocess.Popen[bytes], server: Server) -> None:
    child.wait()
    server.stop()

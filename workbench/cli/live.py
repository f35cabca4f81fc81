"""Debuggers on machines that are being recorded."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.cli.machine import image_paths
from workbench.cli.machineopts import build_machine
from workbench.output import note

if TYPE_CHECKING:
    from workbench.session import Session


@contextmanager
def live_session(
    out: str, machine: dict[str, Any], backend: str, symbols: tuple[Path, ...]
) -> Iterator[Session]:
    """Begin a recording, and give a session that stands at its first step; both end together.

    Args:
        out: the trace. machine: the machine's options. backend: ``jit`` or ``interp``. symbols: files of them.
    """
    from workbench.replay.recorder import Recorder
    from workbench.session import Session
    from workbench.symbols import Symbols
    from workbench.terminal import HostConsole

    for path in symbols:
        Symbols.from_file(path)  # before anything is recorded
    config, images = build_machine(machine, idle="jump")
    console = HostConsole(False)
    recorder = Recorder(config, images, out, paths=image_paths(machine), echo=console.write, backend=backend)
    recorder.start()
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Session.attach(recorder, backend) as session:
            for path in symbols:
                session.add_symbol_file(path)
            yield session
        if recorder.recording:
            recorder.stop()
    finally:
        signal.signal(signal.SIGTERM, previous)
        recorder.abandon()
    note(f"workbench: recorded {out}: {recorder.board.icount:_} steps")

"""Servers that tests start: when they can be connected to."""

from __future__ import annotations

import time
from pathlib import Path

_LISTENING = 1 << 16  # __SO_ACCEPTCON of Linux's /proc/net/unix


def wait_listening(path: Path, seconds: float = 30) -> None:
    """Wait until a server listens on a Unix socket: its file is there before that, and a connection would be a client.

    Raises:
        TimeoutError: nobody does.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
            fields = line.split(None, 7)
            if len(fields) == 8 and fields[7] == str(path) and int(fields[3], 16) & _LISTENING:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nobody listens on {path}")

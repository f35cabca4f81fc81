"""A line that tells how a long motion goes, after half a second, on a terminal."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from workbench.output import progress_printer

if TYPE_CHECKING:
    from workbench.session import Session

FIRST_S = 0.5
EVERY_S = 0.2
_BAR = 12


class Progress:
    """Around a command: shows where the machine is, while that takes long.

    Args:
        session: whose machine; None shows nothing.

    Replay: looks at the position only.
    """

    def __init__(self, session: Session | None) -> None:
        self._session = session
        self._show = progress_printer() if session is not None else None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if self._show is not None:
            self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        assert self._session is not None and self._show is not None
        if self._over.wait(FIRST_S):
            return
        before, then = self._session.cursor, time.monotonic()
        while not self._over.wait(EVERY_S):
            here, now = self._session.cursor, time.monotonic()
            self._show(progress_line(here, self._session.end, here - before, now - then))
            before, then = here, now
        self._show("")


def progress_line(position: int, end: int, steps: int, seconds: float) -> str:
    """Return the line: a bar, where, how fast, and how long to the end of the run; no speed where it was set back."""
    done = min(position / end, 1.0) if end else 0.0
    bar = "█" * int(done * _BAR) + "░" * (_BAR - int(done * _BAR))
    speed = ""
    if steps > 0 and seconds > 0:
        left = max(end - position, 0) * seconds / steps
        speed = f" · {steps / seconds / 1e6:.0f} M steps/s · {left:.0f} s to the end"
    return f"{bar} {100 * done:.0f} % · position {position:_}{speed} · Ctrl-C stops"

"""Ctrl-C: a motion stops where it is with the session whole; a program has its own; the rest is unwound by Python."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.repl.shell import Shell

#: Presses after which what runs is no motion, or one that can't be stopped.
_PATIENCE = 2


@contextmanager
def interruptible(shell: Shell) -> Iterator[None]:
    """Make Ctrl-C stop a motion where it is, with the session whole; outside of one it raises as ever."""
    session: Any = shell.context.open_session
    if session is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        shell.interrupted = True
        session.interrupt()
        if pressed > _PATIENCE or not shell.moving:
            raise KeyboardInterrupt

    previous: Callable[[int, FrameType | None], Any] | int | None
    previous = signal.signal(signal.SIGINT, interrupt)
    shell.interrupted = False
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def left_to_child() -> Iterator[None]:
    """Leave Ctrl-C to the program that has the terminal, such as a pager: two of us reading keys is one too many."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, lambda *_: None)  # not ignored: that the program would inherit
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)

"""The guest's console on this terminal: raw keys, escape keys, a pipe instead of a terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Any

from workbench.errors import OutputError

ESCAPE = 0x01  # Ctrl-A
MAX_READ = 4096
#: Bytes of a pipe that wait for the guest; more is read when it has taken some.
MAX_PENDING = 1 << 16


class Key(Enum):
    """What an escape sequence asks for."""

    END = "x"
    REPL = "c"
    HELP = "h"


class EscapeKeys:
    """Takes Ctrl-A sequences out of what is typed: x ends, c opens the REPL, h helps, Ctrl-A sends itself."""

    def __init__(self) -> None:
        self._escaped = False

    def feed(self, data: bytes) -> tuple[bytes, list[Key]]:
        """Return the bytes that are for the guest, and the keys that are for us, in order."""
        out = bytearray()
        keys: list[Key] = []
        for byte in data:
            if not self._escaped:
                if byte == ESCAPE:
                    self._escaped = True
                else:
                    out.append(byte)
                continue
            self._escaped = False
            if byte in (ESCAPE, ord("a")):
                out.append(ESCAPE)
            elif chr(byte).lower() in "xch":
                keys.append(Key(chr(byte).lower()))
        return bytes(out), keys


class HostConsole:
    """The two ends of the guest's console on this process's stdin and stdout.

    On a terminal the keys are raw and Ctrl-A escapes; from a pipe every byte is console input.
    ``takes_input`` false reads nothing at all.
    """

    def __init__(self, takes_input: bool = True, output: bool = True) -> None:
        self._in = sys.stdin.fileno() if takes_input else -1
        self._out = sys.stdout.fileno() if output else -1
        self._terminal = takes_input and os.isatty(self._in)
        self._keys = EscapeKeys()
        self._saved: list[Any] | None = None
        self._pending = bytearray()
        #: called with each escape key as it is pressed
        self.on_key: Callable[[Key], None] = lambda key: None
        self.at_end = not takes_input

    @property
    def interactive(self) -> bool:
        """Tell whether a person types here."""
        return self._terminal

    def __enter__(self) -> HostConsole:
        self.raw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.cooked()

    def raw(self) -> None:
        """Put the terminal into raw mode: every key goes to the guest, Ctrl-C too."""
        if self._terminal and self._saved is None:
            self._saved = termios.tcgetattr(self._in)
            tty.setraw(self._in, termios.TCSANOW)

    def cooked(self) -> None:
        """Give the terminal back as it was."""
        if self._saved is not None:
            termios.tcsetattr(self._in, termios.TCSANOW, self._saved)
            self._saved = None

    def poll(self, timeout_s: float = 0.0) -> bytes:
        """Return bytes for the guest that have come, waiting up to a time for the first one."""
        if not self.at_end and len(self._pending) < MAX_PENDING:
            ready, _, _ = select.select([self._in], [], [], timeout_s)
            if ready:
                self._read()
        data = bytes(self._pending)
        self._pending.clear()
        return data

    def _read(self) -> None:
        data = os.read(self._in, MAX_READ)
        if not data:
            self.at_end = True
            return
        if self._terminal:
            data, keys = self._keys.feed(data)
            for key in keys:
                self.on_key(key)
        self._pending += data

    def write(self, data: bytes) -> None:
        """Write the guest's output; all of it, also to a pipe that is full for a while."""
        view = memoryview(data)
        while self._out >= 0 and view:
            try:
                view = view[os.write(self._out, view) :]
            except BlockingIOError:
                select.select([], [self._out], [])
            except BrokenPipeError:  # the reader has gone; what is recorded stays whole
                self._out = -1
            except OSError as error:
                self._out = -1
                raise OutputError(error) from None

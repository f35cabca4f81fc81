"""A real terminal whose screen a script can read: a program on a pseudo terminal, and pyte as what it draws on."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyte

#: How long a screen may take on a busy host.
PATIENCE_S = 120.0


class _Screen(pyte.Screen):
    """A screen that answers what programs ask of their terminal, such as where the cursor is."""

    def __init__(self, columns: int, rows: int, answer: Callable[[str], object]) -> None:
        super().__init__(columns, rows)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        self._answer(data)


class Terminal:
    """A program on a terminal.

    Args:
        command: what runs. columns, rows: the terminal's size. cwd: where. environment: what is set beside ours.
    """

    def __init__(
        self,
        command: Sequence[str],
        columns: int = 100,
        rows: int = 40,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.screen = _Screen(columns, rows, self.type)
        self._stream: Any = pyte.ByteStream(self.screen)
        more = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(rows), **(environment or {})}
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            if cwd is not None:
                os.chdir(cwd)
            os.execvpe(command[0], list(command), {**os.environ, **more})
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            os.kill(self.pid, signal.SIGHUP)
        except ProcessLookupError:
            return
        finally:
            os.close(self._fd)
            os.waitpid(self.pid, 0)

    def type(self, text: str) -> None:
        """Type keys."""
        os.write(self._fd, text.encode())

    @property
    def text(self) -> str:
        """The screen as text, without blanks at the ends of lines and empty lines at its end."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip() + "\n"

    @property
    def line(self) -> str:
        """The text before the cursor in its line."""
        return str(self.screen.display[self.screen.cursor.y])[: self.screen.cursor.x]

    def read(self, wait_s: float = 0.1) -> bool:
        """Draw what the program has printed; return whether it is still there."""
        while select.select([self._fd], [], [], wait_s)[0]:
            try:
                data = os.read(self._fd, 1 << 16)
            except OSError:
                return False
            if not data:
                return False
            self._stream.feed(data)
            wait_s = 0.05
        return True

    def wait(self, pattern: str, where: Callable[[], str] | None = None) -> re.Match[str]:
        """Wait until the screen (or what ``where`` returns) has a pattern; return the match.

        Raises:
            AssertionError: it does not come.
        """
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            alive = self.read()
            found = re.search(pattern, where() if where else self.text, re.MULTILINE)
            if found:
                return found
            if not alive:
                break
        raise AssertionError(f"no {pattern!r} came; the screen is:\n{self.text}")

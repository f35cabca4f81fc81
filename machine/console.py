"""Console output of the machine: characters gathered into lines on their way to the sink."""

from __future__ import annotations

from collections.abc import Callable

from machine.inputs import ConsoleSink

GATHER_MAX = 4096


class ConsolePort:
    """One port. Text leaves at a line's end, when there is much of it, and when the machine stops running.

    Args:
        name: the port's name.
        sink: takes the text, with the position of its last character.
        position: returns (icount, vtime_ns) now.

    What is gathered is no state of the machine: it is always empty between runs.
    """

    def __init__(self, name: str, sink: ConsoleSink, position: Callable[[], tuple[int, int]]) -> None:
        self.name = name
        self._sink = sink
        self._position = position
        self._text = bytearray()
        self._last = (0, 0)

    def put(self, data: bytes) -> None:
        """Print."""
        if not data:
            return
        self._text += data
        self._last = self._position()
        if data.endswith(b"\n") or len(self._text) >= GATHER_MAX:
            self.flush()

    def flush(self) -> None:
        """Hand over what is gathered."""
        if self._text:
            text = bytes(self._text)
            self._text.clear()
            self._sink.write(self.name, text, *self._last)

"""Console output of the machine: characters gathered into lines on their way to the sink."""

from __future__ import annotations

from typing import Protocol

from machine.inputs import ConsoleSink

GATHER_MAX = 4096


class Printer(Protocol):
    """What a port asks of the engine: the position, and what the guest prints without a call of its device."""

    @property
    def icount(self) -> int: ...

    @property
    def vtime_ns(self) -> int: ...

    def set_print_register(self, paddr: int | None) -> None: ...

    def set_print_room(self, room: int) -> None: ...

    def take_printed(self) -> tuple[bytes, int, int]: ...


class ConsolePort:
    """One port. Text leaves at a line's end, when there is much of it, and when the machine stops running.

    Args:
        name: the port's name.
        sink: takes the text, with the position of its last character.
        printer: the engine. One port at most listens to a register.

    What is gathered is no state of the machine: it is always empty between runs.
    """

    def __init__(self, name: str, sink: ConsoleSink, printer: Printer) -> None:
        self.name = name
        self._sink = sink
        self._printer = printer
        self._listens = False
        self._text = bytearray()
        self._last = (0, 0)

    def listen(self, paddr: int | None) -> None:
        """Print what is written at ``paddr``, with no call of its device, until told otherwise (None)."""
        self._listens = self._listens or paddr is not None
        self._printer.set_print_register(paddr)
        self._set_room()

    def _set_room(self) -> None:
        if self._listens:
            self._printer.set_print_room(GATHER_MAX - len(self._text))

    def _collect(self) -> None:
        if self._listens:
            text, *position = self._printer.take_printed()
            if text:
                self._text += text
                self._last = (position[0], position[1])

    def put(self, data: bytes) -> None:
        """Print."""
        if not data:
            return
        self._collect()
        self._text += data
        self._last = (self._printer.icount, self._printer.vtime_ns)
        if data.endswith(b"\n") or len(self._text) >= GATHER_MAX:
            self.flush()
        self._set_room()

    def flush(self) -> None:
        """Hand over what is gathered."""
        self._collect()
        if self._text:
            text = bytes(self._text)
            self._text.clear()
            self._sink.write(self.name, text, *self._last)
        self._set_room()

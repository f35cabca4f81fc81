"""What the parts of the gdb stub share: the session, the thread gdb looks at, and the way back to its console."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.gdbstub.packets import MAX_PAYLOAD
from workbench.gdbstub.target import Target
from workbench.peek import Peek

if TYPE_CHECKING:
    from workbench.session import Session

ERROR_ARGUMENT = b"E16"  # EINVAL, in hex as all errors are
ERROR_MEMORY = b"E14"  # EFAULT's decimal, what gdb users know from other stubs
MAX_MEMORY_BYTES = (MAX_PAYLOAD - 8) // 2
_HEX = frozenset("0123456789abcdefABCDEF")

#: Runs a motion of the session so that Ctrl-C reaches it; None when Ctrl-C came first. The server gives one.
MotionRunner = Callable[[Callable[[], Any]], Any]
#: A packet's meaning: what follows its name, to the reply.
Meaning = Callable[[str], bytes]


class BadPacket(Exception):
    """A packet whose arguments mean nothing."""


class Link:
    """One connection's state.

    Args:
        session: what is debugged.
        send: sends a payload before the reply (console output).
        run_motion: runs a motion so that Ctrl-C reaches it.
        broken: whether a Ctrl-C waits, for motions that are made of several.
    """

    def __init__(
        self,
        session: Session,
        send: Callable[[bytes], None],
        run_motion: MotionRunner = lambda motion: motion(),
        broken: Callable[[], bool] = lambda: False,
    ) -> None:
        self.session = session
        engine = session.board.engine
        has_vectors = "v0" in engine.reg_names
        self.target = Target(engine.reg_names, engine.reg_bits(engine.reg_number("v0")) if has_vectors else 0)
        self.peek = Peek(session)
        self.send = send
        self.run_motion = run_motion
        self.broken = broken
        #: the hart that g, m and the like mean
        self.hart = session.hart
        #: whether addresses are physical (Qqemu.PhyMemMode)
        self.physical = False
        #: what gdb said it can do
        self.features: frozenset[str] = frozenset()
        self._console: list[str] = []

    def tell(self, text: str) -> None:
        """Have gdb's console show a line when it next may: while a motion runs."""
        line = f"workbench: {text}\n"
        if line not in self._console:
            self._console.append(line)

    def flush_console(self) -> None:
        """Send what waits for gdb's console."""
        for text in self._console:
            self.print(text)
        self._console.clear()

    def print(self, text: str) -> None:
        """Send text to gdb's console; only while gdb waits for a stop or for ``qRcmd``."""
        data = text.encode()
        for at in range(0, len(data), MAX_MEMORY_BYTES):
            self.send(b"O" + data[at : at + MAX_MEMORY_BYTES].hex().encode())

    def thread(self, text: str) -> int | None:
        """Return a thread's hart, None for any. Raises BadPacket: there is none."""
        if text in ("0", "-1"):
            return None
        number = number_of(text) - 1
        if not 0 <= number < self.session.harts:
            raise BadPacket
        return number


def number_of(text: str) -> int:
    """Return a hex number of at most 64 bits. Raises BadPacket for what is none."""
    if not 0 < len(text) <= 16 or not set(text) <= _HEX:
        raise BadPacket
    return int(text, 16)


def pair_of(text: str) -> tuple[int, int]:
    """Return the two numbers of ``address,length``. Raises BadPacket."""
    first, comma, second = text.partition(",")
    if not comma:
        raise BadPacket
    return number_of(first), number_of(second)


def bytes_of(text: str) -> bytes:
    """Return the bytes that a text of hex digits stands for. Raises BadPacket."""
    if len(text) % 2 or not set(text) <= _HEX:
        raise BadPacket
    return bytes.fromhex(text)

"""The meaning of gdb's packets over a Session: the parts that know one kind of packet each, in one table.

Threads are harts, numbered from 1. A write opens a branch of a recorded run, and is an input of a live one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.errors import exit_code_of, one_line
from workbench.gdbstub.link import ERROR_ARGUMENT, BadPacket, Link, MotionRunner
from workbench.gdbstub.memory import Memory
from workbench.gdbstub.motions import Motions
from workbench.gdbstub.points import Points
from workbench.gdbstub.queries import Detached, Queries
from workbench.gdbstub.symbolfile import SymbolFileServer

if TYPE_CHECKING:
    from workbench.session import Session

__all__ = ["Detached", "Handlers"]


class Handlers:
    """One connection's meaning.

    Args:
        session: what is debugged.
        monitor: runs a line of ``monitor`` and returns its text.
        send: sends a payload before the reply (console output).
        run_motion: runs a motion so that Ctrl-C reaches it.
        file: the symbols that gdb is given; made of the session's where None.
        broken: whether a Ctrl-C waits.
    """

    def __init__(
        self,
        session: Session,
        monitor: Callable[[str], str],
        send: Callable[[bytes], None],
        run_motion: MotionRunner = lambda motion: motion(),
        file: SymbolFileServer | None = None,
        broken: Callable[[], bool] = lambda: False,
    ) -> None:
        self._link = Link(session, send, run_motion, broken)
        self._points = Points(self._link)
        self._queries = Queries(self._link, monitor, file or SymbolFileServer(session.symbols))
        parts = (Memory(self._link), self._points, Motions(self._link, self._points), self._queries)
        packets = {name: meaning for part in parts for name, meaning in part.packets().items()}
        # the longest name first, as one may begin like another
        self._packets = sorted(packets.items(), key=lambda entry: -len(entry[0]))

    @property
    def no_ack(self) -> bool:
        """Whether packets are no more acknowledged."""
        return self._queries.no_ack

    def close(self) -> None:
        """Take away the points that this gdb set."""
        self._points.close()

    def handle(self, data: bytes) -> bytes:
        """Return the reply to a packet; an empty one for what is not known here.

        Raises:
            Detached: when gdb leaves.
        """
        text = data.decode("latin-1")
        try:
            for name, meaning in self._packets:
                if text.startswith(name):
                    return meaning(text[len(name) :])
        except BadPacket:
            return ERROR_ARGUMENT
        # an expected error of the session, told as an errno; bugs go up to the server
        except Exception as error:
            if isinstance(error, Detached) or (
                exit_code_of(error) is None and not isinstance(error, ValueError)
            ):
                raise
            self._link.tell(one_line(error))
            return ERROR_ARGUMENT
        return b""

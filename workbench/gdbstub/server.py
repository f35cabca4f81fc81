"""The socket side of the gdb stub: one client at a time; a thread reads, so that Ctrl-C reaches a motion."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.gdbstub.handlers import Detached, Handlers
from workbench.gdbstub.packets import Event, Packet, PacketReader, Signal, encode
from workbench.gdbstub.symbolfile import SymbolFileServer
from workbench.listening import Listener
from workbench.peek import kernel_image

if TYPE_CHECKING:
    from workbench.session import Session

MAX_QUEUED = 1024


class Server(Listener):
    """Listens for gdb and serves one session to it.

    Args:
        session: what is debugged.
        host, port: where to listen; port 0 takes a free one, ``address`` tells which.
        monitor: runs a line of ``monitor`` and returns its text.

    Raises:
        UsageError: when the address can't be listened on.
    """

    def __init__(self, session: Session, host: str, port: int, monitor: Callable[[str], str]) -> None:
        self._session = session
        self._monitor = monitor
        self._file = SymbolFileServer(session.symbols, kernel_image(session))
        self._file.data()  # now, as gdb waits two seconds for its first reply and no longer
        super().__init__(host, port)

    def serve(self, once: bool = False) -> None:
        """Serve one gdb after the other, until one kills or ``stop``; with ``once``, until the first has gone."""
        for client in self.clients():
            killed = Connection(client, self._session, self._monitor, self._file).run()
            if killed or once:
                return


class Connection:
    """One gdb. The reading thread parses and queues; this thread answers in order."""

    def __init__(
        self,
        client: socket.socket,
        session: Session,
        monitor: Callable[[str], str],
        file: SymbolFileServer,
    ) -> None:
        self._client = client
        self._session = session
        self._events: queue.Queue[Event | None] = queue.Queue(MAX_QUEUED)
        self._lock = threading.Lock()
        self._moving = False
        self._break_waits = False
        self._last_sent = b""
        self._handlers = Handlers(
            session, monitor, self._send, self._run_motion, file, lambda: self._break_waits
        )

    def run(self) -> bool:
        """Answer until gdb leaves; return whether it killed."""
        reader = threading.Thread(target=self._read, name="gdb reader", daemon=True)
        reader.start()
        try:
            while (event := self._events.get()) is not None:
                self._answer(event)
            return False
        except Detached as left:
            if left.reply is not None:
                self._send(left.reply)
            return left.ends_server
        except (ConnectionError, TimeoutError):
            return False
        finally:
            self._handlers.close()
            self._hang_up()

    def _hang_up(self) -> None:
        try:
            self._client.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # gone already

    def _answer(self, event: Event) -> None:
        if isinstance(event, Packet):
            if not self._handlers.no_ack:
                self._client.sendall(b"+")
            self._send(self._handlers.handle(event.data))
        elif event is Signal.BREAK:
            with self._lock:
                self._break_waits = False
        elif not self._handlers.no_ack:
            if event is Signal.BAD:
                self._client.sendall(b"-")
            elif event is Signal.NAK and self._last_sent:
                self._client.sendall(self._last_sent)

    def _send(self, data: bytes) -> None:
        self._last_sent = encode(data)
        self._client.sendall(self._last_sent)

    def _run_motion(self, motion: Callable[[], Any]) -> Any:
        """Run a motion and return its stop; None when a Ctrl-C came before it had begun."""
        with self._lock:
            if self._break_waits:
                return None
            self._moving = True
        try:
            return motion()
        finally:
            with self._lock:
                self._moving = False

    def _read(self) -> None:
        reader = PacketReader()
        try:
            while data := self._client.recv(65536):
                for event in reader.feed(data):
                    if event is Signal.BREAK:
                        self._interrupt()
                    self._events.put(event)
        except OSError:
            pass  # the connection is gone: the same as its end
        finally:
            self._interrupt_if_moving()
            self._events.put(None)

    def _interrupt(self) -> None:
        with self._lock:
            self._break_waits = True
            if self._moving:
                self._session.interrupt()

    def _interrupt_if_moving(self) -> None:
        """gdb went away in the middle of a motion: nobody waits for its end."""
        with self._lock:
            if self._moving:
                self._session.interrupt()

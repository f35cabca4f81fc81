"""The transport of the adapter: standard streams or a socket; a thread reads, so that ``pause`` reaches a motion."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from workbench.dap.adapter import Adapter, Disconnected
from workbench.dap.link import Console
from workbench.dap.protocol import MessageReader, ProtocolError, encode
from workbench.errors import InputError
from workbench.listening import Listener

if TYPE_CHECKING:
    from workbench.session import Session

_MAX_QUEUED: Final = 1024
#: Requests that end a motion that runs.
_ENDING: Final = ("pause", "disconnect", "terminate")


class Connection:
    """One client: a thread reads and queues, this one answers in order.

    Args:
        read: returns bytes as they come, none at the end. write: sends bytes, all of them.
        console: makes the REPL's commands over a session.
    """

    def __init__(
        self,
        read: Callable[[], bytes],
        write: Callable[[bytes], object],
        console: Callable[[Session], Console],
    ) -> None:
        self._read_bytes = read
        self._write = write
        self._queue: queue.Queue[dict[str, Any] | ProtocolError | None] = queue.Queue(_MAX_QUEUED)
        self._lock = threading.Lock()
        self._moving = False
        self._pause_waits = False
        self._adapter = Adapter(self._send, console, self._run_motion)

    def run(self) -> None:
        """Answer until the client leaves.

        Raises:
            InputError: it sent what is no message.
        """
        threading.Thread(target=self._read, name="dap reader", daemon=True).start()
        try:
            while (message := self._queue.get()) is not None:
                if isinstance(message, ProtocolError):
                    raise InputError(f"dap: {message}")
                if message.get("command") == "pause":
                    with self._lock:  # no motion that comes later is meant
                        self._pause_waits = False
                self._adapter.handle(message)
        except Disconnected:
            return
        except (ConnectionError, TimeoutError):
            return
        finally:
            self._adapter.close()

    def _send(self, message: dict[str, Any]) -> None:
        self._write(encode(message))

    def _run_motion(self, motion: Callable[[], Any]) -> Any:
        """Run a motion and return its stop; None when ``pause`` came before it had begun."""
        with self._lock:
            if self._pause_waits:
                self._pause_waits = False
                return None
            self._moving = True
        try:
            return motion()
        finally:
            with self._lock:
                self._moving = self._pause_waits = False

    def _read(self) -> None:
        reader = MessageReader()
        try:
            while data := self._read_bytes():
                for message in reader.feed(data):
                    if message.get("command") in _ENDING:
                        self._interrupt(waiting=True)
                    self._queue.put(message)
        except ProtocolError as error:
            self._queue.put(error)
        except (OSError, ValueError):
            pass  # the connection is gone, or the stream was closed: the same as its end
        finally:
            self._interrupt(waiting=False)
            self._queue.put(None)

    def _interrupt(self, waiting: bool) -> None:
        """End the motion that runs, or the one whose request waits in the queue before this one."""
        with self._lock:
            if self._moving:
                self._adapter.link.session.interrupt()
            elif waiting and not self._queue.empty():
                self._pause_waits = True


def serve_streams(incoming: BinaryIO, outgoing: BinaryIO, console: Callable[[Session], Console]) -> None:
    """Serve one client on streams, as editors start an adapter. Raises InputError."""

    def write(data: bytes) -> None:
        outgoing.write(data)
        outgoing.flush()

    def read() -> bytes:
        data: bytes = incoming.read1(1 << 16)  # type: ignore[attr-defined]
        return data

    Connection(read, write, console).run()


class Server(Listener):
    """Waits for clients on a socket.

    Args:
        host, port: where; port 0 takes a free one, ``address`` tells which.
        console: makes the REPL's commands over a session.

    Raises:
        UsageError: it can't be listened on, or is no loopback address.
    """

    def __init__(self, host: str, port: int, console: Callable[[Session], Console]) -> None:
        self._console = console
        super().__init__(host, port, loopback=True)

    def serve(self, once: bool = False, failed: Callable[[str], object] = lambda text: None) -> None:
        """Serve one client after the other; ``failed`` is told of one that sent no messages."""
        with self:
            for client in self.clients():
                try:
                    Connection(lambda c=client: c.recv(1 << 16), client.sendall, self._console).run()  # type: ignore[misc]
                except InputError as error:
                    failed(str(error))
                if once:
                    return

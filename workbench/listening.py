"""A socket that listens for one client at a time: what the gdb stub and the debug adapter have in common."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from workbench.errors import UsageError


def listen(host: str, port: int, *, loopback: bool = False) -> socket.socket:
    """Return a listening socket.

    Args:
        host: a name or address. port: 0 takes a free one; ``address_of`` tells which.
        loopback: refuse addresses that others than this host can reach.

    Raises:
        UsageError: it can't be listened on.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if loopback and not str(address[0]).startswith("127.") and address[0] != "::1":
            raise UsageError(
                f"--listen {host}:{port}: whoever reaches it can run commands here, so only a loopback "
                "address is listened on; reach it from elsewhere through ssh -L"
            )
        return socket.create_server(address, family=family, backlog=1)
    except OSError as error:
        raise UsageError(f"--listen {host}:{port}: can't listen there: {error.strerror or error}") from None


def address_of(listener: socket.socket) -> str:
    """Return where clients are to come, as HOST:PORT."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Listener:
    """A socket that clients come to, one at a time. A context manager.

    Args:
        host, port, loopback: as ``listen`` has them; ``address`` tells the port.

    Raises:
        UsageError: it can't be listened on.
    """

    def __init__(self, host: str, port: int, *, loopback: bool = False) -> None:
        self._stopped = False
        self._socket = listen(host, port, loopback=loopback)

    @property
    def address(self) -> str:
        """Return where clients are to come, as HOST:PORT."""
        return address_of(self._socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._socket.close()

    def stop(self) -> None:
        """End ``clients`` while it waits for one; from another thread."""
        self._stopped = True
        with suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_RDWR)

    def clients(self) -> Iterator[socket.socket]:
        """Yield one client after the other, open until the next is asked for; small packets go out at once.

        Raises:
            OSError: none can come.
        """
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                if self._stopped:
                    return
                raise
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client:
                yield client

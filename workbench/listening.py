"""A socket that listens for one client at a time: what the gdb stub and the debug adapter have in common."""

from __future__ import annotations

import socket

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


def accept(listener: socket.socket) -> socket.socket:
    """Wait for a client; small packets go out at once. Raises OSError."""
    client, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client

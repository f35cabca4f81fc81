"""Listening for one client at a time."""

from __future__ import annotations

import socket

import pytest

from workbench.errors import UsageError
from workbench.listening import Listener, address_of, listen


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")])
def test_a_client_comes_to_the_address_that_is_told(host: str, shown: str) -> None:
    with Listener(host, 0, loopback=True) as listener:
        assert listener.address.startswith(shown)
        port = int(listener.address.rpartition(":")[2])
        with socket.create_connection((host, port)) as there:
            here = next(clients := listener.clients())
            assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            there.sendall(b"x")
            assert here.recv(1) == b"x"
            listener.stop()
            assert list(clients) == []
            assert here.fileno() == -1  # closed, as the next one was asked for


def test_an_address_that_cannot_be_had_is_told() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = int(address_of(listener).rpartition(":")[2])
        with pytest.raises(UsageError, match=f"--listen 127.0.0.1:{port}: can't listen there"):
            listen("127.0.0.1", port)


def test_others_than_this_host_are_kept_out_where_that_is_asked() -> None:
    with pytest.raises(UsageError, match="only a loopback"):
        listen("0.0.0.0", 0, loopback=True)

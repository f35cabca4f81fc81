"""The transport of the debug adapter: frames, bounds, hostile bytes, where it may listen."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.cli.dap import ReplConsole
from workbench.dap.protocol import (
    MAX_HEADER_BYTES,
    Arguments,
    BadRequest,
    MessageReader,
    ProtocolError,
    encode,
)
from workbench.dap.server import Server
from workbench.errors import UsageError


def test_messages_arrive_whole_however_their_bytes_are_cut() -> None:
    data = encode({"seq": 1, "text": "ä"}) + encode({"seq": 2})
    reader = MessageReader()
    found = [message for byte in data for message in reader.feed(bytes([byte]))]
    assert [message["seq"] for message in found] == [1, 2]


@pytest.mark.parametrize(
    "data",
    [
        b"x" * MAX_HEADER_BYTES,
        b"Content-Length: 99999999999\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Type: x\r\n\r\n",
        b"Content-Length: 2\r\n\r\n[]",
        b"Content-Length: 2\r\n\r\n{x",
        b"Content-Length: 100000\r\n\r\n" + b"[" * 100_000,
    ],
)
def test_what_is_no_message_ends_the_connection(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(MessageReader().feed(data))


@given(st.binary(max_size=200))
def test_hostile_bytes_raise_nothing_else(data: bytes) -> None:
    reader = MessageReader()
    try:
        for message in reader.feed(b"Content-Length: 3\r\n\r\n" + data):
            assert isinstance(message, dict)
    except ProtocolError:
        return


@given(
    st.dictionaries(
        st.sampled_from("abc"), st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text()))
    )
)
def test_arguments_are_of_their_types_or_refused(values: dict[str, object]) -> None:
    arguments = Arguments(values)
    for read in (arguments.text, arguments.number, arguments.objects, arguments.texts, arguments.pairs):
        try:
            read("a")
        except BadRequest as error:
            assert "expected" in str(error)


def test_only_the_loopback_is_listened_on() -> None:
    with pytest.raises(UsageError, match="only a loopback address"):
        Server("0.0.0.0", 0, ReplConsole)


def test_client_that_sends_no_message_is_told_of_and_the_next_one_served() -> None:
    listener = Server("127.0.0.1", 0, ReplConsole)
    host, port = listener.address.split(":")
    told: list[str] = []
    thread = threading.Thread(target=listener.serve, args=(True, told.append), daemon=True)
    thread.start()
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        wire.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert wire.recv(1) == b""
    thread.join(10)
    assert not thread.is_alive() and told and "Content-Length" in told[0]

"""The socket side of the gdb stub, with a packet client and with a stock gdb."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import UsageError
from workbench.gdbstub.packets import Packet, PacketReader, Signal, encode
from workbench.gdbstub.server import Server
from workbench.repl.shell import Shell

BASE = 0x8000_0000


class Running:
    """A server in a thread, and where it listens."""

    def __init__(self, session: Any) -> None:
        self.server = Server(session, "127.0.0.1", 0, Shell(session).monitor)
        host, port = self.server.address.split(":")
        self.host, self.port = host, int(port)
        self.thread = threading.Thread(target=self.server.serve, daemon=True)
        self.thread.start()

    def connect(self) -> Wire:
        return Wire(socket.create_connection((self.host, self.port), timeout=10))

    def stop(self) -> None:
        if self.thread.is_alive():
            with self.connect() as wire:
                wire.socket.sendall(encode(b"k"))
            self.thread.join(10)
        self.server._socket.close()


class Wire:
    """A client that speaks packets."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.reader = PacketReader()
        self.events: list[Any] = []

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def event(self) -> Any:
        while not self.events:
            data = self.socket.recv(65536)
            if not data:
                return None
            self.events += self.reader.feed(data)
        return self.events.pop(0)

    def ask(self, data: bytes, acks: bool = True) -> bytes:
        self.socket.sendall(encode(data))
        if acks:
            assert self.event() is Signal.ACK
        reply = self.event()
        assert isinstance(reply, Packet)
        if acks:
            self.socket.sendall(b"+")
        return reply.data


@pytest.fixture
def running(session: Any) -> Iterator[Running]:
    running = Running(session)
    yield running
    running.stop()


def test_acknowledges_until_no_ack_mode(running: Running) -> None:
    with running.connect() as wire:
        assert wire.ask(b"?") == b"T05thread:1;"
        assert wire.ask(b"QStartNoAckMode") == b"OK"
        assert wire.ask(b"qC", acks=False) == b"QC1"


def test_bad_checksum_is_asked_again_and_a_nak_sends_the_reply_again(running: Running) -> None:
    with running.connect() as wire:
        wire.socket.sendall(b"$qC#00")
        assert wire.event() is Signal.NAK
        assert wire.ask(b"qC") == b"QC1"
        wire.socket.sendall(b"-")
        assert wire.event() == Packet(b"QC1")


def test_ctrl_c_stops_a_motion_that_runs(running: Running, session: Any) -> None:
    started = threading.Event()

    def wait_for_interrupt() -> None:
        started.set()
        assert session._interrupted.wait(10)

    session.on_cont = wait_for_interrupt
    with running.connect() as wire:
        wire.socket.sendall(encode(b"c"))
        assert started.wait(10)
        wire.socket.sendall(b"\x03")
        assert wire.event() is Signal.ACK
        assert wire.event() == Packet(b"T02thread:1;")
    assert 0 < session.cursor < session.end


def test_ctrl_c_right_behind_its_packet_is_not_lost(running: Running, session: Any) -> None:
    session.on_cont = lambda: session._interrupted.wait(10)
    with running.connect() as wire:
        wire.socket.sendall(encode(b"c") + b"\x03")
        assert wire.event() is Signal.ACK
        assert wire.event() == Packet(b"T02thread:1;")
        assert wire.ask(b"qC") == b"QC1"


def test_next_gdb_may_come_after_one_that_vanished(running: Running, session: Any) -> None:
    with running.connect() as wire:
        assert wire.ask(b"Z0,%x,4" % BASE) == b"OK"
    with running.connect() as wire:
        assert wire.ask(b"qC") == b"QC1"
        assert session.breakpoints == []


def test_kill_ends_the_server(running: Running) -> None:
    running.stop()
    assert not running.thread.is_alive()


def test_address_that_is_taken_is_one_clear_line(running: Running, session: Any) -> None:
    with pytest.raises(UsageError, match=r"--listen 127\.0\.0\.1:\d+: can't listen there"):
        Server(session, running.host, running.port, lambda line: "")


@pytest.mark.skipif(shutil.which("gdb-multiarch") is None, reason="needs gdb-multiarch")
def test_stock_gdb_steps_and_continues_in_both_directions(running: Running) -> None:
    script = [
        "set confirm off",
        "set architecture riscv:rv64",
        f"target remote {running.host}:{running.port}",
        "break *leaf",
        "continue",
        "continue",
        "reverse-continue",
        'printf "a0=%d pc=%#lx\\n", $a0, $pc',
        "reverse-stepi",
        "x/i $pc",
        'printf "mstatus=%#lx priv=%d\\n", $mstatus, $priv',
        "delete",
        "reverse-continue",
        "continue",
        "info threads",
        "monitor where",
        f"set var *(int*){BASE:#x} = 1",
        "stepi",
    ]
    command = ["gdb-multiarch", "-nx", "-batch"]
    for line in script:
        command += ["-ex", line]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    text = done.stdout + done.stderr
    assert f"a0=1 pc={BASE + 0x20:#x}" in text
    assert f"=> {BASE + 4:#x} <loop+4>:\tjal\t" in text
    assert "mstatus=0xa00001800 priv=3" in text
    assert text.count("No more reverse-execution history") >= 2
    assert "position 600 of 600" in text
    assert '"hart 1"' in text or "hart 1" in text
    assert "branch at" in text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(
    st.lists(
        st.one_of(st.binary(max_size=60), st.sampled_from([b"$", b"#", b"}", b"\x03", b"+", b"-", b"$g#67"]))
    )
)
def test_hostile_bytes_leave_the_server_answering(running: Running, parts: list[bytes]) -> None:
    with running.connect() as wire:
        wire.socket.sendall(b"".join(part for part in parts if b"k" not in part and b"vKill" not in part))
    with running.connect() as wire:
        assert wire.ask(b"qC").startswith(b"QC")

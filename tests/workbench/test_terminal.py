"""The guest's console on the host's side: escape keys, pipes, readers that go away."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.terminal import EscapeKeys, HostConsole, Key


def test_escape_keys_are_taken_out_and_ctrl_a_can_be_sent() -> None:
    keys = EscapeKeys()
    assert keys.feed(b"ab\x01xcd") == (b"abcd", [Key.END])
    assert keys.feed(b"\x01\x01\x01c\x01h\x01q!") == (b"\x01!", [Key.REPL, Key.HELP])


@given(st.binary(max_size=60), st.integers(0, 60))
def test_keys_are_the_same_wherever_the_stream_is_cut(data: bytes, cut: int) -> None:
    whole = EscapeKeys().feed(data)
    keys = EscapeKeys()
    first, second = keys.feed(data[:cut]), keys.feed(data[cut:])
    assert (first[0] + second[0], first[1] + second[1]) == whole


class Pipe:
    """Stands for sys.stdin or sys.stdout."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


@pytest.fixture
def pipes(monkeypatch: pytest.MonkeyPatch) -> Any:
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()

    def patch() -> None:
        """Put the pipes in place: in the test, as pytest's capture changes stdout between set-up and test."""
        monkeypatch.setattr(sys, "stdin", Pipe(read_in))
        monkeypatch.setattr(sys, "stdout", Pipe(write_out))

    yield write_in, read_out, patch
    for fd in (read_in, write_in, read_out, write_out):
        try:
            os.close(fd)
        except OSError:
            continue


def test_every_byte_of_a_pipe_is_console_input_until_its_end(pipes: Any) -> None:
    write_in, _, patch = pipes
    patch()
    with HostConsole() as console:
        assert console.poll() == b""
        os.write(write_in, b"a\x01x")
        assert console.poll(1.0) == b"a\x01x"
        os.close(write_in)
        assert console.poll(1.0) == b""
        assert console.at_end


def test_without_input_nothing_is_read(pipes: Any) -> None:
    pipes[2]()
    os.write(pipes[0], b"abc")
    console = HostConsole(takes_input=False)
    assert (console.at_end, console.poll(), console.interactive) == (True, b"", False)


def test_output_to_a_reader_that_went_away_is_dropped(pipes: Any) -> None:
    pipes[2]()
    console = HostConsole(takes_input=False)
    console.write(b"seen")
    assert os.read(pipes[1], 10) == b"seen"
    os.close(pipes[1])
    console.write(b"unseen")
    console.write(b"unseen")

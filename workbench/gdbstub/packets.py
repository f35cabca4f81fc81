"""The transport of gdb's remote protocol: framing, checksums, escapes. Knows no meaning and no socket.

    $ payload # two hex digits of checksum      a packet; the checksum is over the payload as sent
    +  -                                        acknowledged, send again
    0x03                                        Ctrl-C
    }  then byte ^ 0x20                         an escaped byte of a payload

What comes in is hostile: a packet longer than the limit is dropped and told as bad, and reading goes on
with the next ``$``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

#: The longest payload that is taken, and what ``qSupported`` promises to take.
MAX_PAYLOAD = 0x4000

_START, _END, _ESCAPE, _RUN = ord("$"), ord("#"), ord("}"), ord("*")
_OWN = re.compile(rb"[$#}*]")
_HEX = frozenset(b"0123456789abcdefABCDEF")


class Signal(Enum):
    """What comes in beside packets; BAD is one whose checksum or length was wrong."""

    ACK = auto()
    NAK = auto()
    BREAK = auto()
    BAD = auto()


@dataclass(frozen=True)
class Packet:
    """One payload, unescaped."""

    data: bytes


Event = Packet | Signal


def checksum(payload: bytes) -> int:
    """Return the sum of the bytes modulo 256."""
    return sum(payload) & 0xFF


def escape(data: bytes) -> bytes:
    """Return a payload with the protocol's own bytes escaped."""
    return _OWN.sub(lambda match: bytes((_ESCAPE, match[0][0] ^ 0x20)), data)


def unescape(payload: bytes) -> bytes:
    """Return a payload with its escapes undone; an escape at the very end is dropped."""
    if _ESCAPE not in payload:
        return payload
    out = bytearray()
    at = 0
    while at < len(payload):
        if payload[at] == _ESCAPE:
            at += 1
            if at < len(payload):
                out.append(payload[at] ^ 0x20)
        else:
            out.append(payload[at])
        at += 1
    return bytes(out)


def encode(data: bytes) -> bytes:
    """Return a whole packet."""
    payload = escape(data)
    return b"$%s#%02x" % (payload, checksum(payload))


class PacketReader:
    """Turns bytes, cut anywhere, into packets and signals.

    Args:
        limit: the longest payload in bytes, as sent.
    """

    def __init__(self, limit: int = MAX_PAYLOAD) -> None:
        self._limit = limit
        self._payload = bytearray()
        self._sum = bytearray()
        self._state = self._outside
        self._events: list[Event] = []
        self._too_long = False

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes and return what became complete with them, in order."""
        for byte in data:
            self._state(byte)
        events, self._events = self._events, []
        return events

    def _outside(self, byte: int) -> None:
        if byte == _START:
            self._begin()
        elif byte == 3:
            self._events.append(Signal.BREAK)
        elif byte in b"+-":
            self._events.append(Signal.ACK if byte == ord("+") else Signal.NAK)

    def _begin(self) -> None:
        self._payload.clear()
        self._sum.clear()
        self._too_long = False
        self._state = self._inside

    def _inside(self, byte: int) -> None:
        if byte == _START:  # an unescaped $ begins a packet: what came before it was cut
            self._events.append(Signal.BAD)
            self._begin()
        elif byte == _END:
            self._state = self._in_sum
        elif len(self._payload) < self._limit:
            self._payload.append(byte)
        else:
            self._too_long = True

    def _in_sum(self, byte: int) -> None:
        self._sum.append(byte)
        if len(self._sum) < 2:
            return
        self._state = self._outside
        payload = bytes(self._payload)
        good = all(digit in _HEX for digit in self._sum) and int(self._sum, 16) == checksum(payload)
        self._events.append(Packet(unescape(payload)) if good and not self._too_long else Signal.BAD)

"""Breakpoints and watchpoints: ``Z0`` to ``Z4``, with conditions that are evaluated in the machine."""

from __future__ import annotations

from typing import Any, NamedTuple

from workbench.gdbstub.link import BadPacket, Link, Meaning, bytes_of, number_of
from workbench.replay.errors import MemoryAccessError

#: What a stop reply calls them, and what the session's watchpoints are asked for.
_WORDS = {"0": "swbreak", "1": "hwbreak", "2": "watch", "3": "rwatch", "4": "awatch"}
_ACCESS = {"2": "w", "3": "r", "4": "a"}
MAX_CONDITIONS = 64


class Point(NamedTuple):
    """A point as gdb names it: kind 0 to 4, address, size in bytes (of a breakpoint: of its instruction)."""

    kind: str
    address: int
    size: int


class Points:
    """The points that this gdb set in the session.

    Args:
        link: the connection.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._numbers: dict[Point, int] = {}

    def packets(self) -> dict[str, Meaning]:
        """Return the meanings by the packet's letter."""
        return {"Z": self.insert, "z": self.remove}

    def close(self) -> None:
        """Take them away."""
        for point in list(self._numbers):
            self._drop(point)

    def insert(self, text: str) -> bytes:
        """``Z kind,address,size[;Xlen,condition]…``: set a point; one that is there takes the new conditions.

        Of several conditions one is enough to stop, and a point without any always stops.
        """
        point, rest = _parse(text)
        if point is None:
            return b""
        conditions = _conditions(rest)
        self._drop(point)
        self._numbers[point] = int(self._add(point, conditions).number)
        return b"OK"

    def _add(self, point: Point, conditions: list[bytes]) -> Any:
        session = self._link.session
        more: dict[str, Any] = {"condition": conditions or None}
        if point.kind in _ACCESS:
            more["physical"] = self._link.physical
            return session.add_watchpoint(point.address, point.size, _ACCESS[point.kind], **more)
        more["physical"] = self._link.physical and self._in_ram(point.address)
        return session.add_breakpoint(point.address, **more)

    def _in_ram(self, address: int) -> bool:
        """Tell a physical address from those of gdb's own breakpoints, which are virtual ones."""
        try:
            return bool(self._link.session.read_phys(address, 2))
        except MemoryAccessError:
            return False

    def remove(self, text: str) -> bytes:
        """``z kind,address,size``: no point there any more."""
        point, _ = _parse(text)
        if point is None:
            return b""
        self._drop(point)
        return b"OK"

    def _drop(self, point: Point) -> None:
        """Delete a point of gdb's, which the user may have deleted through ``monitor``."""
        session = self._link.session
        number = self._numbers.pop(point, None)
        if number is not None and any(known.number == number for known in session.stoppers):
            session.delete_stopper(number)

    def _hit_by(self, stop: Any) -> Point | None:
        hit = getattr(stop, "stopper", None)
        return next((known for known, own in self._numbers.items() if own == hit), None)

    def is_watch(self, stop: Any) -> bool:
        """Tell whether a watchpoint of gdb's stopped a motion."""
        point = self._hit_by(stop)
        return point is not None and point.kind in _ACCESS

    def announcement(self, stop: Any) -> str:
        """Return what gdb's user is to be told of a stop that gdb did not ask for, such as a catch; may be empty."""
        if getattr(stop, "stopper", None) is None or self._hit_by(stop) is not None:
            return ""
        what = "" if stop.reason == "breakpoint" else f": {stop.detail}"
        return f"workbench: {stop.reason} {stop.stopper}{what}\n"

    def reason(self, stop: Any) -> bytes:
        """Return what a stop reply says of the point that was hit, nothing for one that gdb did not set."""
        point = self._hit_by(stop)
        if point is None:
            return b"swbreak:;" if stop.reason == "breakpoint" and self._known("swbreak") else b""
        word = _WORDS[point.kind]
        if point.kind in _ACCESS:
            return f"{word}:{point.address:x};".encode()
        return f"{word}:;".encode() if self._known(word) else b""

    def _known(self, word: str) -> bool:
        return f"{word}+" in self._link.features


def _parse(text: str) -> tuple[Point | None, str]:
    """Return the point and the conditions behind it; None for a kind that there is not."""
    place, _, rest = text.partition(";")
    parts = place.split(",")
    if len(parts) != 3:
        raise BadPacket
    if parts[0] not in _WORDS:
        return None, ""
    point = Point(parts[0], number_of(parts[1]), number_of(parts[2]))
    if point.kind in _ACCESS and (not point.size or point.address + point.size > 1 << 64):
        raise BadPacket
    return point, rest


def _conditions(text: str) -> list[bytes]:
    """Return the programs of ``X len,hex`` one behind the other, up to ``cmds:``."""
    out: list[bytes] = []
    for part in text.split(";"):
        if part.startswith("cmds:"):
            break  # commands are gdb's to run
        while part:
            if part[0] != "X" or len(out) == MAX_CONDITIONS:
                raise BadPacket
            size, comma, digits = part[1:].partition(",")
            count = 2 * number_of(size)
            if not comma or not count or len(digits) < count:
                raise BadPacket
            out.append(bytes_of(digits[:count]))
            part = digits[count:]
    return out

"""What searches have found out so far: for each probe, stretches of history and the last hit in them.

History never changes, so nothing here is ever forgotten but for room.
"""

from __future__ import annotations

import threading
from bisect import insort
from dataclasses import replace
from typing import Final, NamedTuple

from machine.tcg.probes import Probe, ProbeAction

#: Most probes remembered, and most stretches of one.
_MAX_PROBES: Final = 1024
_MAX_STRETCHES: Final = 4096


class Stretch(NamedTuple):
    """Steps ``low..high-1`` have been searched; ``last`` is the last one that hit, None if none did."""

    high: int
    low: int
    last: int | None


class Known(NamedTuple):
    """Steps from ``low`` on, up to where was asked, are known; ``hit`` is the last that hit there."""

    low: int
    hit: int | None


class Scanned:
    """A memory of searches, for any thread."""

    def __init__(self) -> None:
        self._probes: dict[Probe, list[Stretch]] = {}
        self._lock = threading.Lock()

    def add(self, probe: Probe, low: int, high: int, last: int | None) -> None:
        """Remember a searched stretch ``low..high-1`` and its last hit."""
        if low < high:
            with self._lock:
                self._add(probe, low, high, last)

    def _add(self, probe: Probe, low: int, high: int, last: int | None) -> None:
        key = replace(probe, action=ProbeAction.LAST)
        if key not in self._probes and len(self._probes) >= _MAX_PROBES:
            del self._probes[next(iter(self._probes))]
        known = self._probes.setdefault(key, [])
        above = next((s for s in known if s.low == high), None)
        if above is not None and above.last is None and last is None:
            known.remove(above)
            high = above.high
        if Stretch(high, low, last) not in known:
            insort(known, Stretch(high, low, last), key=lambda s: s.high)
        if len(known) > _MAX_STRETCHES:
            del known[0]

    def before(self, probe: Probe, high: int) -> Known:
        """Return what is known of the steps before ``high``, without a gap."""
        with self._lock:
            known = list(self._probes.get(replace(probe, action=ProbeAction.LAST), []))
        while True:
            useful = [s for s in known if s.low < high <= s.high and (s.last is None or s.last < high)]
            if not useful:
                return Known(high, None)
            hit = next((s.last for s in useful if s.last is not None), None)
            if hit is not None:
                return Known(hit, hit)
            high = min(s.low for s in useful)

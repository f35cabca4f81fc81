"""What of history a search backwards still has to look at, handed out newest first to the machines that look.

History is cut at the trace's checkpoints into regions. The answer is the last hit of the newest region that has one,
whoever searched it, so it does not depend on how many machines there are or which was faster.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from machine.tcg.probes import Probe

from .checkpoints import CheckpointTree, Loose
from .scanned import Scanned

#: A region is at least this share of its distance from where the search began: far away, restoring checkpoints would
#: take longer than what is run in vain behind a hit.
_REGION_SHARE: Final = 3


class Region(NamedTuple):
    """Steps ``low..high-1``."""

    low: int
    high: int


class Searching(Protocol):
    """Who searches a region: its machine, to be stopped when nobody needs the region any more."""

    def interrupt(self) -> None: ...


class Plan:
    """One search.

    Args:
        probes: what is looked for. low, high: the steps ``low..high-1`` are looked at.
        cuts: where history may be cut, ascending. scanned: what is known, and where it is noted.
    """

    def __init__(
        self, probes: Sequence[Probe], low: int, high: int, cuts: Sequence[int], scanned: Scanned
    ) -> None:
        self.probes = probes
        self.low, self.high = low, high
        self._cuts = cuts
        self._scanned = scanned
        self._at = high  # steps from here on are done or in somebody's hands
        self._busy: dict[Region, Searching] = {}
        self._hit = low  # no region that ends before here matters: a newer one has a hit
        self._lock = threading.Lock()
        self._closed = False
        #: checkpoints shortly before hits, from the trees of whoever found them
        self.offered: list[Loose] = []

    def take(self, who: Searching) -> Region | None:
        """Return the next older region that is not known, None where there is no more to search."""
        with self._lock:
            while not self._closed and self._at > self.low:
                at = bisect_right(self._cuts, self._at - 1 - (self.high - self._at) // _REGION_SHARE) - 1
                region = Region(max(self._cuts[at] if at >= 0 else 0, self.low), self._at)
                self._at = region.low
                best, todo = self._known(region)
                if todo is not None:
                    self._busy[region] = who
                    return region
                if best is not None:
                    self._met(region)
            return None

    def part(self, region: Region) -> Region | None:
        """Return what of a region is not known yet, None where its last hit is."""
        with self._lock:
            return None if self._closed else self._known(region)[1]

    def note(self, part: Region, last: Sequence[int | None], tree: CheckpointTree) -> None:
        """Note the last hits of the probes, in order, in a searched part of a region.

        Args:
            tree: the checkpoints of who searched it. The nearest before a hit is offered together with the hit, as
                another machine may use both as soon as they are there.
        """
        with self._lock:
            for probe, hit in zip(self.probes, last, strict=True):
                self._scanned.add(probe, part.low, part.high, hit)
                loose = None if hit is None else tree.loose_at(hit)
                if loose is not None:
                    self.offered.append(loose)

    def finish(self, region: Region) -> None:
        """Take notice that a region has been searched; whoever is at an older one than a hit is stopped."""
        with self._lock:
            del self._busy[region]
            hit = self._known(region)[0]
            if hit is not None:
                self._met(region)
                for other, who in self._busy.items():
                    if not self.needs(other):
                        who.interrupt()

    def _met(self, region: Region) -> None:
        self._at = self.low
        self._hit = max(self._hit, region.low)

    def needs(self, region: Region) -> bool:
        """Tell whether a region may still have the answer: no newer one has a hit."""
        return not self._closed and region.high > self._hit

    def close(self) -> None:
        """Hand out nothing more. Called without the lock, as a signal handler may be who closes."""
        self._closed = True

    @property
    def undecided(self) -> bool:
        """Whether the answer is not known yet."""
        with self._lock:
            return not self._closed and self._known(Region(self.low, self.high))[1] is not None

    def answer(self) -> int | None:
        """Return the last step that hits a probe, or None."""
        with self._lock:
            return self._known(Region(self.low, self.high))[0]

    def _known(self, region: Region) -> tuple[int | None, Region | None]:
        """Return the last hit that is known in a region, and what behind it is still to be searched."""
        known = [self._scanned.before(probe, region.high) for probe in self.probes]
        best = max((k.hit for k in known if k.hit is not None and k.hit >= region.low), default=None)
        floor = region.low if best is None else best + 1
        top = max((k.low if k.hit is None else min(k.low, floor) for k in known), default=floor)
        return best, Region(floor, top) if top > floor else None

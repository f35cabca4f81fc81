"""Searching history backwards: the last step before a position that hits a probe.

Each region of a plan is run forwards with probes that only note their last hit: on the session's machine, and, where
the host has a processor to spare, on a second one of the same trace in a thread of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from machine.tcg.probes import Probe

from .plan import Plan, Region
from .playback import Playback
from .probing import arm, disarm, last_steps
from .scanned import Scanned
from .scout import Scout

#: The first stretch that a search scans is at least this long where checkpoints in memory allow it, in steps; later
#: ones double, and are at least this share of their distance from where the search began.
_FIRST_SCAN: Final = 50_000
_SCAN_SHARE: Final = 8
#: A second machine that is there helps with stretches of at least this length, in steps.
_WORTH_A_SCOUT: Final = 1 << 24
#: Making one, and filling it for the first time, takes about as long as running twice this, in steps: that is spent
#: when as much has been searched in vain and as much is left.
_WORTH_MAKING_ONE: Final = 1 << 27
#: Checkpoints that a scan leaves in memory lie at least so far apart, in steps, and farther away from where the search
#: began by this share of the distance: what was found is gone to from the nearest.
_SPACING: Final = 1 << 24
_SPACING_SHARE: Final = 4


class Search:
    """The searches of one timeline.

    Args:
        playback: the session's machine; a search leaves it anywhere.
        scouts: how many other machines may help, 0 or 1; None: one where the host has two processors or more.
    """

    def __init__(self, playback: Playback, scouts: int | None = None) -> None:
        self._playback = playback
        if scouts is None:
            scouts = int(len(os.sched_getaffinity(0)) > 1)
        self._scout = Scout(playback, scan_regions) if scouts else None
        self._plan: Plan | None = None
        self._asked = False
        #: what was found out
        self.scanned = Scanned()

    def close(self) -> None:
        """Free the second machine."""
        if self._scout is not None:
            self._scout.close()

    def interrupt(self) -> None:
        """Stop a search soon; from a signal handler or another thread. The machine is interrupted besides."""
        self._asked = True
        if self._plan is not None:
            self._plan.close()
        if self._scout is not None:
            self._scout.interrupt()

    def last_step(self, probes: Sequence[Probe], low: int, high: int) -> int | None:
        """Return the last step in ``low..high-1`` that hits a probe, or None; also None where it was interrupted.

        Raises:
            Diverged, TraceError: a region that had to be searched can't be replayed.
        """
        playback, scout = self._playback, self._scout
        self._asked = playback.interrupted
        cuts = sorted({playback.start, *(node.icount for node in playback.tree.files())})
        plan = self._plan = Plan(probes, low, high, cuts, self.scanned)
        if self._asked or not probes:
            plan.close()
        try:
            scan_regions(playback, plan, scout)
            if scout is not None and plan.undecided:
                scout.wait()
            found = plan.answer()
            if found is not None and not self._asked:
                self._adopt(plan, found)
            return None if self._asked else found
        finally:
            self._plan = None
            plan.close()
            if scout is not None:
                scout.leave()
            playback.interrupted = self._asked
            disarm(playback.board.engine)

    def _adopt(self, plan: Plan, found: int) -> None:
        """Take over a checkpoint of the second machine's, if it is the nearest to what was found."""
        tree = self._playback.tree
        for loose in sorted(plan.offered, key=lambda each: each.icount, reverse=True):
            if tree.nearest(found).icount < loose.icount <= found:
                tree.adopt(loose)


def scan_regions(playback: Playback, plan: Plan, scout: Scout | None = None) -> None:
    """Search regions of a plan with a machine until there is none left, or the machine is interrupted.

    Args:
        scout: is asked to help when it is worth it.
    """
    while (region := plan.take(playback)) is not None:
        span = 0
        while (part := plan.part(region)) is not None:
            least = max(span, (plan.high - part.high) // _SCAN_SHARE)
            node = playback.tree.nearest(max(part.high - 1 - least, part.low))
            part = Region(max(node.icount, part.low), part.high)
            if scout is not None and _is_worth(scout, plan, part):
                scout.begin(plan)
            last = _scan(playback, plan, part)
            if last is None:
                return
            plan.note(part, last, playback.tree)
            span = max(_FIRST_SCAN, 2 * span)
        plan.finish(region)


def _is_worth(scout: Scout, plan: Plan, part: Region) -> bool:
    if scout.ready:
        return part.high - part.low >= _WORTH_A_SCOUT
    return min(plan.high - part.high, part.high - plan.low) >= _WORTH_MAKING_ONE


def _scan(playback: Playback, plan: Plan, part: Region) -> list[int | None] | None:
    """Return the probes' last hits in a part of a region; None if interrupted."""
    node = playback.tree.nearest(part.low)
    if playback.settled or not node.icount <= playback.icount <= part.low:
        playback.restore(node)
    engine = playback.board.engine
    if not _advance(playback, part.low, plan.high):
        return None
    arm(engine, plan.probes, stopping=False)
    engine.skip_probes_at(None)
    done = _advance(playback, part.high, plan.high)
    return last_steps(engine, plan.probes) if done else None


def _advance(playback: Playback, target: int, origin: int) -> bool:
    """Run to a position and leave checkpoints in memory on the way; False if interrupted."""
    while playback.icount < target:
        spacing = max(_SPACING, (origin - playback.icount) // _SPACING_SHARE)
        at = min(target, playback.icount + spacing)
        if playback.interrupted or playback.run_to(at) is not None:
            return False
        if at < target and at - playback.tree.nearest(at).icount > spacing // 2:
            playback.keep()
    return True

"""A cursor in a trace that goes both ways.

Backwards is forwards from an earlier checkpoint: one step back restores the nearest checkpoint before the
target and runs to it. On the way, checkpoints are left in memory at shrinking distances from the target, so
the next step back is short. What a search backwards (search.py) finds is gone to in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from machine.tcg.probes import Probe, ProbeKind
from traces.errors import PositionError

from .parts import reason_name
from .playback import Playback
from .probing import Met, arm, disarm, met_by
from .search import Search

#: Distances before a target at which checkpoints are left in memory.
_LADDER: Final = (4_000_000, 1_000_000, 200_000, 40_000, 8_000, 1_600, 320, 64)
#: A checkpoint is left only if none lies within this share of the distance before it.
_LADDER_SHARE: Final = 4
#: A search backwards leaves a checkpoint where it begins if the way back there would be longer than this, in steps.
_WAY_BACK: Final = 4_000_000
#: Checkpoints in memory are left at least this often on long ways where the trace has none, in steps.
_FAR: Final = 1 << 26


class Timeline:
    """The cursor of a session.

    Args:
        playback: the machine; the timeline moves it alone.
        scouts: how many other machines help to search, 0 or 1; None: as the host has processors.

    Replay: deterministic; every digest that is passed is compared.
    """

    def __init__(self, playback: Playback, scouts: int | None = None) -> None:
        self.playback = playback
        self._search = Search(playback, scouts)

    def close(self) -> None:
        """Free what helps to search; the playback stays."""
        self._search.close()

    @property
    def start(self) -> int:
        """The first position."""
        return self.playback.start

    @property
    def end(self) -> int:
        """The last position; it moves while a recording goes on."""
        return self.playback.end

    @property
    def cursor(self) -> int:
        """The position at which the machine stands."""
        return self.playback.icount

    def interrupt(self) -> None:
        """Stop a motion soon; may be called from a signal handler or another thread."""
        self.playback.interrupt()
        self._search.interrupt()

    def goto(self, target: int) -> str:
        """Go to a position. Returns ``goto``, or ``interrupted`` where it stopped on the way.

        Raises:
            PositionError: outside of the history. Diverged: the replay is another run.
        """
        if not self.start <= target <= self.end:
            raise PositionError(f"position {target} is outside of {self.start}..{self.end}")
        self.playback.interrupted = False
        return "goto" if self._travel(target) else "interrupted"

    def forward(self, probes: Sequence[Probe], limit: int) -> Met:
        """Run forward until a probe is hit, but not past a position. Instructions at the cursor itself are left behind.

        Args:
            probes: as ``Stopper.probes`` has them. limit: a position not before the cursor.

        Returns:
            what was hit, or ``limit``, or ``interrupted``.
        """
        self.playback.interrupted = False
        if self.playback.touched:
            self._settle()
        if not probes:
            return Met("limit" if self._travel(limit) else "interrupted")
        playback, engine, began = self.playback, self.playback.board.engine, self.cursor
        self._arm(probes, stopping=True)
        engine.skip_probes_at(began)
        try:
            while self.cursor < limit:
                leg = min(limit, self.cursor + _FAR)
                stop = playback.run_to(leg, breakpoints=True)
                if stop is None:
                    self._keep_if_far()
                    continue
                if reason_name(stop) == "interrupted":
                    self._settle(probes)
                    return Met("interrupted")
                met = self._met(probes)
                self._settle(probes)
                self._note_forward(probes, began, met)
                return met
            return Met("limit")
        finally:
            self._disarm()

    def backward(self, probes: Sequence[Probe], limit: int) -> Met:
        """Go back to the last step before the cursor that hits a probe, but not before a position.

        The cursor is then at the position before that step. What has been searched once is not searched again.

        Returns:
            what was hit, or ``limit``, or ``interrupted`` (then the cursor is where it was).
        """
        self.playback.interrupted = False
        began = self.cursor
        if probes and began - self.playback.tree.nearest(began).icount > _WAY_BACK:
            self.playback.keep()  # so that an interrupted search is back here at once
        try:
            step = self._search.last_step(probes, limit, began)
            if self.playback.interrupted:
                return self._give_up(began)
            if step is None:
                return Met("limit") if self._travel(limit) else self._give_up(began)
            if not self._travel(step):
                return self._give_up(began)
            return self._look_at_step(probes)
        finally:
            self._disarm()

    def last_step(self, probes: Sequence[Probe], low: int, high: int) -> int | None:
        """Return the last step in ``low..high-1`` that hits a probe, or None. The cursor ends up anywhere."""
        return self._search.last_step(probes, low, high)

    def _look_at_step(self, probes: Sequence[Probe]) -> Met:
        """Take the step at the cursor with the probes on, look at what they say, and come back."""
        playback, at = self.playback, self.cursor
        if at >= self.end:
            return Met("hit", step=at)
        node = playback.keep()
        self._arm(probes, stopping=False, telling=True)
        playback.board.engine.skip_probes_at(None)
        playback.run_to(at + 1)
        met = self._met(probes, at)
        playback.restore(node)
        return met

    def _arm(self, probes: Sequence[Probe], stopping: bool, telling: bool = False) -> None:
        arm(self.playback.board.engine, probes, stopping, telling)

    def _disarm(self) -> None:
        disarm(self.playback.board.engine)

    def _met(self, probes: Sequence[Probe], step: int | None = None) -> Met:
        return met_by(self.playback.board.engine, probes, step)

    def _note_forward(self, probes: Sequence[Probe], began: int, met: Met) -> None:
        for index, probe in enumerate(probes):
            low = began + 1 if probe.kind is ProbeKind.EXEC else began
            self._search.scanned.add(probe, low, met.step + 1, met.step if index in met.probes else None)

    def first_vtime(self, vtime_ns: int, low: int, high: int) -> int:
        """Return the first position in ``low..high`` whose virtual time is at least ``vtime_ns``; moves the cursor.

        Raises:
            PositionError: interrupted on the way.
        """
        self.playback.interrupted = False
        while low < high:
            self._reach(low)
            gap = vtime_ns - self.playback.board.vtime_ns
            if gap <= 0:
                return low
            guess = min(low + -(-gap // self.playback.config.ns_per_step), high)
            self._reach(guess)
            if self.playback.board.vtime_ns <= vtime_ns or guess == low + 1:
                low = guess
                if self.playback.board.vtime_ns >= vtime_ns:
                    return low
                continue
            low, high = self._bisect_vtime(vtime_ns, low, guess)
        return low

    def _bisect_vtime(self, vtime_ns: int, low: int, high: int) -> tuple[int, int]:
        while low + 1 < high:
            middle = (low + high) // 2
            self._reach(middle)
            if self.playback.board.vtime_ns < vtime_ns:
                low = middle
            else:
                high = middle
        return high, high

    def _reach(self, target: int) -> None:
        if not self._travel(target):
            raise PositionError("interrupted: the search for a virtual time is not at its end")

    def _travel(self, target: int) -> bool:
        """Go to a position by the shortest way; False if interrupted, the cursor then being on the way."""
        playback = self.playback
        if target == self.cursor and not playback.settled:
            return True
        node = playback.tree.nearest(target)
        if target < self.cursor or node.icount > self.cursor or playback.settled:
            playback.restore(node)
        for distance in _LADDER:
            at = target - distance
            while at - self.cursor > _FAR:
                if not self._leg(self.cursor + _FAR):
                    return False
                self._keep_if_far()
            if at > self.cursor and at - playback.tree.nearest(at).icount > distance // _LADDER_SHARE:
                if not self._leg(at):
                    return False
                playback.keep()
        return self._leg(target)

    def _leg(self, target: int) -> bool:
        if self.playback.interrupted:
            return False
        stop = self.playback.run_to(target)
        if stop is not None:
            self._settle()
            return False
        return True

    def _keep_if_far(self) -> None:
        if self.cursor - self.playback.tree.nearest(self.cursor).icount >= _FAR // 2:
            self.playback.keep()

    def _settle(self, probes: Sequence[Probe] = ()) -> None:
        """After a stop in the middle: back to the state at the position, if more than that was taken already."""
        if self.playback.settled:
            at = self.cursor
            if probes:
                self._arm(probes, stopping=False)
            interrupted, self.playback.interrupted = self.playback.interrupted, False
            self.playback.restore(self.playback.tree.nearest(at))
            self.playback.run_to(at)
            self.playback.interrupted = interrupted

    def _give_up(self, began: int) -> Met:
        self.playback.interrupted = False
        self._travel(began)
        return Met("interrupted")

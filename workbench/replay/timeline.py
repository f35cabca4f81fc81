"""A cursor in a trace that goes both ways.

Backwards is forwards from an earlier checkpoint: one step back restores the nearest checkpoint before the
target and runs to it. On the way, checkpoints are left in memory at shrinking distances from the target, so
the next step back is short. Reverse-continue runs the stretches between checkpoints, last one first, with
breakpoints that only count, and goes to the last hit.

Breakpoints belong to the timeline; a hit is the position at which the instruction is about to execute.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from traces.errors import PositionError

from .parts import reason_name
from .playback import Playback

#: Distances before a target at which checkpoints are left in memory.
_LADDER: Final = (4_000_000, 1_000_000, 200_000, 40_000, 8_000, 1_600, 320, 64)
#: A checkpoint is left only if none lies within this share of the distance before it.
_LADDER_SHARE: Final = 4
#: The first stretch that reverse-continue scans is at least this long, in steps; later ones double.
_FIRST_SCAN: Final = 50_000
#: Checkpoints in memory are left at least this often on long ways where the trace has none, in steps.
_FAR: Final = 1 << 26


class Timeline:
    """The cursor of a session.

    Args:
        playback: the machine; the timeline moves it alone.

    Replay: deterministic; every digest that is passed is compared.
    """

    def __init__(self, playback: Playback) -> None:
        self.playback = playback
        self.start = 0
        self.end = playback.end

    @property
    def cursor(self) -> int:
        """The position at which the machine stands."""
        return self.playback.icount

    def interrupt(self) -> None:
        """Stop a motion soon; may be called from a signal handler or another thread."""
        self.playback.interrupt()

    def goto(self, target: int) -> str:
        """Go to a position. Returns ``goto``, or ``interrupted`` where it stopped on the way.

        Raises:
            PositionError: outside of the history. Diverged: the replay is another run.
        """
        if not self.start <= target <= self.end:
            raise PositionError(f"position {target} is outside of {self.start}..{self.end}")
        self.playback.interrupted = False
        return "goto" if self._travel(target) else "interrupted"

    def forward(self, breakpoints: Collection[int], limit: int) -> str:
        """Run forward to a breakpoint, but not past a position. One at the cursor itself is left behind.

        Returns:
            ``breakpoint``, ``limit`` or ``interrupted``.
        """
        self.playback.interrupted = False
        if not breakpoints:
            return "limit" if self._travel(limit) else "interrupted"
        playback, engine = self.playback, self.playback.board.engine
        engine.set_breakpoints(breakpoints)
        engine.skip_breakpoint_at(self.cursor)
        try:
            while self.cursor < limit:
                leg = min(limit, self.cursor + _FAR)
                stop = playback.run_to(leg, breakpoints=True)
                if stop is None:
                    self._keep_if_far()
                    continue
                engine.set_breakpoints(())
                self._settle()
                return reason_name(stop)
            return "limit"
        finally:
            engine.set_breakpoints(())
            engine.skip_breakpoint_at(None)

    def backward(self, breakpoints: Collection[int], limit: int) -> str:
        """Go to the last position before the cursor at which a breakpoint hits, but not before ``limit``.

        Returns:
            ``breakpoint``, ``limit`` or ``interrupted`` (then the cursor is where it was).
        """
        self.playback.interrupted = False
        began = high = self.cursor
        span = 0
        while breakpoints and high > limit:
            node = self.playback.tree.nearest(max(high - 1 - span, limit))
            low = max(node.icount, limit)
            hit = self._last_hit(breakpoints, low, high)
            if self.playback.interrupted:
                return self._give_up(began)
            if hit is not None:
                return "breakpoint" if self._travel(hit) else self._give_up(began)
            high = low
            span = max(_FIRST_SCAN, 2 * span)
        return "limit" if self._travel(limit) else self._give_up(began)

    def first_vtime(self, vtime_ns: int, low: int, high: int) -> int:
        """Return the first position in ``low..high`` whose virtual time is at least ``vtime_ns``; moves the cursor."""
        while low < high:
            self._travel(low)
            gap = vtime_ns - self.playback.board.vtime_ns
            if gap <= 0:
                return low
            guess = min(low + -(-gap // self.playback.config.ns_per_step), high)
            self._travel(guess)
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
            self._travel(middle)
            if self.playback.board.vtime_ns < vtime_ns:
                low = middle
            else:
                high = middle
        return high, high

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

    def _settle(self) -> None:
        """After a stop in the middle: back to the state at the position, if more than that was taken already."""
        if self.playback.settled:
            at = self.cursor
            interrupted, self.playback.interrupted = self.playback.interrupted, False
            self.playback.restore(self.playback.tree.nearest(at))
            self.playback.run_to(at)
            self.playback.interrupted = interrupted

    def _last_hit(self, breakpoints: Collection[int], low: int, high: int) -> int | None:
        """Return the last position in ``low..high-1`` at which a breakpoint hits."""
        engine = self.playback.board.engine
        if not self._travel(low):
            return None
        engine.set_breakpoints(breakpoints, count_only=True)
        try:
            self.playback.run_to(high)
            hits, last = engine.breakpoint_hits, engine.breakpoint_last
        finally:
            engine.set_breakpoints(())
        return last if hits else None

    def _give_up(self, began: int) -> str:
        self.playback.interrupted = False
        self._travel(began)
        return "interrupted"

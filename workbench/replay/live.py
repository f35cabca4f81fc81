"""A recording that goes on where a session's history ends.

The recorder's machine stands still while the session looks around: everything that is seen, now too, is seen on
the session's own machine, which replays what was committed. Going on records, with the session's probes on the
recorder's machine, and ends with a commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from machine.inputs import Input
from machine.tcg.probes import Probe

from .parts import reason_name
from .probing import Met, arm, disarm, met_by
from .recorder import Recorder, RecordResult
from .timeline import Timeline

#: A recording is committed at least this often while it goes on, in steps: its session follows then.
_GO_ON: Final = ("until", "breakpoint", "interrupted")


class Live:
    """The recording under a session.

    Args:
        recorder: a recording that has begun and stands still.
        owned: whether it ends with the session.
    """

    def __init__(self, recorder: Recorder, owned: bool) -> None:
        self.recorder = recorder
        self.owned = owned
        #: how the recording ended, once it has
        self.result: RecordResult | None = None
        recorder.commit_here()

    def advance(
        self,
        timeline: Timeline,
        probes: Sequence[Probe],
        limit: int | None,
        texts: Sequence[bytes] = (),
        arrives: bool = False,
    ) -> Met:
        """Record on from now until a probe is hit or a text is printed, but not past a position.

        The timeline's cursor is there then. ``arrives``: the motion began before now, so a breakpoint here counts.

        Returns:
            what was hit, or ``limit``, ``interrupted``, or ``end`` where the machine has ended.
        """
        recorder = self.recorder
        engine, began = recorder.board.engine, recorder.board.icount
        recorder.pause_at = tuple(texts)
        arm(engine, probes, stopping=True)
        engine.skip_probes_at(None if arrives else began)
        try:
            recorder.resume()
            stop = recorder.advance(limit)
            while reason_name(stop) == "interrupted" and not recorder.pausing and not recorder.ended:
                stop = recorder.advance(limit)  # what it stopped for is over
            reason = reason_name(stop)
            met = met_by(engine, probes) if reason == "breakpoint" else Met(reason)
        finally:
            disarm(engine)
        if reason in _GO_ON and not recorder.ended:
            now = recorder.commit_here()
        else:
            self.result = recorder.finish(stop)
            now = self.result.icount
            met = Met("end")
        timeline.playback.extend()
        timeline.goto(min(now, timeline.end))
        return Met("limit") if met.reason == "until" else met

    def interrupt(self) -> None:
        """Stop ``advance`` soon; from a signal handler or another thread."""
        self.recorder.pause()

    def write(self, item: Input) -> None:
        """Make a write an input of the recording, taken before the next step."""
        self.recorder.gate.inject(item)

    def close(self) -> None:
        """End the recording if it is the session's own."""
        if self.owned and self.result is None:
            self.result = self.recorder.stop()

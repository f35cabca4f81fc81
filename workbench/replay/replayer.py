"""Replaying: run a trace again from the start or a checkpoint, and prove that it is the same run."""

from __future__ import annotations

from machine.values import valueclass
from traces.errors import PositionError
from traces.reader import TraceReader

from .divergence import differences, differing_pages
from .errors import Diverged
from .parts import BoardFactory, build_board, reason_name
from .playback import ConsoleListener, Playback


@valueclass(frozen=True, slots=True)
class VerifyResult:
    """What a verification compared: ``digests`` of every kind, over ``steps``, up to ``icount``."""

    digests: int
    steps: int
    icount: int

    def __str__(self) -> str:
        return f"verified: {self.digests} digests, {self.steps} steps"


class Replayer:
    """A replay in one direction, forward.

    Args:
        trace: an open trace; it stays the caller's.
        backend: ``jit`` or ``interp``.
        from_checkpoint: id of the checkpoint to start at; None for reset.
        console: takes the guest's output.
        board_factory: builds the board.

    Raises:
        TraceError, MachineError: see ``Playback``.

    Replay: consumes inputs.
    """

    def __init__(
        self,
        trace: TraceReader,
        backend: str = "jit",
        *,
        from_checkpoint: int | None = None,
        console: ConsoleListener | None = None,
        board_factory: BoardFactory = build_board,
    ) -> None:
        self.trace = trace
        self.playback = Playback(trace, backend, board_factory)
        self.playback.console = console
        if from_checkpoint is not None:
            node = next((n for n in self.playback.tree.files() if n.row.id == from_checkpoint), None)
            if node is not None:
                self.playback.restore(node)
            elif not any(c.id == from_checkpoint and c.icount == 0 for c in trace.checkpoints()):
                raise PositionError(f"{trace.path}: has no checkpoint {from_checkpoint}")

    @property
    def icount(self) -> int:
        """The present position."""
        return self.playback.icount

    def goto(self, icount: int) -> None:
        """Go to a position in either direction, by the nearest checkpoint. Raises PositionError, Diverged."""
        self._check(icount)
        node = self.playback.tree.nearest(icount)
        if not self.icount <= icount or node.icount > self.icount:
            self.playback.restore(node)
        self.playback.run_to(icount)

    def run_to(self, icount: int) -> bool:
        """Run forward to a position; False if it was interrupted on the way. Raises PositionError, Diverged."""
        self._check(icount)
        return self.playback.run_to(icount) is None

    def interrupt(self) -> None:
        """Stop the run soon; may be called from a signal handler or another thread."""
        self.playback.interrupt()

    def verify(self) -> VerifyResult:
        """Run from here to the end and compare every digest of the trace.

        Returns:
            how much was compared; less than to the end only after ``interrupt``.

        Raises:
            Diverged: the replay is another run than the recording.
        """
        playback, start = self.playback, self.icount
        before = playback.compared
        whole = 0
        for row in self.trace.checkpoints():
            if start <= row.icount <= playback.end:
                if playback.run_to(row.icount) is not None:
                    break
                self._compare(row.id, row.icount, row.digest)
                whole += 1
        if not self.playback.interrupted and playback.run_to(playback.end) is None:
            whole += self._compare_end()
        return VerifyResult(playback.compared - before + whole, self.icount - start, self.icount)

    def close(self) -> None:
        """Free the machine."""
        self.playback.close()

    def __enter__(self) -> Replayer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check(self, icount: int) -> None:
        if not self.playback.start <= icount <= self.playback.end:
            raise PositionError(f"position {icount} is outside of {self.playback.start}..{self.playback.end}")

    def _compare(self, checkpoint_id: int, icount: int, recorded: bytes) -> None:
        digest, state = self.playback.whole()
        gate = self.playback.gate
        if digest != recorded:
            registers = differences(self.trace.checkpoint_state(checkpoint_id), state)
            theirs = self.trace.checkpoint_pages(checkpoint_id)
            pages = differing_pages(theirs, self.playback.fold.name)
            raise Diverged("the digest of a checkpoint differs", gate.last_good, icount, registers, pages)
        gate.last_good = icount

    def _compare_end(self) -> int:
        """Compare how the machine ends with how it ended in the recording, where that is known."""
        meta, playback = self.trace.meta, self.playback
        recorded = meta.get("end_digest")
        if recorded is None:
            return 0
        gate = playback.gate
        stop = playback.run_off_the_end()
        ended = (reason_name(stop), stop.code, self.icount)
        expected = (meta.get("end_reason", ""), int(meta.get("end_code", "0")), playback.end)
        if ended[0] != "until" and ended != expected:
            what = "the end is another: {} {} at {}".format(*ended) + ", recorded {} {} at {}".format(
                *expected
            )
            raise Diverged(what, gate.last_good, self.icount)
        if ended[0] == "until":
            if expected[0] in ("poweroff", "reboot", "fail", "halted"):
                raise Diverged(
                    f"the recording ended there ({expected[0]}), the replay goes on",
                    gate.last_good,
                    playback.end,
                )
            return 0
        if playback.digest().hex() != recorded:
            raise Diverged("the digest of the end differs", gate.last_good, playback.end)
        return 1

"""Running a machine without a trace: what a recording does, less the writing."""

from __future__ import annotations

import time
from collections.abc import Callable

from machine.config import Images, MachineConfig
from machine.values import valueclass
from workbench.replay.gates import ConsoleSource, RecordGate
from workbench.replay.parts import build_board, open_drives, reason_name
from workbench.replay.watch import ConsoleWatch, compile_pattern


@valueclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: the reasons and fields of a ``RecordResult``, without a trace."""

    reason: str
    code: int
    icount: int
    vtime_ns: int
    matched: str


class Runner:
    """One run without a trace.

    Args:
        config, images: the machine.
        source: console bytes, or None for none.
        echo: shows the guest's output.
        backend: ``jit`` or ``interp``.

    Raises:
        MachineError: such a machine can't be built.

    Replay: outside replay; nothing is logged.
    """

    def __init__(
        self,
        config: MachineConfig,
        images: Images,
        *,
        source: ConsoleSource | None = None,
        echo: Callable[[bytes], None] | None = None,
        backend: str = "jit",
    ) -> None:
        self._echo = echo
        self._watch = ConsoleWatch(None, echo)
        self._why = ""
        self._matched = ""
        self._stop_at_time = float("inf")
        self.gate = RecordGate(config, None, source, self._slice, lambda: self.interrupt("halted"))
        config, drives = open_drives(config, None, identify=False)
        self.board = build_board(config, images, self.gate, self, drives, backend)
        self.board.reset()

    def run(
        self,
        until_regex: str | None = None,
        fail_regex: str | None = None,
        steps: int | None = None,
        timeout_s: float | None = None,
    ) -> RunResult:
        """Run until the machine or one of the limits ends it; the same limits as a recording's.

        Raises:
            UsageError: not a regular expression.
        """
        patterns = {}
        for name, option, text in (("until", "--until", until_regex), ("fail_pattern", "--fail", fail_regex)):
            if text is not None:
                patterns[name] = compile_pattern(text, option)
        self._watch = ConsoleWatch(None, self._echo, patterns, self._match)
        if timeout_s is not None:
            self._stop_at_time = time.monotonic() + timeout_s
        stop = self.board.run(steps)
        self._watch.close()
        reason = reason_name(stop)
        if reason == "until":
            reason = self._why or "steps"
        elif reason == "interrupted":
            reason = self._why or reason
        return RunResult(reason, stop.code, self.board.icount, self.board.vtime_ns, self._matched)

    def interrupt(self, why: str = "interrupted") -> None:
        """End the run soon, as this reason; may be called from a signal handler or another thread."""
        self._why = self._why or why
        self.gate.hurry = True
        self.board.interrupt()

    def write(self, port: str, data: bytes, icount: int, vtime_ns: int) -> None:
        """Take what the guest printed."""
        self._watch.write(port, data, icount, vtime_ns)

    def _slice(self, icount: int) -> None:
        self._watch.flush()
        if time.monotonic() >= self._stop_at_time:
            self.interrupt("timeout")

    def _match(self, name: str, text: str) -> None:
        self._matched = text
        self.interrupt(name)

"""The rolling digests that a replay passes: worked out by a thread of its own while the machine runs on."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from traces.reader import TraceReader
from traces.rows import DigestRow

from .digest import RollingDigest
from .divergence import compare_registers
from .errors import Diverged
from .gates import ReplayGate


class _Check:
    """One that is under way: ``found`` is there once ``done`` is set."""

    __slots__ = ("done", "found", "rolling", "row")

    def __init__(self, row: DigestRow, rolling: RollingDigest) -> None:
        self.row, self.rolling = row, rolling
        self.done = threading.Event()
        self.found: tuple[bytes, bytes] | BaseException = (b"", b"")

    def work(self) -> None:
        try:
            self.found = self.rolling.work_out()
        except BaseException as e:  # noqa: BLE001 - handed to the replay's thread, which raises it
            self.found = e
        self.done.set()


class DigestChecks:
    """Compares digests with those of a trace, one at a time.

    Args:
        trace: the trace.
        gate: is told how far the replay was good.
    """

    def __init__(self, trace: TraceReader, gate: ReplayGate) -> None:
        self._trace, self._gate = trace, gate
        #: how many were compared
        self.compared = 0
        self._check: _Check | None = None
        self._asked: SimpleQueue[_Check | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, row: DigestRow, rolling: RollingDigest) -> None:
        """Compare a digest soon, and the one before it now. Raises Diverged: that one differs."""
        self.settle()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="digests", daemon=True)
            self._thread.start()
        self._check = _Check(row, rolling)
        self._asked.put(self._check)

    def settle(self) -> None:
        """Wait until all that has begun is compared. Raises Diverged: it differs."""
        check = self._check
        if check is None:
            return
        check.done.wait()  # whoever interrupts this waits again the next time
        self._check = None
        row, found = check.row, check.found
        if isinstance(found, BaseException):
            raise found
        digest, detail = found
        if digest != row.digest:
            registers = compare_registers(self._trace.digest_detail(row), detail)
            what = "the rolling digest differs" + ("" if registers else " in RAM, no register differs")
            raise Diverged(what, self._gate.last_good, row.icount, registers)
        self.compared += 1
        self._gate.last_good = row.icount

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._asked.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (check := self._asked.get()) is not None:
            check.work()

"""The two input gates: one asks the host and logs, the other answers from the log and asks nobody.

Order (machine/inputs.py): a recording polls once at a position, and again only after an ``ask`` there; so all
that is delivered at one point of the board's loop is one run of the log, which a replay hands out at the
same point.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from machine.config import MachineConfig
from machine.hw.chaos import pack_strike
from machine.inputs import SLICE_STEPS, Input
from traces.errors import TraceError

from .errors import Diverged
from .interventions import DEBUGGER, Script

if TYPE_CHECKING:  # a run without a trace needs neither
    from traces.reader import TraceReader
    from traces.rows import InputRow

#: The kind of the input that a host's failure of a disk's request is.
FAULT: Final = "fault"
#: The device that takes console bytes.
CONSOLE: Final = "uart0"
NEVER: Final = (1 << 64) - 1
#: Longest entropy that a device gets at once, in bytes.
MAX_ENTROPY: Final = 1 << 16
#: The wall clock of a seeded run, so that the seed is the run: 2024-01-01, in ns since 1970.
#: What a request may take at most: a host that slept did not keep the disk busy.
_LATENCY_MAX_NS: Final = 10**9
_SEEDED_CLOCK_NS: Final = 1_704_067_200 * 10**9
#: How long one wait for the host lasts before the gate looks around again, in seconds.
_WAIT_S: Final = 0.1


#: First and shortest slice of a recording, in steps; and how long one is to last, in seconds.
_SLICE_STEPS_FIRST: Final = 500_000
_SLICE_STEPS_MIN: Final = 1000
_SLICE_S: Final = 0.01


def _no_debugger(item: Input) -> None:
    raise Diverged("a debugger's write comes where there is no machine", 0, 0)


def _without_writes(items: list[Input], apply: Callable[[Input], None]) -> list[Input]:
    """Carry out a debugger's writes; return the other inputs."""
    for item in items:
        if item.source == DEBUGGER:
            apply(item)
    return [item for item in items if item.source != DEBUGGER]


class ConsoleSource(Protocol):
    """Where console bytes come from; ``workbench.terminal.HostConsole`` is one."""

    at_end: bool

    def poll(self, timeout_s: float = 0.0) -> bytes:
        """Return bytes that have come, waiting at most ``timeout_s`` for the first."""
        ...


class InputLog(Protocol):
    """Takes the inputs of a recording, in order."""

    def __call__(self, icount: int, vtime_ns: int, given: Input, asked: bool) -> None: ...


class RecordGate:
    """Asks the host, and logs every answer.

    Args:
        config: for the seed, and for where entropy comes from.
        log: takes each input before the machine does; None for a run without a trace.
        source: console bytes, or None.
        on_slice: called at every slice of the run with the position, for whoever keeps the time.
        on_dead: called when the machine waits for an input that can never come.
        script: what a branch gives before it asks the host.

    Replay: this is where inputs are made.
    """

    def __init__(
        self,
        config: MachineConfig,
        log: InputLog | None = None,
        source: ConsoleSource | None = None,
        on_slice: Callable[[int], None] | None = None,
        on_dead: Callable[[], None] | None = None,
        script: Script | None = None,
    ) -> None:
        self._script = script
        self._slice_steps = _SLICE_STEPS_FIRST
        self._slice_at = (-1, 0.0)
        self._log = log
        self._source = source
        self._on_slice = on_slice
        self._on_dead = on_dead
        self._seeded = config.chaos or config.options.get("entropy") == "seed"
        self._seed = config.seed
        self._drawn = 0
        self._host_asked = time.monotonic_ns()  # when a device last turned to the host
        self._polled_at = -1
        self._queued: list[Input] = []
        #: inputs logged so far
        self.count = 0
        #: the last position at which ``due`` was asked
        self.last_due = -1
        #: set to end waiting for the host
        self.hurry = False
        #: set to make a wait for the host short, without ending the run
        self.pausing = False
        #: carries out a debugger's writes
        self.apply: Callable[[Input], None] = _no_debugger
        #: what a strike of chaos becomes before it is logged
        self.edit_strike: Callable[[bytes], bytes] = bytes

    def inject(self, given: Input) -> None:
        """Deliver an input at the next poll (a button, a debugger's ``send``)."""
        self._queued.append(given)

    def due(self, icount: int, vtime_ns: int) -> list[Input]:
        """Return what has come from the host, at most once at a position unless something was asked there."""
        self.last_due = icount
        if self._on_slice is not None:
            self._on_slice(icount)
        if self._polled_at == icount:
            return []
        self._polled_at = icount
        self._keep_pace(icount)
        return _without_writes(self._take(icount, vtime_ns, 0.0), self.apply)

    def ask(self, source: str, kind: str, request: bytes, icount: int, vtime_ns: int) -> bytes:
        """Answer from the host, and log the answer."""
        self._polled_at = -1
        if kind == "warp":
            payload = self._idle(int.from_bytes(request[:8], "little"), vtime_ns)
            if self.hurry and not self._queued:  # the run ends in this wait: it never took place
                if self._on_dead is not None:
                    self._on_dead()
                return bytes(8)
        elif self._script is not None and (known := self._script.answer(source, kind)) is not None:
            payload = known
        elif kind == "entropy":
            payload = self._entropy(min(int.from_bytes(request[:4], "little"), MAX_ENTROPY))
        elif kind == "strike":
            payload = self.edit_strike(self._strike())
        elif kind == "latency":
            payload = min(time.monotonic_ns() - self._host_asked, _LATENCY_MAX_NS).to_bytes(8, "little")
        elif kind == "wallclock":
            payload = (_SEEDED_CLOCK_NS if self._seeded else time.time_ns()).to_bytes(8, "little")
        else:
            raise ValueError(f"{source} asks for the unknown input {kind!r}")
        self.last_due = icount  # the wait at a position is part of leaving it, with or without a poll before
        self._note(icount, vtime_ns, Input(source, kind, payload), True)
        return payload

    def fault(self, source: str, request: bytes, errno: int, icount: int, vtime_ns: int) -> int:
        """Log the host's failure, if it is one."""
        if not errno:
            self._host_asked = time.monotonic_ns()
        else:
            payload = request + errno.to_bytes(4, "little")
            self._note(icount, vtime_ns, Input(source, FAULT, payload), True)
        return errno

    def next_position(self, icount: int) -> int | None:
        """Return where to poll next: so soon that the host is asked every few milliseconds."""
        following = None if self._script is None else self._script.next()
        soon = icount + self._slice_steps
        return soon if following is None else max(icount + 1, min(soon, following.icount))

    def _keep_pace(self, icount: int) -> None:
        """Fit the length of slices to how fast the guest runs: one that polls a device runs slowly."""
        now = time.monotonic()
        before, began = self._slice_at
        if before >= 0 and icount > before:
            speed = (icount - before) / max(now - began, 1e-6)
            wanted = int(speed * _SLICE_S)
            self._slice_steps = max(_SLICE_STEPS_MIN, min(SLICE_STEPS, wanted, 4 * self._slice_steps))
        self._slice_at = (icount, now)

    def _take(self, icount: int, vtime_ns: int, timeout_s: float) -> list[Input]:
        given, self._queued = self._queued, []
        if self._script is not None:
            given += self._script.due(icount)
        if self._source is not None and not self._source.at_end:
            data = self._source.poll(timeout_s)
            if data:
                given.append(Input(CONSOLE, "rx", data))
        for each in given:
            self._note(icount, vtime_ns, each, False)
        return given

    def _idle(self, deadline: int, vtime_ns: int) -> bytes:
        """Wait for the host as long as virtual time has to go; return how many ns have passed."""
        left = None if deadline == NEVER else max(0, deadline - vtime_ns)
        if self._script is not None and (scripted := self._idle_by_script(left, vtime_ns)) is not None:
            return scripted
        began = time.monotonic_ns()
        while (
            not self.hurry
            and not self.pausing
            and not self._queued
            and self._source is not None
            and not self._source.at_end
        ):
            passed = time.monotonic_ns() - began
            if left is not None and passed >= left:
                break
            wait_s = _WAIT_S if left is None else min(_WAIT_S, (left - passed) / 1e9)
            data = self._source.poll(wait_s)
            if self._on_slice is not None:
                self._on_slice(-1)
            if data:
                self._queued.append(Input(CONSOLE, "rx", data))
        passed = time.monotonic_ns() - began
        if self._queued or self.hurry or self.pausing:
            return min(passed, NEVER if left is None else left).to_bytes(8, "little")
        if left is None:
            if self._on_dead is not None:
                self._on_dead()
            return bytes(8)
        return left.to_bytes(8, "little")

    def _idle_by_script(self, left: int | None, vtime_ns: int) -> bytes | None:
        """Wait until the script's next input comes, by virtual time, if that is before the deadline."""
        assert self._script is not None
        following = min(self._script.given, key=lambda s: s.vtime_ns, default=None)
        if following is None:
            return None
        wait = max(0, following.vtime_ns - vtime_ns)
        if left is not None and left < wait:
            return left.to_bytes(8, "little")
        self._queued += self._script.due(-1, vtime_ns + wait)
        return wait.to_bytes(8, "little")

    def _entropy(self, size: int) -> bytes:
        if not self._seeded:
            return os.urandom(size)
        out = b""
        while len(out) < size:
            out += self._draw("entropy")
        return out[:size]

    def _draw(self, what: str) -> bytes:
        """Return the generator's next 64 bytes."""
        from traces.blake2 import blake2b  # a run without a seed does without

        text = f"{what} {self._seed} {self._drawn}".encode()
        self._drawn += 1
        return blake2b(text, digest_size=64).digest()

    def _strike(self) -> bytes:
        """Choose what chaos does: machine/hw/chaos.py has the four choices. Sizes are even over their magnitudes."""
        drawn = self._draw("strike")

        def magnitude(at: int, low: int, high: int) -> int:
            number = int.from_bytes(drawn[at : at + 8], "little")
            bits = low + number % (high - low)
            return (1 << bits) + (number >> 8) % (1 << bits)

        stall = magnitude(8, 8, 20) if drawn[32] & 1 else 0
        return pack_strike(magnitude(0, 13, 21), stall, magnitude(16, 6, 17), 50 + magnitude(24, 4, 10))

    def _note(self, icount: int, vtime_ns: int, given: Input, asked: bool) -> None:
        self.count += 1
        if self._log is not None:
            self._log(icount, vtime_ns, given, asked)


class ReplayGate:
    """Answers from a trace's inputs, from any position on.

    Args:
        trace: the trace. Its inputs are read in blocks as they are needed.

    Replay: consumes inputs; a machine that asks for another one than the log's next has diverged.
    """

    BLOCK = 1024

    def __init__(self, trace: TraceReader) -> None:
        self._trace = trace
        self._count = trace.input_count()
        self._delivered = trace.delivered_positions()
        self._delivered_at = 0
        self._block: list[InputRow] = []
        self._block_from = 1
        #: id of the next input
        self.next_id = 1
        #: the last position at which ``due`` was asked
        self.last_due = -1
        #: the last position whose digest matched, for messages
        self.last_good = 0
        #: carries out a debugger's writes
        self.apply: Callable[[Input], None] = _no_debugger

    def extend(self) -> None:
        """Take notice of inputs that a recording has added since."""
        self._count = self._trace.input_count()
        self._delivered += self._trace.delivered_positions(self._delivered[-1][0] if self._delivered else 0)

    def seek(self, next_id: int) -> None:
        """Continue with this input. Raises TraceError: there is no such place in the log."""
        if not 1 <= next_id <= self._count + 1:
            raise TraceError(f"{self._trace.path}: damaged: a checkpoint continues at input {next_id}")
        self.next_id = next_id
        self.last_due = -1
        low, high = 0, len(self._delivered)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._delivered[middle][0] < next_id else (low, middle)
        self._delivered_at = low

    def due(self, icount: int, vtime_ns: int) -> list[Input]:
        """Return what the log has next, while that was delivered, not asked for, and at this position."""
        self.last_due = icount
        given: list[Input] = []
        while self._delivered_at < len(self._delivered):
            next_id, position = self._delivered[self._delivered_at]
            if position < icount:
                raise self._passed(icount, position, next_id)
            if position != icount or next_id != self.next_id:
                break
            row = self._take()
            given.append(Input(row.source, row.kind, row.payload, row.hart))
            self._delivered_at += 1
        return _without_writes(given, self.apply)

    def ask(self, source: str, kind: str, request: bytes, icount: int, vtime_ns: int) -> bytes:
        """Return the log's next input, which must be this one at this position."""
        asked = f"{source} asks for {kind}"
        if self.next_id > self._count:
            raise Diverged(f"{asked}, but the log has no more inputs", self.last_good, icount)
        row = self._peek()
        if (row.source, row.kind, row.icount, row.asked) != (source, kind, icount, 1):
            raise Diverged(
                f"{asked}, the log has {row.source} {row.kind} at {row.icount} (input {row.id})",
                self.last_good,
                icount,
            )
        self.last_due = icount
        return self._take().payload

    def fault(self, source: str, request: bytes, errno: int, icount: int, vtime_ns: int) -> int:
        """Return with which errno the log says that this request fails, 0 if it does not."""
        if errno:
            raise Diverged(
                f"{source} can't be read here (errno {errno}), in the recording it could; is the image whole?",
                self.last_good,
                icount,
            )
        if self.next_id > self._count:
            return 0
        row = self._peek()
        if (row.source, row.kind, row.icount, row.asked) != (source, FAULT, icount, 1):
            return 0
        if row.payload[:-4] != request:
            return 0
        return int.from_bytes(self._take().payload[-4:], "little")

    def next_position(self, icount: int) -> int | None:
        """Return the position of the next delivered input; None if that must wait for something asked here."""
        if self._delivered_at < len(self._delivered):
            position = self._delivered[self._delivered_at][1]
            if position > icount:
                return position
        return None

    def _passed(self, icount: int, position: int, next_id: int) -> Diverged:
        return Diverged(f"input {next_id} of {position} was not taken", self.last_good, icount)

    def _peek(self) -> InputRow:
        index = self.next_id - self._block_from
        if not 0 <= index < len(self._block):
            self._block = list(self._trace.inputs(self.next_id, self.BLOCK))
            self._block_from = self.next_id
            index = 0
        if not self._block or self._block[index].id != self.next_id:
            raise TraceError(f"{self._trace.path}: damaged: input {self.next_id} is missing")
        return self._block[index]

    def _take(self) -> InputRow:
        row = self._peek()
        self.next_id += 1
        return row

"""The input gate's protocol: the one way by which anything the machine does not compute gets in.

A recording's gate asks the host and logs; a replay's gate answers from the log and asks nobody. Nothing
below the gate knows which of the two it is in. (determinism.md, law 5.)
"""

from __future__ import annotations

from typing import Final, Protocol

from machine.values import valueclass

#: Most steps of a slice, after which the gate is looked at: a few milliseconds of a fast guest.
SLICE_STEPS: Final = 8_000_000


@valueclass(frozen=True, slots=True)
class Input:
    """One input of the machine, as it is logged.

    Args:
        source: name of the device or part that takes it (``uart0``, ``rtc``, ``rng0``, ``idle``, ``board``, a
            drive's).
        kind: what it is to that device (``rx``, ``wallclock``, ``entropy``, ``warp``, ``reset``, ``poweroff``,
            ``fault``).
        payload: its bytes; each kind documents their layout (integers are little endian).
        hart: the hart it is for, 0 where that means nothing.
    """

    source: str
    kind: str
    payload: bytes
    hart: int = 0


class InputGate(Protocol):
    """What a board asks of whoever feeds it. Positions are icounts."""

    def due(self, icount: int, vtime_ns: int) -> list[Input]:
        """Return the asynchronous inputs to deliver at this position, in order.

        A recording polls its backends here and logs what it returns; at one position it polls anew only
        after an ``ask`` there, so that a replay meets the same order. A replay returns what is next in
        the log while that is asynchronous and of this position.
        """
        ...

    def ask(self, source: str, kind: str, request: bytes, icount: int, vtime_ns: int) -> bytes:
        """Return a value that a device needs now (entropy, wall clock, idle time).

        Raises:
            DivergenceError: in a replay, when the log's next input is another one.
        """
        ...

    def fault(self, source: str, request: bytes, errno: int, icount: int, vtime_ns: int) -> int:
        """Return the errno with which the host fails a device's request here; 0: it does not.

        A failure is logged when it happens, so nothing is logged for what goes well. A device calls this twice at
        most: with errno 0 before it turns to the host, and with the host's errno if that has failed.

        Args:
            request: names the request among those of this source at this position.
            errno: what the host said, 0 if it was not asked yet.

        Raises:
            DivergenceError: in a replay, when the host fails what it did not fail in the recording.
        """
        ...

    def next_position(self, icount: int) -> int | None:
        """Return the next position at which to call ``due``, or None (a recording: at every slice's end)."""
        ...


class ConsoleSink(Protocol):
    """Where the guest's output goes: computed by the machine, so never an input."""

    def write(self, port: str, data: bytes, icount: int, vtime_ns: int) -> None: ...


class NullGate:
    """No inputs: entropy is zeros, wall clock 0, idle time to the next deadline: for tests and benchmarks."""

    def due(self, icount: int, vtime_ns: int) -> list[Input]:
        return []

    def ask(self, source: str, kind: str, request: bytes, icount: int, vtime_ns: int) -> bytes:
        if kind == "entropy":
            return bytes(int.from_bytes(request, "little"))
        return bytes(8)

    def fault(self, source: str, request: bytes, errno: int, icount: int, vtime_ns: int) -> int:
        return errno

    def next_position(self, icount: int) -> int | None:
        return None

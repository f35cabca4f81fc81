"""Chaos: what an unlucky machine does, chosen by the recording and logged choice by choice.

At times that it chooses itself it strikes: time passes with no step (as when a hypervisor takes the processor
away), harts' turns get another length, devices get slower or faster. So timers fall on other instructions and
harts meet in other orders. (determinism.md, law 6.)
"""

from __future__ import annotations

import struct
from typing import Final

from machine.hw.device import Device, Timer
from machine.hw.state import Int

#: A strike as the gate gives it: ns to the next one, ns that pass with no step, steps of a turn, latency in per cent.
_LAYOUT: Final = "<4Q"
FIRST_NS = 1000
#: Latency of a quiet machine.
LATENCY_QUIET = 100
LATENCY_MAX = 10_000


def pack_strike(next_ns: int, stall_ns: int, quantum_steps: int, latency_percent: int) -> bytes:
    """Return a strike's choices as the input gate gives them. A stall or a quantum of 0 chooses nothing."""
    return struct.pack(_LAYOUT, next_ns, stall_ns, quantum_steps, latency_percent)


def unpack_strike(payload: bytes) -> tuple[int, int, int, int]:
    """Return the four choices of a strike; what is missing reads as 0."""
    size = struct.calcsize(_LAYOUT)
    next_ns, stall_ns, quantum_steps, latency_percent = struct.unpack(
        _LAYOUT, payload[:size].ljust(size, b"\0")
    )
    return next_ns, stall_ns, quantum_steps, latency_percent


class Chaos(Device):
    """Sits on no bus. Present only in chaos mode.

    Replay: every strike consumes an input (source ``chaos``, kind ``strike``, the four choices).
    """

    size = 0

    latency_percent = Int(16)
    strike = Timer()

    def reset(self) -> None:
        """Begin with a quiet machine."""
        super().reset()
        self.latency_percent = LATENCY_QUIET

    def started(self) -> None:
        """Set the first strike."""
        self.schedule(self.strike, self.now() + FIRST_NS)

    @strike.fires
    def _strike(self) -> None:
        next_ns, stall_ns, quantum_steps, latency_percent = unpack_strike(self.ask("strike", b""))
        self.latency_percent = min(latency_percent, LATENCY_MAX)
        if quantum_steps:
            self.wires.set_quantum(quantum_steps)
        if stall_ns:
            self.wires.stall(stall_ns)
        self.schedule(self.strike, self.now() + max(next_ns, 1))

    def latency(self, ns: int) -> int:
        """Return how long a request takes now."""
        return ns * self.latency_percent // 100

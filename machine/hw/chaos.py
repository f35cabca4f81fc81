"""Chaos: what an unlucky machine does, chosen by the recording and logged choice by choice.

At times that it chooses itself it strikes: time passes with no step (as when a hypervisor takes the processor
away), harts' turns get another length, devices get slower or faster. So timers fall on other instructions and
harts meet in other orders. (determinism.md, law 6.)
"""

from __future__ import annotations

from machine.hw.device import Device, Timer
from machine.hw.state import Int

#: The choices of a strike, as the gate gives them: eight bytes each, little endian.
CHOICES = ("next_ns", "stall_ns", "quantum_steps", "latency_percent")
FIRST_NS = 1000
LATENCY_MAX = 10_000


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
        self.latency_percent = 100

    def started(self) -> None:
        """Set the first strike."""
        self.schedule(self.strike, self.now() + FIRST_NS)

    @strike.fires
    def _strike(self) -> None:
        answer = self.ask("strike", b"")
        values = [int.from_bytes(answer[8 * i : 8 * i + 8], "little") for i in range(len(CHOICES))]
        next_ns, stall_ns, quantum_steps, latency_percent = values
        self.latency_percent = min(latency_percent, LATENCY_MAX)
        if quantum_steps:
            self.wires.set_quantum(quantum_steps)
        if stall_ns:
            self.wires.stall(stall_ns)
        self.schedule(self.strike, self.now() + max(next_ns, 1))

    def latency(self, ns: int) -> int:
        """Return how long a request takes now."""
        return ns * self.latency_percent // 100

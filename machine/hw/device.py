"""What every device has: a place on the bus, wires, timers, and a way to the world through the gate.

A device imports no host facility. Time is virtual; entropy, wall clock and typed characters come through
the gate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

from machine.fdt import Node
from machine.hw.registers import RegisterFile
from machine.inputs import Input

F = TypeVar("F", bound=Callable[..., Any])


class IrqLine(Protocol):
    """A wire with a level."""

    def set(self, level: bool) -> None:
        """Drive the wire. The receiver acts on changes only."""
        ...


class NoLine:
    """A wire that leads nowhere."""

    def set(self, level: bool) -> None:
        return


class Dma(Protocol):
    """Physical memory as a device sees it."""

    def read(self, paddr: int, size: int) -> bytes:
        """Return ``size`` bytes. Raises ValueError when they are not all RAM."""
        ...

    def write(self, paddr: int, data: bytes) -> None:
        """Store bytes. Raises ValueError when the range is not all RAM; nothing is stored then."""
        ...


class ConsoleOut(Protocol):
    """Where a device prints."""

    def put(self, data: bytes) -> None: ...

    def listen(self, paddr: int | None) -> None:
        """Until told otherwise (None), print the low byte of what is written at ``paddr``: it does nothing else."""
        ...


class Wires(Protocol):
    """What a board gives to a device."""

    def dma_for(self, device: str) -> Dma:
        """Return guest-physical memory as the device of that name sees it."""
        ...

    def now(self) -> int:
        """Return vtime_ns at the exact position of the access under way."""
        ...

    def steady(self, paddr: int, value: int | None) -> None:
        """Until told otherwise (None), reads of this register have no effect and give ``value``."""
        ...

    def schedule(self, owner: str, name: str, vtime_ns: int) -> None: ...

    def cancel(self, owner: str, name: str) -> None: ...

    def ask(self, source: str, kind: str, request: bytes) -> bytes: ...

    def fault(self, source: str, request: bytes, errno: int) -> int:
        """Return with which errno the host fails a request here; see ``InputGate.fault``."""
        ...

    def stall(self, ns: int) -> None:
        """Let virtual time pass at once, with no step."""
        ...

    def set_quantum(self, steps: int) -> None:
        """Set the length of a hart's turn."""
        ...

    def latency(self, ns: int) -> int:
        """Return how long this request takes, given what it takes on a quiet machine."""
        ...

    def guest_error(self, source: str, text: str) -> None: ...

    def port(self, name: str) -> ConsoleOut:
        """Return the console output of that name; the same object for the same name."""
        ...

    def request_stop(self, reason: str, code: int = 0) -> None:
        """Ask the machine to end after this step: ``poweroff``, ``reboot`` or ``fail`` with its exit code."""
        ...


class Timer:
    """A declared timer, named by its attribute; ``@timer.fires`` takes the method that its deadline runs."""

    name = ""

    def __init__(self) -> None:
        self.handler: Callable[[Any], None] | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def fires(self, function: F) -> F:
        """Take the method ``(self)`` that runs when the deadline is due."""
        self.handler = function
        return function


class Device(RegisterFile):
    """A device on the bus.

    Args:
        name: unique in its machine; names its inputs, deadlines and state.
        base: guest-physical address of its registers.
        irq: the interrupt output.

    ``size`` is the length in bytes of its range; a multiple of 4 KiB or less than that.
    """

    size: ClassVar[int] = 0x1000
    timers: ClassVar[dict[str, Timer]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        found = {
            k: v for base in reversed(cls.__mro__) for k, v in vars(base).items() if isinstance(v, Timer)
        }
        cls.timers = found

    def __init__(self, wires: Wires, name: str, base: int, irq: IrqLine | None = None) -> None:
        self.wires = wires
        self.name = name
        self.base = base
        self.irq: IrqLine = irq if irq is not None else NoLine()
        self.dma = wires.dma_for(name)

    def started(self) -> None:
        """Do what power-on needs the gate for. Called once after every reset, not when a state is loaded."""

    def guest_error(self, text: str) -> None:
        self.wires.guest_error(self.name, text)

    def now(self) -> int:
        """Return vtime_ns at the exact position."""
        return self.wires.now()

    def schedule(self, timer: Timer, vtime_ns: int) -> None:
        """Set the timer's deadline, replacing an earlier one; one in the past is due at the next step."""
        self.wires.schedule(self.name, timer.name, vtime_ns)

    def cancel(self, timer: Timer) -> None:
        """Forget the timer's deadline if it has one."""
        self.wires.cancel(self.name, timer.name)

    def fire(self, timer_name: str) -> None:
        """Run the timer's method. The clock calls this when its deadline is due."""
        timer = self.timers.get(timer_name)
        if timer is not None and timer.handler is not None:
            timer.handler(self)

    def ask(self, kind: str, request: bytes) -> bytes:
        """Ask the gate for a value that the machine does not compute. Replay: consumes an input."""
        return self.wires.ask(self.name, kind, request)

    def deliver(self, item: Input) -> None:
        """Take an asynchronous input. Devices that have any override this."""
        self.guest_error(f"an input of kind {item.kind!r} came to a device that takes none")

    def fdt_nodes(self) -> list[Node]:
        """Return the device's nodes of the device tree; those of ``/soc`` unless they name another parent."""
        return []

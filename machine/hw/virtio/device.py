"""What a virtio device is to its transport."""

from __future__ import annotations

from typing import ClassVar, Protocol

from machine.hw.device import Dma, Wires
from machine.hw.state import Part
from machine.hw.virtio.queue import VirtQueue
from machine.inputs import Input

F_INDIRECT_DESC = 28
F_EVENT_IDX = 29
F_VERSION_1 = 32


class Transport(Protocol):
    """What a virtio device asks of its transport."""

    name: str
    wires: Wires
    dma: Dma
    queues: list[VirtQueue]
    driver_features: int

    def now(self) -> int: ...

    def ask(self, kind: str, request: bytes) -> bytes: ...

    def guest_error(self, text: str) -> None: ...

    def set_backend_deadline(self, vtime_ns: int | None) -> None: ...


class VirtioDevice(Part):
    """A device behind a virtio transport. Where its methods raise BrokenQueue, the transport wants a reset.

    ``device_id`` is the specification's.
    """

    device_id: ClassVar[int]
    queue_count: int
    transport: Transport

    def __init__(self, name: str) -> None:
        self.name = name

    def attach(self, transport: Transport) -> None:
        """Take the transport, once, before any use."""
        self.transport = transport

    def features(self) -> int:
        """Return the device's own feature bits; the transport adds the ring's."""
        return 0

    def config(self) -> bytes:
        """Return the configuration space."""
        return b""

    def kicked(self, queue: int) -> None:
        """Handle a notification: everything that waits in the queue."""
        raise NotImplementedError

    def due(self) -> None:
        """Handle the deadline set by ``set_backend_deadline``."""

    def deliver(self, item: Input) -> None:
        """Take an asynchronous input."""
        self.transport.guest_error(f"an input of kind {item.kind!r} came to a device that takes none")

"""The virtio console: one port.

Spec: Virtual I/O Device 1.2, section 5.3.
"""

from __future__ import annotations

from machine.hw.state import ByteString
from machine.hw.virtio.device import Transport, VirtioDevice
from machine.inputs import Input

RX, TX = 0, 1
RX_MAX = 1 << 16


class VirtioConsole(VirtioDevice):
    """Inputs: ``rx``, the characters typed; they wait until the driver has buffers for them."""

    device_id = 3
    queue_count = 2

    waiting = ByteString(RX_MAX)

    def attach(self, transport: Transport) -> None:
        super().attach(transport)
        self.port = transport.wires.port(self.name)

    def config(self) -> bytes:
        return bytes(12)  # cols, rows, max_nr_ports, emerg_wr: none of their features is offered

    def kicked(self, queue: int) -> None:
        if queue == RX:
            self._fill()
            return
        ring = self.transport.queues[TX]
        while (chain := ring.pop()) is not None:
            self.port.put(chain.read(0, chain.readable_bytes))
            ring.push(chain.head, 0)
        ring.signal()

    def deliver(self, item: Input) -> None:
        if item.kind != "rx":
            super().deliver(item)
            return
        self.waiting += item.payload[: RX_MAX - len(self.waiting)]
        self._fill()

    def _fill(self) -> None:
        ring = self.transport.queues[RX]
        while self.waiting and (chain := ring.pop()) is not None:
            data = bytes(self.waiting[: chain.writable_bytes])
            chain.write(0, data)
            del self.waiting[: len(data)]
            ring.push(chain.head, len(data))
        ring.signal()

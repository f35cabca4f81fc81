"""The entropy device: every request is answered by the gate.

Spec: Virtual I/O Device 1.2, section 5.4.
"""

from __future__ import annotations

from machine.hw.virtio.device import VirtioDevice

MAX_BYTES = 4096  # of one answer; the driver asks again for more


class VirtioRng(VirtioDevice):
    """Asks the gate for ``entropy``; the request is the number of bytes (4 bytes, little endian)."""

    device_id = 4
    queue_count = 1

    def kicked(self, queue: int) -> None:
        ring = self.transport.queues[queue]
        while (chain := ring.pop()) is not None:
            size = min(chain.writable_bytes, MAX_BYTES)
            data = self.transport.ask("entropy", size.to_bytes(4, "little"))[:size] if size else b""
            chain.write(0, data)
            ring.push(chain.head, len(data))
        ring.signal()

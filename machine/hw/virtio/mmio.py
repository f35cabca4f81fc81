"""The memory-mapped virtio transport, version 2 (the legacy interface is not offered).

Spec: Virtual I/O Device 1.2, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable

from machine.fdt import Node, cells64
from machine.hw.device import Device, IrqLine, Timer, Wires
from machine.hw.registers import Field, Reg, Window
from machine.hw.state import Int, Part
from machine.hw.virtio.device import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, VirtioDevice
from machine.hw.virtio.queue import QUEUE_MAX, BrokenQueue, VirtQueue
from machine.hw.virtmap import PLIC_PHANDLE
from machine.inputs import Input

MAGIC = int.from_bytes(b"virt", "little")
VENDOR = int.from_bytes(b"QEMU", "little")  # this is its board, and drivers of teaching kernels insist on it
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 0x40, 0x80
INT_USED, INT_CONFIG = 1, 2
LOW = 0xFFFF_FFFF
RING_FEATURES = 1 << F_INDIRECT_DESC | 1 << F_EVENT_IDX | 1 << F_VERSION_1


class VirtioMmio(Device):
    """One slot. An empty one answers with device id 0. It has the name of the device behind it."""

    magic = Reg(0x000, access="ro", stored=False, doc="`virt`")
    version = Reg(0x004, access="ro", stored=False, doc="2")
    device_id = Reg(0x008, access="ro", stored=False, doc="0: nothing here")
    vendor_id = Reg(0x00C, access="ro", stored=False)
    device_features = Reg(0x010, access="ro", stored=False, doc="32 bits of the offer")
    device_features_sel = Reg(0x014, access="wo", doc="which 32 bits")
    accept_features = Reg(0x020, access="wo", stored=False, doc="32 bits of what the driver accepts")
    driver_features_sel = Reg(0x024, access="wo", doc="which 32 bits")
    queue_sel = Reg(0x030, access="wo", doc="queue that the queue registers mean")
    queue_num_max = Reg(0x034, access="ro", stored=False, doc="0: no such queue")
    queue_num = Reg(0x038, access="wo", stored=False)
    queue_ready = Reg(0x044, stored=False)
    queue_notify = Reg(0x050, access="wo", stored=False, doc="index of the queue to look at")
    interrupt_status = Reg(0x060, access="ro", fields=(Field("used", 0), Field("config", 1)))
    interrupt_ack = Reg(0x064, access="wo", stored=False)
    status = Reg(0x070, doc="writing 0 resets")
    queue_desc_low = Reg(0x080, access="wo", stored=False)
    queue_desc_high = Reg(0x084, access="wo", stored=False)
    queue_driver_low = Reg(0x090, access="wo", stored=False)
    queue_driver_high = Reg(0x094, access="wo", stored=False)
    queue_device_low = Reg(0x0A0, access="wo", stored=False)
    queue_device_high = Reg(0x0A4, access="wo", stored=False)
    shm_sel = Reg(0x0AC, access="wo", stored=False)
    shm_len_low = Reg(0x0B0, access="ro", stored=False, doc="all ones: no shared memory")
    shm_len_high = Reg(0x0B4, access="ro", stored=False)
    shm_base_low = Reg(0x0B8, access="ro", stored=False)
    shm_base_high = Reg(0x0BC, access="ro", stored=False)
    config_generation = Reg(0x0FC, access="ro")
    config = Window(0x100, 0xF00, doc="configuration space of the device")

    driver_features = Int(64)
    backend_timer = Timer()

    def __init__(
        self, wires: Wires, base: int, irq: IrqLine, irq_number: int, backend: VirtioDevice | None, slot: int
    ) -> None:
        super().__init__(wires, backend.name if backend else f"virtio-mmio{slot}", base, irq)
        self.irq_number = irq_number
        self.backend = backend
        self.queues = [VirtQueue(self.dma, self._used) for _ in range(backend.queue_count if backend else 0)]
        if backend is not None:
            backend.attach(self)

    def parts(self) -> dict[str, Part]:
        named: dict[str, Part] = {f"queue{i}": queue for i, queue in enumerate(self.queues)}
        return {**named, "backend": self.backend} if self.backend else named

    def state_loaded(self) -> None:
        self._apply_features()

    def _offer(self) -> int:
        return self.backend.features() | RING_FEATURES if self.backend else 0

    def _apply_features(self) -> None:
        agreed = self.driver_features if self.status & FEATURES_OK else 0
        for queue in self.queues:
            queue.event_idx = bool(agreed >> F_EVENT_IDX & 1)
            queue.indirect = bool(agreed >> F_INDIRECT_DESC & 1)

    # what the device behind asks

    def set_backend_deadline(self, vtime_ns: int | None) -> None:
        """Call the device's ``due`` at this virtual time; None: not at all."""
        if vtime_ns is None:
            self.cancel(VirtioMmio.backend_timer)
        else:
            self.schedule(VirtioMmio.backend_timer, vtime_ns)

    def _used(self) -> None:
        self.interrupt_status |= INT_USED
        self.irq.set(True)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run the device's code; a broken queue stops the device until the driver resets it."""
        if self.status & NEEDS_RESET:
            return
        try:
            action()
        except BrokenQueue as error:
            self.guest_error(f"{error}; the device needs a reset")
            self.status |= NEEDS_RESET
            self.cancel(VirtioMmio.backend_timer)
            if self.status & DRIVER_OK:
                self.interrupt_status |= INT_CONFIG
                self.irq.set(True)

    @backend_timer.fires
    def _backend_due(self) -> None:
        if self.backend is not None:
            self._guarded(self.backend.due)

    def deliver(self, item: Input) -> None:
        if self.backend is None:
            super().deliver(item)
        else:
            backend = self.backend
            self._guarded(lambda: backend.deliver(item))

    # registers

    @magic.on_read
    def _read_magic(self) -> int:
        return MAGIC

    @version.on_read
    def _read_version(self) -> int:
        return 2

    @device_id.on_read
    def _read_device_id(self) -> int:
        return self.backend.device_id if self.backend else 0

    @vendor_id.on_read
    def _read_vendor_id(self) -> int:
        return VENDOR

    @device_features.on_read
    def _read_device_features(self) -> int:
        return self._offer() >> 32 * self.device_features_sel & LOW if self.device_features_sel < 2 else 0

    @accept_features.on_write
    def _write_driver_features(self, value: int) -> None:
        if self.status & FEATURES_OK or not self.status & DRIVER:
            self.guest_error("features are accepted between DRIVER and FEATURES_OK only")
        elif self.driver_features_sel < 2:
            shift = 32 * self.driver_features_sel
            self.driver_features = self.driver_features & ~(LOW << shift) | value << shift
        elif value:
            self.guest_error(f"features {value:#x} above bit 63")

    def _selected(self) -> VirtQueue | None:
        if self.queue_sel < len(self.queues):
            return self.queues[self.queue_sel]
        self.guest_error(f"there is no queue {self.queue_sel}")
        return None

    @queue_num_max.on_read
    def _read_queue_num_max(self) -> int:
        return QUEUE_MAX if self.queue_sel < len(self.queues) else 0

    @queue_num.on_write
    def _write_queue_num(self, value: int) -> None:
        queue = self._selected()
        if queue is None:
            return
        if queue.ready or not 0 < value <= QUEUE_MAX or value & (value - 1):
            self.guest_error(
                f"queue size {value}: expected a power of two up to {QUEUE_MAX}, before it is ready"
            )
        else:
            queue.size = value

    @queue_ready.on_read
    def _read_queue_ready(self) -> int:
        return self.queues[self.queue_sel].ready if self.queue_sel < len(self.queues) else 0

    @queue_ready.on_write
    def _write_queue_ready(self, value: int) -> None:
        queue = self._selected()
        if queue is None:
            return
        if value & 1 and not self.status & FEATURES_OK:
            self.guest_error("a queue is made ready before FEATURES_OK")
        elif value & 1 and (queue.desc & 15 or queue.driver & 1 or queue.device & 3):
            self.guest_error("a queue's rings are not aligned")
        else:
            queue.ready = value & 1

    @queue_notify.on_write
    def _write_queue_notify(self, value: int) -> None:
        if self.backend is None or value >= len(self.queues) or not self.status & DRIVER_OK:
            self.guest_error(f"notification of queue {value} before DRIVER_OK, or of none")
            return
        backend = self.backend
        self._guarded(lambda: backend.kicked(value))

    @interrupt_ack.on_write
    def _write_interrupt_ack(self, value: int) -> None:
        self.interrupt_status &= ~value
        self.irq.set(bool(self.interrupt_status))

    @status.on_write
    def _write_status(self, value: int) -> None:
        if value == 0:
            self._reset_device()
            return
        if self.status & 0xFF & ~NEEDS_RESET & ~value:
            self.guest_error(f"status {value:#x} clears bits of {self.status:#x}")
        fresh = value & 0xFF & ~self.status & ~NEEDS_RESET
        if fresh & FEATURES_OK:
            accepted = self.driver_features
            if accepted & ~self._offer():
                self.guest_error(f"features {accepted:#x} are refused: {self._offer():#x} are offered")
                fresh &= ~(FEATURES_OK | DRIVER_OK)
            elif not accepted >> F_VERSION_1 & 1:
                # SPEC: 6.2: a device may go on. Small drivers never look at the upper half of the features.
                self.guest_error("a driver that does not accept VERSION_1")
        if fresh & DRIVER_OK and not (self.status | fresh) & FEATURES_OK:
            self.guest_error("DRIVER_OK without FEATURES_OK")
            fresh &= ~DRIVER_OK
        self.status |= fresh
        self._apply_features()

    def _reset_device(self) -> None:
        generation = self.config_generation
        self.cancel(VirtioMmio.backend_timer)
        self.reset()
        self.config_generation = generation
        self._apply_features()
        self.irq.set(False)

    def _set_address(self, ring: str, high: bool, value: int) -> None:
        queue = self._selected()
        if queue is None:
            return
        if queue.ready:
            self.guest_error("a ring's address is changed while the queue is ready")
            return
        old: int = getattr(queue, ring)
        setattr(queue, ring, value << 32 | old & LOW if high else old & ~LOW | value)

    @queue_desc_low.on_write
    def _write_desc_low(self, value: int) -> None:
        self._set_address("desc", False, value)

    @queue_desc_high.on_write
    def _write_desc_high(self, value: int) -> None:
        self._set_address("desc", True, value)

    @queue_driver_low.on_write
    def _write_driver_low(self, value: int) -> None:
        self._set_address("driver", False, value)

    @queue_driver_high.on_write
    def _write_driver_high(self, value: int) -> None:
        self._set_address("driver", True, value)

    @queue_device_low.on_write
    def _write_device_low(self, value: int) -> None:
        self._set_address("device", False, value)

    @queue_device_high.on_write
    def _write_device_high(self, value: int) -> None:
        self._set_address("device", True, value)

    @shm_len_low.on_read
    @shm_len_high.on_read
    @shm_base_low.on_read
    @shm_base_high.on_read
    def _read_shm(self) -> int:
        return LOW

    @config.on_read
    def _read_config(self, offset: int, size: int) -> int:
        space = self.backend.config() if self.backend else b""
        return int.from_bytes(space[offset : offset + size], "little")

    @config.on_write
    def _write_config(self, offset: int, size: int, value: int) -> None:
        self.guest_error(f"write of {size} bytes to the configuration space at {offset:#x}")

    def fdt_nodes(self) -> list[Node]:
        return [
            Node(
                f"virtio_mmio@{self.base:x}",
                {
                    "compatible": "virtio,mmio",
                    "reg": cells64(self.base, self.size),
                    "interrupt-parent": PLIC_PHANDLE,
                    "interrupts": self.irq_number,
                    "dma-coherent": None,
                },
            )
        ]

"""The `virt` board's map: addresses, interrupt numbers and device-tree handles, as QEMU has them."""

from __future__ import annotations

RAM_BASE = 0x8000_0000
FINISHER_BASE = 0x10_0000
RTC_BASE = 0x10_1000
CLINT_BASE = 0x200_0000
PLIC_BASE = 0xC00_0000
UART_BASE = 0x1000_0000
#: The platform bus: places for devices that are not of the board.
PLATFORM_BASE = 0x400_0000
PLATFORM_STRIDE = 0x1000
PLATFORM_SLOTS = 16
VIRTIO_BASE = 0x1000_1000
VIRTIO_STRIDE = 0x1000
VIRTIO_SLOTS = 8

RTC_IRQ = 11
UART_IRQ = 10
PLATFORM_IRQ = 64  # of the first place
VIRTIO_IRQ = 1  # of slot 0; slot i has VIRTIO_IRQ + i

TIMEBASE_HZ = 10_000_000
NS_PER_TICK = 1_000_000_000 // TIMEBASE_HZ

#: Lines of a hart: bits of mip.
IRQ_SSIP, IRQ_MSIP, IRQ_MTIP, IRQ_SEIP, IRQ_MEIP = 1, 3, 7, 9, 11

PLIC_PHANDLE = 1
SYSCON_PHANDLE = 2


def intc_phandle(hart: int) -> int:
    """Return the device-tree handle of a hart's interrupt controller."""
    return 0x10 + 2 * hart


def cpu_phandle(hart: int) -> int:
    """Return the device-tree handle of a hart."""
    return 0x11 + 2 * hart

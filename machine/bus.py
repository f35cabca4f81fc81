"""The physical address map outside RAM: which device an access reaches."""

from __future__ import annotations

from machine.errors import ConfigError
from machine.hw.device import Device

PAGE_BITS = 12


class Bus:
    """Dispatches accesses by page. Devices start on pages of their own."""

    def __init__(self) -> None:
        self.devices: list[Device] = []
        self._page: dict[int, Device] = {}

    def add(self, device: Device) -> None:
        """Put a device on the bus.

        Raises:
            ConfigError: its range touches another's, or does not start on a page.
        """
        first = device.base >> PAGE_BITS
        last = (device.base + device.size - 1) >> PAGE_BITS
        if device.base & ((1 << PAGE_BITS) - 1):
            raise ConfigError(f"device {device.name} at {device.base:#x} does not start on a page")
        for page in range(first, last + 1):
            if page in self._page:
                raise ConfigError(
                    f"devices {device.name} and {self._page[page].name} overlap at {device.base:#x}"
                )
        self._page.update(dict.fromkeys(range(first, last + 1), device))
        self.devices.append(device)

    def find(self, paddr: int) -> Device | None:
        """Return the device whose range holds this guest-physical address."""
        device = self._page.get(paddr >> PAGE_BITS)
        if device is None or paddr - device.base >= device.size:
            return None
        return device

    def read(self, paddr: int, size: int) -> int | None:
        """Return what ``size`` bytes at ``paddr`` read as, or None where nothing answers: an access fault."""
        device = self._page.get(paddr >> PAGE_BITS)
        if device is None:
            return None
        offset = paddr - device.base
        return device.read(offset, size) if offset + size <= device.size else None

    def write(self, paddr: int, size: int, value: int) -> bool:
        """Write; False where nothing answers: an access fault."""
        device = self._page.get(paddr >> PAGE_BITS)
        if device is None or paddr - device.base + size > device.size:
            return False
        device.write(paddr - device.base, size, value)
        return True

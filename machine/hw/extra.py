"""Devices that are not of the board: declared by plug-ins, and put on the platform bus by name.

Which ones a machine has is a part of its configuration, and so of its trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from machine.errors import ConfigError
from machine.hw.device import Device, IrqLine, Wires
from machine.hw.virtmap import PLATFORM_BASE, PLATFORM_IRQ, PLATFORM_SLOTS, PLATFORM_STRIDE

D = TypeVar("D", bound=type[Device])

#: The devices that are known, by the names that configurations have for them.
EXTRA: Final[dict[str, type[Device]]] = {}


def device(name: str) -> Callable[[D], D]:
    """Declare a class to be the device of a name, for ``--device NAME``.

    Replay: what it asks of outside goes through the gate, as of any device.
    """

    def declare(cls: D) -> D:
        assert EXTRA.get(name, cls) is cls, f"two devices are called {name}"
        EXTRA[name] = cls
        return cls

    return declare


def build_extra(wires: Wires, line: Callable[[int], IrqLine], names: Sequence[str]) -> list[Device]:
    """Return the devices of these names: each a page of the platform bus, and an interrupt, in their order.

    Args:
        wires: what devices ask of the board. line: gives the interrupt controller's inputs.
        names: from the configuration.

    Raises:
        ConfigError: there is no such device, or there are more than places.
    """
    if len(names) > PLATFORM_SLOTS:
        raise ConfigError(
            f"{len(names)} devices: the platform bus has {PLATFORM_SLOTS} places; leave out a --device"
        )
    out: list[Device] = []
    for slot, name in enumerate(names):
        if name not in EXTRA:
            known = ", ".join(sorted(EXTRA)) or "none"
            raise ConfigError(
                f"no device {name!r}; there are {known}: install the plug-in that brings it; "
                "'workbench doctor' lists those that are here"
            )
        if EXTRA[name].size > PLATFORM_STRIDE:
            raise ConfigError(f"device {name!r} is larger than its place of {PLATFORM_STRIDE} bytes")
        base = PLATFORM_BASE + slot * PLATFORM_STRIDE
        out.append(EXTRA[name](wires, f"{name}{slot}", base, line(PLATFORM_IRQ + slot)))
    return out

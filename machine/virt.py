"""The `virt` board as data: which devices there are, where, and on which wires."""

from __future__ import annotations

from collections.abc import Mapping

from machine.config import MachineConfig
from machine.cpu import parse_cpu
from machine.errors import ConfigError
from machine.hw import virtmap
from machine.hw.aclint import Aclint, Harts
from machine.hw.blockproto import BlockNode
from machine.hw.chaos import Chaos
from machine.hw.device import Device, Wires
from machine.hw.extra import build_extra
from machine.hw.finisher import Finisher
from machine.hw.goldfish_rtc import GoldfishRtc
from machine.hw.plic import Plic
from machine.hw.uart16550 import Uart
from machine.hw.virtio.blk import ID_BYTES, QUEUES_MAX, VirtioBlk
from machine.hw.virtio.console import VirtioConsole
from machine.hw.virtio.device import VirtioDevice
from machine.hw.virtio.mmio import VirtioMmio
from machine.hw.virtio.rng import VirtioRng

PAGE = 4096
MEMORY_MAX = 64 << 30
HARTS_MAX = 16


def check_config(config: MachineConfig) -> None:
    """Raise ConfigError for a configuration that is not one of this board."""
    if config.guest != "riscv64" or config.board != "virt":
        raise ConfigError(f"guest {config.guest!r} on board {config.board!r}: expected riscv64 on virt")
    if not 1 <= config.harts <= HARTS_MAX:
        raise ConfigError(f"{config.harts} harts: expected 1 to {HARTS_MAX}; see --smp")
    parse_cpu(config.cpu)
    if config.memory_bytes % PAGE or not 1 << 20 <= config.memory_bytes <= MEMORY_MAX:
        raise ConfigError(
            f"{config.memory_bytes} bytes of memory: expected 1 MiB to 64 GiB in units of 4 KiB; see --memory"
        )
    if config.idle not in ("jump", "ask"):
        raise ConfigError(f"idle {config.idle!r}: expected jump or ask")
    if config.quantum_steps < 1 or config.ns_per_step < 1:
        raise ConfigError("quantum and nanoseconds a step must be at least 1; see --quantum")
    for drive in config.drives:
        if drive.timing not in ("model", "host"):
            raise ConfigError(f"drive {drive.file}: timing {drive.timing!r}: expected model or host")
        if not 1 <= drive.queues <= QUEUES_MAX:
            raise ConfigError(f"drive {drive.file}: {drive.queues} queues: expected 1 to {QUEUES_MAX}")
        if not -1 <= drive.slot < virtmap.VIRTIO_SLOTS:
            raise ConfigError(
                f"drive {drive.file}: bus {drive.slot}: expected virtio-mmio-bus.0 to {virtmap.VIRTIO_SLOTS - 1}"
            )
        if len(drive.serial.encode()) > ID_BYTES:
            raise ConfigError(f"drive {drive.file}: a serial number has at most {ID_BYTES} bytes")


def _fill_slots(config: MachineConfig, drives: Mapping[str, BlockNode]) -> dict[int, VirtioDevice]:
    """Return what is in each virtio slot that is not empty. Raises ConfigError."""
    slots = virtmap.VIRTIO_SLOTS
    if len(drives) > slots - 2:
        raise ConfigError(f"{len(drives)} drives: the board has room for {slots - 2}; leave out a --drive")
    filled: dict[int, VirtioDevice] = {}
    others: list[VirtioDevice] = []
    for drive, (name, node) in zip(config.drives, drives.items(), strict=True):
        device = VirtioBlk(name, node, drive.serial, drive.queues, drive.timing == "host")
        if drive.slot in filled:
            raise ConfigError(f"drive {drive.file}: there is another on virtio-mmio-bus.{drive.slot}")
        if drive.slot < 0:
            others.append(device)
        else:
            filled[drive.slot] = device
    # As on QEMU's command line, the first device gets the last slot, which kernels look at first.
    free = (slot for slot in reversed(range(slots)) if slot not in filled)
    others += [VirtioRng("rng0"), VirtioConsole("console0")]
    return filled | dict(zip(free, others, strict=False))


def build_devices(
    wires: Wires, harts: Harts, config: MachineConfig, drives: Mapping[str, BlockNode]
) -> list[Device]:
    """Return the board's devices.

    Args:
        wires: what devices ask of the board.
        harts: the engine, for interrupt controllers.
        config: the machine.
        drives: block nodes by name, in the order of the command line.

    Raises:
        ConfigError: there are more drives than slots, or a device that no plug-in brings.
    """
    behind = _fill_slots(config, drives)
    plic = Plic(wires, "plic", virtmap.PLIC_BASE, harts, config.harts)
    devices: list[Device] = [
        plic,
        Aclint(wires, "clint", virtmap.CLINT_BASE, harts, config.harts),
        Finisher(wires, "finisher", virtmap.FINISHER_BASE),
        GoldfishRtc(wires, "rtc", virtmap.RTC_BASE, plic.line(virtmap.RTC_IRQ)),
        Uart(wires, "uart0", virtmap.UART_BASE, plic.line(virtmap.UART_IRQ)),
    ]
    for slot in range(virtmap.VIRTIO_SLOTS):
        irq = virtmap.VIRTIO_IRQ + slot
        base = virtmap.VIRTIO_BASE + slot * virtmap.VIRTIO_STRIDE
        devices.append(VirtioMmio(wires, base, plic.line(irq), irq, behind.get(slot), slot))
    devices += build_extra(wires, plic.line, config.options.get("devices", ()))
    if config.chaos:
        devices.append(Chaos(wires, "chaos", 0))
    return devices

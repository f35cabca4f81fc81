"""Where everything goes in RAM at reset, as QEMU's `virt` board does it.

RAM base           kernel (bios none) or firmware (bios file)
RAM base + 2 MiB   kernel (bios builtin; behind firmware: the next 2 MiB boundary)
anywhere           pieces with addresses of their own; without a kernel, the harts start where it would be
kernel + min(half of RAM, 128 MiB)   initrd
end of RAM, or 3 GiB if that is less, down to 2 MiB   device tree; the firmware's boot info below it
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate, pairwise

from machine.config import Images, MachineConfig
from machine.errors import ConfigError, ImageError
from machine.images import Program, Segment, parse_firmware, parse_kernel
from machine.values import valueclass

MIB = 1 << 20
ALIGN = 2 * MIB
PAGE = 4096
DTB_BELOW = 3072 * MIB
INITRD_OFFSET_MAX = 128 * MIB
MEMORY_TRIES_MIB = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384)

FW_DYNAMIC_MAGIC = 0x4942534F
FW_DYNAMIC_VERSION = 2
NEXT_MODE_S = 1


@valueclass(frozen=True, slots=True)
class Entry:
    """How harts start: pc and a2; a0 is the hart's id, a1 the device tree. Unless ``all_harts``, only hart 0."""

    pc: int
    arg2: int
    all_harts: bool
    machine_mode: bool


@valueclass(frozen=True, slots=True)
class Plan:
    """What is written to RAM at reset, beside the device tree, and how the harts start.

    ``dtb_room`` is the number of bytes that the device tree may take.
    """

    segments: tuple[Segment, ...]
    entry: Entry
    initrd: tuple[int, int] | None
    dtb_paddr: int
    dtb_room: int


def _align_up(value: int) -> int:
    return (value + ALIGN - 1) & ~(ALIGN - 1)


def _check_ram(what: str, start: int, end: int, ram: tuple[int, int]) -> None:
    if start < ram[0] or end > ram[1]:
        raise ImageError(f"{what} needs {start:#x} to {end:#x}, but RAM is {ram[0]:#x} to {ram[1]:#x}")


def _place(
    firmware: Program | None,
    kernel: Program | None,
    images: Images,
    dtb_bytes: int,
    config: MachineConfig,
    ram_base: int,
) -> Plan:
    """Lay out one machine. Raises ImageError where something does not fit."""
    ram = (ram_base, ram_base + config.memory_bytes)
    dtb_paddr = (min(ram[1], DTB_BELOW) - dtb_bytes) & ~(ALIGN - 1)
    info_paddr = dtb_paddr - PAGE
    used: list[tuple[str, int, int]] = [("device tree", dtb_paddr, dtb_paddr + dtb_bytes)]
    segments: list[Segment] = []
    if config.bios == "file":
        used.append(("boot information", info_paddr, info_paddr + PAGE))

    def load(what: str, program: Program) -> None:
        for segment in program.segments:
            used.append((what, segment.paddr, segment.paddr + segment.size))
            segments.append(segment)

    if firmware is not None:
        firmware = firmware.at(ram_base)
        load("bios", firmware.within(*ram))
    if kernel is not None:
        if firmware is not None:
            kernel = kernel.at(_align_up(firmware.end))
        else:
            kernel = kernel.at(ram_base if config.bios == "none" else ram_base + ALIGN)
        kernel = kernel.within(*ram)
        load("kernel", kernel)
    for piece in _pieces(config, images):
        load(f"what is loaded at {piece.paddr:#x}", Program((piece,), piece.paddr, True, "raw"))
    placed = None
    initrd = images.initrd
    if initrd:
        low = kernel.entry if kernel is not None else ram_base
        start = low + min(config.memory_bytes // 2, INITRD_OFFSET_MAX)
        if (kernel is not None and kernel.start <= start < kernel.end) or start % PAGE:
            start = _align_up(max(start, kernel.end if kernel is not None else 0))
        placed = (start, start + len(initrd))
        used.append(("initrd", *placed))
        segments.append(Segment(start, initrd, len(initrd)))
    used.sort(key=lambda item: item[1])
    for what, start, end in used:
        _check_ram(what, start, end, ram)
    for (what, _, end), (other, start, _) in pairwise(used):
        if start < end and what != other:
            raise ImageError(f"{what} and {other} overlap at {start:#x}")
    entry = _entry(firmware, kernel, info_paddr, segments, config, ram_base)
    return Plan(tuple(segments), entry, placed, dtb_paddr, min(ram[1], DTB_BELOW) - dtb_paddr)


def _entry(
    firmware: Program | None,
    kernel: Program | None,
    info_paddr: int,
    segments: list[Segment],
    config: MachineConfig,
    ram_base: int,
) -> Entry:
    if firmware is not None:
        next_addr = kernel.entry if kernel is not None else 0
        info = struct.pack("<6Q", FW_DYNAMIC_MAGIC, FW_DYNAMIC_VERSION, next_addr, NEXT_MODE_S, 0, 0)
        segments.append(Segment(info_paddr, info, len(info)))
        return Entry(firmware.entry, info_paddr, all_harts=True, machine_mode=True)
    machine_mode = config.bios == "none"
    start = ram_base if machine_mode else ram_base + ALIGN
    if kernel is not None:
        start = kernel.entry
    elif not any(segment.paddr <= start < segment.paddr + segment.size for segment in segments):
        raise ImageError(f"nothing is loaded at {start:#x}, where the harts start; give --kernel FILE")
    return Entry(start, 0, all_harts=machine_mode, machine_mode=machine_mode)


def _pieces(config: MachineConfig, images: Images) -> list[Segment]:
    """Return what goes to addresses of its own. Raises ConfigError: a configuration that its images do not fit."""
    places = [(int(paddr), int(size)) for paddr, size in config.options.get("loaded", ())]
    ends = list(accumulate(size for _, size in places))
    if any(size < 1 for _, size in places) or (ends[-1] if ends else 0) != len(images.loaded):
        raise ConfigError("the pieces to be loaded are not those of the configuration; record anew")
    return [
        Segment(paddr, images.loaded[end - size : end], size)
        for (paddr, size), end in zip(places, ends, strict=True)
    ]


def plan(config: MachineConfig, images: Images, ram_base: int, dtb_bytes: int) -> Plan:
    """Lay out RAM for a machine.

    Args:
        config: its configuration.
        images: what is to be loaded.
        ram_base: guest-physical address of RAM.
        dtb_bytes: room for the device tree.

    Raises:
        ConfigError: the configuration names firmware or a kernel that was not given.
        ImageError: an image is not what it should be, or does not fit; says how much memory is needed.
    """
    if config.bios not in ("builtin", "none", "file"):
        raise ConfigError(f"bios {config.bios!r}: expected builtin, none or a file")
    if config.bios == "file" and not images.bios:
        raise ImageError("bios: the firmware file is empty; give --bios FILE of OpenSBI or the like")
    if config.bios != "file" and not images.kernel and not images.loaded:
        raise ConfigError(
            "there is no kernel to start; give --kernel FILE, or --bios FILE of firmware that needs none"
        )
    firmware = parse_firmware(images.bios) if config.bios == "file" else None
    kernel = parse_kernel(images.kernel) if images.kernel else None

    def attempt(memory_bytes: int) -> Plan:
        sized = replace(config, memory_bytes=memory_bytes)
        return _place(firmware, kernel, images, dtb_bytes, sized, ram_base)

    try:
        return attempt(config.memory_bytes)
    except ImageError as error:
        needed = _memory_needed(attempt)
        have = f"{config.memory_bytes / MIB:g} MiB"
        if needed is None or needed <= config.memory_bytes:
            raise ImageError(f"{error}, with {have} of memory and with more") from None
        raise ImageError(
            f"{error}: {have} of memory are too little; use --memory {needed // MIB}M or more"
        ) from None


def _memory_needed(attempt: Callable[[int], Plan]) -> int | None:
    for mib in MEMORY_TRIES_MIB:
        try:
            attempt(mib * MIB)
        except ImageError:
            continue
        return mib * MIB
    return None

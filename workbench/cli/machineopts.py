"""Machine options, spelt as QEMU spells them, and what is built from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from workbench.cli.loaders import take_loaders
from workbench.cli.values import ON, read_image, split_commas
from workbench.errors import UsageError

if TYPE_CHECKING:
    from machine.config import DriveConfig, Images, MachineConfig

F = TypeVar("F", bound=Callable[..., Any])

_SIZE = re.compile(r"(?:size=)?([0-9]+)([bkmgt]?)i?b?", re.IGNORECASE)
_SHIFTS = {"b": 0, "k": 10, "": 20, "m": 20, "g": 30, "t": 40}
_SMP = re.compile(r"(?:cpus=)?([0-9]+)")
_DRIVE_KEYS = ("file", "format", "if", "readonly", "id", "media", "serial", "num-queues", "timing")
_BUS = re.compile(r"virtio-mmio-bus\.([0-9]{1,9})")
#: Options of QEMU that say what is so here anyway, and their values that do; as ``--no-reboot`` does.
AS_QEMU = {
    "global": ("virtio-mmio.force-legacy=false",),
    "serial": ("stdio", "mon:stdio"),
    "display": ("none",),
    "monitor": ("none",),
}


def machine_options(function: F) -> F:
    """Add the machine's options to a command; their values come in one dict, ``machine``."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS: tuple[Callable[[F], F], ...] = (
    click.option("--kernel", metavar="FILE", help="ELF or RISC-V Image, gzip or zstd too; or a raw binary."),
    click.option("--initrd", metavar="FILE", help="Initial RAM disk."),
    click.option("--append", metavar="TEXT", default="", help="Kernel command line."),
    click.option(
        "--bios",
        metavar="builtin|none|FILE",
        default="builtin",
        help="Our own SBI, none (start the kernel in M-mode at 0x8000_0000), or a file such as OpenSBI.",
    ),
    click.option("--dtb", metavar="FILE", help="Device tree instead of the generated one."),
    click.option(
        "-m", "--memory", metavar="SIZE", default="512M", help="RAM, as 512M or 2G.", show_default=True
    ),
    click.option("--smp", metavar="N", default="1", help="Number of harts.", show_default=True),
    click.option(
        "--cpu",
        metavar="rv64[,F=V…]",
        default="rv64",
        help="Features of the processor, as rv64,v=on,vlen=256; a wrong one lists those there are.",
    ),
    click.option(
        "--drive",
        "drives",
        metavar="file=F,…",
        multiple=True,
        help="file=F,format=raw|qcow2,if=virtio,readonly=on,id=X; repeatable; F may be an nbd:// URI.",
    ),
    click.option(
        "--device",
        "devices",
        metavar="NAME",
        multiple=True,
        help="virtio-blk-device,drive=X,bus=virtio-mmio-bus.N for a drive with if=none; loader,file=F,addr=A for "
        "a file that goes to an address (an ELF file to its own); or a device that a plug-in brings; repeatable.",
    ),
    click.option("--quantum", metavar="N", type=click.IntRange(1, 1 << 40), help="Steps of a hart's turn."),
    click.option(
        "--seed",
        metavar="N",
        type=click.IntRange(0, (1 << 64) - 1),
        help="Seed of entropy and chaos; with it, the same options give the same run.",
    ),
    click.option("--chaos", is_flag=True, help="Turns, timers and latencies from a seeded generator."),
    click.option("-M", "--machine", "board", default="virt", hidden=True),
    click.option("--nographic", is_flag=True, hidden=True),
    click.option("--no-reboot", is_flag=True, hidden=True),
    *(click.option(f"--{name}", f"qemu_{name}", multiple=True, hidden=True) for name in AS_QEMU),
)
backend_option = click.option(
    "--backend",
    type=click.Choice(["jit", "interp"]),
    default="jit",
    show_default=True,
    help="Translated code, or the portable interpreter.",
)
MACHINE_KEYS = (
    *(
        "kernel",
        "initrd",
        "append",
        "bios",
        "dtb",
        "memory",
        "smp",
        "cpu",
        "drives",
        "devices",
        "quantum",
        "seed",
        "chaos",
    ),
    *("board", "nographic", "no_reboot", *(f"qemu_{name}" for name in AS_QEMU)),
)


def take_machine(options: dict[str, Any]) -> dict[str, Any]:
    """Take the machine's options out of a command's options."""
    return {key: options.pop(key) for key in MACHINE_KEYS}


def parse_size(text: str) -> int:
    """Return a memory size in bytes: ``512M``, ``2G``, ``524288K``; a bare number is MiB, as in QEMU.

    Raises:
        UsageError: when it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(match[1]) > 15:
        raise UsageError(f"--memory {text}: not a size; expected one like 512M or 2G")
    return int(match[1]) << _SHIFTS[match[2].lower()]


def parse_harts(text: str) -> int:
    """Return the number of harts of ``--smp``. Raises UsageError when it is none from 1 to 16."""
    match = _SMP.fullmatch(text.strip())
    if match is None or len(match[1]) > 4 or not 1 <= int(match[1]) <= 16:
        raise UsageError(f"--smp {text}: expected a number of harts from 1 to 16")
    return int(match[1])


def parse_drive(text: str, index: int = 0) -> DriveConfig:
    """Return the drive that a ``--drive`` means.

    Raises:
        UsageError: for an unknown key, a value that is not of its key, or no file.
    """
    from machine.config import DriveConfig

    values: dict[str, str] = {}
    for part in split_commas(text):
        key, equals, value = part.partition("=")
        if key not in _DRIVE_KEYS or not equals:
            raise UsageError(f"--drive: {part!r} is not one of {', '.join(f'{k}=…' for k in _DRIVE_KEYS)}")
        if key in values:
            raise UsageError(f"--drive: {key} is given twice")
        values[key] = value
    if not values.get("file"):
        raise UsageError("--drive: file=… is missing")
    if values.get("if", "virtio") not in ("virtio", "none"):
        raise UsageError(f"--drive: if={values['if']}: this board has virtio drives only, if=virtio")
    if values.get("media", "disk") != "disk":
        raise UsageError(f"--drive: media={values['media']}: only media=disk is known")
    if values.get("format", "raw") not in ("raw", "qcow2"):
        raise UsageError(f"--drive: format={values['format']}: expected raw or qcow2")
    readonly = values.get("readonly", "off")
    if readonly not in ON:
        raise UsageError(f"--drive: readonly={readonly}: expected on or off")
    timing = values.get("timing", "model")
    if timing not in ("model", "host"):
        raise UsageError(f"--drive: timing={timing}: expected model or host")
    queues = values.get("num-queues", "1")
    if not queues.isdecimal():
        raise UsageError(f"--drive: num-queues={queues}: expected a number")
    return DriveConfig(
        file=values["file"],
        format=values.get("format", "raw"),
        interface=values.get("if", "virtio"),
        readonly=ON[readonly],
        id=values.get("id") or f"virtio{index}",
        serial=values.get("serial", ""),
        queues=int(queues),
        timing=timing,
    )


def place_drives(drives: list[DriveConfig], devices: Sequence[str]) -> tuple[list[DriveConfig], list[str]]:
    """Give drives with ``if=none`` the ``virtio-blk-device`` that names them, as QEMU's options do.

    Returns:
        the drives, all of them on the bus now, and the devices that are left.

    Raises:
        UsageError: a device without its drive, or a drive without its device.
    """
    waiting = {drive.id: at for at, drive in enumerate(drives) if drive.interface == "none"}
    left: list[str] = []
    for device in devices:
        kind, *parts = split_commas(device)
        if kind != "virtio-blk-device":
            left.append(device)
            continue
        values = dict(part.partition("=")[::2] for part in parts)
        at = waiting.pop(values.pop("drive", ""), None)
        if at is None:
            raise UsageError(f"--device {device}: drive=X must name a --drive with if=none,id=X")
        drives[at] = _on_bus(device, drives[at], values)
    if waiting:
        name = next(iter(waiting))
        raise UsageError(
            f"--drive: no device for {name}: add --device virtio-blk-device,drive={name}, or say if=virtio"
        )
    return drives, left


def _on_bus(device: str, drive: DriveConfig, values: dict[str, str]) -> DriveConfig:
    """Return the drive as a ``virtio-blk-device``'s other values have it. Raises UsageError."""
    changes: dict[str, Any] = {"interface": "virtio"}
    for key, value in values.items():
        slot = _BUS.fullmatch(value)
        if key == "bus" and slot:
            changes["slot"] = int(slot[1])
        elif key == "serial":
            changes["serial"] = value
        elif key == "num-queues" and value.isdecimal():
            changes["queues"] = int(value[:9])
        elif key != "id":
            raise UsageError(
                f"--device {device}: {key}={value} is not one of drive=…, bus=virtio-mmio-bus.N, serial=…, "
                "num-queues=N, id=…"
            )
    return replace(drive, **changes)


def build_machine(options: dict[str, Any], idle: str) -> tuple[MachineConfig, Images]:
    """Return the configuration and the images that machine options mean.

    Args:
        options: what ``take_machine`` took.
        idle: ``ask`` while a console is attached, else ``jump``.
    """
    from machine.config import Images, MachineConfig
    from machine.cpu import parse_cpu

    if options["board"].partition(",")[0] != "virt":
        raise UsageError(f"--machine {options['board']}: the one board is virt")
    for name, values in AS_QEMU.items():
        for value in options[f"qemu_{name}"]:
            if value not in values:
                raise UsageError(f"--{name} {value}: only {' or '.join(values)}, which is what there is")
    bios = "builtin" if options["bios"] == "default" else options["bios"]
    drives = [parse_drive(text, index) for index, text in enumerate(options["drives"])]
    names = [drive.id for drive in drives]
    if len(set(names)) < len(names):
        raise UsageError(f"--drive: two drives have the id {max(names, key=names.count)}")
    drives, devices = place_drives(drives, options["devices"])
    pieces, devices = take_loaders(devices)
    if not options["kernel"] and not pieces and bios in ("builtin", "none"):
        raise UsageError(
            "--kernel FILE is needed: an ELF or a RISC-V Image ('workbench guest list' has some)"
        )
    if options["initrd"] and not options["kernel"]:
        raise UsageError("--initrd needs a --kernel")
    parse_cpu(options["cpu"])
    more: dict[str, Any] = {"entropy": "seed"} if options["seed"] is not None else {}
    if devices:
        more["devices"] = devices
    if pieces:
        more["loaded"] = [[paddr, len(data)] for paddr, data in pieces]
    if not options["append"].isprintable():
        raise UsageError("--append: control characters in a kernel command line")
    defaults = MachineConfig()
    config = MachineConfig(
        memory_bytes=parse_size(options["memory"]),
        harts=parse_harts(options["smp"]),
        cpu=options["cpu"],
        bios=bios if bios in ("builtin", "none") else "file",
        append=options["append"],
        quantum_steps=options["quantum"] or defaults.quantum_steps,
        idle=idle,
        seed=options["seed"] or 0,
        chaos=options["chaos"],
        drives=tuple(drives),
        options=more,
    )
    images = Images(
        kernel=read_image(options["kernel"], "kernel"),
        initrd=read_image(options["initrd"], "initrd"),
        bios=b"" if bios in ("builtin", "none") else read_image(bios, "bios"),
        dtb=read_image(options["dtb"], "dtb"),
        loaded=b"".join(data for _, data in pieces),
    )
    return config, images

"""Opens the disks that a configuration names."""

from __future__ import annotations

from machine.config import DriveConfig, MachineConfig
from machine.errors import ConfigError
from machine.hw.blockproto import BaseRead
from machine.hw.rawdisk import RawDisk


def drive_name(drive: DriveConfig, index: int) -> str:
    """Return the name by which a board knows a drive: its id, or ``drive`` and its index."""
    return drive.id or f"drive{index}"


def open_drive(drive: DriveConfig, base_read: BaseRead | None = None) -> RawDisk:
    """Open a drive's image.

    Args:
        drive: its configuration; ``hash`` and ``size_bytes`` are checked where given.
        base_read: see ``RawDisk``.

    Raises:
        ConfigError: a format that is not known.
        ImageError: the image cannot be used.
    """
    if drive.format != "raw":
        raise ConfigError(f"drive {drive.file}: format {drive.format!r} is not known; expected raw")
    return RawDisk(
        drive.file,
        readonly=drive.readonly,
        expected_hash=drive.hash,
        expected_size=drive.size_bytes,
        base_read=base_read,
    )


def open_drives(config: MachineConfig) -> dict[str, RawDisk]:
    """Open all drives of a configuration, by name. Raises ConfigError, ImageError."""
    return {drive_name(drive, index): open_drive(drive) for index, drive in enumerate(config.drives)}

"""Opens the disks that a configuration names."""

from __future__ import annotations

from dataclasses import replace

from machine.config import DriveConfig, MachineConfig
from machine.errors import ConfigError, ImageError
from machine.hw.blockproto import BaseRead, BlockError, BlockNode
from machine.hw.rawdisk import RawDisk, identify

FORMATS = ("raw", "qcow2")


def drive_name(drive: DriveConfig, index: int) -> str:
    """Return the name by which a board knows a drive: its id, or ``drive`` and its index."""
    return drive.id or f"drive{index}"


def _is_plain(drive: DriveConfig) -> bool:
    """Whether a drive is a raw file, for which the node graph is not needed."""
    return drive.format == "raw" and "://" not in drive.file


def _driver(drive: DriveConfig) -> str | None:
    if drive.format not in FORMATS:
        raise ConfigError(f"drive {drive.file}: format {drive.format!r} is not known; expected raw or qcow2")
    return None if "://" in drive.file and drive.format == "raw" else drive.format


def identify_drive(drive: DriveConfig) -> DriveConfig:
    """Return a drive with its content's hash and size, where it has none yet. Raises ConfigError, ImageError."""
    if drive.hash:
        return drive
    if _is_plain(drive):
        content, size_bytes = identify(drive.file)
        return replace(drive, hash=content, size_bytes=size_bytes)
    from machine.block import hwnode
    from machine.block.errors import BlockError as NodeError

    try:
        root, size_bytes = hwnode.identify(drive.file, _driver(drive))
    except NodeError as error:
        raise ImageError(f"drive {drive.file} cannot be used: {error}") from None
    return replace(drive, hash=root, size_bytes=size_bytes)


def open_drive(drive: DriveConfig, base_read: BaseRead | None = None) -> BlockNode:
    """Open a drive's image: a raw file by itself, anything else through the node graph.

    Args:
        drive: its configuration; ``hash`` and ``size_bytes`` are checked where given.
        base_read: see ``RawDisk``.

    Raises:
        ConfigError: a format that is not known.
        ImageError: the image cannot be used.
    """
    if not _is_plain(drive):
        return _open_node(drive, base_read)
    return RawDisk(
        drive.file,
        readonly=drive.readonly,
        expected_hash=drive.hash,
        expected_size=drive.size_bytes,
        base_read=base_read,
    )


def _open_node(drive: DriveConfig, base_read: BaseRead | None) -> BlockNode:
    from machine.block import hwnode
    from machine.block.errors import BlockError as NodeError

    try:
        return hwnode.open_disk(
            drive.file,
            _driver(drive),
            readonly=drive.readonly,
            expected_root=drive.hash,
            error=BlockError,
            base_read=base_read,
        )
    except NodeError as error:
        raise ImageError(f"drive {drive.file} cannot be used: {error}") from None


def open_drives(config: MachineConfig) -> dict[str, BlockNode]:
    """Open all drives of a configuration, by name. Raises ConfigError, ImageError."""
    return {drive_name(drive, index): open_drive(drive) for index, drive in enumerate(config.drives)}

"""Opens the disks that a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from machine.config import DriveConfig
from machine.errors import ChangedImageError, ConfigError, ImageError
from machine.hw.blockproto import Base, BaseRead, BlockError, Swap
from machine.hw.rawdisk import SECTOR_BYTES, RawBase

if TYPE_CHECKING:
    from machine.hw.overlay import OverlayDisk

FORMATS = ("raw", "qcow2")


def drive_name(drive: DriveConfig, index: int) -> str:
    """Return the name by which a board knows a drive: its id, or ``drive`` and its index."""
    return drive.id or f"drive{index}"


class _NodeBase:
    """A base from the node graph, with the devices' errors."""

    def __init__(self, drive: DriveConfig) -> None:
        from machine.block import base
        from machine.block.errors import BlockError as NodeError

        self._error = NodeError
        try:  # the format is never probed: what a guest wrote would choose what is read
            self._base = base.GraphBase(drive.file, drive.format)
        except NodeError as error:
            raise ImageError(f"drive {drive.file} cannot be used: {error}") from None
        self.size_bytes = self._base.size_bytes

    def cluster(self, index: int, length: int) -> bytes:
        try:
            return self._base.cluster(index, length)
        except self._error as error:
            raise BlockError(error.errno, error.message) from error

    def identity(self) -> str:
        try:
            return self._base.identity()
        except self._error as error:
            raise BlockError(error.errno, error.message) from error

    def close(self) -> None:
        self._base.close()


class PackedBase:
    """A base made of the clusters that a recording read: enough to replay it without the image.

    Args:
        size_bytes: of the disk.
        read: returns the content of a cluster, or None if the recording did not read it.
    """

    def __init__(self, size_bytes: int, read: Callable[[int], bytes | None]) -> None:
        self.size_bytes = size_bytes
        self._read = read

    def cluster(self, index: int, length: int) -> bytes:
        """Return a cluster's content. Raises BlockError."""
        data = self._read(index)
        if data is None or len(data) != length:
            raise BlockError(5, f"the packed disk does not hold cluster {index}: the recording never read it")
        return data

    def identity(self) -> str:
        """Raise BlockError: a part has no identity of the whole."""
        raise BlockError(5, "a packed disk has no content of its own")

    def close(self) -> None:
        """Nothing is held."""


def _open_swap() -> Swap:
    from machine.block.swapfile import SwapFile

    return SwapFile()


def _open_base(drive: DriveConfig) -> Base:
    """Open a raw file by itself, anything else through the node graph. Raises ConfigError, ImageError."""
    if drive.format not in FORMATS:
        raise ConfigError(f"drive {drive.file}: format {drive.format!r} is not known; expected raw or qcow2")
    if drive.format == "raw" and "://" not in drive.file and not drive.file.startswith("json:"):
        return RawBase(drive.file)
    return _NodeBase(drive)


def open_drive(
    drive: DriveConfig, base_read: BaseRead | None = None, *, identify: bool = True
) -> tuple[DriveConfig, OverlayDisk]:
    """Open a drive's image, once.

    Args:
        drive: its configuration; ``hash`` and ``size_bytes`` are checked where given.
        base_read: see ``OverlayDisk``.
        identify: find the content's hash where none is given, by reading all of it.

    Returns:
        the configuration with hash and size, and the disk.

    Raises:
        ConfigError: a format that is not known.
        ImageError: the image cannot be used, or is not the one expected.
    """
    from machine.hw.overlay import OverlayDisk

    base = _open_base(drive)
    try:
        found = _identify(drive, base, identify)
    except ImageError:
        base.close()
        raise
    return found, OverlayDisk(base, readonly=drive.readonly, base_read=base_read, swap=_open_swap)


def _identify(drive: DriveConfig, base: Base, identify: bool) -> DriveConfig:
    where = f"drive {drive.file}"
    size = base.size_bytes
    if not size or size % SECTOR_BYTES:
        raise ImageError(f"{where} has {size} bytes, expected a positive multiple of {SECTOR_BYTES}")
    if drive.size_bytes and size != drive.size_bytes:
        raise ChangedImageError(drive.file, f"{drive.size_bytes} bytes", f"{size} bytes")
    if not (identify or drive.hash):
        return replace(drive, size_bytes=size)
    try:
        content = base.identity()
    except BlockError as error:
        raise ImageError(f"{where} cannot be read: {error}") from None
    if drive.hash and content != drive.hash.lower():
        raise ChangedImageError(drive.file, f"content {drive.hash.lower()}", f"content {content}")
    return replace(drive, hash=content, size_bytes=size)


def packed_drive(drive: DriveConfig, read: Callable[[int], bytes | None]) -> OverlayDisk:
    """Return a drive whose base is what a recording read of it. Raises ImageError: it has no size."""
    from machine.hw.overlay import OverlayDisk

    if not 0 < drive.size_bytes < 1 << 50 or drive.size_bytes % SECTOR_BYTES:
        raise ImageError(f"drive {drive.file}: damaged: it has {drive.size_bytes} bytes")
    return OverlayDisk(PackedBase(drive.size_bytes, read), readonly=drive.readonly, swap=_open_swap)

"""A raw disk image as the base of a disk: opened read-only, never written."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

from machine.errors import ImageError
from machine.hw.blockproto import CLUSTER_BYTES, BlockError

SECTOR_BYTES = 512


class RawBase:
    """A base that is a raw image.

    Raises:
        ImageError: the image is missing, unreadable, or no whole number of sectors.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = self._open()

    def _open(self) -> BinaryIO:
        where = f"drive {self.path}"
        if not self.path.is_file():
            what = "is not a regular file" if self.path.exists() else "does not exist"
            raise ImageError(f"{where} {what}; give --drive file=PATH of a raw image")
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise ImageError(f"{where} cannot be read: {error.strerror}; check its permissions") from None
        self.size_bytes = file.seek(0, 2)
        if self.size_bytes == 0 or self.size_bytes % SECTOR_BYTES:
            file.close()
            raise ImageError(
                f"{where} has {self.size_bytes} bytes, expected a positive multiple of {SECTOR_BYTES}; "
                "is it a raw image, and complete?"
            )
        return file

    def cluster(self, index: int, length: int) -> bytes:
        """Return a cluster's content. Raises BlockError."""
        start = index * CLUSTER_BYTES
        try:
            self._file.seek(start)
            data = self._file.read(length)
        except OSError as error:
            raise BlockError(
                error.errno or errno.EIO, f"drive {self.path}, offset {start}: {error.strerror}"
            ) from error
        if len(data) != length:
            raise BlockError(
                errno.EIO,
                f"drive {self.path}, offset {start}: the image became shorter than {self.size_bytes}",
            )
        return data

    def identity(self) -> str:
        """Return the BLAKE2b-256 hash of the image as hexadecimal text. Raises BlockError."""
        import hashlib

        digest = hashlib.blake2b(digest_size=32)
        try:
            self._file.seek(0)
            while chunk := self._file.read(1 << 20):
                digest.update(chunk)
        except OSError as error:
            raise BlockError(error.errno or errno.EIO, f"drive {self.path}: {error.strerror}") from error
        return digest.hexdigest()

    def close(self) -> None:
        """Close the image's file."""
        self._file.close()

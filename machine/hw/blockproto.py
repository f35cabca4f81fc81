"""What a device sees of a disk: the block-node protocol, and the error that may come through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class BlockError(Exception):
    """A disk's data cannot be read or written; becomes an I/O error of the guest's request.

    Args:
        errno: positive errno value.
        message: one line: what failed and where.
    """

    exit_code = 3

    def __init__(self, errno: int, message: str = "") -> None:
        super().__init__(message)
        self.errno = errno


class BlobStore(Protocol):
    """Where a node's saved state keeps contents, by the raw BLAKE2b-256 hash of them."""

    def put(self, data: bytes) -> bytes:
        """Keep the data and return its hash."""
        ...

    def get(self, digest: bytes) -> bytes:
        """Return what was put. Raises KeyError or an error of the store's when it has it not."""
        ...


class BlockNode(Protocol):
    """A disk. Offsets and sizes are bytes, in range: the device has checked them."""

    size_bytes: int
    readonly: bool

    def pread(self, offset: int, size: int) -> bytes: ...

    def pwrite(self, offset: int, data: bytes) -> None: ...

    def flush(self) -> None: ...

    def discard(self, offset: int, size: int) -> None: ...

    def write_zeroes(self, offset: int, size: int) -> None: ...

    def save_state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...

    def set_blob_store(self, store: BlobStore | None) -> None:
        """Let saved states name contents in a store; without one they hold them."""
        ...


#: Called with (cluster index, content) the first time that a base image's cluster is read.
BaseRead = Callable[[int, bytes], None]

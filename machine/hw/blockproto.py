"""What a device sees of a disk: the block-node protocol, and the error that may come through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

#: Bytes of a cluster: the unit in which a base is read and an overlay is kept.
CLUSTER_BYTES: Final = 64 << 10


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


class Swap(Protocol):
    """Space of the host's for contents that don't fit into memory. Methods raise OSError."""

    def pread(self, offset: int, size: int) -> bytes: ...

    def pwrite(self, offset: int, data: bytes | bytearray) -> None: ...

    def close(self) -> None: ...


class Base(Protocol):
    """What lies under a disk's overlay. It never changes."""

    size_bytes: int

    def cluster(self, index: int, length: int) -> bytes:
        """Return a cluster's content, ``length`` bytes. Raises BlockError: the host can't read it."""
        ...

    def identity(self) -> str:
        """Return the content's hash, in hexadecimal; reads all of it. Raises BlockError."""
        ...

    def close(self) -> None: ...


class BlockNode(Protocol):
    """A disk. Offsets and sizes are bytes, in range: the device has checked them.

    A BlockError out of any of them is the host's doing; the request then has had no effect.
    """

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

    def close(self) -> None:
        """Let go of the base; the node can't be used afterwards."""
        ...


#: Called with (cluster index, content) the first time that a base image's cluster is read.
BaseRead = Callable[[int, bytes], None]

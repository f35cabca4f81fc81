"""Content-addressed blobs: BLAKE2b-256 of the contents names them, zstd stores them.

A blob read from a file is hostile until its size and its hash are checked: sizes are bounded before anything
is decompressed, and contents that do not match their name are never returned.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final, NamedTuple

import zstandard

from .blake2 import blake2b
from .errors import TraceError

#: No blob is larger; a row that claims more is refused before anything is allocated.
MAX_BLOB_BYTES: Final = 1 << 30
#: A blob that begins so is a map: 8 bytes of head, then entries of a number (8 bytes) and the hash of a blob (32).
MAP_MAGIC: Final = b"wbmap\0\1"
#: Squeezes a boot's pages to a quarter and its kernel to 41 %. Slower levels cost the recording more than the disk
#: gains; faster ones lose in writing what they gain.
LEVEL: Final = -1
_LOCAL: Final = threading.local()


def blob_hash(data: bytes | memoryview) -> bytes:
    """Return the 32-byte BLAKE2b-256 of some contents: the name of a blob."""
    return blake2b(data, digest_size=32).digest()


def named_by(data: bytes) -> Iterator[bytes]:
    """Yield the hashes of the blobs that a map names; of another blob, nothing."""
    if data.startswith(MAP_MAGIC):
        for at in range(len(MAP_MAGIC) + 1, len(data) - 39, 40):
            yield data[at + 8 : at + 40]


class Packed(NamedTuple):
    """A blob as a trace stores it.

    Args:
        name: the hash of its contents. size: theirs, in bytes.
        codec: ``zstd`` or ``raw``. stored: the bytes in the file.
    """

    name: bytes
    size: int
    codec: str
    stored: bytes | memoryview


class BlobPacker:
    """Compresses blobs; its context is kept between calls, so one thread uses a packer at a time."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdCompressor(level=LEVEL)

    def pack(self, data: bytes, name: bytes | None = None) -> Packed:
        """Return contents as they are stored: the shorter of zstd and the plain bytes.

        Args:
            data: the contents. name: their hash where it is known.

        Raises:
            TraceError: ``data`` is larger than ``MAX_BLOB_BYTES``.
        """
        if len(data) > MAX_BLOB_BYTES:
            raise TraceError(f"a blob of {len(data)} bytes is larger than a trace takes ({MAX_BLOB_BYTES})")
        squeezed = self._zstd.compress(data)
        codec, stored = ("zstd", squeezed) if len(squeezed) < len(data) else ("raw", data)
        return Packed(blob_hash(data) if name is None else name, len(data), codec, stored)


def _decompressor() -> zstandard.ZstdDecompressor:
    """Return this thread's decompressor: making one costs more than a page."""
    if not hasattr(_LOCAL, "decompressor"):
        _LOCAL.decompressor = zstandard.ZstdDecompressor()
    made: zstandard.ZstdDecompressor = _LOCAL.decompressor
    return made


def unpack(codec: str, stored: bytes, size: int, where: str) -> bytes:
    """Return the contents of a stored blob, not yet checked against a hash.

    Args:
        codec: ``zstd`` or ``raw``.
        stored: the bytes in the file.
        size: the size in bytes that the row claims; nothing larger is ever allocated.
        where: what is being read, for the message.

    Raises:
        TraceError: an unknown codec, a size out of range, or damaged contents.
    """
    if not 0 <= size <= MAX_BLOB_BYTES:
        raise TraceError(f"{where}: damaged: a blob claims a size of {size} bytes")
    if codec == "raw":
        data = stored
    elif codec == "zstd":
        try:
            if zstandard.get_frame_parameters(stored).content_size != size:
                raise TraceError(f"{where}: damaged: a blob's frame is not of the size its row says ({size})")
            data = _decompressor().decompress(stored, max_output_size=size)
        except zstandard.ZstdError as e:
            raise TraceError(f"{where}: damaged: a blob does not decompress ({e})") from None
    else:
        raise TraceError(
            f"{where}: a blob has the unknown codec {codec[:20]!r}; a newer workbench may read it"
        )
    if len(data) != size:
        raise TraceError(f"{where}: damaged: a blob has {len(data)} bytes where its row says {size}")
    return data


def check(data: bytes, expected: bytes, where: str) -> bytes:
    """Return ``data`` if its hash is ``expected``. Raises TraceError otherwise."""
    if blob_hash(data) != expected:
        raise TraceError(f"{where}: damaged: blob {expected.hex()[:16]}… does not match its hash")
    return data


def pack_state(data: bytes) -> bytes:
    """Return a checkpoint's or digest's document as stored: a zstd frame with a checksum of its own."""
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(data)


def unpack_state(stored: bytes, where: str, limit: int = 64 << 20) -> bytes:
    """Undo ``pack_state``; at most ``limit`` bytes are allocated. Raises TraceError if damaged."""
    try:
        size = zstandard.get_frame_parameters(stored).content_size
        if not 0 <= size <= limit:
            raise TraceError(f"{where}: damaged: a state claims a size of {size} bytes")
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    except zstandard.ZstdError as e:
        raise TraceError(f"{where}: damaged: a state does not decompress ({e})") from None

"""Compressed clusters: raw deflate with a 4 KiB window, or one zstd frame."""

from __future__ import annotations

import zlib
from typing import Any

from machine.block.errors import ImageCorruptError, UnsupportedError

ZLIB, ZSTD = 0, 1


def compress(kind: int, data: bytes) -> bytes:
    """Return compressed bytes; they may be longer than the data."""
    if kind == ZLIB:
        worker = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -12, 9)
        return worker.compress(data) + worker.flush()
    return bytes(_zstd().ZstdCompressor(write_content_size=False).compress(data))


def decompress(kind: int, data: bytes, cluster: int, where: str) -> bytes:
    """Return exactly one cluster; what follows the compressed data is somebody else's.

    Raises:
        ImageCorruptError: the data don't decompress to a whole cluster.
    """
    try:
        zipped = kind == ZLIB
        out = zlib.decompressobj(-12).decompress(data, cluster) if zipped else _zstd_decompress(data, cluster)
    except (zlib.error, ValueError, OSError) as error:
        raise ImageCorruptError(f"{where}: compressed cluster is damaged: {error}") from error
    if len(out) != cluster:
        raise ImageCorruptError(f"{where}: compressed cluster has {len(out)} bytes, expected {cluster}")
    return bytes(out)


def _zstd_decompress(data: bytes, cluster: int) -> bytes:
    package = _zstd()
    reader = package.ZstdDecompressor().stream_reader(data, read_across_frames=False)
    out = bytearray()
    try:
        while len(out) < cluster:
            piece = reader.read(cluster - len(out))
            if not piece:
                break
            out += piece
    except package.ZstdError as error:
        raise ValueError(str(error)) from error
    return bytes(out)


def _zstd() -> Any:
    try:
        import zstandard
    except ImportError:
        raise UnsupportedError("zstd clusters need the Python package zstandard: install it") from None
    return zstandard

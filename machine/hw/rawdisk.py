"""A raw disk image, read only, under an overlay in memory that takes the writes.

Clusters are 64 KiB. The overlay is the disk's state: ``save_state`` names its clusters by content. Where the
contents are kept is the blob store's matter (``set_blob_store``); without one the state holds them itself.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from machine.errors import ImageError
from machine.hw.blockproto import BaseRead, BlobStore, BlockError

CLUSTER_BYTES = 64 << 10
SECTOR_BYTES = 512
VERSION = 1


def content_hash(data: bytes | bytearray) -> bytes:
    """Return the BLAKE2b-256 hash of the data: its identity in traces."""
    return hashlib.blake2b(data, digest_size=32).digest()


def identify(file: str) -> tuple[str, int]:
    """Return the content's hash, as hexadecimal text, and the size in bytes of a raw image. Raises ImageError."""
    path = Path(file)
    return file_hash(path), path.stat().st_size


def file_hash(path: Path) -> str:
    """Return the BLAKE2b-256 hash of a file's content as hexadecimal text.

    Raises:
        ImageError: the file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=32)
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise ImageError(
            f"drive {path} cannot be read: {error.strerror}; check the path and its permissions"
        ) from None
    return digest.hexdigest()


class RawDisk:
    """A block node over a raw image.

    Args:
        path: the image; never written.
        readonly: the guest may not write.
        expected_hash: hexadecimal BLAKE2b-256 of the image, or empty to take what is there.
        expected_size: its size in bytes, or 0.
        base_read: called with a base cluster's index and content, the first time that one is read.

    Raises:
        ImageError: the image is missing, unreadable, no whole number of sectors, or not the expected one.

    Replay: deterministic; the base is identified by its hash.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        readonly: bool = False,
        expected_hash: str = "",
        expected_size: int = 0,
        base_read: BaseRead | None = None,
    ) -> None:
        self.path = Path(path)
        self.readonly = readonly
        self.base_read = base_read
        self._file = self._open(expected_hash, expected_size)
        self._overlay: dict[int, bytearray] = {}
        self._saved: dict[int, bytes] = {}  # hashes of the overlay's clusters that did not change since
        self._seen: set[int] = set()
        self._store: BlobStore | None = None

    def _open(self, expected_hash: str, expected_size: int) -> BinaryIO:
        where = f"drive {self.path}"
        if not self.path.is_file():
            what = "is not a regular file" if self.path.exists() else "does not exist"
            raise ImageError(f"{where} {what}; give --drive file=PATH of a raw image")
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise ImageError(f"{where} cannot be read: {error.strerror}; check its permissions") from None
        self.size_bytes = file.seek(0, 2)
        try:
            if self.size_bytes == 0 or self.size_bytes % SECTOR_BYTES:
                raise ImageError(
                    f"{where} has {self.size_bytes} bytes, expected a positive multiple of {SECTOR_BYTES}; "
                    "is it a raw image, and complete?"
                )
            if expected_size and self.size_bytes != expected_size:
                raise ImageError(
                    f"{where} has {self.size_bytes} bytes, expected {expected_size}: another image"
                )
            if expected_hash and file_hash(self.path) != expected_hash.lower():
                raise ImageError(
                    f"{where} is not the image expected: BLAKE2b-256 is not {expected_hash}; it changed"
                )
        except ImageError:
            file.close()
            raise
        return file

    def close(self) -> None:
        """Close the image's file. The node cannot be used afterwards."""
        self._file.close()

    def set_blob_store(self, store: BlobStore | None) -> None:
        """Keep the contents that saved states name in ``store``; None: inside the states."""
        self._store = store
        self._saved.clear()

    def _base(self, cluster: int) -> bytes:
        start = cluster * CLUSTER_BYTES
        size = min(CLUSTER_BYTES, self.size_bytes - start)
        try:
            self._file.seek(start)
            data = self._file.read(size)
        except OSError as error:
            raise BlockError(
                error.errno or 5, f"drive {self.path}, offset {start}: {error.strerror}"
            ) from error
        if len(data) != size:
            raise BlockError(
                5, f"drive {self.path}, offset {start}: the image became shorter than {self.size_bytes}"
            )
        if cluster not in self._seen:
            self._seen.add(cluster)
            if self.base_read is not None:
                self.base_read(cluster, data)
        return data

    def _pieces(self, offset: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Yield (cluster, offset in it, bytes) of a range. Raises BlockError for one outside the disk."""
        if offset < 0 or size < 0 or offset + size > self.size_bytes:
            raise BlockError(
                22, f"drive {self.path}: {size} bytes at {offset} are outside of {self.size_bytes}"
            )
        while size:
            cluster, inside = divmod(offset, CLUSTER_BYTES)
            count = min(size, CLUSTER_BYTES - inside)
            yield cluster, inside, count
            offset += count
            size -= count

    def pread(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes at ``offset``. Raises BlockError."""
        out = []
        for cluster, inside, count in self._pieces(offset, size):
            data: bytes | bytearray | None = self._overlay.get(cluster)
            if data is None:
                data = self._base(cluster)
            out.append(bytes(data[inside : inside + count]))
        return b"".join(out)

    def _writable(self, cluster: int, whole: bool) -> bytearray:
        data = self._overlay.get(cluster)
        if data is None:
            size = min(CLUSTER_BYTES, self.size_bytes - cluster * CLUSTER_BYTES)
            data = bytearray(size) if whole else bytearray(self._base(cluster))
            self._overlay[cluster] = data
        self._saved.pop(cluster, None)
        return data

    def pwrite(self, offset: int, data: bytes) -> None:
        """Write to the overlay. Raises BlockError, with EROFS for a read-only node."""
        if self.readonly:
            raise BlockError(30, f"drive {self.path} is read-only")
        done = 0
        for cluster, inside, count in self._pieces(offset, len(data)):
            target = self._writable(cluster, count == CLUSTER_BYTES)
            target[inside : inside + count] = data[done : done + count]
            done += count

    def flush(self) -> None:
        """Do nothing: the overlay is memory."""

    def discard(self, offset: int, size: int) -> None:
        """Drop contents; what was discarded reads as zeros."""
        self.write_zeroes(offset, size)

    def write_zeroes(self, offset: int, size: int) -> None:
        """Make a range read as zeros. Raises BlockError."""
        for _, _, count in list(self._pieces(offset, size)):
            self.pwrite(offset, bytes(count))
            offset += count

    def save_state(self) -> dict[str, Any]:
        """Return the overlay: ``clusters`` maps an index (decimal text) to a hash (hexadecimal).

        Without a blob store ``data`` maps the hashes to the contents (base64).
        """
        contents: dict[str, str] = {}
        for cluster, data in self._overlay.items():
            if cluster not in self._saved:
                self._saved[cluster] = self._store.put(bytes(data)) if self._store else content_hash(data)
            if self._store is None:
                text = base64.b64encode(data).decode()
                contents[self._saved[cluster].hex()] = text
        clusters = {str(c): self._saved[c].hex() for c in sorted(self._overlay)}
        return {"version": VERSION, "clusters": clusters, "data": dict(sorted(contents.items()))}

    def load_state(self, state: dict[str, Any]) -> None:
        """Replace the overlay. Raises ValueError for data that is not a state of this disk."""
        if not isinstance(state, dict) or state.get("version") != VERSION:
            raise ValueError(f"state of drive {self.path}: expected version {VERSION}")
        clusters, contents = state.get("clusters"), state.get("data")
        if not isinstance(clusters, dict) or not isinstance(contents, dict):
            raise ValueError(f"state of drive {self.path}: expected clusters and data")
        overlay: dict[int, bytearray] = {}
        saved: dict[int, bytes] = {}
        for key, text in clusters.items():
            cluster, digest = int(key), bytes.fromhex(text)
            size = min(CLUSTER_BYTES, self.size_bytes - cluster * CLUSTER_BYTES)
            if cluster < 0 or size <= 0:
                raise ValueError(f"state of drive {self.path}: there is no cluster {cluster}")
            if self._saved.get(cluster) == digest:
                data: bytes | bytearray = self._overlay[cluster]
            else:
                data = self._content(contents, digest, size)
            overlay[cluster] = bytearray(data)
            saved[cluster] = digest
        self._overlay, self._saved = overlay, saved

    def _content(self, contents: dict[str, Any], digest: bytes, size: int) -> bytes:
        packed = contents.get(digest.hex())
        if packed is not None:
            try:
                data = base64.b64decode(packed, validate=True)
            except (ValueError, TypeError) as error:
                raise ValueError(f"state of drive {self.path}: damaged contents") from error
        elif self._store is not None:
            data = self._store.get(digest)
        else:
            raise ValueError(f"state of drive {self.path}: contents {digest.hex()[:16]}… are nowhere")
        if len(data) != size or content_hash(data) != digest:
            raise ValueError(
                f"state of drive {self.path}: contents do not fit their hash {digest.hex()[:16]}…"
            )
        return data

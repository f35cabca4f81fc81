"""A disk as devices use it: an immutable base under a private overlay that takes the writes.

The overlay is the disk's state. ``save_state`` names it by the root of a tree of hashes (``clustermap``), so that a
checkpoint costs what was written since the last one. Where contents and tree are kept is the blob store's matter
(``set_blob_store``); without one the state holds them itself.
"""

from __future__ import annotations

import base64
import errno
from collections.abc import Callable, Iterator
from typing import Any

from machine.hw.blockproto import CLUSTER_BYTES, Base, BaseRead, BlobStore, BlockError, Swap
from machine.hw.clustermap import ClusterMap
from machine.hw.clusterstore import MEMORY_BYTES, ClusterStore

VERSION = 2


def content_hash(data: bytes | bytearray) -> bytes:
    """Return the BLAKE2b-256 hash of the data: its identity in traces."""
    import hashlib

    return hashlib.blake2b(data, digest_size=32).digest()


class _OwnStore:
    """A blob store inside a state."""

    def __init__(self, blobs: dict[bytes, bytes]) -> None:
        self.blobs = blobs

    def put(self, data: bytes) -> bytes:
        name = content_hash(data)
        self.blobs[name] = data
        return name

    def get(self, digest: bytes) -> bytes:
        return self.blobs[digest]


class OverlayDisk:
    """A block node over a base.

    Args:
        base: what the disk holds before the guest writes.
        readonly: the guest may not write.
        base_read: called with a base cluster's index and content, the first time that one is read.
        swap: opens swap space for what the overlay holds beyond ``memory_bytes``; None: all is held in memory.

    Replay: deterministic; a request's result is a function of the base's content and the requests before. All of a
    request takes effect or, where the base can't be read, none.
    """

    def __init__(
        self,
        base: Base,
        *,
        readonly: bool = False,
        base_read: BaseRead | None = None,
        swap: Callable[[], Swap] | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.base = base
        self.readonly = readonly
        self.size_bytes = base.size_bytes
        self.base_read = base_read
        self._written = ClusterStore(swap, memory_bytes)
        self._map = ClusterMap(-(-self.size_bytes // CLUSTER_BYTES))
        self._unsaved: set[int] = set()  # clusters that were written since the map was made
        self._seen: set[int] = set()
        self._store: BlobStore | None = None

    def close(self) -> None:
        """Close the base. The disk can't be used afterwards."""
        self.base.close()
        self._written.close()

    # requests

    def _pieces(self, offset: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Return the range's parts as (cluster, offset in it, bytes)."""
        if offset < 0 or size < 0 or offset + size > self.size_bytes:
            raise BlockError(
                errno.EINVAL, f"{size} bytes at {offset} are outside of the disk's {self.size_bytes}"
            )
        while size:
            cluster, inside = divmod(offset, CLUSTER_BYTES)
            count = min(size, CLUSTER_BYTES - inside)
            yield cluster, inside, count
            offset, size = offset + count, size - count

    def _length(self, cluster: int) -> int:
        return min(CLUSTER_BYTES, self.size_bytes - cluster * CLUSTER_BYTES)

    def _base(self, cluster: int) -> bytes:
        data = self.base.cluster(cluster, self._length(cluster))
        if cluster not in self._seen:
            self._seen.add(cluster)
            if self.base_read is not None:
                self.base_read(cluster, data)
        return data

    def pread(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes. Raises BlockError."""
        out: list[bytes] = []
        for cluster, inside, count in self._pieces(offset, size):
            held = self._written.get(cluster)
            data = self._base(cluster) if held is None else held
            out.append(bytes(data[inside : inside + count]))
        return b"".join(out)

    def _prepare(self, offset: int, size: int) -> list[tuple[bytearray, int, int]]:
        """Return the overlay's buffers for a write, as (buffer, offset in it, bytes). Raises BlockError."""
        if self.readonly:
            raise BlockError(errno.EROFS, "the disk is read-only")
        pieces = list(self._pieces(offset, size))
        buffers = {cluster: self._buffer(cluster, count) for cluster, _, count in pieces}
        self._written.put(buffers)
        self._unsaved.update(buffers)
        return [(buffers[cluster], inside, count) for cluster, inside, count in pieces]

    def _buffer(self, cluster: int, count: int) -> bytearray:
        """Return a cluster's present content, to be changed; what it is does not matter where all is written."""
        held = self._written.buffer(cluster)
        if held is not None:
            return held
        length = self._length(cluster)
        if count == length:
            return bytearray(length)
        old = self._written.get(cluster)
        return bytearray(self._base(cluster) if old is None else old)

    def _content(self, cluster: int) -> bytes:
        data = self._written.get(cluster)
        assert data is not None
        return bytes(data)

    def pwrite(self, offset: int, data: bytes) -> None:
        """Write to the overlay. Raises BlockError."""
        done = 0
        for target, inside, count in self._prepare(offset, len(data)):
            target[inside : inside + count] = data[done : done + count]
            done += count

    def flush(self) -> None:
        """Do nothing: the overlay ends with the run."""

    def discard(self, offset: int, size: int) -> None:
        """Drop contents: what was discarded reads as zeroes, on every host."""
        self.write_zeroes(offset, size)

    def write_zeroes(self, offset: int, size: int) -> None:
        """Make a range read as zeroes. Raises BlockError."""
        for target, inside, count in self._prepare(offset, size):
            target[inside : inside + count] = bytes(count)

    # state

    def set_blob_store(self, store: BlobStore | None) -> None:
        """Keep the contents that saved states name in ``store``; None: inside the states."""
        self._store = store
        self._map = ClusterMap(-(-self.size_bytes // CLUSTER_BYTES))
        self._unsaved = set(self._written)

    def save_state(self) -> dict[str, Any]:
        """Return the overlay: ``root`` is the hash of its map's top, hexadecimal; ``data`` maps hashes to contents
        (base64), none with a store."""
        store: BlobStore = self._store if self._store is not None else _OwnStore({})
        self._map.update({c: store.put(self._content(c)) for c in self._unsaved}, store)
        self._unsaved.clear()
        blobs: dict[str, str] = {}
        if self._store is None:
            for data in (*map(self._content, self._written), *self._map.nodes()):
                blobs[content_hash(data).hex()] = base64.b64encode(data).decode()
        return {"version": VERSION, "root": self._map.root.hex(), "data": dict(sorted(blobs.items()))}

    def load_state(self, state: dict[str, Any]) -> None:
        """Replace the overlay; what it has in common with the present one stays.

        Raises:
            ValueError: it is no state of this disk.
        """
        if not isinstance(state, dict) or state.get("version") != VERSION:
            raise ValueError(f"state of a disk: expected version {VERSION}")
        root, data = state.get("root"), state.get("data")
        if not isinstance(root, str) or len(root) not in (0, 64) or not isinstance(data, dict):
            raise ValueError("state of a disk: expected root and data")
        fetch = _Fetch(data, self._store)
        unsaved = self._unsaved
        changed, gone = self._map.load(bytes.fromhex(root), fetch)
        for cluster in unsaved.difference(changed):
            name = self._map.get(cluster)
            if name is None:
                gone.append(cluster)
            else:
                changed[cluster] = name
        for cluster in gone:
            self._written.drop(cluster)
        for cluster, name in changed.items():
            self._written.put({cluster: bytearray(fetch.content(name, self._length(cluster)))})
        self._unsaved = set()


class _Fetch:
    """The contents that a state names: its own first, then the store's."""

    def __init__(self, held: dict[str, Any], store: BlobStore | None) -> None:
        self._held = held
        self._store = store

    def put(self, data: bytes) -> bytes:
        raise AssertionError("loading stores nothing")

    def get(self, digest: bytes) -> bytes:
        packed = self._held.get(digest.hex())
        if packed is not None:
            try:
                data = base64.b64decode(packed, validate=True)
            except (ValueError, TypeError) as error:
                raise ValueError("state of a disk: damaged contents") from error
        elif self._store is not None:
            data = self._store.get(digest)
        else:
            raise ValueError(f"state of a disk: contents {digest.hex()[:16]}… are nowhere")
        if content_hash(data) != digest:
            raise ValueError(f"state of a disk: contents do not fit their hash {digest.hex()[:16]}…")
        return data

    def content(self, digest: bytes, length: int) -> bytes:
        data = self.get(digest)
        if len(data) != length:
            raise ValueError(f"state of a disk: contents of {len(data)} bytes for a cluster of {length}")
        return data

"""A disk for the machine: an immutable base from the node graph under a private overlay in memory.

It meets the block-node protocol of the devices and keeps its state as they do for raw disks. All of it is
synchronous: a request takes effect when it is submitted, in submission order; when the guest learns of its end is
the device's matter. The base is identified by content, so a replay that meets another one refuses to start.
"""

from __future__ import annotations

import base64
import errno
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from machine.block.content import content_root
from machine.block.errors import BlockError
from machine.block.graph import Graph
from machine.block.node import Node

CLUSTER_BYTES = 64 << 10
VERSION = 1
#: How the caller's world calls an I/O error: made from an errno and a message.
ErrorFactory = Callable[[int, str], Exception]


class BlobStore(Protocol):
    """Where saved states keep contents, by BLAKE2b-256 hash."""

    def put(self, data: bytes) -> bytes: ...
    def get(self, digest: bytes) -> bytes: ...


class Base(Protocol):
    """What lies under the overlay; it never changes."""

    size_bytes: int

    def cluster(self, index: int, length: int) -> bytes: ...
    def close(self) -> None: ...


class GraphBase:
    """A base that is a node of the graph, opened read-only.

    Args:
        what, driver: as for ``Graph.open``.
        expected_root: the content root it must have, or empty.

    Raises:
        BlockError: it can't be opened, or has another content.
    """

    def __init__(self, what: Any, driver: str | None = None, expected_root: str = "") -> None:
        self._graph = Graph()
        self.node: Node = self._graph.run(self._graph.open(what, driver=driver, read_only=True))
        self._backend = self._graph.run(self._graph.backend(self.node, writable=False, name="machine"))
        self.size_bytes = self.node.size_bytes
        if expected_root:
            found = self.root()
            if found != expected_root.lower():
                self.close()
                raise BlockError(
                    errno.EINVAL, f"drive {what}: content {found[:16]}… is not the expected {expected_root[:16]}…: "
                    "give the image that was recorded",
                )  # fmt: skip

    def root(self) -> str:
        """Return the content root; reads the whole disk, holes apart."""
        return self._graph.run(content_root(self.node))

    def cluster(self, index: int, length: int) -> bytes:
        return bytes(self._graph.run(self.node.read(index * CLUSTER_BYTES, length)))

    def close(self) -> None:
        self._graph.run(self._graph.close())


class PackedBase:
    """A base made of the clusters that a recording read: enough to replay it without the image.

    Args:
        clusters: returns the content of a cluster, or None if the recording did not read it.
    """

    def __init__(self, size_bytes: int, clusters: Callable[[int], bytes | None]) -> None:
        self.size_bytes = size_bytes
        self._clusters = clusters

    def cluster(self, index: int, length: int) -> bytes:
        data = self._clusters(index)
        if data is None or len(data) != length:
            raise BlockError(
                errno.EIO, f"the packed disk does not hold cluster {index}: the recording never read it"
            )
        return data

    def close(self) -> None:
        """Nothing is held."""


class Frozen:
    """The overlay at one moment; clusters are shared until one side writes them."""

    __slots__ = ("clusters", "saved")

    def __init__(self, clusters: dict[int, bytearray], saved: dict[int, bytes]) -> None:
        self.clusters = clusters
        self.saved = saved


class HwDisk:
    """A disk as the machine's devices use it.

    Args:
        base: what the disk holds before the guest writes.
        readonly: the guest may not write.
        error: makes the exception that a failing request raises; default BlockError.
        base_read: called with (cluster index, content) when a base cluster is read for the first time.

    Replay: deterministic; a request's result is a function of the base's content and the requests before.
    """

    def __init__(
        self,
        base: Base,
        *,
        readonly: bool = False,
        error: ErrorFactory = BlockError,
        base_read: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self.base = base
        self.readonly = readonly
        self.size_bytes = base.size_bytes
        self.base_read = base_read
        self._error = error
        self._overlay: dict[int, bytearray] = {}
        self._owned: set[int] = set()  # clusters that no frozen overlay shares
        self._saved: dict[int, bytes] = {}
        self._seen: set[int] = set()
        self._store: BlobStore | None = None

    def close(self) -> None:
        """Close the base. The disk can't be used afterwards."""
        self.base.close()

    def set_blob_store(self, store: BlobStore | None) -> None:
        """Keep contents of saved states in ``store``; None: inside the states."""
        self._store = store
        self._saved.clear()

    # Requests.

    def _pieces(self, offset: int, size: int) -> Iterator[tuple[int, int, int]]:
        if offset < 0 or size < 0 or offset + size > self.size_bytes:
            raise self._error(
                errno.EINVAL, f"{size} bytes at {offset} are outside of the disk's {self.size_bytes}"
            )
        while size:
            index, inside = divmod(offset, CLUSTER_BYTES)
            count = min(size, CLUSTER_BYTES - inside)
            yield index, inside, count
            offset, size = offset + count, size - count

    def _length(self, index: int) -> int:
        return min(CLUSTER_BYTES, self.size_bytes - index * CLUSTER_BYTES)

    def _base(self, index: int) -> bytes:
        try:
            data = self.base.cluster(index, self._length(index))
        except BlockError as error:
            raise self._error(error.errno, error.message) from error
        if index not in self._seen:
            self._seen.add(index)
            if self.base_read is not None:
                self.base_read(index, data)
        return data

    def pread(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes."""
        out: list[bytes] = []
        for index, inside, count in self._pieces(offset, size):
            held = self._overlay.get(index)
            data: bytes | bytearray = self._base(index) if held is None else held
            out.append(bytes(data[inside : inside + count]))
        return b"".join(out)

    def _writable(self, index: int, whole: bool) -> bytearray:
        data = self._overlay.get(index)
        if data is None:
            data = bytearray(self._length(index)) if whole else bytearray(self._base(index))
            self._overlay[index] = data
        elif index not in self._owned:
            data = self._overlay[index] = bytearray(data)
        self._owned.add(index)
        self._saved.pop(index, None)
        return data

    def pwrite(self, offset: int, data: bytes) -> None:
        """Write to the overlay."""
        if self.readonly:
            raise self._error(errno.EROFS, "the disk is read-only")
        done = 0
        for index, inside, count in list(self._pieces(offset, len(data))):
            target = self._writable(index, count == self._length(index))
            target[inside : inside + count] = data[done : done + count]
            done += count

    def flush(self) -> None:
        """Do nothing: the overlay is memory."""

    def discard(self, offset: int, size: int) -> None:
        """Drop contents: what was discarded reads as zeroes, on every host."""
        self.write_zeroes(offset, size)

    def write_zeroes(self, offset: int, size: int) -> None:
        """Make a range read as zeroes."""
        if self.readonly:
            raise self._error(errno.EROFS, "the disk is read-only")
        for index, inside, count in list(self._pieces(offset, size)):
            self._writable(index, count == self._length(index))[inside : inside + count] = bytes(count)

    # State.

    def freeze(self) -> Frozen:
        """Return the overlay's present state; costs a copy of the cluster map."""
        self._owned.clear()
        return Frozen(dict(self._overlay), dict(self._saved))

    def thaw(self, frozen: Frozen) -> None:
        """Go back to a state that ``freeze`` returned; it can be used again."""
        self._owned.clear()
        self._overlay, self._saved = dict(frozen.clusters), dict(frozen.saved)

    def save_state(self) -> dict[str, Any]:
        """Return the overlay: ``clusters`` maps an index (decimal) to a hash, ``data`` hashes to contents (base64)."""
        contents: dict[str, str] = {}
        for index, data in self._overlay.items():
            if index not in self._saved:
                digest = self._store.put(bytes(data)) if self._store is not None else _hash(data)
                self._saved[index] = digest
            if self._store is None:
                contents[self._saved[index].hex()] = base64.b64encode(data).decode()
        clusters = {str(index): self._saved[index].hex() for index in sorted(self._overlay)}
        return {"version": VERSION, "clusters": clusters, "data": dict(sorted(contents.items()))}

    def load_state(self, state: dict[str, Any]) -> None:
        """Replace the overlay. Raises ValueError for data that is no state of this disk."""
        if not isinstance(state, dict) or state.get("version") != VERSION:
            raise ValueError(f"state of a disk: expected version {VERSION}")
        clusters, contents = state.get("clusters"), state.get("data")
        if not isinstance(clusters, dict) or not isinstance(contents, dict):
            raise ValueError("state of a disk: expected clusters and data")
        overlay: dict[int, bytearray] = {}
        saved: dict[int, bytes] = {}
        for key, text in clusters.items():
            index, digest = int(key), bytes.fromhex(text)
            if not 0 <= index * CLUSTER_BYTES < self.size_bytes:
                raise ValueError(f"state of a disk: there is no cluster {index}")
            if self._saved.get(index) == digest and index in self._overlay:
                overlay[index] = self._overlay[index]
            else:
                overlay[index] = bytearray(self._content(contents, digest, self._length(index)))
            saved[index] = digest
        self._owned.clear()
        self._overlay, self._saved = overlay, saved

    def _content(self, contents: dict[str, Any], digest: bytes, length: int) -> bytes:
        packed = contents.get(digest.hex())
        if packed is not None:
            try:
                data = base64.b64decode(packed, validate=True)
            except (ValueError, TypeError) as error:
                raise ValueError("state of a disk: damaged contents") from error
        elif self._store is not None:
            data = self._store.get(digest)
        else:
            raise ValueError(f"state of a disk: contents {digest.hex()[:16]}… are nowhere")
        if len(data) != length or _hash(data) != digest:
            raise ValueError(f"state of a disk: contents don't fit their hash {digest.hex()[:16]}…")
        return data


def _hash(data: bytes | bytearray) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def open_disk(
    file: str,
    driver: str | None = None,
    *,
    readonly: bool = False,
    expected_root: str = "",
    error: ErrorFactory = BlockError,
    base_read: Callable[[int, bytes], None] | None = None,
) -> HwDisk:
    """Open a file name, json: name or URI as a disk of the machine.

    Args:
        driver: raw, qcow2, or None to probe.
        expected_root: the content root recorded by ``identify``, or empty.

    Raises:
        BlockError: it can't be opened or has another content.
    """
    base = GraphBase(file, driver, expected_root)
    if base.size_bytes % 512 or not base.size_bytes:
        size = base.size_bytes
        base.close()
        raise BlockError(errno.EINVAL, f"drive {file} has {size} bytes, expected a positive multiple of 512")
    return HwDisk(base, readonly=readonly, error=error, base_read=base_read)


def identify(file: str, driver: str | None = None) -> tuple[str, int]:
    """Return (content root, size in bytes) of an image, to be recorded with a machine's configuration."""
    base = GraphBase(file, driver)
    try:
        return base.root(), base.size_bytes
    finally:
        base.close()

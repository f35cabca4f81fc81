"""Which contents a disk's overlay has where: a tree of hashes, so that a checkpoint costs what was written since.

A node of the tree is a blob of up to 64 entries. A leaf (level 0) maps clusters to the hashes of their contents,
a node of level n maps the numbers of its children, each of 64 times more clusters than a child's children, to
their hashes. The layout, little endian::

    8    b"wbmap\\0\\1" and the level
    40 each: number u64, BLAKE2b-256 of what it stands for; ascending by number

A tree is named by the hash of its top. Equal overlays have equal trees, however they came about.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from machine.hw.blockproto import BlobStore

MAGIC: Final = b"wbmap\0\1"
FANOUT_BITS: Final = 6
_ENTRY: Final = struct.Struct("<Q32s")
_HEAD: Final = len(MAGIC) + 1

Entries = dict[int, bytes]


def encode(level: int, entries: Entries) -> bytes:
    """Return a node as the blob that stands for it."""
    return b"".join([MAGIC, bytes((level,)), *(_ENTRY.pack(n, entries[n]) for n in sorted(entries))])


def decode(blob: bytes, level: int, number: int) -> Entries:
    """Return the entries of node ``number`` of a level. Raises ValueError: the blob is no such node."""
    body = blob[_HEAD:]
    if blob[:_HEAD] != MAGIC + bytes((level,)) or not body or len(body) % _ENTRY.size:
        raise ValueError(f"a blob of {len(blob)} bytes is no node of level {level} of a disk's map")
    entries = dict(_ENTRY.iter_unpack(body))
    numbers = list(entries)
    if (
        numbers != sorted(numbers)
        or len(numbers) * _ENTRY.size != len(body)
        or any(n >> FANOUT_BITS != number for n in (numbers[0], numbers[-1]))
    ):
        raise ValueError(f"node {number} of level {level} of a disk's map has entries that are not its own")
    return entries


class ClusterMap:
    """The tree of one overlay as it was saved or loaded last.

    Args:
        clusters: how many clusters the disk has.
    """

    def __init__(self, clusters: int) -> None:
        self._clusters = clusters
        height = max(1, -(-(clusters - 1).bit_length() // FANOUT_BITS))
        self._levels: list[dict[int, Entries]] = [{} for _ in range(height)]
        #: hash of the top; empty for an empty tree
        self.root = b""

    def get(self, cluster: int) -> bytes | None:
        """Return the hash of a cluster's content, or None."""
        return self._levels[0].get(cluster >> FANOUT_BITS, {}).get(cluster)

    def clusters(self) -> list[int]:
        """Return the clusters that it holds, ascending."""
        return sorted(cluster for entries in self._levels[0].values() for cluster in entries)

    def update(self, changed: Entries, store: BlobStore) -> None:
        """Take new contents' hashes; the nodes that change are put into the store, others are there already."""
        for level, nodes in enumerate(self._levels):
            touched: dict[int, None] = {}
            for number in sorted(changed):
                parent = number >> FANOUT_BITS
                nodes.setdefault(parent, {})[number] = changed[number]
                touched[parent] = None
            changed = {number: store.put(encode(level, nodes[number])) for number in touched}
        self.root = changed.get(0, self.root)

    def load(self, root: bytes, store: BlobStore) -> tuple[Entries, list[int]]:
        """Become the tree of another root; only nodes that differ are fetched.

        Returns:
            the clusters whose contents differ, with their hashes, and those that are no longer held.

        Raises:
            ValueError: it is no tree of this disk; this one is as it was.
        """
        differing: dict[tuple[int, int], Entries] = {}
        top = len(self._levels) - 1
        wanted = {0: root} if root and root != self.root else {}
        gone = [] if root else list(self._levels[top])
        gone_clusters: list[int] = []
        changed: Entries = {}
        for level in range(top, -1, -1):
            below: Entries = {}
            dropped: list[int] = []
            for number in gone:
                dropped += self._levels[level][number]
                differing[level, number] = {}
            for number, name in wanted.items():
                had = self._levels[level].get(number, {})
                has = decode(store.get(name), level, number)
                differing[level, number] = has
                below.update({n: h for n, h in has.items() if had.get(n) != h})
                dropped += [n for n in had if n not in has]
            if level:
                wanted, gone = below, dropped
            else:
                changed, gone_clusters = below, dropped
        if any(cluster >= self._clusters for cluster in changed):
            raise ValueError(f"the disk has {self._clusters} clusters, its map names {max(changed)}")
        for (level, number), entries in differing.items():
            if entries:
                self._levels[level][number] = entries
            else:
                del self._levels[level][number]
        self.root = root
        return changed, gone_clusters

    def nodes(self) -> Iterable[bytes]:
        """Return every node's blob."""
        return (encode(level, e) for level, nodes in enumerate(self._levels) for e in nodes.values())

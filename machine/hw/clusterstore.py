"""The contents of a disk's written clusters: in memory up to a bound, beyond it in swap space.

Those written longest ago go there first; one that is only read stays where it is. Nobody can tell from outside.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Container, Iterator
from itertools import islice
from typing import Final

from machine.hw.blockproto import CLUSTER_BYTES, BlockError, Swap

#: Bytes of clusters that a disk holds in memory; beyond it an eighth of them goes to the swap.
MEMORY_BYTES: Final = 256 << 20


class ClusterStore:
    """Maps numbers of clusters to their contents.

    Args:
        swap: opens swap space when it is needed; None: all is held in memory.
        memory_bytes: what is held in memory at most, besides the clusters of one request.
    """

    def __init__(self, swap: Callable[[], Swap] | None = None, memory_bytes: int = MEMORY_BYTES) -> None:
        self._open_swap = swap
        self._most = max(1, memory_bytes // CLUSTER_BYTES)
        self._held: dict[int, bytearray] = {}  # in the order in which they were written
        self._places: dict[int, tuple[int, int]] = {}  # in the swap: offset and bytes
        self._free: list[int] = []
        self._end = 0
        self._swap: Swap | None = None

    def close(self) -> None:
        """Let go of everything."""
        self._held.clear()
        self._places.clear()
        if self._swap is not None:
            self._swap.close()

    def __iter__(self) -> Iterator[int]:
        yield from tuple(self._held)
        yield from tuple(self._places)

    def __contains__(self, cluster: int) -> bool:
        return cluster in self._held or cluster in self._places

    def get(self, cluster: int) -> bytearray | bytes | None:
        """Return a cluster's content, not to be changed, or None. Raises BlockError: the swap can't be read."""
        held = self._held.get(cluster)
        if held is not None or cluster not in self._places:
            return held
        offset, size = self._places[cluster]
        assert self._swap is not None
        try:
            data = self._swap.pread(offset, size)
        except OSError as error:
            raise BlockError(error.errno or errno.EIO, f"a disk's swap file: {error.strerror}") from None
        if len(data) != size:
            raise BlockError(errno.EIO, f"a disk's swap file ends before {offset + size}")
        return data

    def buffer(self, cluster: int) -> bytearray | None:
        """Return the content of a cluster that is in memory, to be changed and given to ``put``; None: it is not."""
        return self._held.get(cluster)

    def put(self, fresh: dict[int, bytearray]) -> None:
        """Take contents over; they may be changed until the next call.

        Raises:
            BlockError: there is no room in the swap for what must leave the memory; nothing was taken.
        """
        excess = len(self._held) + sum(c not in self._held for c in fresh) - self._most
        if excess > 0 and self._open_swap is not None:
            self._spill(max(excess, self._most // 8), fresh)
        for cluster, data in fresh.items():
            self._held.pop(cluster, None)
            self._held[cluster] = data
            self._forget_place(cluster)

    def drop(self, cluster: int) -> None:
        """Forget a cluster."""
        self._held.pop(cluster, None)
        self._forget_place(cluster)

    def _forget_place(self, cluster: int) -> None:
        place = self._places.pop(cluster, None)
        if place is not None:
            self._free.append(place[0])

    def _spill(self, count: int, besides: Container[int]) -> None:
        assert self._open_swap is not None
        try:
            if self._swap is None:
                self._swap = self._open_swap()
            for cluster in list(islice((c for c in self._held if c not in besides), count)):
                data = self._held[cluster]
                offset = self._free[-1] if self._free else self._end
                self._swap.pwrite(offset, data)
                if self._free:
                    self._free.pop()
                else:
                    self._end += CLUSTER_BYTES
                self._places[cluster] = (offset, len(data))
                del self._held[cluster]
        except OSError as error:
            what = f"a disk's swap file can't grow: {error.strerror}; name a folder with room by TMPDIR"
            raise BlockError(error.errno or errno.EIO, what) from None

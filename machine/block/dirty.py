"""Dirty bitmaps: which granules of a node were written. One byte a granule, so searching is memchr."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from machine.block.errors import BlockError


def pack_bits(cells: bytes | bytearray) -> bytes:
    """Return one bit a cell, least significant first."""
    padded = bytes(cells) + bytes(-len(cells) % 8)
    out = bytearray(len(padded) // 8)
    for bit in range(8):
        lane = padded[bit::8]
        if lane.count(0) != len(lane):
            shifted = lane.translate(bytes([0] + [1 << bit] * 255))
            out = bytearray(
                (int.from_bytes(out, "little") | int.from_bytes(shifted, "little")).to_bytes(
                    len(out), "little"
                )
            )
    return bytes(out)


def unpack_bits(data: bytes, count: int) -> bytearray:
    """Return ``count`` cells of 0 or 1 from packed bits."""
    cells = bytearray(len(data) * 8)
    for bit in range(8):
        cells[bit::8] = data.translate(bytes((value >> bit) & 1 for value in range(256)))
    return cells[:count]


class DirtyBitmap:
    """A set of dirty granules over [0, size).

    Args:
        name: empty for an anonymous one.
        size: bytes covered.
        granularity: bytes of a granule, a power of two of at least 512 (1 is allowed for internal sets).
    """

    def __init__(self, name: str, size: int, granularity: int = 65536) -> None:
        if granularity & (granularity - 1) or granularity < 1:
            raise BlockError(
                errno.EINVAL, f"bitmap '{name}': granularity {granularity} is not a power of two"
            )
        if len(name.encode(errors="surrogateescape")) > 1023:
            raise BlockError(errno.EINVAL, "bitmap name is longer than 1023 bytes")
        self.name = name
        self.size = size
        self.granularity = granularity
        self.shift = granularity.bit_length() - 1
        self.cells = bytearray((size + granularity - 1) >> self.shift)
        self.enabled = True
        self.persistent = False
        self.inconsistent = False
        self.readonly = False
        self.busy = False
        self.successor: DirtyBitmap | None = None
        #: Called after a write was recorded.
        self.listener: Callable[[], None] | None = None

    def set(self, offset: int, length: int) -> None:
        """Mark every granule that [offset, offset+length) touches."""
        if length > 0:
            first, last = offset >> self.shift, min((offset + length - 1) >> self.shift, len(self.cells) - 1)
            self.cells[first : last + 1] = b"\1" * (last + 1 - first)

    def reset(self, offset: int, length: int) -> None:
        """Clear every granule that [offset, offset+length) touches."""
        if length > 0:
            first, last = offset >> self.shift, min((offset + length - 1) >> self.shift, len(self.cells) - 1)
            self.cells[first : last + 1] = bytes(last + 1 - first)

    def clear(self) -> None:
        """Clear all of it."""
        self.cells[:] = bytes(len(self.cells))

    def get(self, offset: int) -> bool:
        """Whether the granule of a byte is dirty."""
        return bool(self.cells[offset >> self.shift])

    def count(self) -> int:
        """Return dirty bytes; the last granule counts only up to the size."""
        total = self.cells.count(1) << self.shift
        if self.cells and self.cells[-1] and self.size & (self.granularity - 1):
            total -= self.granularity - (self.size & (self.granularity - 1))
        return total

    def next_dirty(self, offset: int) -> int | None:
        """Return the first dirty byte at or after ``offset``."""
        found = self.cells.find(1, offset >> self.shift)
        return None if found < 0 else max(offset, found << self.shift)

    def next_clean(self, offset: int) -> int | None:
        """Return the first clean byte at or after ``offset``, None if all is dirty up to the size."""
        if offset >= self.size:
            return None
        found = self.cells.find(0, offset >> self.shift)
        return None if found < 0 else max(offset, found << self.shift)

    def dirty_ranges(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield (offset, length) of maximal dirty runs inside [start, end)."""
        end = self.size if end is None else min(end, self.size)
        position = start
        while position < end:
            first = self.next_dirty(position)
            if first is None or first >= end:
                return
            clean = self.next_clean(first)
            position = end if clean is None else min(clean, end)
            yield first, position - first

    def merge_from(self, other: DirtyBitmap) -> None:
        """Add the other's dirty granules; sizes must be equal, granularities may differ."""
        if other.size != self.size:
            raise BlockError(errno.EINVAL, f"bitmaps '{self.name}' and '{other.name}' are of different sizes")
        if other.granularity == self.granularity:
            mine, theirs = int.from_bytes(self.cells, "little"), int.from_bytes(other.cells, "little")
            self.cells[:] = (mine | theirs).to_bytes(len(self.cells), "little")
            return
        for offset, length in other.dirty_ranges():
            self.set(offset, length)

    def resize(self, size: int) -> None:
        """Follow a change of the node's size; new granules are clean."""
        granules = (size + self.granularity - 1) >> self.shift
        if granules < len(self.cells):
            del self.cells[granules:]
        else:
            self.cells.extend(bytes(granules - len(self.cells)))
        self.size = size
        if self.successor is not None:
            self.successor.resize(size)

    def to_bits(self) -> bytes:
        """Return packed bits, least significant first."""
        return pack_bits(self.cells)

    def load_bits(self, data: bytes) -> None:
        """Set the contents from packed bits."""
        self.cells[:] = unpack_bits(data, len(self.cells))

    def require_idle(self, *, writable: bool = True) -> None:
        """Raise unless a user may change it now."""
        if self.busy:
            raise BlockError(errno.EBUSY, f"bitmap '{self.name}' is in use by a job: wait for its end")
        if self.inconsistent:
            raise BlockError(errno.EINVAL, f"bitmap '{self.name}' is inconsistent: it can only be removed")
        if writable and self.readonly:
            raise BlockError(errno.EPERM, f"bitmap '{self.name}' is read-only")

    def make_successor(self) -> None:
        """A job takes the bitmap: writes from now on go to an anonymous successor."""
        self.require_idle()
        child = DirtyBitmap("", self.size, self.granularity)
        child.enabled = self.enabled
        self.successor = child
        self.busy = True

    def abdicate(self) -> None:
        """The job succeeded: what was written since it began is the new content."""
        if self.successor is not None:
            self.cells[:] = self.successor.cells
        self.successor, self.busy = None, False

    def reclaim(self) -> None:
        """The job failed: old content plus what was written since."""
        if self.successor is not None:
            successor, self.successor = self.successor, None
            self.merge_from(successor)
        self.busy = False


class BitmapSet:
    """The bitmaps of one node."""

    def __init__(self) -> None:
        self._all: list[DirtyBitmap] = []

    def __iter__(self) -> Iterator[DirtyBitmap]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, bitmap: DirtyBitmap) -> DirtyBitmap:
        """Attach one; named ones must be unique on the node."""
        if bitmap.name and self.find(bitmap.name) is not None:
            raise BlockError(errno.EEXIST, f"bitmap '{bitmap.name}' exists already")
        self._all.append(bitmap)
        return bitmap

    def find(self, name: str) -> DirtyBitmap | None:
        """Return the bitmap of that name, or None."""
        return next((b for b in self._all if b.name == name), None)

    def get(self, name: str) -> DirtyBitmap:
        """Return the bitmap of that name; ENOENT if there is none."""
        found = self.find(name)
        if found is None:
            raise BlockError(errno.ENOENT, f"bitmap '{name}' not found")
        return found

    def remove(self, bitmap: DirtyBitmap) -> None:
        """Detach one that no job uses."""
        if bitmap.busy:
            raise BlockError(errno.EBUSY, f"bitmap '{bitmap.name}' is in use by a job")
        self._all.remove(bitmap)

    def mark(self, offset: int, length: int) -> None:
        """Record a write."""
        for bitmap in self._all:
            target = bitmap.successor if bitmap.successor is not None else bitmap
            if target.enabled:
                target.set(offset, length)
                if target.listener is not None:
                    target.listener()

    def resize(self, size: int) -> None:
        """Follow the node's size."""
        for bitmap in self._all:
            bitmap.resize(size)

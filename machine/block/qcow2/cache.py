"""Write-back caches of metadata tables, with the order in which two of them may reach the disk."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from machine.block.errors import ImageCorruptError
from machine.block.node import Node

Decode = Callable[[bytes], "array[int]"]
Encode = Callable[["array[int]"], bytes]


class TableCache:
    """Tables of one cluster each, by host offset.

    ``depends``: another cache that has to be on disk, behind a barrier, before anything of this one is
    written.

    Args:
        limit: tables kept; clean ones above it are dropped, dirty ones written first.
        guard: called with (offset, length) before a write: overlap checks.
    """

    def __init__(
        self,
        node: Node,
        file: Callable[[], Node],
        size: int,
        limit: int,
        decode: Decode,
        encode: Encode,
        event: str,
    ) -> None:
        self._node = node
        self._file = file
        self._size = size
        self._decode = decode
        self._encode = encode
        self._event = event
        self.limit = limit
        self.tables: dict[int, array[int]] = {}
        self.dirty: dict[int, None] = {}
        self.depends: TableCache | None = None
        self.writable = True

    async def get(self, offset: int) -> array[int]:
        """Return the table at a host offset, reading it if needed. Don't suspend between this and a
        change."""
        table = self.tables.get(offset)
        if table is not None:
            return table
        if offset & (self._size - 1) or not offset:
            raise ImageCorruptError(f"{self._node.name}: table offset {offset:#x} is not aligned to clusters")
        await self._node.child_event(f"{self._event}_load")
        data = await read_padded(self._file(), offset, self._size)
        known = self.tables.get(offset)  # another task may have read it meanwhile
        if known is not None:
            return known
        table = self._decode(bytes(data))
        self.tables[offset] = table
        if len(self.tables) > self.limit:
            await self._evict(keep=offset)
            self.tables.setdefault(offset, table)
        return table

    async def _evict(self, keep: int) -> None:
        for offset in list(self.tables):
            if len(self.tables) <= self.limit:
                return
            if offset in self.dirty or offset == keep:
                continue
            del self.tables[offset]
        if len(self.tables) > 2 * self.limit:
            await self.flush()

    def put(self, offset: int, table: array[int]) -> None:
        """Add a new table; it is dirty."""
        self.tables[offset] = table
        self.dirty[offset] = None

    def drop(self, offset: int) -> None:
        """Forget a table whose cluster is given up."""
        self.tables.pop(offset, None)
        self.dirty.pop(offset, None)

    def clear(self) -> None:
        """Forget everything, written or not."""
        self.tables.clear()
        self.dirty.clear()
        self.depends = None

    async def order_after(self, other: TableCache) -> None:
        """From now on, nothing of this cache reaches the disk before what ``other`` holds now."""
        if other.depends is self:
            await other.flush()
        self.depends = other

    async def flush(self) -> None:
        """Write every dirty table, after those it depends on."""
        if not self.dirty:
            return
        before, self.depends = self.depends, None
        if before is not None and before.writable:
            await before.flush()
            await (
                self._file().flush()
            )  # also where the other's tables were written before, but without a barrier
        if not self.writable:
            return
        for offset in list(self.dirty):
            table = self.tables.get(offset)
            self.dirty.pop(offset, None)
            if table is None:
                continue
            await self._node.child_event(f"{self._event}_update")
            try:
                await self._file().pwrite(offset, self._encode(table))
            except BaseException:
                self.dirty[offset] = None
                raise


async def read_padded(file: Node, offset: int, length: int) -> bytearray:
    """Return bytes of the file; what lies beyond its end reads as zeroes."""
    data = bytearray(length)
    inside = max(0, min(length, file.size_bytes - offset))
    if inside:
        await file.pread(offset, memoryview(data)[:inside])
    return data

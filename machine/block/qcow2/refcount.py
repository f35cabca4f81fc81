"""Refcounts of host clusters: lookup, change, allocation, growth of the two-level table."""

from __future__ import annotations

import errno
import sys
from array import array
from typing import TYPE_CHECKING

from machine.block.errors import BlockError
from machine.block.qcow2.cache import TableCache, read_padded
from machine.block.qcow2.layout import MAX_REFTABLE_BYTES, OFFSET_MASK, decode_table, encode_table

if TYPE_CHECKING:
    from machine.block.qcow2.image import Qcow2Image

_TYPES = {0: "B", 1: "B", 2: "B", 3: "B", 4: "H", 5: "I", 6: "Q"}


def decode_block(data: bytes, order: int) -> array[int]:
    """Return one array cell a refcount. Fields below a byte start at the least significant bits."""
    cells = array(_TYPES[order])
    if order >= 3:
        cells.frombytes(data)
        if sys.byteorder == "little":
            cells.byteswap()
        return cells
    width, per = 1 << order, 8 >> order
    out = bytearray(len(data) * per)
    for lane in range(per):
        table = bytes((value >> (lane * width)) & ((1 << width) - 1) for value in range(256))
        out[lane::per] = data.translate(table)
    cells.frombytes(bytes(out))
    return cells


def encode_block(cells: array[int], order: int) -> bytes:
    """Undo ``decode_block``."""
    if order >= 3:
        copy = cells[:]
        if sys.byteorder == "little":
            copy.byteswap()
        return copy.tobytes()
    width, per = 1 << order, 8 >> order
    data = cells.tobytes()
    total = 0
    for lane in range(per):
        shifted = data[lane::per].translate(bytes((v << (lane * width)) & 0xFF for v in range(256)))
        total |= int.from_bytes(shifted, "little")
    return total.to_bytes(len(data) // per, "little")


class Refcounts:
    """The refcount structures of one image. Callers hold the node's metadata lock."""

    def __init__(self, node: Qcow2Image) -> None:
        self._node = node
        self.order = node.header.refcount_order
        self.bits = node.header.cluster_bits
        self.cluster_size = 1 << self.bits
        self.per_block = (self.cluster_size * 8) >> self.order
        self.maximum = (1 << (1 << self.order)) - 1
        self.table: array[int] = array("Q")
        self.cache = TableCache(
            node,
            lambda: node.file,
            self.cluster_size,
            max(16, (4 << 20) >> self.bits),
            lambda data: decode_block(data, self.order),
            lambda cells: encode_block(cells, self.order),
            "refblock",
        )
        self.hint = 0
        self._bytes_at = 0
        self.freed: list[tuple[int, int]] = []

    async def load(self) -> None:
        """Read the refcount table."""
        header = self._node.header
        data = await read_padded(
            self._node.file, header.reftable_offset, header.reftable_clusters << header.cluster_bits
        )
        self.table = decode_table(data)
        self.hint = 0
        self._bytes_at = 0

    def block_offset(self, index: int) -> int:
        """Return where a refcount block lies, 0 if there is none."""
        if index >= len(self.table):
            return 0
        entry = self.table[index]
        if entry & ~OFFSET_MASK or entry & (self.cluster_size - 1):
            raise self._node.corrupt(f"refcount block offset {entry:#x} of entry {index} is invalid")
        return entry

    async def get(self, cluster: int) -> int:
        """Return the refcount of a host cluster (by number)."""
        offset = self.block_offset(cluster // self.per_block)
        if not offset:
            return 0
        return (await self.cache.get(offset))[cluster % self.per_block]

    # Allocation.

    async def _find(self, count: int) -> int:
        """Return the first of ``count`` consecutive free clusters at or after the hint; nothing is
        reserved."""
        cluster, run = self.hint, 0
        limit = 1 << (56 - self.bits)
        while run < count:
            index, inside = divmod(cluster, self.per_block)
            offset = self.block_offset(index)
            left = self.per_block - inside
            if not offset:
                run += left
                cluster += left
            else:
                cells = await self.cache.get(offset)
                want = min(left, count - run)
                if not run:
                    try:
                        skip = cells.index(0, inside) - inside
                    except ValueError:
                        cluster += left
                        continue
                    cluster += skip
                    inside += skip
                    want = min(self.per_block - inside, count)
                used = next((i for i in range(inside, inside + want) if cells[i]), None)
                if used is None:
                    run += want
                    cluster += want
                else:
                    cluster += used - inside + 1
                    run = 0
            if cluster > limit:
                raise BlockError(errno.EFBIG, f"{self._node.name}: the image file can't grow any more")
        return cluster - run

    async def allocate(self, count: int) -> int:
        """Return the host offset of ``count`` new contiguous clusters, each with refcount 1."""
        await self._node.child_event("cluster_alloc")
        while True:
            first = await self._find(count)
            missing = self._missing(first, count)
            extra = 0
            while len(missing) > extra:
                extra = len(missing)
                first = await self._find(count + extra)
                missing = self._missing(first, count + extra)
            if missing and missing[-1] >= len(self.table):
                await self._grow_table(missing[-1])
                continue
            if missing:
                await self._add_blocks(first, missing)
                first += len(missing)
            break
        self._node.check_overlap(first << self.bits, count << self.bits)
        await self.change(first, count, 1)
        self.hint = first + count
        return first << self.bits

    def _missing(self, first: int, count: int) -> list[int]:
        """Return the indexes of the refcount blocks that a run of clusters needs and that don't exist."""
        indexes = range(first // self.per_block, (first + count - 1) // self.per_block + 1)
        return [index for index in indexes if not self.block_offset(index)]

    def _zero_cells(self) -> array[int]:
        return array(_TYPES[self.order], [0]) * self.per_block

    async def _add_blocks(self, first: int, indexes: list[int]) -> None:
        """Put new refcount blocks at the clusters from ``first``; they may describe themselves."""
        await self._node.child_event("refblock_alloc")
        await self._node.mark_lazy_dirty()
        self._node.check_overlap(first << self.bits, len(indexes) << self.bits)
        fresh = {index: self._zero_cells() for index in indexes}
        for cluster in range(first, first + len(indexes)):
            index, inside = divmod(cluster, self.per_block)
            if index in fresh:
                fresh[index][inside] = 1
            else:
                await self.change(cluster, 1, 1)
        file = self._node.file
        places = {index: (first + n) << self.bits for n, index in enumerate(indexes)}
        for index, cells in fresh.items():
            await file.pwrite(places[index], encode_block(cells, self.order))
        await self.cache.flush()
        await file.flush()
        await self._node.child_event("refblock_alloc_hookup")
        for index, cells in fresh.items():
            self.cache.tables[places[index]] = cells
            self.table[index] = places[index]
            self._node.note_metadata(places[index])
            await file.pwrite(self._node.header.reftable_offset + index * 8, places[index].to_bytes(8, "big"))

    async def _grow_table(self, index: int) -> None:
        """Move the table to a larger place behind everything it covers, with the blocks that describe that
        place."""
        await self._node.child_event("reftable_grow")
        entries_per_cluster = self.cluster_size // 8
        wanted = max(index + 1, len(self.table) * 3 // 2 + 1)
        base = len(self.table) * self.per_block
        blocks = 1
        while True:
            last_block = (base + blocks + -(-wanted // entries_per_cluster)) // self.per_block
            wanted = max(wanted, last_block + 1)
            table_clusters = -(-wanted // entries_per_cluster)
            need = -(-(blocks + table_clusters) // self.per_block)
            if need <= blocks:
                break
            blocks = need
        if table_clusters << self.bits > MAX_REFTABLE_BYTES:
            raise BlockError(errno.EFBIG, f"{self._node.name}: the refcount table can't grow any more")
        file, header = self._node.file, self._node.header
        table = self.table + array("Q", bytes((table_clusters * entries_per_cluster - len(self.table)) * 8))
        await self._node.mark_lazy_dirty()
        fresh: dict[int, array[int]] = {}
        for number in range(blocks):
            cells = self._zero_cells()
            for i in range(max(0, min(self.per_block, blocks + table_clusters - number * self.per_block))):
                cells[i] = 1
            offset = (base + number) << self.bits
            table[base // self.per_block + number] = offset
            fresh[offset] = cells
            await file.pwrite(offset, encode_block(cells, self.order))
        table_offset = (base + blocks) << self.bits
        await file.pwrite(table_offset, encode_table(table))
        await self.cache.flush()
        await file.flush()
        old_offset, old_clusters = header.reftable_offset, header.reftable_clusters
        header.reftable_offset, header.reftable_clusters = table_offset, table_clusters
        try:
            await self._node.child_event("reftable_update")
            await file.pwrite(48, table_offset.to_bytes(8, "big") + table_clusters.to_bytes(4, "big"))
            await file.flush()
        except BaseException:
            header.reftable_offset, header.reftable_clusters = old_offset, old_clusters
            raise
        self.table = table
        self.cache.tables.update(fresh)
        self._node.forget_metadata_map()
        await self.change(old_offset >> self.bits, old_clusters, -1)

    async def allocate_bytes(self, size: int) -> int:
        """Return a host offset for ``size`` bytes of compressed data; every cluster touched counts one
        more."""
        at = self._bytes_at
        if at:
            room = -at % self.cluster_size
            first = at >> self.bits
            if not room or await self.get(first) in (0, self.maximum):
                at = 0
            elif size > room:
                extra = -(-(size - room) // self.cluster_size)
                more = await self.allocate(extra)
                if more == (first + 1) << self.bits:
                    await self.change(first, 1, 1)
                    self._bytes_at = at + size
                    return at
                self._bytes_at = more + size
                if size <= extra << self.bits:
                    return more
                await self.change(more >> self.bits, extra, -1)
                at = 0
            else:
                await self.change(first, 1, 1)
        if not at:
            at = await self.allocate(-(-size // self.cluster_size))
        self._bytes_at = at + size if (at + size) % self.cluster_size else 0
        return at

    # Changes.

    async def change(self, first: int, count: int, delta: int, *, discard: bool = False) -> None:
        """Add ``delta`` (1 or -1) to ``count`` clusters from number ``first``.

        Raises:
            BlockError: EINVAL, a refcount would exceed its width; nothing was changed.
            ImageCorruptError: a refcount would fall below zero.
        """
        plan: list[tuple[int, array[int], int, int]] = []
        cluster, end = first, first + count
        while cluster < end:
            index, inside = divmod(cluster, self.per_block)
            take = min(self.per_block - inside, end - cluster)
            offset = self.block_offset(index)
            if not offset:
                raise self._node.corrupt(f"cluster {cluster:#x} is in use but has no refcount block")
            cells = await self.cache.get(offset)
            for i in range(inside, inside + take):
                if not 0 <= cells[i] + delta <= self.maximum:
                    if delta < 0:
                        raise self._node.corrupt(
                            f"refcount of cluster {index * self.per_block + i:#x} falls below zero"
                        )
                    raise BlockError(
                        errno.EINVAL, f"{self._node.name}: a refcount exceeds its {1 << self.order} bits"
                    )
            plan.append((offset, cells, inside, take))
            cluster += take
        if delta < 0 and self.cache.writable:
            await self.cache.order_after(self._node.l2)
        for offset, cells, inside, take in plan:
            current = self.cache.tables.setdefault(offset, cells)
            for i in range(inside, inside + take):
                current[i] += delta
            self.cache.dirty[offset] = None
        if delta < 0:
            await self._freed(first, count, discard)

    async def _freed(self, first: int, count: int, discard: bool) -> None:
        for cluster in range(first, first + count):
            if await self.get(cluster) == 0:
                self.hint = min(self.hint, cluster)
                self._node.l2.drop(cluster << self.bits)
                self.cache.drop(cluster << self.bits)
                if self._bytes_at >> self.bits == cluster:
                    self._bytes_at = 0
                if discard:
                    self.freed.append((cluster << self.bits, self.cluster_size))

    async def release(self, offset: int, length: int, *, discard: bool = False) -> None:
        """Give up the clusters that a byte range of the file touches."""
        first, last = offset >> self.bits, (offset + length - 1) >> self.bits
        await self.change(first, last - first + 1, -1, discard=discard)

    async def reusable(self, cluster: int) -> bool:
        """Whether a cluster may be written in place: exactly one reference."""
        return await self.get(cluster) == 1

    def file_end(self) -> int:
        """Return the offset behind the last cluster that any known refcount block covers; an upper bound."""
        return (len(self.table) * self.per_block) << self.bits

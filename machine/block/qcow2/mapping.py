"""From guest offsets to host offsets: L1 and L2 tables, what a cluster is, and how entries change.

An entry is (word, bitmap): the bitmap is that of extended L2 entries (low half allocated, high half zero
subclusters), and for plain entries it is 0 and bit 0 of the word says "reads as zero". A *unit* is what can
be allocated on its own: a subcluster with extended entries, else a cluster.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from machine.block.qcow2.layout import (
    COMPRESSED,
    COPIED,
    L1_RESERVED,
    L2_RESERVED,
    OFFSET_MASK,
    ZERO,
    encode_table,
)

if TYPE_CHECKING:
    from machine.block.qcow2.image import Qcow2Image

SUBCLUSTERS = 32
_ALL = 0xFFFF_FFFF


class Kind(IntEnum):
    """What a unit is."""

    UNALLOCATED = 0
    ZERO_PLAIN = 1
    ZERO_ALLOCATED = 2
    NORMAL = 3
    COMPRESSED = 4


@dataclass(slots=True)
class Extent:
    """A run of one kind: ``length`` bytes from the offset asked for, at ``host`` in the data file.

    ``in_place``: a NORMAL run whose clusters nobody else refers to.
    """

    kind: Kind
    host: int
    length: int
    word: int
    in_place: bool


class Mapping:
    """L1 and L2 of the active state. Callers that change anything hold the node's lock."""

    def __init__(self, node: Qcow2Image) -> None:
        self._node = node
        header = node.header
        self.bits = header.cluster_bits
        self.cluster = 1 << self.bits
        self.extended = header.extended_l2
        self.words = 2 if self.extended else 1
        self.per_table = self.cluster // (8 * self.words)
        self.table_span = self.per_table << self.bits
        self.span_bits = self.table_span.bit_length() - 1
        self.unit = self.cluster // SUBCLUSTERS if self.extended else self.cluster
        self.has_zero = header.version >= 3
        self.l1: array[int] = array("Q")

    def table_offset(self, l1_index: int) -> int:
        """Return the host offset of an L2 table, 0 if there is none."""
        if l1_index >= len(self.l1):
            return 0
        entry = self.l1[l1_index]
        offset = entry & OFFSET_MASK
        if offset & (self.cluster - 1) or entry & L1_RESERVED:
            raise self._node.corrupt(f"L1 entry {l1_index} is invalid: {entry:#x}")
        return offset

    def split(self, offset: int) -> tuple[int, int]:
        """Return (L1 index, index of the cluster in its L2 table)."""
        return offset >> self.span_bits, (offset >> self.bits) & (self.per_table - 1)

    def kind(self, word: int, bitmap: int, unit: int) -> Kind:
        """Classify unit number ``unit`` (within its cluster) of an entry."""
        if word & COMPRESSED:
            return Kind.COMPRESSED
        if self.extended:
            allocated, zero = bitmap >> unit & 1, bitmap >> (32 + unit) & 1
            if allocated and zero:
                raise self._node.corrupt(f"subcluster {unit} is both allocated and zero")
            if zero:
                return Kind.ZERO_ALLOCATED if word & OFFSET_MASK else Kind.ZERO_PLAIN
            if allocated and not word & OFFSET_MASK and not self._node.data_file_external:
                raise self._node.corrupt("a subcluster is allocated in a cluster without place")
            return Kind.NORMAL if allocated else Kind.UNALLOCATED
        if word & ZERO and self.has_zero:
            return Kind.ZERO_ALLOCATED if word & OFFSET_MASK else Kind.ZERO_PLAIN
        if word & OFFSET_MASK or (word & COPIED and self._node.data_file_external):
            return Kind.NORMAL
        return Kind.UNALLOCATED

    def check_word(self, word: int) -> None:
        """Refuse an entry with reserved bits or an unaligned place."""
        if word & COMPRESSED:
            return
        if (
            word & L2_RESERVED
            or (word & OFFSET_MASK) & (self.cluster - 1)
            or (word & ZERO and not self.has_zero)
        ):
            raise self._node.corrupt(f"L2 entry {word:#x} is invalid")

    async def lookup(self, offset: int, length: int) -> Extent:
        """Return the run that starts at a guest offset; at most to the end of its L2 table."""
        l1_index, index = self.split(offset)
        length = min(length, self.table_span - (offset & (self.table_span - 1)))
        table_offset = self.table_offset(l1_index)
        if not table_offset:
            return Extent(Kind.UNALLOCATED, 0, length, 0, False)
        tables = self._node.l2.tables
        table = tables.get(table_offset)
        if table is None:
            table = await self._node.l2.get(table_offset)
        return self._scan(table, offset, index, length)

    def _scan(self, table: array[int], offset: int, index: int, length: int) -> Extent:
        if self.extended:
            return self._scan_units(table, offset, index, length)
        word = table[index]
        self.check_word(word)
        kind = self.kind(word, 0, 0)
        inside = offset & (self.cluster - 1)
        run = self.cluster - inside
        if kind is Kind.COMPRESSED:
            return Extent(kind, word, min(run, length), word, False)
        if kind in (Kind.UNALLOCATED, Kind.ZERO_PLAIN):
            expected, step, host = word, 0, 0
        else:
            expected, step, host = word, self.cluster, (word & OFFSET_MASK) + inside
            expected += step
        index += 1
        while run < length and table[index] == expected:
            run += self.cluster
            expected += step
            index += 1
        return Extent(kind, host, min(run, length), word, kind is Kind.NORMAL and bool(word & COPIED))

    def _scan_units(self, table: array[int], offset: int, index: int, length: int) -> Extent:
        word, bitmap = table[2 * index], table[2 * index + 1]
        self.check_word(word & ~ZERO)
        if word & COMPRESSED:
            run = self.cluster - (offset & (self.cluster - 1))
            return Extent(Kind.COMPRESSED, word, min(run, length), word, False)
        unit = (offset & (self.cluster - 1)) // self.unit
        kind = self.kind(word, bitmap, unit)
        placed = kind >= Kind.ZERO_ALLOCATED
        host = (word & OFFSET_MASK) + (offset & (self.cluster - 1)) if placed else 0
        run = self.unit - (offset & (self.unit - 1))
        here = word
        while run < length:
            unit += 1
            if unit == SUBCLUSTERS:
                unit, index = 0, index + 1
                here, bitmap = table[2 * index], table[2 * index + 1]
                follows = not placed or (here & OFFSET_MASK) == (host + run) & ~(self.cluster - 1)
                if here & COMPRESSED or not follows or (here ^ word) & COPIED:
                    break
                self.check_word(here & ~ZERO)
            if self.kind(here, bitmap, unit) is not kind:
                break
            run += self.unit
        return Extent(kind, host, min(run, length), word, kind is Kind.NORMAL and bool(word & COPIED))

    # Changes.

    async def table_for_write(self, l1_index: int) -> tuple[int, array[int]]:
        """Return (host offset, table) of an L2 table that nobody else refers to, making or copying one if
        needed."""
        entry = self.l1[l1_index]
        old = self.table_offset(l1_index)
        if old and entry & COPIED:
            return old, await self._node.l2.get(old)
        node = self._node
        await node.child_event("l2_alloc_write")
        await node.mark_lazy_dirty()
        table = (await node.l2.get(old))[:] if old else array("Q", bytes(self.cluster))
        offset = await node.refs.allocate(1)
        node.l2.put(offset, table)
        node.note_metadata(offset)
        try:
            await node.l2.order_after(node.refs.cache)
            await node.l2.flush()
            await node.file.flush()
            self.l1[l1_index] = offset | COPIED
            await self.write_l1(l1_index)
        except BaseException:
            self.l1[l1_index] = entry
            node.l2.drop(offset)
            node.forget_metadata_map()
            raise
        if old:
            await (
                node.file.flush()
            )  # the old table's refcount may not fall before the new one is in its place
            await node.refs.change(old >> self.bits, 1, -1)
        return offset, table

    async def write_l1(self, l1_index: int) -> None:
        """Write one L1 entry."""
        await self._node.child_event("l1_update")
        data = encode_table(self.l1[l1_index : l1_index + 1])
        await self._node.file.pwrite(self._node.header.l1_offset + 8 * l1_index, data)

    async def entry(self, cluster_offset: int) -> tuple[int, int]:
        """Return (word, bitmap) of the cluster at a guest offset."""
        l1_index, index = self.split(cluster_offset)
        table_offset = self.table_offset(l1_index)
        if not table_offset:
            return 0, 0
        table = await self._node.l2.get(table_offset)
        if self.extended:
            return table[2 * index], table[2 * index + 1]
        return table[index], 0

    async def set_entries(
        self, cluster_offset: int, entries: list[tuple[int, int]], *, allocating: bool
    ) -> None:
        """Replace consecutive entries within one L2 table.

        Args:
            allocating: the entries refer to clusters whose refcounts grew: those reach the disk first.
        """
        l1_index, index = self.split(cluster_offset)
        offset, table = await self.table_for_write(l1_index)
        if allocating and self._node.refs.cache.writable:
            await self._node.l2.order_after(self._node.refs.cache)
            table = await self._node.l2.get(offset)
        for position, (word, bitmap) in enumerate(entries):
            if self.extended:
                table[2 * (index + position)] = word
                table[2 * (index + position) + 1] = bitmap
            else:
                table[index + position] = word
        self._node.l2.put(offset, table)

    async def release_entry(self, word: int, *, discard: bool = False) -> None:
        """Give up what an entry that was replaced referred to."""
        if word & COMPRESSED:
            offset, size = self.compressed_place(word)
            await self._node.refs.release(offset, size)
        elif word & OFFSET_MASK and not self._node.data_file_external:
            await self._node.refs.release(word & OFFSET_MASK, self.cluster, discard=discard)

    def compressed_place(self, word: int) -> tuple[int, int]:
        """Return (byte offset, bytes at most) of compressed data."""
        x = 62 - (self.bits - 8)
        offset = word & ((1 << x) - 1)
        sectors = (word >> x & ((1 << (self.bits - 8)) - 1)) + 1
        return offset, sectors * 512 - (offset & 511)

    def compressed_word(self, offset: int, size: int) -> int:
        """Return the entry of compressed data at a byte offset."""
        x = 62 - (self.bits - 8)
        sectors = (offset + size - 1) // 512 - offset // 512
        if offset >> x:
            raise self._node.corrupt("compressed data lie beyond what an entry can express")
        return COMPRESSED | sectors << x | offset

    def zero_entry(self, word: int, keep_place: bool) -> tuple[int, int]:
        """Return an entry that reads as zero, keeping its place as preallocation where allowed."""
        place = word & (OFFSET_MASK | COPIED) if keep_place and not word & COMPRESSED else 0
        if self.extended:
            return place, _ALL << 32
        return place | ZERO, 0

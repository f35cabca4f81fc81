"""Turning clusters of a qcow2 image into zeroes or into nothing: zero writes, discard, emptying."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from machine.block.errors import UnsupportedError
from machine.block.qcow2 import layout
from machine.block.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK
from machine.block.qcow2.mapping import SUBCLUSTERS
from machine.block.qcow2.refcount import encode_block

if TYPE_CHECKING:
    from machine.block.qcow2.image import Qcow2Image


async def zero_range(node: Qcow2Image, start: int, stop: int, *, unmap: bool) -> None:
    """Make [start, stop), whole units, read as zero."""
    cluster = node.cluster
    position = start
    while position < stop:
        base = position & ~(cluster - 1)
        upto = min(stop, base + cluster)
        async with node.lock:
            await node.claim_free(base, base + cluster, False)
            word, bitmap = await node.mapping.entry(base)
            node.mapping.check_word(word & ~layout.ZERO if node.mapping.extended else word)
            if position == base and upto == base + cluster:
                await _zero_cluster(node, base, word, bitmap, unmap)
            else:
                await _zero_units(node, base, position, upto, word, bitmap)
        position = upto


async def _zero_cluster(node: Qcow2Image, base: int, word: int, bitmap: int, unmap: bool) -> None:
    keep = not word & COMPRESSED and bool(word & OFFSET_MASK or node.data_file_external) and not unmap
    new = node.mapping.zero_entry(word, keep)
    if new == (word, bitmap):
        return
    await node.mapping.set_entries(base, [new], allocating=False)
    if not keep:
        await node.mapping.release_entry(word, discard=node.pass_discard and unmap)


async def _zero_units(node: Qcow2Image, base: int, position: int, upto: int, word: int, bitmap: int) -> None:
    if word & COMPRESSED:
        raise UnsupportedError
    unit = node.mapping.unit
    low, high = (position - base) // unit, min(SUBCLUSTERS, (upto - base) // unit)
    mask = ((1 << (high - low)) - 1) << low
    new = (word, (bitmap & ~mask) | mask << 32)
    if new != (word, bitmap):
        await node.mapping.set_entries(base, [new], allocating=False)


async def discard_range(node: Qcow2Image, start: int, stop: int, *, full: bool) -> None:
    """Drop clusters. ``full`` makes them unallocated, so that a backing file shows; else they read zero.

    Raises:
        UnsupportedError: a version 2 image with a backing file can't say "reads as zero".
    """
    cluster = node.cluster
    following = start & ~(cluster - 1)
    while following < stop:
        base = following
        l1_index, _ = node.mapping.split(base)
        if not node.mapping.table_offset(l1_index) and (full or node.backing is None):
            following = (l1_index + 1) * node.mapping.table_span  # nothing is allocated up to there
            continue
        following = base + cluster
        async with node.lock:
            await node.claim_free(base, base + cluster, False)
            word, bitmap = await node.mapping.entry(base)
            has_backing = node.backing is not None
            empty = not word & ~COPIED and not bitmap
            if full:
                new = (0, 0)
            elif empty and not has_backing:
                continue
            elif node.mapping.has_zero:
                new = node.mapping.zero_entry(0, False)
            elif has_backing:
                raise UnsupportedError
            else:
                new = (0, 0)
            if new == (word, bitmap):
                continue
            await node.mapping.set_entries(base, [new], allocating=False)
            await node.mapping.release_entry(word, discard=node.pass_discard or full)
            if node.data_file_external and (node.pass_discard or full) and base < node.data_node.size_bytes:
                await node.data_node.pdiscard(base, min(cluster, node.data_node.size_bytes - base))


async def make_empty(node: Qcow2Image) -> None:
    """Make every cluster unallocated.

    The fast way rewrites the image as a fresh one: the dirty bit stands from before the first change until
    after the last, so that a crash in between is repaired by the next open.
    """
    header = node.header
    l1_clusters = -(-header.l1_entries * 8 // node.cluster)
    fits = (
        l1_clusters + 3 <= node.refs.per_block and l1_clusters + 3 <= node.cluster // 8 * node.refs.per_block
    )
    plain = not header.snapshot_count and header.bitmaps is None and not node.data_file_external
    if header.version >= 3 and plain and fits:
        await _rewrite(node, l1_clusters)
        return
    await discard_range(node, 0, header.size, full=True)


async def _rewrite(node: Qcow2Image, l1_clusters: int) -> None:
    header, file, cluster = node.header, node.file, node.cluster
    async with node.lock:
        await node.child_event("empty_image_prepare")
        header.incompatible |= layout.INCOMPAT_DIRTY
        await node.write_incompatible()
        node.l2.clear()
        node.refs.cache.clear()
        node.refs.freed.clear()
        node.refs.cache.writable = True
        try:
            await file.pwrite_zeroes(header.l1_offset, l1_clusters * cluster)
            await file.flush()
            await file.pwrite_zeroes(cluster, (2 + l1_clusters) * cluster)
            header.l1_offset = 3 * cluster
            header.reftable_offset, header.reftable_clusters = cluster, 1
            await file.pwrite(
                40,
                header.l1_offset.to_bytes(8, "big")
                + cluster.to_bytes(8, "big")
                + header.reftable_clusters.to_bytes(4, "big"),
            )
            table = array("Q", bytes(cluster))
            table[0] = 2 * cluster
            await file.pwrite(cluster, layout.encode_table(table[:1]))
            cells = (
                array("Q" if node.refs.order == 6 else "BBBBHI"[node.refs.order], [0]) * node.refs.per_block
            )
            for index in range(3 + l1_clusters):
                cells[index] = 1
            await file.pwrite(2 * cluster, encode_block(cells, node.refs.order))
            await file.flush()
        except BaseException:
            node.broken = True  # half rewritten: the dirty bit makes the next open repair it
            raise
        node.mapping.l1 = array("Q", bytes(8 * header.l1_entries))
        node.refs.table = table
        node.refs.hint = 3 + l1_clusters
        node.refs._bytes_at = 0
        node.forget_metadata_map()
        header.incompatible &= ~layout.INCOMPAT_DIRTY
        await node.write_incompatible()
    await file.truncate((3 + l1_clusters) * cluster)

"""Changing the size of a qcow2 image: growing L1, shrinking, preallocation."""

from __future__ import annotations

import errno
from array import array
from typing import TYPE_CHECKING

from machine.block.errors import BlockError
from machine.block.qcow2 import erase
from machine.block.qcow2.layout import MAX_L1_BYTES, encode_table
from machine.block.qcow2.mapping import Kind

if TYPE_CHECKING:
    from machine.block.qcow2.image import Qcow2Image


async def grow_l1(node: Qcow2Image, entries: int) -> None:
    """Give the active L1 table room for ``entries`` entries, moving it if needed."""
    header = node.header
    if entries <= header.l1_entries:
        return
    if entries * 8 > MAX_L1_BYTES:
        raise BlockError(
            errno.EFBIG, f"{node.name}: an L1 table of {entries} entries is too large: use larger clusters"
        )
    await node.child_event("l1_grow_alloc_table")
    old_offset, old_entries = header.l1_offset, header.l1_entries
    old_clusters = -(-old_entries * 8 // node.cluster)
    clusters = -(-entries * 8 // node.cluster)
    table = node.mapping.l1 + array("Q", bytes(8 * (entries - old_entries)))
    await node.mark_lazy_dirty()
    offset = await node.refs.allocate(clusters)
    await node.child_event("l1_grow_write_table")
    await node.file.pwrite(offset, encode_table(table).ljust(clusters * node.cluster, b"\0"))
    await node.refs.cache.flush()
    await node.file.flush()
    await node.child_event("l1_grow_activate_table")
    await node.file.pwrite(36, entries.to_bytes(4, "big") + offset.to_bytes(8, "big"))
    await node.file.flush()
    header.l1_offset, header.l1_entries = offset, entries
    node.mapping.l1 = table
    node.forget_metadata_map()
    if old_clusters and old_offset:
        await node.refs.change(old_offset >> header.cluster_bits, old_clusters, -1)


async def resize(node: Qcow2Image, size: int, prealloc: str) -> None:
    """Set the virtual size.

    Raises:
        BlockError: ENOTSUP with snapshots in a version 2 image or when shrinking below what a snapshot needs.
    """
    header = node.header
    if node.snapshots and (header.version < 3 or size < header.size):
        raise BlockError(errno.ENOTSUP, f"{node.name}: can't resize an image that has snapshots this way")
    if prealloc not in ("off", "metadata", "falloc", "full"):
        raise BlockError(errno.EINVAL, f"preallocation '{prealloc}' is not off, metadata, falloc or full")
    old = header.size
    if size < old:
        await _shrink(node, size, old)
    async with node.lock:
        await grow_l1(node, header.l1_entries_for(size))
    if node.data_file_external and node._data_raw:
        await node.data_node.truncate(size)
    await node.l2.flush()
    await node.refs.cache.flush()
    await node.file.flush()
    await node.file.pwrite(24, size.to_bytes(8, "big"))
    header.size = size
    node.size_bytes = size
    if prealloc != "off" and size > old:
        await preallocate(node, old, size, prealloc)


async def _shrink(node: Qcow2Image, size: int, old: int) -> None:
    cluster = node.cluster
    start = -(-size // cluster) * cluster
    tail = min(start, old) - size
    if tail:
        # What lies behind the new end must read as zero if the disk grows again.
        await node.drv_write(size, bytes(tail), 0) if await _has_data(node, size, tail) else None
    if start < old:
        await erase.discard_range(node, start, -(-old // cluster) * cluster, full=True)


async def _has_data(node: Qcow2Image, offset: int, length: int) -> bool:
    extent = await node.mapping.lookup(offset, length)
    return extent.kind in (Kind.NORMAL, Kind.COMPRESSED) or extent.length < length


async def preallocate(node: Qcow2Image, start: int, end: int, mode: str) -> None:
    """Give every cluster of a range its place, with contents that read as zeroes."""
    cluster = node.cluster
    position = start & ~(cluster - 1)
    while position < end:
        length = min(end - position, node.mapping.table_span - position % node.mapping.table_span)
        clusters = -(-length // cluster)
        async with node.lock:
            await node.mark_lazy_dirty()
            host = position if node.data_file_external else await node.refs.allocate(clusters)
            full = 0xFFFF_FFFF if node.mapping.extended else 0
            entries = [(host + i * cluster | 1 << 63, full) for i in range(clusters)]
            await node.mapping.set_entries(position, entries, allocating=True)
        bytes_needed = host + clusters * cluster
        if mode == "full":
            for at in range(host, bytes_needed, 1 << 20):
                await node.data_node.pwrite(at, bytes(min(1 << 20, bytes_needed - at)))
        elif node.data_node.size_bytes < bytes_needed:
            await node.data_node.truncate(bytes_needed, "falloc" if mode == "falloc" else "off")
        position += length

"""How large an image will be, before it is made: what ``qemu-img measure`` answers."""

from __future__ import annotations

from dataclasses import dataclass

from machine.block import flags as F
from machine.block.errors import BlockError
from machine.block.node import Node, status_above
from machine.block.qcow2 import layout
from machine.block.qcow2.create import CreateOptions
from machine.block.qcow2.node import Qcow2Node


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of the file: with what is there now, with every cluster, and of its bitmaps (None: has none)."""

    required: int
    fully_allocated: int
    bitmaps: int | None = None


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _refcount_bytes(clusters: int, cluster: int, order: int) -> int:
    per_block, per_table = (cluster * 8) >> order, cluster // 8
    blocks = tables = total = 0
    while True:
        before = total
        blocks = -(-(clusters + tables + blocks) // per_block)
        tables = -(-blocks // per_table)
        total = clusters + blocks + tables
        if total == before:
            return (blocks + tables) * cluster


def full_size(size: int, cluster: int, order: int, extended: bool) -> int:
    """Return the bytes of a qcow2 file with every cluster of ``size`` bytes allocated."""
    entry = 16 if extended else 8
    data = _up(size, cluster)
    l2_entries = _up(data // cluster, cluster // entry)
    l1_entries = _up(l2_entries * entry // cluster, cluster // 8)
    metadata = cluster + l2_entries * entry + l1_entries * 8
    metadata += _refcount_bytes((metadata + data) // cluster, cluster, order)
    return metadata + data


async def _data_bytes(node: Node, cluster: int) -> int:
    """Return the bytes of the clusters that hold data."""
    offset = total = 0
    while offset < node.size_bytes:
        status, _ = await status_above(node, None, offset, node.size_bytes - offset)
        end = offset + status.length
        if status.flags & F.ST_DATA and not status.flags & F.ST_ZERO:
            end = min(_up(end, cluster), _up(node.size_bytes, cluster))
            total += end - offset // cluster * cluster
            offset = min(end, node.size_bytes)
        else:
            offset = end
    return total


def _bitmap_bytes(node: Qcow2Node, cluster: int) -> int:
    total = directory = 0
    for bitmap in node.bitmaps:
        if bitmap.persistent and not bitmap.inconsistent:
            clusters = -(-len(bitmap.cells) // (8 * cluster))
            total += clusters * cluster + _up(clusters * 8, cluster)
            directory += _up(24 + len(bitmap.name.encode(errors="surrogateescape")), 8)
    return total + _up(directory, cluster)


async def measure(target_format: str, options: CreateOptions, source: Node | None) -> Sizes:
    """Return what an image will need.

    Args:
        target_format: raw or qcow2. options: of the target; ``size`` counts where there is no source.
        source: what is to be converted.

    Raises:
        OptionError: options that don't go together. BlockError: the size is too large.
    """
    size = options.size if source is None else source.size_bytes
    if target_format == "raw":
        return Sizes(_up(size, 512), _up(size, 512))
    header = options.to_header()
    cluster = header.cluster_size
    if header.l1_entries_for(size) * 8 > layout.MAX_L1_BYTES:
        raise BlockError(27, f"the image size {size} is too large for clusters of {cluster} bytes")
    full = full_size(size, cluster, header.refcount_order, options.extended_l2)
    if options.preallocation in ("falloc", "full"):
        needed = _up(size, cluster)
    else:
        needed = 0 if source is None else await _data_bytes(source, cluster)
    bitmaps = None
    if isinstance(source, Qcow2Node) and source.header.version >= 3 and header.version >= 3:
        bitmaps = _bitmap_bytes(source, cluster)
    return Sizes(full - _up(size, cluster) + needed, full, bitmaps)

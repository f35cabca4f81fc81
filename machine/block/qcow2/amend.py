"""Changing what an image is in place: compatibility level, width of refcounts, lazy refcounts."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from machine.block import flags as F
from machine.block.errors import BlockError, OptionError, UnsupportedError
from machine.block.qcow2 import check, erase, layout

if TYPE_CHECKING:
    from machine.block.qcow2.image import Qcow2Image
    from machine.block.qcow2.node import Qcow2Node


async def set_lazy(node: Qcow2Image, lazy: bool) -> None:
    """Turn lazy refcounts on or off. Raises OptionError: a version 2 image has none."""
    if lazy and node.header.version < 3:
        raise OptionError("lazy refcounts need compatibility level 1.1 or above")
    await node.mark_clean()
    bit = layout.COMPAT_LAZY
    node.header.compatible = node.header.compatible | bit if lazy else node.header.compatible & ~bit
    await node.write_header()
    await node.file.flush()


async def upgrade(node: Qcow2Image) -> None:
    """Make a version 2 image one of version 3."""
    if node.header.version < 3:
        await node.flush()
        node.header.version = 3
        await node.write_header()
        await node.file.flush()


async def downgrade(node: Qcow2Node) -> None:
    """Make a version 3 image one of version 2: clusters that read as zero become data, or nothing without a backing.

    Raises:
        UnsupportedError: the image uses what version 2 has not.
    """
    header = node.header
    if header.version < 3:
        return
    for has, what in (
        (header.refcount_order != 4, "its refcounts don't have 16 bits: amend refcount_bits=16 first"),
        (header.incompatible & ~layout.INCOMPAT_DIRTY, "it uses features of version 3"),
        (bool(len(node.bitmaps)), "it has bitmaps"),
        (header.snapshot_count, "it has snapshots, which version 3 may have given zero clusters"),
    ):
        if has:
            raise UnsupportedError(f"{node.filename}: can't be made compatible with 0.10: {what}")
    await set_lazy(node, False)
    offset = 0
    while offset < node.size_bytes:
        status = await node.block_status(offset, node.size_bytes - offset)
        if status.flags & F.ST_ZERO and status.flags & F.ST_ALLOCATED:
            if node.backing is None:
                await erase.discard_range(node, offset, offset + status.length, full=True)
            else:
                for at in range(offset, offset + status.length, node.cluster):
                    await node.pwrite(at, bytes(min(node.cluster, offset + status.length - at)))
        offset += status.length
    await node.flush()
    header.version, header.compatible, header.autoclear = 2, 0, 0
    await node.write_header()
    await node.file.flush()


async def set_refcount_bits(node: Qcow2Image, bits: int) -> None:
    """Give the refcounts another width; the old structures are freed by a repair of leaks afterwards.

    Raises:
        OptionError: no such width, or a version 2 image. BlockError: a refcount does not fit.
    """
    order = bits.bit_length() - 1
    if bits != 1 << order or not 0 <= order <= 6:
        raise OptionError(f"refcount width {bits} must be a power of two up to 64 bits")
    if order == node.header.refcount_order:
        return
    if node.header.version < 3:
        raise OptionError("refcount widths other than 16 need compatibility level 1.1 or above")
    await node.mark_clean()
    found = await check.check(node)
    if found.corruptions or found.check_errors:
        raise BlockError(errno.EIO, f"{node.filename}: has errors: repair it first (check -r all)")
    await check.Checker(node, False).rebuild_refcounts(order)
    await node.remake_tables()

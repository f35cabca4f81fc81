"""More of the image tools: dd, bitmap, amend and the requests of bench. Names and options are qemu-img's."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from machine.block import tools
from machine.block.dirty import DirtyBitmap
from machine.block.errors import BlockError, OptionError, UnsupportedError
from machine.block.graph import Graph
from machine.block.jobs import transaction as act
from machine.block.jobs.chain import change_backing_file
from machine.block.node import Node
from machine.block.options import parse_bool, parse_size
from machine.block.qcow2 import amend as qcow2_amend
from machine.block.qcow2.node import Qcow2Node

DD_MAX_BLOCK = 2 << 30


async def dd(
    graph: Graph,
    source: str,
    target: str,
    *,
    source_format: str | None = None,
    target_format: str = "raw",
    block: int = 512,
    count: int | None = None,
    skip: int = 0,
    force_share: bool = False,
) -> int:
    """Copy blocks of an image into a new one; returns the new one's size in bytes.

    Args:
        block: bytes, 1 to 2 GiB. count: blocks to copy, None for all. skip: blocks of the source to leave out.
    """
    if not 0 < block <= DD_MAX_BLOCK or skip < 0 or (count is not None and count < 0):
        raise OptionError(f"dd: bs={block}, count={count}, skip={skip}: out of range")
    node = await tools.open_image(graph, source, source_format, force_share=force_share)
    start = min(skip * block, node.size_bytes)
    size = node.size_bytes - start if count is None else min(count * block, node.size_bytes - start)
    await tools.create(graph, target, target_format, size)
    out = await tools.open_image(graph, target, target_format, writable=True, cache="unsafe")
    step = max(block, 1 << 20) // block * block
    for at in range(0, size, step):
        await out.pwrite(at, await node.read(start + at, min(step, size - at)))
    return size


async def change_bitmap(
    graph: Graph,
    name: str,
    bitmap: str,
    actions: Sequence[tuple[str, str]],
    *,
    fmt: str | None = None,
    granularity: int = 0,
    source: str | None = None,
    source_format: str | None = None,
) -> None:
    """Change a persistent bitmap: all actions, in their order, or none.

    Args:
        actions: (verb, argument): add, remove, clear, enable, disable, or merge with the name of another bitmap.
        granularity: of a new one, 0 for the default.
        source: image of the bitmaps to be merged, if it is another one.

    Raises:
        OptionError, BlockError: the image is as it was.
    """
    if not actions:
        raise OptionError("give one of --add, --remove, --clear, --enable, --disable, --merge")
    node = await tools.open_image(graph, name, fmt, writable=True)
    if not isinstance(node, Qcow2Node) or node.header.version < 3:
        raise UnsupportedError(f"'{name}': only qcow2 images of version 3 keep bitmaps")
    other: Node = node
    if source is not None:
        other = await tools.open_image(graph, source, source_format)
    before = [(b, bytes(b.cells), b.enabled) for b in node.bitmaps]
    try:
        for verb, argument in actions:
            _apply(node, other, bitmap, verb, argument, granularity)
    except BlockError:
        for held in list(node.bitmaps):
            node.bitmaps.remove(held)
        for held, cells, enabled in before:
            held.cells[:], held.enabled = cells, enabled
            node.bitmaps.add(held)
        raise


def _apply(node: Qcow2Node, other: Node, name: str, verb: str, argument: str, granularity: int) -> None:
    if verb == "add":
        if granularity and (granularity < 512 or granularity > 1 << 31):
            raise OptionError(f"bitmap granularity {granularity}: expected 512 to 2 GiB")
        fresh = DirtyBitmap(name, node.size_bytes, granularity or min(max(node.cluster, 4096), 65536))
        fresh.persistent = True
        node.bitmaps.add(fresh)
    elif verb == "merge":
        act.MergeBitmaps(node, name, [(other, argument)]).do()
    elif verb == "clear":
        act.ClearBitmap(node, name).do()
    elif verb == "remove":
        act.RemoveBitmap(node, name).do()
    elif verb in ("enable", "disable"):
        act.EnableBitmap(node, name, on=verb == "enable").do()
    else:
        raise OptionError(f"unknown bitmap action '{verb}'")


async def amend(graph: Graph, name: str, options: dict[str, Any], *, fmt: str | None = None) -> None:
    """Change what a qcow2 image is: compat, lazy_refcounts, refcount_bits, backing_file, backing_fmt, size.

    Raises:
        OptionError: an option that can't be changed. UnsupportedError: the image has what the new form has not.
    """
    known = ("compat", "lazy_refcounts", "refcount_bits", "backing_file", "backing_fmt", "size")
    for key in options:
        if key not in known:
            raise OptionError(f"amend: option '{key}' can't be changed; expected {', '.join(known)}")
    node = await tools.open_image(graph, name, fmt, writable=True)
    if not isinstance(node, Qcow2Node):
        raise UnsupportedError(f"'{name}': format {node.driver} can't be amended")
    compat = options.get("compat")
    if compat not in (None, "0.10", "1.1", "v2", "v3"):
        raise OptionError(f"compat '{compat}' is unknown: expected 0.10 or 1.1")
    if compat in ("1.1", "v3"):
        await qcow2_amend.upgrade(node)
    if "size" in options:
        await node.truncate(parse_size(options["size"]))
    if "backing_file" in options or "backing_fmt" in options:
        file = options.get("backing_file", node.header.backing_file)
        await change_backing_file(node, file or None, options.get("backing_fmt", node.header.backing_format))
    if "lazy_refcounts" in options:
        await qcow2_amend.set_lazy(node, parse_bool(options["lazy_refcounts"], "lazy_refcounts"))
    width = int(parse_size(options["refcount_bits"])) if "refcount_bits" in options else None
    if compat in ("0.10", "v2"):
        if width not in (None, 16):
            raise OptionError("compatibility level 0.10 needs refcount_bits=16")
        await qcow2_amend.downgrade(node)
    if width is not None and width != 1 << node.header.refcount_order:
        await qcow2_amend.set_refcount_bits(node, width)
        await graph.close()
        await tools.check(graph, name, "qcow2", repair="leaks")


async def requests(
    graph: Graph,
    name: str,
    *,
    fmt: str | None = None,
    count: int = 75_000,
    depth: int = 64,
    size: int = 4096,
    step: int = 0,
    offset: int = 0,
    write: bool = False,
    pattern: int = 0,
    flush_interval: int = 0,
) -> None:
    """Send ``count`` requests of ``size`` bytes, ``depth`` at a time, each ``step`` behind the last."""
    if min(count, depth) < 1 or not 0 < size <= 1 << 30 or not 0 <= pattern < 256 or min(step, offset) < 0:
        raise OptionError("bench: a count, depth, size, step, offset or pattern is out of range")
    node = await tools.open_image(graph, name, fmt, writable=write)
    if offset + size > node.size_bytes:
        raise BlockError(errno.EINVAL, f"'{name}' is smaller than one request")
    data, step = bytes([pattern]) * size, step or size
    buffers = [memoryview(bytearray(size)) for _ in range(depth)]
    sent = 0
    position = offset

    async def worker(buffer: memoryview) -> None:
        nonlocal sent, position
        while sent < count:
            sent += 1
            number, at = sent, position
            position += step
            if position + size > node.size_bytes:
                position = offset
            if write:
                await node.pwrite(at, data)
            else:
                await node.pread(at, buffer)
            if flush_interval and number % flush_interval == 0:
                await node.flush()

    for task in [graph.sched.spawn(worker(buffer), "bench") for buffer in buffers]:
        await task.join()

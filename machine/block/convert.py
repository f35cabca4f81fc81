"""Copying images from one format to another, sparsely, compressed if asked for."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from machine.block import flags as F
from machine.block import tools
from machine.block.dirty import DirtyBitmap
from machine.block.drivers.file import FileNode
from machine.block.errors import BlockError, OptionError, UnsupportedError
from machine.block.extent import HostExtent
from machine.block.flags import Status
from machine.block.graph import Graph
from machine.block.jobs.workers import Workers
from machine.block.node import Node, status_above
from machine.block.qcow2 import compress as codec
from machine.block.qcow2 import snapshots
from machine.block.qcow2.node import Qcow2Node
from machine.block.sched import CoQueue
from machine.block.tools import Progress

STEP = 2 << 20
#: Clusters being compressed ahead of the one that is written.
AHEAD = 16
#: Of runs of zeroes that are looked for.
MAX_SPARSE = 16 << 20
MAX_COROUTINES = 16
SECTOR = 512


async def convert(
    graph: Graph,
    sources: list[str],
    target: str,
    *,
    source_format: str | None = None,
    target_format: str = "raw",
    options: dict[str, Any] | None = None,
    compress: bool = False,
    sparse_bytes: int | None = None,
    no_create: bool = False,
    target_is_zero: bool = False,
    backing: str | None = None,
    backing_format: str | None = None,
    snapshot: str | None = None,
    force_share: bool = False,
    progress: Progress | None = None,
    workers: int = 2,
    coroutines: int = 8,
    out_of_order: bool = False,
    salvage: Callable[[str], None] | None = None,
    copy_bitmaps: bool = False,
    skip_broken_bitmaps: bool = False,
    offload: bool = False,
    cache: str = "unsafe",
    source_cache: str = "writeback",
) -> None:
    """Copy one image, or several one behind the other, into a new one.

    Args:
        sparse_bytes: runs of zeroes at least this long are not written; 0 writes everything; None: 4 KiB.
        no_create: the target exists and keeps its format.
        backing: backing file of the target: what the source shares with it stays there.
        snapshot: an internal snapshot of the (single) source instead of its present state.
        workers: threads that compress.
        coroutines: pieces in flight, 1 to 16. out_of_order: they may be written as they come.
        salvage: hears of what can't be read; it is zeroes in the target then, and no error.
        copy_bitmaps: the persistent bitmaps of the (single) source go along, all that are whole.
        skip_broken_bitmaps: leave out those that are not, instead of failing.
        offload: let the host copy data where it can, without looking for zeroes in them.
        cache, source_cache: of target and source, one of ``tools.CACHE_MODES``.
    """
    if offload and (compress or salvage is not None or sparse_bytes is not None):
        raise OptionError(
            "copy offloading (-C) goes with neither -c, -S nor --salvage: leave one of them out"
        )
    if sparse_bytes is not None and (sparse_bytes % 512 or not 0 <= sparse_bytes <= MAX_SPARSE):
        raise OptionError(
            f"-S {sparse_bytes}: expected a multiple of 512 up to {MAX_SPARSE}, or 0 for no holes"
        )
    if target_is_zero and not no_create:
        raise OptionError("--target-is-zero tells of a target that exists: give -n, too")
    if not 1 <= coroutines <= MAX_COROUTINES:
        raise OptionError(f"{coroutines} coroutines: expected 1 to {MAX_COROUTINES}")
    nodes = [
        await tools.open_image(graph, s, source_format, force_share=force_share, cache=source_cache)
        for s in sources
    ]
    if snapshot is not None:
        if len(nodes) != 1:
            raise OptionError("a snapshot can be converted from a single qcow2 image only")
        await show_snapshot(nodes[0], snapshot)
    bitmaps = _bitmaps(nodes, skip_broken_bitmaps) if copy_bitmaps else []
    total = sum(node.size_bytes for node in nodes)
    if not no_create:
        await tools.create(
            graph,
            target,
            target_format,
            total,
            backing=backing,
            backing_format=backing_format,
            options=options,
        )
    out = await tools.open_image(
        graph, target, target_format, writable=True, cache=cache, discard="unmap",
    )  # fmt: skip
    if out.size_bytes < total:
        raise BlockError(errno.ENOSPC, f"'{target}' has {out.size_bytes} bytes, the source {total}")
    if compress and not isinstance(out, Qcow2Node):
        raise OptionError(f"format {out.driver} can't store compressed data: use -O qcow2")
    if bitmaps and not (isinstance(out, Qcow2Node) and out.header.version >= 3):
        raise OptionError(f"format {out.driver} can't keep bitmaps: use -O qcow2")
    empty = (not no_create or target_is_zero) and backing is None
    copier = _Copier(out, empty, 4096 if sparse_bytes is None else sparse_bytes, progress, total)
    copier.salvage = salvage
    copier.offload = offload
    base = 0
    with ThreadPoolExecutor(workers) as pool:
        for node in nodes:
            if compress and isinstance(out, Qcow2Node):
                await copier.compressed(node, base, out, pool)
            else:
                await copier.plain(node, base, Workers(graph.sched, coroutines, "convert"), out_of_order)
            base += node.size_bytes
    for bitmap in bitmaps:
        fresh = DirtyBitmap(bitmap.name, out.size_bytes, bitmap.granularity)
        fresh.persistent, fresh.enabled = True, bitmap.enabled
        fresh.merge_from(bitmap)
        out.bitmaps.add(fresh)
    await graph.close()


def _bitmaps(nodes: list[Node], skip_broken: bool) -> list[DirtyBitmap]:
    if len(nodes) != 1 or not isinstance(nodes[0], Qcow2Node):
        raise OptionError("bitmaps can be copied from a single qcow2 image only")
    found = [bitmap for bitmap in nodes[0].bitmaps if bitmap.persistent]
    for bitmap in found:
        if bitmap.inconsistent and not skip_broken:
            raise OptionError(
                f"bitmap '{bitmap.name}' is inconsistent: remove it, or give --skip-broken-bitmaps"
            )
    return [bitmap for bitmap in found if not bitmap.inconsistent]


async def show_snapshot(node: Node, name: str) -> None:
    """Let a node that is only read show an internal snapshot. Raises OptionError: its format has none."""
    if not isinstance(node, Qcow2Node):
        raise OptionError(f"'{node.filename}': format {node.driver} has no snapshots")
    chosen = snapshots.find(node, name)
    node.mapping.l1 = await snapshots.read_l1(node, chosen)
    node.size_bytes = chosen.disk_size


class _Copier:
    def __init__(self, out: Node, empty: bool, sparse: int, progress: Progress | None, total: int) -> None:
        self._out = out
        self._empty = empty
        self._sparse = sparse
        self._progress = progress
        self._total = total
        self._below = out.backing
        self._turn = 0
        self._turns = CoQueue(out.sched, "order of writes")
        self.salvage: Callable[[str], None] | None = None
        self.offload = False

    async def _same_as_backing(self, node: Node, offset: int, at: int, length: int) -> bool:
        below = self._below
        if below is None or at + length > below.size_bytes:
            return False
        return await node.read(offset, length) == await below.read(at, length)

    async def plain(self, node: Node, base: int, workers: Workers, out_of_order: bool) -> None:
        """Copy uncompressed; holes stay holes."""
        offset = number = self._turn = 0
        while offset < node.size_bytes:
            status = await self._status(node, offset)
            turn = -1 if out_of_order else number
            await workers.submit(self._part(node, base, offset, status, turn))
            number += 1
            offset += status.length
        await workers.settle()

    async def _status(self, node: Node, offset: int) -> Status:
        length = min(STEP, node.size_bytes - offset)
        try:
            status, _ = await status_above(node, None, offset, length)
        except BlockError:
            if self.salvage is None:
                raise
            return Status(F.ST_DATA, length)
        return status

    async def _part(self, node: Node, base: int, offset: int, status: Status, turn: int) -> None:
        at, length = base + offset, status.length
        zero = bool(status.flags & F.ST_ZERO and self._sparse)
        same = self._below is not None and await self._same_as_backing(node, offset, at, length)
        extent = None if zero or same else self._extent(status)
        data = b"" if zero or same or extent else await self._read(node, offset, length)
        while turn >= 0 and self._turn != turn:
            await self._turns.wait()
        if zero and not same:
            if not self._empty:
                await self._out.pwrite_zeroes(at, length, F.MAY_UNMAP)
        elif not same:
            if extent and not await self._offloaded(at, extent):
                data = await self._read(node, offset, length)
            await self._pieces(at, memoryview(data), max(self._out.cluster_bytes(), self._sparse or 4096))
        self._turn += 1
        self._turns.wake_all()
        if self._progress is not None:
            self._progress(at + length, self._total)

    def _extent(self, status: Status) -> HostExtent | None:
        """Return where a range's data lie in a host file, if the host is to copy them and they lie in one."""
        if not self.offload or not (status.flags & F.ST_DATA and isinstance(status.node, FileNode)):
            return None
        return status.node.extent(status.offset, status.length)

    async def _offloaded(self, at: int, extent: HostExtent) -> bool:
        """Let the host copy a range; where it can't, nothing is offloaded any more."""
        try:
            await self._out.copy_in(at, extent)
        except UnsupportedError:
            self.offload = False
        return self.offload

    async def _read(self, node: Node, offset: int, length: int) -> bytes | bytearray:
        try:
            return await node.read(offset, length)
        except BlockError as error:
            if self.salvage is None:
                raise
            if length <= SECTOR:
                self.salvage(f"{node.filename or node.name}: {length} bytes at {offset}: {error.message}")
                return bytes(length)
        half = max(SECTOR, length // 2 // SECTOR * SECTOR)
        head = await self._read(node, offset, half)
        return bytes(head) + bytes(await self._read(node, offset + half, length - half))

    async def _pieces(self, at: int, data: memoryview, granule: int) -> None:
        """Write runs of non-zero granules; zero ones are left out or zeroed."""
        if not self._sparse:
            await self._out.pwrite(at, data)
            return
        start, position = 0, 0
        while position < len(data):
            end = min(len(data), position + granule - (at + position) % granule)
            if F.is_zero(data[position:end]):
                if start < position:
                    await self._out.pwrite(at + start, data[start:position])
                if not self._empty:
                    await self._out.pwrite_zeroes(at + position, end - position, F.MAY_UNMAP)
                start = end
            position = end
        if start < len(data):
            await self._out.pwrite(at + start, data[start:])

    async def compressed(self, node: Node, base: int, out: Qcow2Node, pool: ThreadPoolExecutor) -> None:
        """Copy whole clusters, compressed by worker threads, written in order."""
        if base % out.cluster:
            raise OptionError("sources that don't end at a cluster can't be concatenated compressed")
        queue: deque[tuple[int, bytes, Future[bytes]]] = deque()
        kind = out.header.compression_type
        offset = 0
        while offset < node.size_bytes or queue:
            while offset < node.size_bytes and len(queue) < AHEAD:
                length = min(out.cluster, node.size_bytes - offset)
                status, _ = await status_above(node, None, offset, length)
                if not (status.flags & F.ST_ZERO and status.length >= length):
                    data = bytes(await self._read(node, offset, length))
                    if not F.is_zero(data):
                        whole = data + bytes(out.cluster - length)
                        queue.append((base + offset, data, pool.submit(codec.compress, kind, whole)))
                offset += length
            if queue:
                at, data, packed = queue.popleft()
                await out.write_cluster(at, data, packed.result())
                out.write_gen += 1
                if self._progress is not None:
                    self._progress(at + len(data), self._total)

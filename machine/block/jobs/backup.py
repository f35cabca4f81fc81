"""Backup: the target gets the source as it was at the start, whatever is written meanwhile."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from machine.block import flags as F
from machine.block.errors import BlockError, JobError
from machine.block.flags import Perm
from machine.block.jobs.cow import CowRange, CowRanges
from machine.block.jobs.job import Job
from machine.block.jobs.workers import Workers
from machine.block.node import Node
from machine.block.sched import CoRwLock

if TYPE_CHECKING:
    from machine.block.graph import Graph

MIN_CLUSTER = 65536
MAX_WORKERS = 64
SYNC_MODES = ("full", "top", "none", "incremental", "bitmap")
BITMAP_MODES = ("on-success", "always", "never")


def _shows(target: Node, source: Node) -> bool:
    """Tell whether a node is an overlay of another one."""
    layer = target.below
    while layer is not None and layer is not source:
        layer = layer.below
    return layer is source


class BackupJob(Job):
    """Copy before write, and in the background what ``sync`` says.

    Args:
        sync: full; top (what the top layer holds); none (only copy before write; cancelling is the normal end);
            incremental and bitmap (what ``bitmap`` of the source says).
        bitmap_mode: what becomes of the bitmap: on-success, always or never.
        workers: background copies in flight, 1 to 64.
    """

    kind = "backup"

    def __init__(
        self,
        graph: Graph,
        source: Node,
        target: Node,
        *,
        sync: str = "full",
        job_id: str | None = "backup0",
        bitmap: str | None = None,
        bitmap_mode: str = "on-success",
        compress: bool = False,
        workers: int = 1,
        **options: Any,
    ) -> None:
        if not 1 <= workers <= MAX_WORKERS:
            raise JobError(errno.EINVAL, f"backup: {workers} workers: expected 1 to {MAX_WORKERS}")
        if sync not in SYNC_MODES or bitmap_mode not in BITMAP_MODES:
            raise JobError(errno.EINVAL, f"backup: sync '{sync}' or bitmap mode '{bitmap_mode}' is unknown")
        if source is target:
            raise JobError(errno.EINVAL, "backup: source and target are the same node")
        if source.size_bytes != target.size_bytes:
            raise JobError(
                errno.EINVAL, f"backup: sizes differ: source {source.size_bytes}, target {target.size_bytes}"
            )
        if (bitmap is None) == (sync in ("incremental", "bitmap")):
            raise JobError(errno.EINVAL, f"backup: sync '{sync}' and bitmap '{bitmap}' don't go together")
        if sync == "incremental" and bitmap_mode != "on-success":
            raise JobError(errno.EINVAL, "backup: sync 'incremental' implies bitmap mode 'on-success'")
        if compress and target.driver != "qcow2":
            raise JobError(errno.ENOTSUP, "backup: the target's format has no compression")
        super().__init__(graph, job_id, **options)
        self.sync = sync
        self.cancel_is_success = sync == "none"
        self._bitmap_mode = bitmap_mode
        self._compress = compress
        #: where the target shows the source's data, a read of it that is under way holds up the copy: block.md 7.2
        self._serialising = F.SERIALISING if _shows(target, source) else 0
        self.source, self.target = source, target
        self.cluster_size = max(MIN_CLUSTER, target.cluster_bytes())
        self.ranges = CowRanges(self.sched, self.cluster_size)
        self.done = bytearray(-(-source.size_bytes // self.cluster_size))
        self.total = source.size_bytes
        self.on_cow_error: Callable[[BlockError], None] | None = None
        self._flush_lock = CoRwLock(self.sched, f"copies of {self.name}")
        self._workers = Workers(self.sched, workers, self.name)
        self._hooked = False
        try:
            self.bitmap = source.bitmaps.get(bitmap) if bitmap is not None else None
            if self.bitmap is not None:
                self.bitmap.make_successor()
            self._target = self.attach(target, Perm.WRITE)
            self._source = self.attach(source, Perm.CONSISTENT_READ)
        except BlockError:
            if bitmap is not None and self.bitmap is not None and self.bitmap.successor is not None:
                self.bitmap.reclaim()
            for backend in self._backends:
                backend.close()
            graph.jobs.remove(self)
            raise

    def start(self) -> None:
        if self.bitmap is not None:
            self.done[:] = b"\1" * len(self.done)
            for offset, length in self.bitmap.dirty_ranges():
                first, last = self.ranges.round(offset, length)
                self.done[first:last] = bytes(last - first)
        self.source.before_write.append(self._before_write)
        if self._serialising:
            # a reader that waited for a writer there, which waits for the reader here, would never end
            self.target.skip_filters().backing_flags = F.NO_SERIALISING
        self._hooked = True
        super().start()

    # The COW-request interface.

    async def wait_for_overlapping_requests(self, offset: int, length: int) -> None:
        """Suspend until no range in flight overlaps these bytes; reserves nothing."""
        await self.ranges.wait(offset, length)

    def cow_request_begin(self, offset: int, length: int, shared: bool = False) -> CowRange:
        """Register a range right after waiting; the caller must end it."""
        return self.ranges.begin(offset, length, shared)

    def cow_request_end(self, held: CowRange) -> None:
        """End a range and wake who waits for it."""
        self.ranges.finish(held)

    def cow_range(
        self, offset: int, length: int, shared: bool = False
    ) -> AbstractAsyncContextManager[CowRange]:
        """Wait and register in one step: ``async with job.cow_range(offset, length): …``."""
        return self.ranges.hold(offset, length, shared)

    def do_checkpoint(self) -> None:
        """Start a new point in time: every cluster counts as not copied.

        Raises:
            JobError: EINVAL unless sync is none; EBUSY while ranges are in flight (drain the source first).
        """
        if self.sync != "none":
            raise JobError(errno.EINVAL, f"{self.name}: a checkpoint needs sync 'none', not '{self.sync}'")
        if self.ranges.in_flight:
            raise JobError(errno.EBUSY, f"{self.name}: copies are in flight: drain the source first")
        self.done[:] = bytes(len(self.done))

    # Copying.

    async def _before_write(self, offset: int, length: int) -> None:
        await self._flush_lock.acquire_read()
        try:
            await self._copy(offset, length, from_hook=True)
        except BlockError as error:
            if self.on_cow_error is not None:
                self.on_cow_error(error)
            raise
        finally:
            self._flush_lock.release_read()

    async def _copy(self, offset: int, length: int, *, from_hook: bool) -> None:
        size = self.cluster_size
        async with self.ranges.hold(offset, length) as held:
            for cluster in range(held.start, held.end):
                if self.done[cluster]:
                    continue
                start = cluster * size
                count = min(size, self.source.size_bytes - start)
                data = bytearray(count)
                try:
                    await self.source.pread(start, memoryview(data), F.NO_SERIALISING if from_hook else 0)
                except BlockError as error:
                    error.reading = True  # type: ignore[attr-defined]
                    raise
                if F.is_zero(data):
                    await self._target.write_zeroes(start, count, F.MAY_UNMAP | self._serialising)
                else:
                    flags = F.COMPRESSED if self._compress else 0
                    await self._target.write(start, data, flags | self._serialising)
                self.done[cluster] = 1

    async def run(self) -> None:
        try:
            if self.sync == "none":
                while True:
                    await self.idle()
            await self._background()
        finally:
            try:
                await self.settle()
            finally:
                await self._end()

    def unmake(self) -> None:
        if self.bitmap is not None:
            self.bitmap.reclaim()

    async def clean(self) -> None:
        await self._end()  # a job cancelled before its first step never entered run()

    async def _background(self) -> None:
        """Copy every cluster that is not done; those that failed and are to be tried again come round once more."""
        while self.done.find(0) >= 0:
            cluster = -1
            while (cluster := self.done.find(0, cluster + 1)) >= 0:
                await self._workers.submit(self._copy_cluster(cluster))
                await self.pause_point()
            await self.settle()
            await self.pause_point()

    async def settle(self) -> None:
        await self._workers.settle()

    async def _copy_cluster(self, cluster: int) -> None:
        start = cluster * self.cluster_size
        count = min(self.cluster_size, self.source.size_bytes - start)
        if self.sync == "top" and not await self._in_top(start, count):
            self.done[cluster] = 1
            return
        try:
            await self._copy(start, count, from_hook=False)
        except BlockError as error:
            if self.on_error(error, reading=getattr(error, "reading", False)) == "report":
                raise
        await self.rate_limit(count)

    async def _in_top(self, offset: int, length: int) -> bool:
        layer = self.source.skip_filters()
        end = offset + length
        while offset < end:
            status = await layer.block_status(offset, end - offset)
            if status.flags & F.ST_ALLOCATED or not status.length:
                return True
            offset += status.length
        return False

    async def _end(self) -> None:
        if not self._hooked:
            return
        self._hooked = False
        self.source.before_write.remove(self._before_write)
        if self._serialising:
            self.target.skip_filters().backing_flags = 0
        await self._flush_lock.acquire_write()
        self._flush_lock.release_write()
        await self.ranges.drain()

    def commit(self) -> None:
        if self.bitmap is not None:
            if self._bitmap_mode == "never":
                self.bitmap.reclaim()
            else:
                self.bitmap.abdicate()

    def abort(self) -> None:
        if self.bitmap is None:
            return
        if self._bitmap_mode == "always":
            self.bitmap.clear()
            for cluster, done in enumerate(self.done):
                if not done:
                    self.bitmap.set(cluster * self.cluster_size, self.cluster_size)
        self.bitmap.reclaim()

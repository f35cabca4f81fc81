"""Mirror and active commit: a target is kept equal to a source until it takes the source's place."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from machine.block import flags as F
from machine.block.dirty import DirtyBitmap
from machine.block.errors import BlockError, JobError
from machine.block.flags import Perm
from machine.block.jobs.chain import COPY_STEP, ChainJob, chain_between, copy_range
from machine.block.jobs.cow import CowRanges
from machine.block.jobs.job import JobState
from machine.block.jobs.workers import Workers
from machine.block.node import Node, is_allocated_above

if TYPE_CHECKING:
    from machine.block.graph import Graph

#: Operations in flight, and bytes that they hold at most.
MAX_OPERATIONS = 16
MAX_BUFFER = 10 << 20
COPY_MODES = ("background", "write-blocking")


class MirrorJob(ChainJob):
    """Keep the target equal to the source; when it is, become ready; ``complete`` puts it in the source's place.

    Args:
        sync: full, top or none. With ``active_commit`` the target is a node of the source's own chain, and what lies
            above it is copied.
        auto_complete: complete by itself when ready.
        copy_mode: background: writes are noted and copied later; write-blocking: a write to the source ends when the
            target has it too, so that the job gets ready however much is written.
        granularity: bytes, a power of two; raised to the target's cluster.
        operations: copies in flight, 1 to 16.
    """

    kind = "mirror"

    def __init__(
        self,
        graph: Graph,
        source: Node,
        target: Node,
        *,
        sync: str = "full",
        active_commit: bool = False,
        auto_complete: bool = False,
        copy_mode: str = "background",
        granularity: int = 65536,
        operations: int = MAX_OPERATIONS,
        job_id: str | None = "mirror0",
        **options: Any,
    ) -> None:
        if sync not in ("full", "top", "none"):
            raise JobError(errno.EINVAL, f"mirror: sync '{sync}' is unknown: expected full, top or none")
        if copy_mode not in COPY_MODES:
            raise JobError(
                errno.EINVAL,
                f"mirror: copy mode '{copy_mode}' is unknown: expected {' or '.join(COPY_MODES)}",
            )
        if not 1 <= operations <= MAX_OPERATIONS:
            raise JobError(errno.EINVAL, f"mirror: {operations} operations: expected 1 to {MAX_OPERATIONS}")
        if source is target:
            raise JobError(errno.EINVAL, "mirror: source and target are the same node")
        chain = chain_between(source, target) if active_commit else []
        if not active_commit and source.size_bytes != target.size_bytes:
            raise JobError(errno.EINVAL, f"mirror: sizes differ: {source.size_bytes} and {target.size_bytes}")
        super().__init__(graph, job_id, **options)
        self.source, self.target = source, target
        self.active_commit, self.auto_complete, self.sync = active_commit, auto_complete, sync
        self.blocking = copy_mode == "write-blocking"
        self.total = source.size_bytes
        self.pivoted = False
        self._bitmap = DirtyBitmap("", source.size_bytes, max(granularity, target.cluster_bytes()))
        self._bitmap.enabled = not self.blocking
        self._ranges = CowRanges(self.sched, self._bitmap.granularity)
        self._workers = Workers(self.sched, operations, self.name)
        granule = self._bitmap.granularity
        self._step = max(1, min(COPY_STEP, MAX_BUFFER // operations) // granule) * granule
        self._hooked = False
        try:
            grows = Perm.RESIZE if target.size_bytes < source.size_bytes else Perm.NONE
            self._target = self.attach(target, Perm.WRITE | grows)
            self._source = self.attach(source, Perm.CONSISTENT_READ)
        except BlockError:
            for backend in self._backends:
                backend.close()
            graph.jobs.remove(self)
            raise
        self.freeze(chain)

    def start(self) -> None:
        self.source.bitmaps.add(self._bitmap)
        self._bitmap.listener = self.notify
        if self.blocking:
            self.source.after_write.append(self._after_write)
            self._hooked = True
        super().start()

    async def _mark_initial(self) -> None:
        source = self.source
        if self.sync == "none":
            return
        if self.sync == "full" and not self.active_commit:
            self._bitmap.set(0, source.size_bytes)
            return
        base = self.target if self.active_commit else source.skip_filters().backing
        offset = 0
        while offset < source.size_bytes:
            await self.pause_point()
            held, length = await is_allocated_above(source, base, False, offset, source.size_bytes - offset)
            if held:
                self._bitmap.set(offset, length)
            offset += length

    async def run(self) -> None:
        if self.active_commit and self.target.size_bytes < self.source.size_bytes:
            await self.target.truncate(self.source.size_bytes)
        try:
            await self._mark_initial()
            await self._keep_equal()
        finally:
            await self.settle()

    async def settle(self) -> None:
        await self._workers.settle()

    async def _keep_equal(self) -> None:
        while True:
            await self._copy_dirty()
            await self.target.flush()
            if self._bitmap.next_dirty(0) is not None:
                continue
            if self.state is JobState.RUNNING:
                self.ready()
                self._should_complete = self._should_complete or self.auto_complete
            if self._should_complete or self.cancelled:
                self.exempt_from_drain = True
                try:
                    async with self.graph.drained(self.source):
                        await self._copy_dirty(pausing=False)
                        await self.target.flush()
                        if not self.cancelled:
                            self._pivot()
                        return
                finally:
                    self.exempt_from_drain = False
            if self._bitmap.next_dirty(0) is None:
                await self.idle()
            else:
                await self.pause_point()

    async def _copy_dirty(self, *, pausing: bool = True) -> None:
        """Copy until nothing is dirty and nothing in flight."""
        while True:
            if pausing:
                await self.pause_point()
            start = self._bitmap.next_dirty(0)
            if start is None:
                if not self._workers:
                    return
                await self._workers.wait_one()
                continue
            clean = self._bitmap.next_clean(start)
            end = min(clean if clean is not None else self.source.size_bytes, start + self._step)
            self._bitmap.reset(start, end - start)  # before it is read, so that a write meanwhile is noted
            await self._workers.submit(self._copy(start, end - start))
            if pausing:
                await self.rate_limit(end - start)

    async def _copy(self, start: int, length: int) -> None:
        async with self._ranges.hold(start, length):
            try:
                # A write under way that waits for this range brings its data itself, so it is not waited for.
                flags = F.NO_SERIALISING if self.blocking else 0
                await copy_range(self.source, self.target, start, length, flags)
            except BlockError as error:
                self._bitmap.set(start, length)
                if self.on_error(error, reading=False) == "report":
                    raise

    async def _after_write(self, offset: int, length: int, done: bool) -> None:
        """Write-blocking: bring to the target what was written, unless a copy of all of it is due anyway."""
        if not done:
            self._bitmap.set(offset, length)
            self.notify()
            return
        async with self._ranges.hold(offset, length):
            try:
                await copy_range(self.source, self.target, offset, length, F.NO_SERIALISING)
            except BlockError as error:  # the guest's write is done; the job has the trouble
                self._bitmap.set(offset, length)
                if self.on_error(error, reading=False) == "report":
                    self._workers.fail(error)
                self.notify()
                return
            granule = self._bitmap.granularity
            first = -(-offset // granule) * granule
            last = (
                offset + length
                if offset + length == self._bitmap.size
                else (offset + length) // granule * granule
            )
            self._bitmap.reset(first, last - first)

    def _pivot(self) -> None:
        self.thaw()
        self._unhook()
        for backend in self._backends:
            backend.detach()
        self.graph.replace_node(self.source, self.target)
        self.pivoted = True

    def _unhook(self) -> None:
        if self._hooked:
            self._hooked = False
            self.source.after_write.remove(self._after_write)

    async def clean(self) -> None:
        await super().clean()
        self._unhook()
        await self._ranges.drain()
        if self._bitmap in list(self.source.bitmaps):
            self.source.bitmaps.remove(self._bitmap)
        for backend in self._backends:
            backend.close()
        if self.pivoted:
            await self.graph.unref(self.source)

"""Jobs that change backing chains: stream, commit, mirror and active commit."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from machine.block import flags as F
from machine.block.dirty import DirtyBitmap
from machine.block.errors import BlockError, JobError
from machine.block.flags import Perm
from machine.block.jobs.job import Job, JobState
from machine.block.node import Edge, Node, is_allocated_above, status_above

if TYPE_CHECKING:
    from machine.block.graph import Graph

STEP = 512 << 10
COPY_STEP = 1 << 20


async def change_backing_file(node: Node, name: str | None, fmt: str | None) -> None:
    """Rewrite the backing file string of an image. Raises BlockError ENOTSUP for formats without one."""
    from machine.block.qcow2.node import Qcow2Node

    if not isinstance(node, Qcow2Node):
        raise BlockError(errno.ENOTSUP, f"{node.name}: {node.driver} stores no backing file name")
    if node.data_file_external and node._data_raw and name:
        raise BlockError(errno.EINVAL, f"{node.name}: a raw external data file excludes a backing file")
    node.header.backing_file, node.header.backing_format = name, fmt if name else None
    await node.write_header()
    await node.flush()


def chain_between(top: Node, base: Node | None) -> list[Node]:
    """Return the nodes from ``top`` down to above ``base``. Raises JobError if base is not below top."""
    found: list[Node] = []
    node: Node | None = top
    while node is not None and node is not base:
        found.append(node)
        node = node.below
    if base is not None and node is None:
        raise JobError(errno.EINVAL, f"{base.name} is not in the backing chain of {top.name}")
    return found


class _ChainJob(Job):
    def freeze(self, nodes: list[Node]) -> None:
        """Forbid changes of the links from these nodes downwards."""
        self._frozen: list[Edge] = []
        for node in nodes:
            edge = node.children.get("backing")
            if edge is not None:
                edge.frozen += 1
                self._frozen.append(edge)

    def thaw(self) -> None:
        """Undo ``freeze``."""
        frozen, self._frozen = getattr(self, "_frozen", []), []
        for edge in frozen:
            edge.frozen -= 1

    async def clean(self) -> None:
        self.thaw()


class StreamJob(_ChainJob):
    """Copy what lies strictly between ``top`` and ``base`` into ``top``, then make ``base`` its backing."""

    kind = "stream"

    def __init__(
        self,
        graph: Graph,
        top: Node,
        base: Node | None = None,
        *,
        job_id: str | None = "stream0",
        **options: Any,
    ) -> None:
        self._chain = chain_between(top, base)
        if top.backing is None:
            raise JobError(errno.EINVAL, f"stream: {top.name} has no backing file")
        super().__init__(graph, job_id, **options)
        self.top, self.base = top, base
        self.total = top.size_bytes
        self._ignored = False
        self.freeze(self._chain)
        self._backend = self.attach(top, Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED)

    async def run(self) -> None:
        top = self.top
        if top.backing is self.base:
            return
        offset = 0
        while offset < top.size_bytes:
            await self.pause_point()
            length = min(STEP, top.size_bytes - offset)
            status = await top.block_status(offset, length)
            length = status.length
            copy = False
            if not status.flags & F.ST_ALLOCATED and top.backing is not None:
                copy, length = await is_allocated_above(top.backing, self.base, False, offset, length)
            if copy:
                try:
                    await top.pread(offset, memoryview(bytearray(length)), F.COPY_ON_READ | F.PREFETCH)
                except BlockError as error:
                    action = self.on_error(error, reading=True)
                    if action == "report":
                        raise
                    self._ignored = self._ignored or action == "ignore"
                    if action == "stop":
                        continue
            offset += length
            await self.rate_limit(length)

    async def prepare(self) -> None:
        if self._ignored or self.top.backing is self.base:
            if self._ignored:
                raise JobError(errno.EIO, "stream: errors were ignored, so the backing file is kept")
            return
        self.thaw()
        name = self.base.filename if self.base is not None else None
        fmt = self.base.driver if self.base is not None else None
        old = self.top.backing
        await change_backing_file(self.top, name, fmt)
        self.graph.set_backing(self.top, self.base)
        if old is not None:
            await self.graph.unref(old)


async def copy_range(source: Node, target: Node, offset: int, length: int) -> None:
    """Copy a range as cheaply as its status allows: zeroes as a zero write."""
    end = offset + length
    while offset < end:
        status, _ = await status_above(source, None, offset, end - offset)
        count = min(status.length, COPY_STEP)
        if status.flags & F.ST_ZERO:
            count = status.length
            await target.pwrite_zeroes(offset, count, F.MAY_UNMAP)
        else:
            data = await source.read(offset, count)
            await target.pwrite(offset, data)
        offset += count


class CommitJob(_ChainJob):
    """Write what the layers from ``top`` down to above ``base`` hold into ``base``, then drop those layers.

    ``overlay`` is the node above ``top``, whose backing becomes ``base``; without it, use ``MirrorJob``.
    """

    kind = "commit"

    def __init__(
        self,
        graph: Graph,
        overlay: Node,
        top: Node,
        base: Node,
        *,
        job_id: str | None = "commit0",
        **options: Any,
    ) -> None:
        chain = chain_between(top, base)
        if overlay.backing is not top:
            raise JobError(errno.EINVAL, f"commit: {top.name} is not the backing of {overlay.name}")
        super().__init__(graph, job_id, **options)
        self.overlay, self.top, self.base = overlay, top, base
        self.total = top.size_bytes
        self._was_read_only = base.read_only
        self.freeze([overlay, *chain])

    async def run(self) -> None:
        await self.graph.reopen([(self.base, False)])
        backend = self.attach(self.base, Perm.WRITE | Perm.RESIZE)
        if self.base.size_bytes < self.top.size_bytes:
            await self.base.truncate(self.top.size_bytes)
        offset = 0
        while offset < self.top.size_bytes:
            await self.pause_point()
            length = min(STEP, self.top.size_bytes - offset)
            copy, length = await is_allocated_above(self.top, self.base, False, offset, length)
            if copy:
                try:
                    await copy_range(self.top, backend.node, offset, length)
                except BlockError as error:
                    if self.on_error(error, reading=False) == "report":
                        raise
                    continue
            offset += length
            await self.rate_limit(length)
        await self.base.flush()

    async def prepare(self) -> None:
        self.thaw()
        await change_backing_file(self.overlay, self.base.filename, self.base.driver)
        self.graph.set_backing(self.overlay, self.base)

    async def clean(self) -> None:
        await super().clean()
        for backend in self._backends:
            backend.close()
        await self.graph.unref(self.top)
        if self._was_read_only and not self.base.closed:
            await self.graph.reopen([(self.base, True)])


class MirrorJob(_ChainJob):
    """Keep the target equal to the source; when it is, become ready; ``complete`` puts it in the source's place.

    Args:
        sync: full, top or none. With ``base`` (active commit) the target is a node of the source's own chain, and
            what lies above it is copied.
        auto_complete: complete by itself when ready.
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
        granularity: int = 65536,
        job_id: str | None = "mirror0",
        **options: Any,
    ) -> None:
        if sync not in ("full", "top", "none"):
            raise JobError(errno.EINVAL, f"mirror: sync '{sync}' is unknown: expected full, top or none")
        if source is target:
            raise JobError(errno.EINVAL, "mirror: source and target are the same node")
        chain = chain_between(source, target) if active_commit else []
        if not active_commit and source.size_bytes != target.size_bytes:
            raise JobError(errno.EINVAL, f"mirror: sizes differ: {source.size_bytes} and {target.size_bytes}")
        super().__init__(graph, job_id, **options)
        self.source, self.target = source, target
        self.active_commit, self.auto_complete, self.sync = active_commit, auto_complete, sync
        self.total = source.size_bytes
        self.pivoted = False
        self._bitmap = DirtyBitmap("", source.size_bytes, max(granularity, target.cluster_bytes()))
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
        await self._mark_initial()
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
        while (start := self._bitmap.next_dirty(0)) is not None:
            if pausing:
                await self.pause_point()
            clean = self._bitmap.next_clean(start)
            length = min((clean if clean is not None else self.source.size_bytes) - start, COPY_STEP)
            length = min(length, self.source.size_bytes - start)
            self._bitmap.reset(start, length)
            try:
                await copy_range(self.source, self.target, start, length)
            except BlockError as error:
                self._bitmap.set(start, length)
                if self.on_error(error, reading=False) == "report":
                    raise
            if pausing:
                await self.rate_limit(length)

    def _pivot(self) -> None:
        self.thaw()
        for backend in self._backends:
            backend.detach()
        self.graph.replace_node(self.source, self.target)
        self.pivoted = True

    async def clean(self) -> None:
        await super().clean()
        if self._bitmap in list(self.source.bitmaps):
            self.source.bitmaps.remove(self._bitmap)
        for backend in self._backends:
            backend.close()
        if self.pivoted:
            await self.graph.unref(self.source)


def run_transaction(starts: list[Job]) -> None:
    """Start jobs made with one ``Transaction``; all of them or none begins."""
    for job in starts:
        if job.state is not JobState.CREATED:
            raise JobError(errno.EPERM, f"{job.name} was started already")
    for job in starts:
        job.start()

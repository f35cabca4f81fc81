"""Jobs that change backing chains: stream and commit; what mirror and active commit share with them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from machine.block import flags as F
from machine.block.errors import BlockError, JobError
from machine.block.flags import Perm
from machine.block.jobs.job import Job
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


class ChainJob(Job):
    """A job that may freeze links of a chain."""

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

    def unmake(self) -> None:
        self.thaw()

    async def clean(self) -> None:
        self.thaw()


class StreamJob(ChainJob):
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


async def copy_range(source: Node, target: Node, offset: int, length: int, read_flags: int = 0) -> None:
    """Copy a range as cheaply as its status allows: zeroes as a zero write."""
    end = offset + length
    while offset < end:
        status, _ = await status_above(source, None, offset, end - offset)
        count = min(status.length, COPY_STEP)
        if status.flags & F.ST_ZERO:
            count = status.length
            await target.pwrite_zeroes(offset, count, F.MAY_UNMAP)
        else:
            data = await source.read(offset, count, read_flags)
            await target.pwrite(offset, data)
        offset += count


class CommitJob(ChainJob):
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

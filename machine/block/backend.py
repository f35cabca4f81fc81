"""BlockBackend: the root handle by which a device, an export, a job or a tool uses a node."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from machine.block import flags as F
from machine.block import perms
from machine.block.errors import BlockError
from machine.block.flags import Perm, Role
from machine.block.node import Buffer, Edge, Node
from machine.block.sched import CoQueue

if TYPE_CHECKING:
    from machine.block.graph import Graph


class BlockBackend:
    """A root of the graph.

    Args:
        perm, shared: what its user does with the node, and what it lets others do.
        queue_when_drained: hold requests back while the node is drained (devices, exports); a job, which
            pauses by itself, says False.
    """

    def __init__(
        self,
        graph: Graph,
        name: str,
        perm: Perm = Perm.CONSISTENT_READ | Perm.WRITE,
        shared: Perm = Perm.ALL,
        *,
        queue_when_drained: bool = True,
    ) -> None:
        self.graph = graph
        self.name = name
        self.perm = perm
        self.shared = shared
        self.edge: Edge | None = None
        self.quiesced = 0
        self.in_flight = 0
        self.on_quiesce: Callable[[bool], None] | None = None
        self.blocked_reason = ""
        self.job: Any = None
        self._queue_when_drained = queue_when_drained
        self._resumed = CoQueue(graph.sched, f"{name} drained")
        graph.backends.append(self)

    def attach(self, node: Node) -> None:
        """Use a node. Raises PermissionConflictError when another user forbids it."""
        if self.edge is not None:
            raise BlockError(errno.EBUSY, f"{self.name} has a node already")
        edge = Edge(self, node, "root", Role.NONE, self.perm, self.shared)
        node.parents.append(edge)
        try:
            perms.refresh([node])
        except BlockError:
            node.parents.remove(edge)
            raise
        self.edge = edge

    def detach(self) -> None:
        """Let go of the node; nothing if there is none."""
        if self.edge is not None:
            node, edge, self.edge = self.edge.node, self.edge, None
            node.parents.remove(edge)
            perms.refresh([node])

    def close(self) -> None:
        """Detach and leave the graph."""
        self.detach()
        if self in self.graph.backends:
            self.graph.backends.remove(self)

    def set_perm(self, perm: Perm, shared: Perm) -> None:
        """Change what is taken and shared; on a conflict nothing changes."""
        if self.edge is None:
            self.perm, self.shared = perm, shared
            return
        before = self.edge.perm, self.edge.shared
        self.edge.perm, self.edge.shared = perm, shared
        try:
            perms.refresh([self.edge.node])
        except BlockError:
            self.edge.perm, self.edge.shared = before
            raise
        self.perm, self.shared = perm, shared

    @property
    def node(self) -> Node:
        """The node, or BlockError ENOMEDIUM."""
        if self.edge is None:
            raise BlockError(errno.ENOMEDIUM, f"{self.name}: no medium")
        return self.edge.node

    @property
    def size_bytes(self) -> int:
        """Size of the node."""
        return self.node.size_bytes

    def quiesce(self) -> None:
        """Stop submitting; nests."""
        self.quiesced += 1
        if self.quiesced == 1 and self.on_quiesce is not None:
            self.on_quiesce(True)

    def unquiesce(self) -> None:
        """Go on once every ``quiesce`` is undone."""
        self.quiesced -= 1
        if self.quiesced == 0:
            self._resumed.wake_all()
            if self.on_quiesce is not None:
                self.on_quiesce(False)

    async def _enter(self, offset: int, length: int, need: Perm) -> Node:
        while self.quiesced and self._queue_when_drained:
            await self._resumed.wait()
        node = self.node
        if not self.edge or (need & ~self.edge.perm and not (need is Perm.WRITE and self.edge.perm & 4)):
            raise BlockError(errno.EPERM, f"{self.name}: does not hold the permission to {need.name}")
        if offset < 0 or length < 0 or offset + length > node.size_bytes:
            raise BlockError(
                errno.EIO, f"{self.name}: request {offset}+{length} lies beyond {node.size_bytes}"
            )
        return node

    async def read_into(self, offset: int, buf: memoryview, flags: int = 0) -> None:
        """Fill ``buf`` from ``offset``."""
        node = await self._enter(offset, len(buf), Perm.CONSISTENT_READ)
        self.in_flight += 1
        try:
            await node.pread(offset, buf, flags)
        finally:
            self.in_flight -= 1

    async def read(self, offset: int, length: int, flags: int = 0) -> bytearray:
        """Return ``length`` bytes."""
        await self._enter(offset, length, Perm.CONSISTENT_READ)
        data = bytearray(length)
        await self.read_into(offset, memoryview(data), flags)
        return data

    async def write(self, offset: int, data: Buffer, flags: int = 0) -> None:
        """Write ``data``."""
        node = await self._enter(offset, len(data), Perm.WRITE)
        self.in_flight += 1
        try:
            await node.pwrite(offset, data, flags)
        finally:
            self.in_flight -= 1

    async def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        """Make a range read as zeroes."""
        node = await self._enter(offset, length, Perm.WRITE)
        self.in_flight += 1
        try:
            await node.pwrite_zeroes(offset, length, flags)
        finally:
            self.in_flight -= 1

    async def discard(self, offset: int, length: int) -> None:
        """Tell that a range is not needed."""
        node = await self._enter(offset, length, Perm.WRITE)
        self.in_flight += 1
        try:
            await node.pdiscard(offset, length)
        finally:
            self.in_flight -= 1

    async def flush(self) -> None:
        """Make completed writes durable."""
        node = await self._enter(0, 0, Perm.NONE)
        await node.flush()

    async def truncate(self, size: int, prealloc: str = "off") -> None:
        """Change the size; needs the RESIZE permission."""
        node = await self._enter(0, 0, Perm.RESIZE)
        await node.truncate(size, prealloc)

    async def block_status(self, offset: int, length: int) -> F.Status:
        """Return the status of the node's own layer."""
        return await self.node.block_status(offset, length)

"""Nodes and the edges between them: one opened driver instance, its children and parents."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar, Protocol

from machine.block import flags as F
from machine.block.errors import BlockError, UnsupportedError
from machine.block.flags import Perm, Role, Status
from machine.block.pipeline import Buffer, RequestPipeline
from machine.block.requests import Tracked

if TYPE_CHECKING:
    from machine.block.graph import Graph
    from machine.block.options import OptionReader

__all__ = ["Buffer", "Edge", "EdgeOwner", "Node"]


class EdgeOwner(Protocol):
    """Who holds an edge: a node, a backend, a job."""

    name: str


class Edge:
    """A parent's hold on a node: link name, roles, and what the parent takes and lets others do."""

    __slots__ = ("frozen", "link", "node", "owner", "perm", "role", "shared")

    def __init__(self, owner: EdgeOwner, node: Node, link: str, role: Role, perm: Perm, shared: Perm) -> None:
        self.owner = owner
        self.node = node
        self.link = link
        self.role = role
        self.perm = perm
        self.shared = shared
        self.frozen = 0


class Node(RequestPipeline):
    """One opened driver instance.

    Args:
        graph: where it lives; its scheduler drives the node.
        name: unique in the graph, at most 31 characters.
    """

    driver: ClassVar[str] = ""
    #: Whether the node's data are exactly those of its FILTERED child.
    is_filter: ClassVar[bool] = False
    supports_backing: ClassVar[bool] = False

    def __init__(self, graph: Graph, name: str, read_only: bool = False) -> None:
        super().__init__(graph.sched, name, read_only)
        self.graph = graph
        self.children: dict[str, Edge] = {}
        self.parents: list[Edge] = []
        self.filename = ""
        self.monitor_owned = False
        self.probed = False
        self.force_share = False
        self.cache_direct = False
        self.auto_read_only = False
        #: The blkdebug node right below, if there is one.
        self.debug_node: Node | None = None

    async def drv_open(self, options: OptionReader) -> None:
        """Read the options, open children, set ``size_bytes`` and limits."""

    async def drv_close(self) -> None:
        """Write back what is cached; children are still attached. Called once, with no request in flight."""

    async def drv_reopen(self, read_only: bool) -> None:
        """Switch between read-only and writable; raise to refuse."""

    async def drv_make_empty(self) -> None:
        raise UnsupportedError(f"{self.name}: {self.driver} can't be emptied")

    def drv_child_perm(self, edge: Edge, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """Return what this node takes and shares on ``edge`` when its own users take and share these."""
        return default_child_perm(self, edge.role, perm, shared)

    def drv_perm_check(self, perm: Perm, shared: Perm) -> None:
        """Raise PermissionConflictError if the world outside the graph forbids this; else hold it."""

    async def child_event(self, event: str) -> None:
        if self.debug_node is not None:
            await self.debug_node.debug_event(event)

    # Children.

    def child(self, link: str) -> Node | None:
        """Return the child node of that link, or None."""
        edge = self.children.get(link)
        return None if edge is None else edge.node

    @property
    def file(self) -> Node:
        """The ``file`` child."""
        return self.children["file"].node

    @property
    def backing(self) -> Node | None:
        """The COW child."""
        return self.child("backing") if self.supports_backing else None

    @property
    def filtered(self) -> Node | None:
        """The child whose data a filter shows."""
        if not self.is_filter:
            return None
        return next((e.node for e in self.children.values() if e.role & Role.FILTERED), None)

    @property
    def below(self) -> Node | None:
        """The next node down the chain: the COW child, or a filter's child."""
        return self.filtered if self.is_filter else self.backing

    def skip_filters(self) -> Node:
        """Return the first node at or below this one that is no filter."""
        node = self
        while node.is_filter and node.filtered is not None:
            node = node.filtered
        return node

    async def flush_children(self) -> None:
        for edge in tuple(self.children.values()):
            if edge.role & (Role.DATA | Role.METADATA | Role.FILTERED) and not edge.node.read_only:
                await edge.node.flush()

    def size_changed(self) -> None:
        super().size_changed()
        for edge in tuple(self.parents):
            if isinstance(edge.owner, Node):
                edge.owner.child_resized(edge)

    def child_resized(self, edge: Edge) -> None:
        """A child has another size; filters follow it."""
        if edge.role & Role.FILTERED:
            self.size_bytes = edge.node.size_bytes
            self.size_changed()

    def unallocated_flags(self, offset: int, flags: int) -> int:
        backing = self.backing
        if backing is None or offset >= backing.size_bytes:
            return flags | F.ST_ZERO
        return flags

    # Emptying, copy on read.

    async def make_empty(self) -> None:
        """Make every cluster of this overlay unallocated, so that the backing shows."""
        self._check(0, 0, write=True)
        await self.drv_make_empty()
        self.write_gen += 1

    async def copy_on_read_range(
        self, request: Tracked, offset: int, buf: memoryview | None, length: int
    ) -> None:
        cluster = max(self.cluster_bytes(), self.limits.alignment)
        end = offset + length
        position = offset
        while position < end:
            start = position // cluster * cluster
            stop = min(start + cluster, self.size_bytes)
            upto = min(stop, end)
            copy = not await self.allocated_here(start, stop - start)
            if copy:
                data = bytearray(stop - start)
                await self.read_aligned(start, memoryview(data), F.NO_SERIALISING)
                await self.debug_event("cor_write")
                if F.is_zero(data):
                    await self._zeroes(start, len(data), F.WRITE_UNCHANGED)
                else:
                    await self._write_split(start, data, F.WRITE_UNCHANGED)
                self.write_gen += 1
                if buf is not None:
                    buf[position - offset : upto - offset] = data[position - start : upto - start]
            elif buf is not None:
                await self.read_aligned(position, buf[position - offset : upto - offset], 0)
            position = upto

    async def allocated_here(self, offset: int, length: int) -> bool:
        """Whether this layer (through filters) alone determines the whole range."""
        end = offset + length
        while offset < end:
            status = await self.block_status(offset, end - offset)
            if not status.flags & F.ST_ALLOCATED or not status.length:
                return False
            offset += status.length
        return True


def default_child_perm(node: Node, role: Role, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
    """Return (taken, shared) on an edge by its role (block.md 2.4)."""
    if role & Role.FILTERED:
        return perm, shared
    if role & Role.COW:
        may_write = Perm.WRITE | Perm.RESIZE if shared & Perm.WRITE else Perm.NONE
        return perm & Perm.CONSISTENT_READ, may_write | Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED
    writable = not node.read_only
    if role & Role.METADATA:
        taken = perm | Perm.CONSISTENT_READ
        if writable:
            taken |= Perm.WRITE | Perm.RESIZE
        return taken, shared & ~(Perm.WRITE | Perm.RESIZE)
    taken = perm
    if perm & Perm.WRITE_UNCHANGED:
        taken |= Perm.WRITE
    if taken & Perm.WRITE and writable:
        taken |= Perm.RESIZE
    return taken, shared & ~Perm.RESIZE


async def status_above(top: Node, base: Node | None, offset: int, length: int) -> tuple[Status, Node | None]:
    """Return the status of a range as seen from ``top``, looking no deeper than above ``base``.

    Returns:
        The status and the layer that determines the content; None if no layer above ``base`` does.
    """
    node: Node | None = top
    length = min(length, top.size_bytes - offset)
    if length <= 0:
        return Status(F.ST_EOF, 0), None
    eof = offset + length == top.size_bytes
    zero = 0
    while node is not None and node is not base:
        if offset >= node.size_bytes:
            # An overlay longer than what lies below reads zero there.
            return Status(F.ST_ZERO | F.ST_ALLOCATED | (F.ST_EOF if eof else 0), length), node
        status = await node.block_status(offset, length)
        if not status.length:
            raise BlockError(errno.EIO, f"{node.name}: block status made no progress at {offset}")
        length = status.length
        eof = offset + length == top.size_bytes
        end = F.ST_EOF if eof else 0
        if status.flags & F.ST_ALLOCATED:
            return Status(status.flags & ~F.ST_EOF | end, length, status.offset, status.node), node
        zero = status.flags & F.ST_ZERO
        node = node.below
    return Status(zero | (F.ST_EOF if eof else 0), length), None


async def is_allocated_above(
    top: Node, base: Node | None, include_base: bool, offset: int, length: int
) -> tuple[bool, int]:
    """Return whether a layer from ``top`` down to ``base`` holds the range's prefix, and that prefix's
    length."""
    stop = base.below if base is not None and include_base else base
    node: Node | None = top
    while node is not None and node is not stop:
        if offset >= node.size_bytes:
            return node is not top, length  # zeroes that a short layer shows count as its own
        status = await node.block_status(offset, length)
        if not status.length:
            raise BlockError(errno.EIO, f"{node.name}: block status made no progress at {offset}")
        length = min(length, status.length)
        if status.flags & F.ST_ALLOCATED:
            return True, length
        node = node.below
    return False, length

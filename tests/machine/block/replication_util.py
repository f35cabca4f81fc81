"""A secondary side built in memory, for tests of replication."""

from __future__ import annotations

from typing import Any

from machine.block.backend import BlockBackend
from machine.block.drivers.blkdebug import BlkdebugNode
from machine.block.errors import BlockError
from machine.block.graph import Graph
from machine.block.qcow2.create import CreateOptions, create
from machine.block.qcow2.node import Qcow2Node
from machine.block.replication import ReplicationNode
from machine.block.sched import Order, Scheduler

K, M = 1 << 10, 1 << 20


class Secondary:
    """Secondary, hidden and active disk, the replication node, and the two users: guest and primary (``nbd``)."""

    def __init__(
        self,
        order: Order | None = None,
        *,
        size: int = 8 * M,
        yields: int = 0,
        fill: int = 0x11,
        hidden: dict[str, Any] | None = None,
        debug: dict[str, dict[str, Any]] | None = None,
        own_backend: bool = True,
        top: dict[str, Any] | None = None,
    ) -> None:
        self.graph = Graph(Scheduler(order))
        self.size = size
        self._debug = debug or {}
        self._top = top or {}
        self.run = self.graph.run
        self.run(self._build(size, yields, fill, hidden or {}, own_backend))

    async def _build(self, size: int, yields: int, fill: int, hidden: dict[str, Any], own: bool) -> None:
        graph = self.graph
        below = {"driver": "memory", "size": size, "yields": yields, "node-name": "sfile"}
        spec = {
            "driver": "blkdebug",
            "node-name": "sdebug",
            "image": below,
            **self._debug.get("secondary", {}),
        }
        self.secondary = await graph.open({"driver": "raw", "node-name": "secondary", "file": spec})
        memory = graph.node("sfile")
        memory.yields, quiet = 0, memory.yields  # type: ignore[attr-defined]
        if fill:
            await memory.pwrite(0, bytes([fill]) * size)
        memory.yields = quiet  # type: ignore[attr-defined]
        self.nbd: BlockBackend | None = await graph.backend(self.secondary, name="slocal") if own else None
        self.hidden = await self._overlay("hidden", "secondary", size, yields, hidden)
        self.active = await self._overlay("active", "hidden", size, yields, {})
        top = {"driver": "replication", "mode": "secondary", "top-id": "guest", "file": "active"}
        node = await graph.open({**top, "node-name": "top", **self._top})
        assert isinstance(node, ReplicationNode)
        self.top = node
        self.guest = await graph.backend(node, name="guest")

    async def _overlay(
        self, name: str, backing: str, size: int, yields: int, options: dict[str, Any]
    ) -> Qcow2Node:
        file = await self.graph.open({"driver": "memory", "node-name": f"{name}file", "yields": yields})
        file.monitor_owned = True
        await create(self.graph, file, CreateOptions(**{"size": size, **options}))
        debug = {"driver": "blkdebug", "node-name": f"{name}debug", "image": f"{name}file"}
        below = {**debug, **self._debug.get(name, {})}
        node = await self.graph.open(
            {"driver": "qcow2", "node-name": name, "file": below, "backing": backing}
        )
        assert isinstance(node, Qcow2Node)
        return node

    def debug(self, name: str) -> BlkdebugNode:
        """The blkdebug node under secondary ("s"), hidden or active."""
        node = self.graph.node(f"{name}debug")
        assert isinstance(node, BlkdebugNode)
        return node

    def start(self) -> None:
        self.run(self.top.start("secondary"))

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        return bytes(self.run(self.guest.read(offset, self.size - offset if length is None else length)))

    def write(self, offset: int, data: bytes) -> None:
        self.run(self.guest.write(offset, data))

    def nbd_read(self, offset: int = 0, length: int | None = None) -> bytes:
        return bytes(self.run(self.secondary.read(offset, self.size - offset if length is None else length)))

    def nbd_write(self, offset: int, data: bytes) -> None:
        assert self.nbd is not None
        self.run(self.nbd.write(offset, data))

    def failover(self) -> None:
        self.run(self._failover())

    async def _failover(self) -> None:
        await self.top.stop(True)
        await self.top.wait_failover()

    def allocated(self, node: Qcow2Node) -> list[tuple[int, int]]:
        """The runs that a layer holds itself."""
        runs: list[tuple[int, int]] = []
        offset = 0
        while offset < self.size:
            status = self.run(node.block_status(offset, self.size - offset))
            if status.flags & 0x10:
                if runs and runs[-1][0] + runs[-1][1] == offset:
                    runs[-1] = (runs[-1][0], runs[-1][1] + status.length)
                else:
                    runs.append((offset, status.length))
            offset += status.length
        return runs


def fails(side: Secondary, call: Any) -> int:
    """Run a coroutine that has to fail and return its errno."""
    try:
        side.run(call)
    except BlockError as error:
        return error.errno
    raise AssertionError("the operation succeeded")

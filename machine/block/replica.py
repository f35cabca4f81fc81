"""Replication by hand: one side of a pair as a process that takes commands, the other side over NBD.

Commands of both sides: start, checkpoint, status, stop, failover, and those of the I/O shell on the guest's disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from machine.block import hostio
from machine.block.errors import BlockError
from machine.block.graph import Graph
from machine.block.ioshell import IoShell
from machine.block.nbd.server import Export, NbdServer
from machine.block.node import Node
from machine.block.options import from_filename
from machine.block.qcow2.create import CreateOptions, create
from machine.block.replication import ReplicationNode

Say = Callable[[str], None]
_GUEST = "guest"


class Replica:
    """One side: its replication node, the guest's disk, and how commands act on them."""

    def __init__(self, graph: Graph, node: ReplicationNode, top: Node) -> None:
        self.graph = graph
        self.node = node
        self.shell = IoShell(graph, top, _GUEST)

    async def command(self, line: str) -> list[str]:
        """Run one command and return what it has to say. Raises BlockError."""
        verbs: dict[str, Callable[[], Awaitable[None]]] = {
            "start": lambda: self.node.start(self.node.mode),
            "checkpoint": self.node.do_checkpoint,
            "stop": lambda: self.node.stop(False),
            "failover": self._failover,
        }
        word = line.strip()
        if word == "status":
            try:
                self.node.get_error()
            except BlockError as error:
                return [f"{self.node.state}: {error.message}"]
            return [str(self.node.state)]
        if word in verbs:
            await verbs[word]()
            return [str(self.node.state)]
        return await self.shell.execute(word)

    async def _failover(self) -> None:
        await self.node.stop(True)
        await self.node.wait_failover()


async def _buffer_disk(graph: Graph, path: str, size: int, backing: Node) -> Node:
    """Open (and make, if missing) an empty overlay for the active or hidden disk."""
    from machine.block.drivers.file import create_file

    if not Path(path).exists():
        create_file(path)
        file = await graph.open({"driver": "file", "filename": path})
        await create(graph, file, CreateOptions(size=size))
        await graph.close_node(file)
    return await graph.open(
        {"driver": "qcow2", "file": {"driver": "file", "filename": path}, "backing": backing}
    )


@asynccontextmanager
async def secondary(
    graph: Graph, disk: str, hidden: str, active: str, listen: str, *, driver: str | None = None
) -> AsyncIterator[Replica]:
    """Open the secondary side and serve its disk to the primary.

    Args:
        disk: the secondary disk, with the primary's content.
        hidden, active: qcow2 files for the buffers; made if missing.
        listen: ``HOST:PORT`` or ``unix:PATH``; the export's name is ``disk``.
    """
    below = await graph.open(disk, driver=driver)
    server = NbdServer(graph)
    server.add(Export(graph, below, "disk", writable=True))
    over = await _buffer_disk(graph, hidden, below.size_bytes, below)
    top = await _buffer_disk(graph, active, below.size_bytes, over)
    node = await graph.open({"driver": "replication", "mode": "secondary", "top-id": _GUEST, "file": top})
    assert isinstance(node, ReplicationNode)
    replica = Replica(graph, node, node)
    sock = hostio.listen(listen)
    server.listen(sock)
    try:
        yield replica
    finally:
        await server.stop()
        sock.close()


@asynccontextmanager
async def primary(graph: Graph, disk: str, peer: str, *, driver: str | None = None) -> AsyncIterator[Replica]:
    """Open the primary side: the local disk, and every write also to the secondary's export.

    Args:
        peer: URI of the export, such as ``nbd+unix:///disk?socket=PATH``.
    """
    local = await graph.open(disk, driver=driver)
    remote = await graph.open(from_filename(peer))
    node = await graph.open({"driver": "replication", "mode": "primary", "file": remote})
    assert isinstance(node, ReplicationNode)
    spec = {"driver": "quorum", "children": [local, node], "vote-threshold": 1, "read-pattern": "fifo"}
    top = await graph.open(spec)
    try:
        yield Replica(graph, node, top)
    finally:
        with contextlib.suppress(BlockError):  # the peer may be gone: that was said by ``status``
            await remote.flush()
        remote.no_flush = True


async def converse(replica: Replica, lines: hostio.LineReader, say: Say) -> None:
    """Take commands until the input ends or says ``quit``; errors are said, not raised."""
    while (line := await lines.next()) is not None and line.strip() != "quit":
        try:
            for text in await replica.command(line):
                say(text)
        except BlockError as error:
            say(f"error: {error.message}")
        say("ok")

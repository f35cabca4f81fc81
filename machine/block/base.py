"""A node of the graph as the immutable base of a machine's disk. The overlay over it is the machine's matter."""

from __future__ import annotations

from typing import Any

from machine.block.content import content_root
from machine.block.graph import Graph
from machine.block.node import Node

#: Bytes of a cluster, as the machine's disks count them.
CLUSTER_BYTES = 64 << 10


class GraphBase:
    """A file name, json: name or URI, opened read-only.

    Args:
        what, driver: as for ``Graph.open``.

    Raises:
        BlockError: it can't be opened.
    """

    def __init__(self, what: Any, driver: str | None = None) -> None:
        self._graph = Graph()
        self.node: Node = self._graph.run(self._graph.open(what, driver=driver, read_only=True))
        self._backend = self._graph.run(self._graph.backend(self.node, writable=False, name="machine"))
        self.size_bytes = self.node.size_bytes

    def identity(self) -> str:
        """Return the content root, the same for every format; reads the whole disk, holes apart. Raises BlockError."""
        return self._graph.run(content_root(self.node))

    def cluster(self, index: int, length: int) -> bytes:
        """Return a cluster's content. Raises BlockError."""
        return bytes(self._graph.run(self.node.read(index * CLUSTER_BYTES, length)))

    def close(self) -> None:
        """Close the graph."""
        self._graph.run(self._graph.close())

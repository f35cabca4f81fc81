"""Disks that tests of jobs and filters open: in memory, in chains, and those that are fleeced."""

from __future__ import annotations

from typing import Any

from machine.block.filters.cbw import CopyBeforeWriteNode
from machine.block.graph import Graph
from machine.block.node import Node
from machine.block.qcow2.create import CreateOptions, create
from machine.block.qcow2.node import Qcow2Node

from .replication_util import K, M

C = 64 * K
FLEECE_BASE = [(0x5D, 0), (0xD5, M), (0xDC, 32 * M), (0xCD, 64 * M - C)]
FLEECE_OVER = [(0xAB, 0), (0xAD, M - C // 2), (0x1D, 32 * M + C // 2), (0xEA, 64 * M - 2 * C)]


def memory(graph: Graph, size: int = 4 * C, fill: int = 0, **options: Any) -> Node:
    """Open a node in memory, of one byte throughout."""
    node = graph.run(graph.open({"driver": "memory", "size": size, **options}))
    if fill:
        graph.run(node.pwrite(0, bytes([fill]) * size))
    return node


def overlay(graph: Graph, below: Node | None, size: int = 4 * C, name: str = "") -> Qcow2Node:
    """Open a new qcow2 image in memory, on top of another node or none."""

    async def main() -> Qcow2Node:
        file = await graph.open({"driver": "memory"})
        file.monitor_owned = True
        await create(graph, file, CreateOptions(size=size))
        node = await graph.open({"driver": "qcow2", "node-name": name, "file": file, "backing": below})
        assert isinstance(node, Qcow2Node)
        return node

    return graph.run(main())


def fleece_disk(graph: Graph) -> Node:
    """Open the disk that fleecing reads a point in time of, as ``FLEECE_BASE`` has it."""
    disk = graph.run(graph.open({"driver": "memory", "size": 64 * M, "node-name": "disk"}))
    for fill, at in FLEECE_BASE:
        graph.run(disk.pwrite(at, bytes([fill]) * C))
    disk.monitor_owned = True
    return disk


def cbw(graph: Graph, disk: Node, **options: Any) -> tuple[CopyBeforeWriteNode, Node]:
    """Put a copy-before-write filter on a disk; return it, and the view of the disk as it was."""
    target = {
        "driver": "blkdebug",
        "image": {"driver": "memory", "size": disk.size_bytes},
        **options.pop("debug", {}),
    }
    spec = {"driver": "copy-before-write", "node-name": "cbw", "file": disk.name, "target": target, **options}
    node = graph.run(graph.open(spec))
    assert isinstance(node, CopyBeforeWriteNode)
    return node, graph.run(graph.open({"driver": "snapshot-access", "file": "cbw"}))

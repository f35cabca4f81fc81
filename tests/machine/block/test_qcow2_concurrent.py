"""Requests on one image at the same time, in many orders: catalogue I3 with suspensions inside every request."""

from __future__ import annotations

import random

import pytest

from machine.block import flags as F
from machine.block.graph import Graph
from machine.block.qcow2 import check, snapshots
from machine.block.qcow2.create import CreateOptions, create
from machine.block.qcow2.node import Qcow2Node
from machine.block.sched import Scheduler, SeededOrder

K = 1 << 10
SIZE = 256 * K
SLOT = 1024


async def build(graph: Graph, options: dict[str, object]) -> Qcow2Node:
    base = await graph.open({"driver": "memory", "size": SIZE, "yields": 1})
    await base.pwrite(0, b"\xb0" * SIZE)
    base.read_only = True
    file = await graph.open({"driver": "memory", "node-name": "disk", "yields": 2})
    file.monitor_owned = True
    await create(graph, file, CreateOptions(size=SIZE, **options))  # type: ignore[arg-type]
    node = await graph.open({"driver": "qcow2", "discard": "unmap", "file": "disk", "backing": base})
    assert isinstance(node, Qcow2Node)
    return node


@pytest.mark.parametrize(
    "options", [{"cluster_size": 4096}, {"cluster_size": 16384, "extended_l2": True}], ids=str
)
@pytest.mark.parametrize("seed", range(12))
def test_i3_concurrent_requests_on_shared_clusters(seed: int, options: dict[str, object]) -> None:
    """Every task owns every eighth 1 KiB slot, so that tasks share clusters but never bytes."""
    graph = Graph(Scheduler(SeededOrder(seed)))
    node = graph.run(build(graph, options))
    model = bytearray(b"\xb0" * SIZE)
    tasks = 8

    async def worker(number: int, phase: int) -> None:
        rnd = random.Random(seed * 100 + number * 10 + phase)
        for step in range(12):
            slot = (rnd.randrange(SIZE // SLOT // tasks) * tasks + number) * SLOT
            choice = rnd.random()
            if choice < 0.6:
                data = bytes([1 + (number * 12 + step) % 255]) * SLOT
                await node.pwrite(slot, data)
                model[slot : slot + SLOT] = data
            elif choice < 0.75:
                await node.pwrite_zeroes(slot, SLOT, F.MAY_UNMAP)
                model[slot : slot + SLOT] = bytes(SLOT)
            elif choice < 0.8:
                await node.flush()
            else:
                assert await node.read(slot, SLOT) == model[slot : slot + SLOT]

    async def main() -> None:
        for phase in range(2):
            for task in [graph.sched.spawn(worker(n, phase)) for n in range(tasks)]:
                await task.join()
            if phase == 0:
                async with graph.drained(node):
                    await snapshots.create(node, "half")
        await node.flush()

    graph.run(main())
    assert graph.run(node.read(0, SIZE)) == model
    result = graph.run(check.check(node))
    assert (result.corruptions, result.leaks) == (0, 0), result.messages


@pytest.mark.parametrize("seed", range(12))
def test_discards_never_hit_what_another_request_writes(seed: int) -> None:
    graph = Graph(Scheduler(SeededOrder(seed)))
    node = graph.run(build(graph, {"cluster_size": 4096}))
    model = bytearray(b"\xb0" * SIZE)

    async def worker(number: int) -> None:
        rnd = random.Random(seed * 100 + number)
        for step in range(15):
            cluster = (rnd.randrange(SIZE // 4096 // 4) * 4 + number) * 4096
            if rnd.random() < 0.5:
                data = bytes([1 + (number * 15 + step) % 255]) * 4096
                await node.pwrite(cluster, data)
            else:
                await node.pdiscard(cluster, 4096)
                data = bytes(4096)
            model[cluster : cluster + 4096] = data

    async def main() -> None:
        for task in [graph.sched.spawn(worker(n)) for n in range(4)]:
            await task.join()
        await node.flush()

    graph.run(main())
    assert graph.run(node.read(0, SIZE)) == model
    result = graph.run(check.check(node))
    assert (result.corruptions, result.leaks) == (0, 0), result.messages

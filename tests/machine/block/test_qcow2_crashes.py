"""qcow2 after a crash that lost any of the writes since the last flush, and after kill -9: catalogue I12, I13, I14."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from machine.block.filters.writelog import WriteLogNode, materialise
from machine.block.graph import Graph
from machine.block.node import Node
from machine.block.qcow2 import check, snapshots
from machine.block.qcow2.node import Qcow2Node

from .qcow2_util import make_image, memory_image, open_image, qemu_img

K, M = 1 << 10, 1 << 20
Log = list[tuple[str, int, bytes | int]]


def lossy(base: bytes, log: Log, point: int, rnd: random.Random) -> bytes:
    """Return the file if all up to the flush before ``point`` is there, and a part of what follows up to it."""
    flushed = max((i for i in range(point) if log[i][0] == "flush"), default=0)
    some = [op for op in log[flushed:point] if op[0] == "size" or rnd.random() < 0.5]
    return materialise(base, [*log[:flushed], *some])


def crashed(image: bytes, backing: Node | None = None) -> tuple[Graph, Qcow2Node]:
    graph = Graph()
    disk = graph.run(graph.open({"driver": "memory", "size": len(image)}))
    graph.run(disk.pwrite(0, image))
    spec: dict[str, Any] = {"driver": "qcow2", "file": disk}
    if not image[79] & 1 and backing is None:
        spec["read-only"] = True  # an image that is marked is repaired by its next user
    if backing is not None:
        below = graph.run(graph.open({"driver": "memory", "size": backing.size_bytes, "node-name": "below"}))
        graph.run(below.pwrite(0, b"\xb0" * backing.size_bytes))
        spec["backing"] = "below"
    node = graph.run(graph.open(spec))
    assert isinstance(node, Qcow2Node)
    return graph, node


def logged(
    options: dict[str, Any], backing: Node | None, graph: Graph
) -> tuple[bytes, WriteLogNode, Qcow2Node]:
    node = memory_image(graph, size=2 * M, **options)
    graph.run(graph.close_node(node))
    disk = graph.node("disk")
    base = bytes(graph.run(disk.read(0, disk.size_bytes)))
    log = graph.run(graph.open({"driver": "write-log", "file": disk}))
    assert isinstance(log, WriteLogNode)
    spec: dict[str, Any] = {"driver": "qcow2", "discard": "unmap", "file": log}
    opened = graph.run(graph.open({**spec, **({"backing": backing} if backing else {})}))
    assert isinstance(opened, Qcow2Node)
    return base, log, opened


def exercise(seed: int, options: dict[str, Any], losses: int) -> None:
    graph, rnd = Graph(), random.Random(seed)
    base, log, node = logged(options, None, graph)
    model = bytearray(2 * M)
    durable: list[tuple[int, bytes]] = [(0, bytes(model))]
    many = options.get("refcount_bits", 16) > 1
    for step in range(30):
        offset, length = rnd.randrange(2 * M - 70_000), rnd.randrange(1, 70_000)
        kind = rnd.random()
        if kind < 0.5:
            graph.run(node.pwrite(offset, bytes([step + 1]) * length))
            model[offset : offset + length] = bytes([step + 1]) * length
        elif kind < 0.65:
            start = offset & -65536  # whole clusters, so that they read as zeroes
            graph.run(node.pdiscard(start, 65536))
            model[start : start + 65536] = bytes(65536)
        elif kind < 0.72 and many:
            graph.run(snapshots.create(node, f"s{step}"))
        elif kind < 0.78 and node.snapshots:
            graph.run(snapshots.delete(node, node.snapshots[0].id))
        else:
            graph.run(node.flush())
            durable.append((len(log.log), bytes(model)))
    graph.run(graph.close_node(node))
    for _ in range(losses):
        point = rnd.randrange(len(log.log) + 1)
        other, after = crashed(lossy(base, log.log, point, rnd))
        result = other.run(check.check(after))
        assert (result.corruptions, result.check_errors) == (0, 0), (seed, point, result.messages)
        at, expected = max((d for d in durable if d[0] <= point), key=lambda d: d[0])
        if not any(op[0] != "flush" for op in log.log[at:point]):
            assert other.run(after.read(0, 2 * M)) == expected, (seed, point)


@pytest.mark.parametrize(
    "options",
    [{"cluster_size": 4096}, {"cluster_size": 4096, "refcount_bits": 1},
     {"cluster_size": 16384, "extended_l2": True}],
    ids=str,
)  # fmt: skip
def test_i12_any_loss_of_writes_since_the_last_flush_leaves_leaks_at_most(options: dict[str, Any]) -> None:
    for seed in range(3):
        exercise(seed, options, 25)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 40))
def test_i12_many_losses(seed: int) -> None:
    rnd = random.Random(seed)
    options: dict[str, Any] = {"cluster_size": rnd.choice((512, 4096, 65536))}
    options["refcount_bits"] = rnd.choice((1, 4, 16, 64))
    exercise(seed, options, 200)


def test_i13_any_loss_while_emptying_is_repaired_by_the_next_open() -> None:
    graph, rnd = Graph(), random.Random(1)
    backing = graph.run(graph.open({"driver": "memory", "size": 2 * M}))
    graph.run(backing.pwrite(0, b"\xb0" * 2 * M))
    backing.monitor_owned = True
    base, log, node = logged({}, backing, graph)
    graph.run(node.pwrite(0, b"\x01" * 700_000))
    graph.run(node.flush())
    first = len(log.log)
    graph.run(node.make_empty())
    end = len(log.log)
    for _ in range(60):
        point = rnd.randrange(first, end + 1)
        other, after = crashed(lossy(base, log.log, point, rnd), backing)
        result = other.run(check.check(after))
        assert (result.corruptions, result.check_errors) == (0, 0), (point, result.messages)
        assert set(other.run(after.read(0, 2 * M))) <= {0x01, 0xB0}


KILLED = """
import os, signal, sys
from machine.block.drivers import hostfile
from machine.block.graph import Graph
path, left = sys.argv[1], int(sys.argv[2])
graph = Graph()
node = graph.run(graph.open({"driver": "qcow2", "discard": "unmap", "file": {"driver": "file", "filename": path}}))
real = os.pwrite, os.pwritev

def dying(function):
    def call(*arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call

os.pwrite, os.pwritev = map(dying, real)
for step in range(12):
    graph.run(node.pwrite(step * 150_000, bytes([step + 1]) * 100_000))
    if step % 3 == 2:
        graph.run(node.flush())
        print(step, flush=True)
    if step == 5:
        graph.run(node.pdiscard(0, 131072))
graph.run(graph.close())
print("end", flush=True)
"""


def killed_after(path: Path, writes: int) -> list[str]:
    """Work on an image in a process that is killed before its next write; returns what it had said was flushed."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(writes)], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("options", [{}, {"cluster_size": 4096}, {"lazy_refcounts": True}], ids=str)
def test_i14_kill_9_at_every_write_leaves_leaks_at_most(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "k.qcow2"
    said: list[str] = []
    writes = 0
    while "end" not in said and writes < 150:
        make_image(path, size=4 * M, **options)
        said = killed_after(path, writes)
        if "lazy_refcounts" in options:
            qemu_img("check", "-r", "all", path, ok=(0,))
        qemu_img("check", path, ok=(0, 3))
        graph = Graph()
        node = open_image(graph, path)
        for step in range(6, int(said[-1]) + 1 if said and said[-1] != "end" else 6):
            assert graph.run(node.read(step * 150_000, 100_000)) == bytes([step + 1]) * 100_000
        graph.run(graph.close())
        writes += 1
    assert writes > 10

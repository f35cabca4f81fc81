"""Files that are read and written by threads: ``aio=threads``."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from machine.block.errors import BlockError
from machine.block.graph import Graph
from machine.block.hostio import SocketPoller
from machine.block.node import Node
from machine.block.sched import TaskCancelled

K = 1 << 10


def open_file(graph: Graph, path: Path, **options: Any) -> Node:
    return graph.run(graph.open({"driver": "file", "filename": str(path), "aio": "threads", **options}))


class ColdRead:
    """Makes reads at one offset leave the page cache, and take until ``go``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cold: int) -> None:
        self.go = threading.Event()
        self.entered = threading.Event()
        real = os.preadv

        def preadv(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
            if offset == cold and flags & os.RWF_NOWAIT:
                raise BlockingIOError(errno.EAGAIN, "would wait")
            if offset == cold:
                self.entered.set()
                assert self.go.wait(20)
            return real(fd, buffers, offset, flags)

        monkeypatch.setattr(os, "preadv", preadv)


@pytest.mark.parametrize("direct", [False, True])
def test_requests_by_threads_are_those_of_a_byte_array(graph: Graph, tmp_path: Path, direct: bool) -> None:
    path, rnd = tmp_path / "f", random.Random(2)
    model = bytearray(rnd.randbytes(256 * K))
    path.write_bytes(model)
    try:
        node = open_file(graph, path, **({"cache": {"direct": True}} if direct else {}))
    except BlockError:
        pytest.skip("the file system has no direct I/O")

    async def work(lane: int) -> None:
        own, random_ = 32 * K * lane, random.Random(lane)
        for _ in range(20):
            at, length = own + random_.randrange(24 * K), random_.randrange(1, 8 * K)
            assert await node.read(at, length) == model[at : at + length]
            fresh = random_.randbytes(length)
            await node.pwrite(at, fresh)
            model[at : at + length] = fresh
            if random_.random() < 0.2:
                await node.flush()

    async def main() -> None:
        for task in [graph.sched.spawn(work(lane)) for lane in range(8)]:
            await task.join()

    graph.run(main())
    graph.run(graph.close())
    assert path.read_bytes() == model


def test_a_cold_read_does_not_hold_up_others(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a" * 4096 + b"b" * 4096)
    node, cold = open_file(graph, path), ColdRead(monkeypatch, 4096)

    async def main() -> None:
        slow = graph.sched.spawn(node.read(4096, 10))
        await graph.sched.yield_now()
        assert cold.entered.wait(20)
        assert await node.read(0, 10) == b"a" * 10 and not slow.done
        cold.go.set()
        assert await slow.join() == b"b" * 10

    graph.run(main())


def test_a_cancelled_request_ends_with_its_thread(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a" * 4096)
    node, cold = open_file(graph, path), ColdRead(monkeypatch, 0)

    async def main() -> None:
        slow = graph.sched.spawn(node.read(0, 10))
        await graph.sched.yield_now()
        assert cold.entered.wait(20)
        threading.Timer(0.05, cold.go.set).start()
        slow.cancel()
        with pytest.raises(TaskCancelled):
            await slow.join()
        assert cold.go.is_set()

    graph.run(main())


def test_an_error_in_a_thread_is_the_requests(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(4096))
    node = open_file(graph, path)

    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(BlockError, match="writing") as caught:
            graph.run(node.pwrite(0, b"x"))
    assert caught.value.errno == errno.ENOSPC
    graph.run(node.pwrite(0, b"y"))
    assert not SocketPoller.of(graph.sched).waiting()

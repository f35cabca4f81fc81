"""The I/O shell, and what it makes easy to write down: catalogue R6, R9, C8, C12, P8, I17."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
from pathlib import Path

import pytest

from machine.block import tools
from machine.block.errors import BlockError, OptionError
from machine.block.graph import Graph
from machine.block.ioshell import IoShell
from machine.block.jobs.backup import BackupJob
from machine.block.jobs.chain import StreamJob
from machine.block.jobs.job import Job

from .qcow2_util import make_image, memory_image, open_image, qemu_json
from .replication_util import K, M, Secondary

C = 64 * K


def shell(graph: Graph, size: int = M) -> IoShell:
    disk = memory_image(graph, size=size)
    graph.run(graph.close_node(disk))
    node = graph.run(
        graph.open({"driver": "qcow2", "discard": "unmap", "file": {"driver": "blkdebug", "image": "disk"}})
    )
    return IoShell(graph, node)


def test_commands_read_write_and_tell(graph: Graph) -> None:
    io = shell(graph)
    assert io.run("write -P 0xab 1k 4k") == ["wrote 4096/4096 bytes at offset 1024"]
    assert io.run("read -q -P 0xab 1k 4k") == []
    with pytest.raises(BlockError, match="offset 5120"):
        io.run("read -P 0xab 1k 5k")
    io.run("write -q -z -u 128k 64k")
    io.run("write -q -c -P 3 192k 64k")
    assert io.run("alloc 0 256k") == ["196608/262144 bytes allocated at offset 0"]
    assert io.run("map")[0] == "0x10000 bytes allocated at offset 0x0"
    assert io.run("length") == [str(M)]
    io.run("truncate 2M")
    assert io.run("length") == [str(2 * M)]
    assert io.run("read -v 1k 2")[1] == "00000400:  ab ab"
    for line in ("nonsense", "read 1k", "write -P 300 0 1", "read -x 0 1", "write -z -P 1 0 1", 'read "'):
        with pytest.raises(OptionError):
            io.run(line)
    io.close()


def test_reopen_takes_and_gives_the_right_to_write(graph: Graph) -> None:
    io = IoShell(graph, graph.run(graph.open({"driver": "memory", "size": 4096})))
    io.run("write -P 3 0 512")
    io.run("reopen -r")
    with pytest.raises(BlockError):
        io.run("write -P 4 0 512")
    io.run("reopen -w")
    io.run("write -P 4 0 512")
    io.run("read -P 4 0 512")
    with pytest.raises(OptionError):
        io.run("reopen")
    io.close()


def test_abort_ends_the_process_with_nothing_written_back(tmp_path: Path) -> None:
    path = tmp_path / "i.qcow2"
    make_image(path, size=1 << 20)
    pid = os.fork()
    if pid == 0:
        try:
            graph = Graph()
            io = IoShell(graph, open_image(graph, path))
            io.run("write -P 1 0 64k")
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            faulthandler.disable()
            io.run("abort")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGABRT
    graph = Graph()
    found = graph.run(tools.check(graph, str(path)))
    assert not found.corruptions and found.leaks
    graph.run(graph.close())
    graph = Graph()
    assert graph.run(open_image(graph, path).read(0, 64 * K)) == bytes(64 * K)
    graph.run(graph.close())


def test_requests_park_at_break_points(graph: Graph) -> None:
    io = shell(graph)
    io.run("break write_aio A")
    io.run("aio_write -q -P 1 0 64k")
    io.run("wait_break A")
    io.run("aio_write -q -P 2 0 64k")
    assert io.run("alloc 0 64k") == ["0/65536 bytes allocated at offset 0"], (
        "not linked before the data are written"
    )
    io.run("resume A")
    io.run("aio_flush")
    io.run("read -q -P 2 0 64k")
    io.close()


def test_c8_c12_the_interface_is_the_backup_jobs_alone_and_takes_any_range(graph: Graph) -> None:
    assert not hasattr(Job, "cow_request_begin") and not hasattr(StreamJob, "cow_range")
    source, target = (graph.run(graph.open({"driver": "memory", "size": C + 512})) for _ in range(2))
    job = BackupJob(graph, source, target, sync="none")
    held = job.cow_request_begin(C, 100 * C)
    assert (held.start, held.end) == (1, 101)
    job.cow_request_end(held)
    with pytest.raises(AssertionError):
        job.cow_request_end(held)


def test_r5_readers_share_and_exclusive_holders_do_not(graph: Graph) -> None:
    source, target = (graph.run(graph.open({"driver": "memory", "size": C})) for _ in range(2))
    job = BackupJob(graph, source, target, sync="none")
    reader = job.cow_request_begin(0, C, shared=True)

    async def main() -> None:
        async with job.cow_range(0, C, shared=True):
            pass
        copy = graph.sched.spawn(job.wait_for_overlapping_requests(0, C))
        await graph.sched.yield_now()
        assert not copy.done
        job.cow_request_end(reader)
        await copy.join()

    graph.run(main())


def test_r6_write_over_several_clusters_while_one_of_them_is_copied() -> None:
    side = Secondary(size=8 * C)
    side.start()
    debug = side.debug("hidden")
    debug.set_break("write_aio", "T")

    async def main() -> None:
        assert side.nbd is not None
        one = side.graph.sched.spawn(side.nbd.write(2 * C, b"\x21" * C))
        await debug.wait_break("T")
        many = side.graph.sched.spawn(side.nbd.write(C, b"\x22" * 4 * C))
        for _ in range(10):
            await side.graph.sched.yield_now()
        assert not many.done
        debug.resume("T")
        await one.join()
        await many.join()

    side.run(main())
    assert side.read() == b"\x11" * 8 * C
    assert side.nbd_read(C, 4 * C) == b"\x22" * 4 * C
    assert side.allocated(side.hidden) == [(C, 4 * C)]


def test_r9_failover_with_reads_in_flight() -> None:
    side = Secondary(size=4 * C, yields=3)
    side.start()
    side.nbd_write(0, b"\x22" * 4 * C)

    async def main() -> None:
        reads = [side.graph.sched.spawn(side.guest.read(0, 4 * C)) for _ in range(4)]
        await side.graph.sched.yield_now()
        await side.top.stop(True)
        for read in reads:
            assert await read.join() == b"\x11" * 4 * C
        await side.top.wait_failover()

    side.run(main())
    assert side.nbd_read() == b"\x11" * 4 * C


def test_p8_what_lies_beyond_a_short_backing_reads_zero(graph: Graph) -> None:
    base = graph.run(graph.open({"driver": "memory", "size": 100 * K + 7, "growable": False}))
    graph.run(base.pwrite(0, b"\xbb" * (100 * K + 7)))
    node = memory_image(graph, size=M)
    base.read_only = True
    graph.set_backing(node, base)
    assert graph.run(node.read(100 * K, 100)) == b"\xbb" * 7 + bytes(93)
    graph.run(node.pwrite(100 * K + 50, b"x"))
    assert graph.run(node.read(100 * K, 60)) == b"\xbb" * 7 + bytes(43) + b"x" + bytes(9)


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize(("size", "cluster"), [(5 << 40, 65536), (1 << 60, 2 * M), (1 << 34, 512)])
def test_i17_sparse_giants(tmp_path: Path, size: int, cluster: int) -> None:
    path = tmp_path / "g.qcow2"
    make_image(path, size=size, cluster_size=cluster)
    assert qemu_json("info", path)["virtual-size"] == size
    assert qemu_json("check", path)["check-errors"] == 0


def test_i17_l1_tables_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BlockError, match="too large"):
        make_image(tmp_path / "g.qcow2", size=1 << 40, cluster_size=512)

"""file, raw, memory, blkdebug, throttle; opening and its options."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.block import flags as F
from machine.block.dirty import DirtyBitmap, pack_bits, unpack_bits
from machine.block.drivers.file import create_file
from machine.block.drivers.throttle import Bucket
from machine.block.errors import BlockError, OptionError, PermissionConflictError
from machine.block.flags import Perm
from machine.block.graph import Graph
from machine.block.options import from_filename, nest, parse_keyvals, parse_size


def raw_file(tmp_path: Path, size: int = 1 << 20) -> str:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(size))
    return str(path)


@pytest.mark.parametrize("direct", [False, True])
def test_file_reads_back_what_was_written_and_grows(graph: Graph, tmp_path: Path, direct: bool) -> None:
    name = str(tmp_path / "f.raw")
    Path(name).write_bytes(bytes(65536))
    try:
        node = graph.run(graph.open({"driver": "file", "filename": name, "cache": {"direct": direct}}))
        graph.run(node.pwrite(5000, b"hello" * 1000))
    except BlockError as error:
        if error.errno == errno.EINVAL and direct:
            pytest.skip("the file system of the temporary folder has no O_DIRECT")
        raise
    assert graph.run(node.read(4999, 5002)) == b"\0" + b"hello" * 1000 + b"\0"
    graph.run(node.pwrite_zeroes(6000, 100))
    graph.run(node.flush())
    assert Path(name).read_bytes()[5990:6110] == (b"hello" * 2) + bytes(100) + b"hello" * 2
    graph.run(node.pwrite(65536, b"z" * 4096))
    assert node.size_bytes == 65536 + 4096


def test_file_status_follows_holes(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "holes.raw"
    with path.open("wb") as file:
        file.truncate(1 << 20)
        file.seek(512 << 10)
        file.write(b"x" * 65536)
    node = graph.run(graph.open({"driver": "raw", "file": {"driver": "file", "filename": str(path)}}))
    first = graph.run(node.block_status(0, 1 << 20))
    assert first.flags & F.ST_ZERO and first.length == 512 << 10
    second = graph.run(node.block_status(512 << 10, 1 << 20))
    assert second.flags & F.ST_DATA and second.length == 65536


def test_i15_locks_exclude_a_second_writer_but_not_a_reader_that_shares(graph: Graph, tmp_path: Path) -> None:
    name = raw_file(tmp_path)
    options = {"driver": "raw", "file": {"driver": "file", "filename": name}}
    alone = Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED
    writer = graph.run(graph.backend(options, perm=Perm.CONSISTENT_READ | Perm.WRITE, shared=alone))
    other = Graph()
    with pytest.raises(PermissionConflictError, match="lock"):
        other.run(other.backend(options, perm=Perm.CONSISTENT_READ | Perm.WRITE, shared=alone))
    shared = other.run(other.backend({**options, "force-share": True}, writable=False))
    assert other.run(shared.read(0, 4)) == bytes(4)
    writer.close()
    other.run(other.close())


def test_i15_a_closed_image_is_locked_by_nobody(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that another thread has begun to start has all files open until it is another program."""
    name = raw_file(tmp_path)
    inherited: list[int] = []
    plain = os.close

    def close(fd: int) -> None:
        inherited.append(os.dup(fd))
        plain(fd)

    options = {"driver": "file", "filename": name}
    alone = Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED
    with monkeypatch.context() as patched:
        patched.setattr(os, "close", close)
        create_file(name, 1 << 20)
        first = graph.run(graph.backend(options, perm=Perm.CONSISTENT_READ | Perm.WRITE, shared=alone))
        first.close()
        graph.run(graph.close())
    assert len(inherited) == 2
    other = Graph()
    other.run(other.backend(options, perm=Perm.CONSISTENT_READ | Perm.WRITE, shared=alone))
    other.run(other.close())
    for fd in inherited:
        os.close(fd)


@pytest.mark.requires("qemu-io")
def test_i15_qemu_respects_our_lock_and_we_respect_theirs(graph: Graph, tmp_path: Path) -> None:
    name = raw_file(tmp_path)
    options = {"driver": "raw", "file": {"driver": "file", "filename": name}}
    shared = Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED
    writer = graph.run(graph.backend(options, shared=shared))
    peer = subprocess.run(
        ["qemu-io", "-f", "raw", "-c", "write 0 512", name], capture_output=True, text=True, check=False
    )
    assert peer.returncode == 1 and "lock" in peer.stderr
    writer.close()
    graph.run(graph.close())
    with subprocess.Popen(
        ["qemu-io", "-f", "raw", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"write 0 512\n")
        process.stdin.flush()
        while b"wrote" not in process.stdout.readline():
            pass
        with pytest.raises(PermissionConflictError):
            graph.run(graph.backend(options, shared=shared))
        process.stdin.write(b"quit\n")
        process.stdin.close()


def test_raw_window_refuses_requests_outside(graph: Graph, tmp_path: Path) -> None:
    name = raw_file(tmp_path, 8192)
    node = graph.run(
        graph.open(
            {"driver": "raw", "offset": 1024, "size": 2048, "file": {"driver": "file", "filename": name}}
        )
    )
    graph.run(node.pwrite(0, b"A" * 2048))
    with pytest.raises(BlockError):
        graph.run(node.pwrite(2047, b"AB"))
    graph.run(node.flush())
    assert Path(name).read_bytes() == bytes(1024) + b"A" * 2048 + bytes(5120)


def test_probed_raw_refuses_another_formats_magic(graph: Graph, tmp_path: Path) -> None:
    name = raw_file(tmp_path)
    node = graph.run(graph.open(name))
    assert node.driver == "raw"
    with pytest.raises(BlockError, match="format=raw") as caught:
        graph.run(node.pwrite(0, b"QFI\xfb" + bytes(508)))
    assert caught.value.errno == errno.EPERM
    with pytest.raises(BlockError):
        graph.run(_two_writes(node))
    sure = graph.run(
        graph.open({"driver": "raw", "file": {"driver": "file", "filename": name, "locking": "off"}})
    )
    graph.run(sure.pwrite(0, b"QFI\xfb"))


async def _two_writes(node: object) -> None:
    from machine.block.node import Node

    assert isinstance(node, Node)
    await node.pwrite(0, b"QF")
    await node.pwrite(2, b"I\xfb")


def test_open_reports_unknown_options_and_leaves_nothing_open(graph: Graph, tmp_path: Path) -> None:
    name = raw_file(tmp_path)
    with pytest.raises(OptionError, match="bogus"):
        graph.run(graph.open({"driver": "raw", "bogus": 1, "file": {"driver": "file", "filename": name}}))
    with pytest.raises(OptionError, match="unknown driver"):
        graph.run(graph.open({"driver": "vmdk", "file.filename": name}))
    with pytest.raises(BlockError) as caught:
        graph.run(graph.open(str(tmp_path / "missing")))
    assert caught.value.errno == errno.ENOENT
    graph.sched.settle()
    assert graph.nodes == {}


def test_read_only_node_refuses_writers(graph: Graph, tmp_path: Path) -> None:
    name = raw_file(tmp_path)
    node = graph.run(graph.open(name, read_only=True))
    with pytest.raises(BlockError) as caught:
        graph.run(node.pwrite(0, b"x"))
    assert caught.value.errno == errno.EPERM
    with pytest.raises(BlockError, match="read-only"):
        graph.run(graph.backend(node, perm=Perm.WRITE))
    graph.run(graph.reopen([(node.file, False), (node, False)]))
    graph.run(node.pwrite(0, b"x"))


def test_two_users_that_exclude_each_other_can_not_both_attach(graph: Graph) -> None:
    node = graph.run(graph.open({"driver": "memory", "size": 4096}))
    graph.run(graph.backend(node, perm=Perm.WRITE, shared=Perm.CONSISTENT_READ, name="one"))
    with pytest.raises(PermissionConflictError, match="one"):
        graph.run(graph.backend(node, perm=Perm.WRITE, shared=Perm.ALL))
    assert len(node.parents) == 1


def test_blkdebug_once_rules_states_and_sectors(graph: Graph) -> None:
    options = {
        "driver": "blkdebug",
        "image": {"driver": "memory", "size": 65536},
        "set-state": [{"event": "a", "state": 1, "new_state": 2}],
        "inject-error": [{"event": "b", "state": 2, "errno": 28, "sector": 3, "once": True}],
    }
    node = graph.run(graph.open(options))
    from machine.block.drivers.blkdebug import BlkdebugNode

    assert isinstance(node, BlkdebugNode)
    graph.run(node.fire("b"))
    graph.run(node.pwrite(1536, b"x"))
    graph.run(node.fire("a"))
    graph.run(node.fire("b"))
    graph.run(node.pwrite(1024, b"x" * 512))
    with pytest.raises(BlockError) as caught:
        graph.run(node.pwrite(1024, b"x" * 1024))
    assert caught.value.errno == errno.ENOSPC
    graph.run(node.pwrite(1024, b"x" * 1024))


def test_throttle_spreads_requests_over_virtual_time(graph: Graph) -> None:
    options = {
        "driver": "throttle",
        "file": {"driver": "memory", "size": 1 << 20},
        "limits": {"bps-write": 65536, "iops-read": 10},
    }
    node = graph.run(graph.open(options))

    async def main() -> int:
        start = graph.sched.clock.now_ns()
        for index in range(11):
            await node.pwrite(index * 65536, bytes(65536))
        return graph.sched.clock.now_ns() - start

    elapsed = graph.run(main())
    assert 9_000_000_000 <= elapsed <= 10_000_000_000, (
        "655,360 bytes at 65,536 a second, a tenth of it at once"
    )


def test_throttle_burst_is_bounded_by_the_second_bucket() -> None:
    bucket = Bucket(100, 1000, 2)
    bucket.account(1100)
    assert bucket.wait_ns() == 1_000_000_000
    bucket.leak(1_000_000_000)
    assert bucket.wait_ns() == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [("64k", 65536), ("1.5G", 3 << 29), ("0x200", 512), ("7", 7), ("2T", 2 << 40), ("1b", 1)],
)
def test_sizes_are_read_as_powers_of_1024(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize("text", ["", "k", "-1", "1x", "9E", "1..2", "0xzz"])
def test_wrong_sizes_are_refused(text: str) -> None:
    with pytest.raises(OptionError):
        parse_size(text)


def test_dotted_nested_and_uri_options_mean_the_same() -> None:
    assert nest({"file.driver": "x", "file": {"a.b": 1}}) == {"file": {"driver": "x", "a": {"b": 1}}}
    assert parse_keyvals("driver=qcow2,file.filename=a,,b") == {
        "driver": "qcow2",
        "file": {"filename": "a,b"},
    }
    assert from_filename('json:{"driver":"raw","file.filename":"x"}') == {
        "driver": "raw",
        "file": {"filename": "x"},
    }
    server = {"type": "unix", "path": "/s"}
    assert from_filename("nbd+unix:///e?socket=/s") == {"driver": "nbd", "export": "e", "server": server}
    with pytest.raises(OptionError):
        from_filename("json:[1")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300).map(lambda b: bytes(x & 1 for x in b)))
def test_bitmap_cells_pack_and_unpack(cells: bytes) -> None:
    packed = pack_bits(cells)
    assert len(packed) == -(-len(cells) // 8)
    assert all((packed[i // 8] >> (i % 8)) & 1 == c for i, c in enumerate(cells))
    assert unpack_bits(packed, len(cells)) == cells


def test_bitmap_successor_abdicates_or_is_reclaimed() -> None:
    bitmap = DirtyBitmap("b", 1000, 512)
    bitmap.set(0, 1)
    bitmap.make_successor()
    with pytest.raises(BlockError, match="in use"):
        bitmap.require_idle()
    assert bitmap.successor is not None
    bitmap.successor.set(600, 1)
    bitmap.reclaim()
    assert list(bitmap.dirty_ranges()) == [(0, 1000)] and bitmap.count() == 1000
    bitmap.make_successor()
    bitmap.abdicate()
    assert bitmap.count() == 0 and not bitmap.busy


def test_bitmap_merge_of_other_granularity_marks_every_touched_granule() -> None:
    coarse, fine = DirtyBitmap("c", 1 << 20, 65536), DirtyBitmap("f", 1 << 20, 512)
    fine.set(65536 * 3 + 1000, 10)
    coarse.merge_from(fine)
    assert list(coarse.dirty_ranges()) == [(65536 * 3, 65536)]
    with pytest.raises(BlockError):
        coarse.merge_from(DirtyBitmap("x", 5, 512))

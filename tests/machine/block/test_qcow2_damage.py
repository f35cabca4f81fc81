"""qcow2 damaged, crashed or hostile: catalogue I11, I12, I13, I14, I18."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.block.errors import BlockError, ImageCorruptError
from machine.block.filters.writelog import WriteLogNode, materialise
from machine.block.graph import Graph
from machine.block.qcow2 import check, snapshots
from machine.block.qcow2.layout import OFFSET_MASK
from machine.block.qcow2.node import Qcow2Node

from .fuzzing import examples
from .qcow2_util import make_image, memory_image, open_image, qemu_img, qemu_json

K, M = 1 << 10, 1 << 20


def image_bytes(**options: object) -> bytes:
    """Return a small image with data, zeroes, a snapshot and a compressed cluster."""
    graph = Graph()
    node = memory_image(graph, size=M, cluster_size=4096, **options)

    async def fill() -> None:
        await node.pwrite(0, b"\x11" * 40_000)
        await node.pwrite_zeroes(8192, 8192)
        await node.pwrite(512 * K, b"\x22" * 4096, 0x20)
        await snapshots.create(node, "s")
        await node.pwrite(0, b"\x33" * 5000)
        await graph.close_node(node)

    graph.run(fill())
    disk = graph.node("disk")
    return bytes(graph.run(disk.read(0, disk.size_bytes)))


def patch(data: bytes, offset: int, value: int, size: int = 8) -> bytes:
    return data[:offset] + value.to_bytes(size, "big") + data[offset + size :]


def l1_of(data: bytes) -> int:
    return int.from_bytes(data[40:48], "big")


def l2_of(data: bytes) -> int:
    return int.from_bytes(data[l1_of(data) : l1_of(data) + 8], "big") & 0x00FF_FFFF_FFFF_FE00


DAMAGE = {
    "refcount too low": lambda d: patch(d, 2 * 4096 + 2 * (l2_of(d) // 4096), 0, 2),
    "leak": lambda d: patch(d, 2 * 4096 + 2 * 200, 1, 2),
    "copied flag": lambda d: patch(d, l2_of(d), int.from_bytes(d[l2_of(d) : l2_of(d) + 8], "big") ^ 1 << 63),
    "no refcount block": lambda d: patch(d, 4096, 0),
    "refcount table gone": lambda d: patch(d, 4096, 0x1234),
}


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("name", DAMAGE)
def test_i11_check_agrees_with_qemu_img_and_repairs(graph: Graph, tmp_path: Path, name: str) -> None:
    path = tmp_path / "d.qcow2"
    path.write_bytes(DAMAGE[name](image_bytes()))
    theirs = qemu_json("check", path, ok=(0, 1, 2, 3))
    read_only = {"driver": "qcow2", "read-only": True, "file": {"driver": "file", "filename": str(path)}}
    node = graph.run(graph.open(read_only))
    assert isinstance(node, Qcow2Node)
    found = graph.run(check.check(node))
    assert bool(found.corruptions) == bool(theirs.get("corruptions", 0) or theirs["check-errors"]), (
        found.messages
    )
    if "refcount table" not in name and "block" not in name:
        assert (found.leaks, found.corruptions) == (theirs.get("leaks", 0), theirs.get("corruptions", 0))
    graph.run(graph.close())
    node = open_image(graph, path)
    fixed = graph.run(check.check(node, fix_leaks=True, fix_errors=True))
    assert (fixed.corruptions, fixed.leaks) == (0, 0), fixed.messages
    assert graph.run(node.read(0, 5000)) == b"\x33" * 5000
    assert graph.run(node.read(512 * K, 10)) == b"\x22" * 10
    graph.run(graph.close())
    assert "No errors" in qemu_img("check", path)


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize(
    "options", [{}, {"refcount_bits": 1}, {"extended_l2": True, "cluster_size": 16384}], ids=str
)
def test_i12_a_crash_at_any_write_leaves_leaks_at_most(tmp_path: Path, options: dict[str, object]) -> None:
    graph = Graph()
    node = memory_image(graph, size=4 * M, **{"cluster_size": 4096, **options})
    graph.run(graph.close_node(node))
    disk = graph.node("disk")
    base = bytes(graph.run(disk.read(0, disk.size_bytes)))
    log = graph.run(graph.open({"driver": "write-log", "file": disk}))
    assert isinstance(log, WriteLogNode)
    opened = graph.run(graph.open({"driver": "qcow2", "discard": "unmap", "file": log}))
    assert isinstance(opened, Qcow2Node)
    node = opened
    model, rnd = bytearray(4 * M), random.Random(5)
    durable: list[tuple[int, bytes]] = [(0, bytes(model))]
    for step in range(40):
        offset, length = rnd.randrange(4 * M - 70_000), rnd.randrange(1, 70_000)
        kind = rnd.random()
        if kind < 0.6:
            graph.run(node.pwrite(offset, bytes([step + 1]) * length))
            model[offset : offset + length] = bytes([step + 1]) * length
        elif kind < 0.8:
            graph.run(node.pdiscard(offset & -16384, 65536))
            model[offset & -16384 : (offset & -16384) + 65536] = bytes(65536)
        else:
            graph.run(node.flush())
            durable.append((len(log.log), bytes(model)))
    graph.run(graph.close_node(node))
    points = sorted(rnd.sample(range(len(log.log)), min(60, len(log.log))))
    for point in points:
        image = materialise(base, log.log[:point])
        _check_crashed(image, None)
    for point, expected in durable[1:4]:
        _check_crashed(materialise(base, log.log[:point]), expected)
    path = tmp_path / "crash.qcow2"
    for point in points[::12]:
        path.write_bytes(materialise(base, log.log[:point]))
        qemu_img("check", path, ok=(0, 3))


def _check_crashed(image: bytes, expected: bytes | None) -> None:
    graph = Graph()
    disk = graph.run(graph.open({"driver": "memory", "size": len(image)}))
    graph.run(disk.pwrite(0, image))
    node = graph.run(graph.open({"driver": "qcow2", "file": disk, "read-only": True}))
    assert isinstance(node, Qcow2Node)
    result = graph.run(check.check(node))
    assert (result.corruptions, result.check_errors) == (0, 0), result.messages
    if expected is not None:
        assert graph.run(node.read(0, len(expected))) == expected


def test_i13_a_crash_while_emptying_is_repaired_by_the_next_open() -> None:
    graph = Graph()
    base = graph.run(graph.open({"driver": "memory", "size": M}))
    graph.run(base.pwrite(0, b"\xb0" * M))
    node = memory_image(graph, size=M)
    graph.run(node.pwrite(0, b"\x01" * 700_000))
    graph.run(graph.close_node(node))
    disk = graph.node("disk")
    before = bytes(graph.run(disk.read(0, disk.size_bytes)))
    log = graph.run(graph.open({"driver": "write-log", "file": disk}))
    assert isinstance(log, WriteLogNode)
    opened = graph.run(graph.open({"driver": "qcow2", "file": log, "backing": base}))
    assert isinstance(opened, Qcow2Node)
    node = opened
    graph.run(node.make_empty())
    end = len(log.log)
    assert graph.run(node.read(0, M)) == b"\xb0" * M
    assert disk.size_bytes == 4 * 65536
    for point in range(end + 1):
        image = materialise(before, log.log[:point])
        other = Graph()
        file = other.run(other.open({"driver": "memory", "size": len(image)}))
        other.run(file.pwrite(0, image))
        crashed = other.run(other.open({"driver": "qcow2", "file": file}))
        assert isinstance(crashed, Qcow2Node)
        result = other.run(check.check(crashed))
        assert (result.corruptions, result.check_errors) == (0, 0), (point, result.messages)
        data = other.run(crashed.read(0, M))
        assert data in (b"\x01" * 700_000 + bytes(M - 700_000), bytes(M)) or set(data) <= {0, 1}


@pytest.mark.requires("qemu-img")
def test_i14_stale_refcounts_of_a_killed_writer_are_repaired(tmp_path: Path) -> None:
    path = tmp_path / "lazy.qcow2"
    make_image(path, size=4 * M, lazy_refcounts=True)
    graph = Graph()
    node = open_image(graph, path)
    graph.run(node.pwrite(0, b"\x77" * 200_000))
    graph.run(node.flush())
    killed = path.read_bytes()
    graph.run(graph.close())
    assert killed[79] & 1, "the dirty bit was set before the first allocation"
    path.write_bytes(killed)
    qemu_img("check", path, ok=(2, 3))
    node = open_image(graph, path)
    assert graph.run(node.read(0, 200_000)) == b"\x77" * 200_000
    graph.run(graph.close())
    assert "No errors" in qemu_img("check", path)
    path.write_bytes(killed)
    qemu_img("check", "-r", "all", path)


@pytest.mark.parametrize("call", ["read", "write", "zero", "discard", "status"])
def test_the_header_says_at_once_that_an_image_is_corrupt(tmp_path: Path, call: str) -> None:
    """The bit was written when the image was closed: after a kill, the next user was not warned."""
    path = tmp_path / "a.qcow2"
    make_image(path, size=M)
    data = bytearray(path.read_bytes().ljust(0x60000, b"\0"))
    data[3 << 16 : (3 << 16) + 8] = (1 << 63 | 0x40200).to_bytes(8, "big")
    path.write_bytes(data)
    graph = Graph()
    node = open_image(graph, path, discard="unmap")
    calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "read": lambda: node.read(0, 512),
        "write": lambda: node.pwrite(0, b"x" * 512),
        "zero": lambda: node.pwrite_zeroes(0, 64 * K),
        "discard": lambda: node.pdiscard(0, 64 * K),
        "status": lambda: node.block_status(0, 512),
    }
    with pytest.raises(ImageCorruptError):
        graph.run(calls[call]())
    assert path.read_bytes()[79] & 2
    graph.run(graph.close())
    assert path.read_bytes()[79] & 2


def test_corruption_found_while_running_marks_the_image_and_stops_writes(
    graph: Graph, tmp_path: Path
) -> None:
    path = tmp_path / "c.qcow2"
    data = image_bytes()
    path.write_bytes(patch(data, l2_of(data), 0x8000_0000_0000_1200))
    node = open_image(graph, path)
    with pytest.raises(ImageCorruptError, match="check"):
        graph.run(node.read(0, 10))
    with pytest.raises(BlockError):
        graph.run(node.pwrite(M - 10, b"x"))
    graph.run(graph.close())
    assert path.read_bytes()[79] & 2
    with pytest.raises(BlockError, match="read-only"):
        open_image(graph, path)


_BASE = image_bytes()


@settings(max_examples=examples(250), deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 119), st.integers(0, len(_BASE) - 9), st.integers(4096, 4104)),
            st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, bytes(8)])),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_i18_mutated_images_end_in_errors_not_in_hangs(changes: list[tuple[int, bytes]]) -> None:
    image = bytearray(_BASE)
    for offset, value in changes:
        image[offset : offset + len(value)] = value
    graph = Graph()
    disk = graph.run(graph.open({"driver": "memory", "size": len(image), "growable": False}))
    graph.run(disk.pwrite(0, bytes(image)))
    try:
        node = graph.run(graph.open({"driver": "qcow2", "file": disk, "backing": None}))
    except BlockError:
        return
    assert isinstance(node, Qcow2Node)
    for call in (
        node.read(0, min(node.size_bytes, 300 * K)),
        node.pwrite(0, b"x" * min(node.size_bytes, 70_000)),
        node.flush(),
        snapshots.create(node, "new"),
        check.check(node),
    ):
        try:
            graph.run(call)
        except BlockError:
            continue


def test_emptying_and_shrinking_a_giant_takes_no_time_for_what_is_not_there(graph: Graph) -> None:
    """Dropping clusters once walked every cluster of a huge virtual size, found by mutated headers."""
    node = memory_image(graph, size=1 << 50, cluster_size=65536 * 16)
    graph.run(node.pwrite(1 << 49, b"x"))
    graph.run(snapshots.create(node, "keeps the slow way"))
    graph.run(node.make_empty())
    assert graph.run(node.read(1 << 49, 1)) == b"\0"
    graph.run(snapshots.delete(node, "keeps the slow way"))
    graph.run(node.truncate(1 << 40))
    result = graph.run(check.check(node))
    assert (result.corruptions, result.leaks) == (0, 0), result.messages


def test_names_that_are_no_utf8_survive_a_rewrite(graph: Graph) -> None:
    """Such names once grew when they were decoded and encoded again, and no longer fitted their length field."""
    node = memory_image(graph, size=M)
    graph.run(snapshots.create(node, "good"))
    node.snapshots[0].name = b"\xff\xfe\x80".decode(errors="surrogateescape")
    graph.run(snapshots.create(node, "other"))
    assert snapshots.Snapshot("1", node.snapshots[0].name).encode().count(b"\xff\xfe\x80") == 1
    graph.run(graph.close_node(node))
    opened = graph.run(graph.open({"driver": "qcow2", "file": "disk"}))
    assert isinstance(opened, Qcow2Node)
    assert opened.snapshots[0].name.encode(errors="surrogateescape") == b"\xff\xfe\x80"


@pytest.mark.parametrize("mode", ["cached", "all"])
def test_overlap_check_all_knows_the_tables_of_snapshots(tmp_path: Path, mode: str) -> None:
    """``all`` did what ``cached`` does, so an entry that points into a snapshot's table let a write destroy it."""
    path = tmp_path / "i.qcow2"
    make_image(path, size=8 << 20)
    graph = Graph()
    node = open_image(graph, path)
    graph.run(node.pwrite(0, b"\1" * 65536))
    graph.run(snapshots.create(node, "s"))
    graph.run(node.pwrite(0, b"\2" * 65536))  # the active table is another one now
    inactive = graph.run(snapshots.read_l1(node, node.snapshots[0]))[0] & OFFSET_MASK
    l2_offset = node.mapping.l1[0] & OFFSET_MASK
    graph.run(graph.close())
    with path.open("r+b") as file:
        file.seek(l2_offset)
        file.write((inactive | 1 << 63).to_bytes(8, "big"))
    before = path.read_bytes()[inactive : inactive + 65536]
    graph = Graph()
    node = open_image(graph, path, **{"overlap-check": mode})
    if mode == "all":
        with pytest.raises(BlockError, match="overwrite metadata"):
            graph.run(node.pwrite(0, b"\3" * 512))
        assert path.read_bytes()[inactive : inactive + 65536] == before
    else:
        graph.run(node.pwrite(0, b"\3" * 512))
    graph.run(graph.close())

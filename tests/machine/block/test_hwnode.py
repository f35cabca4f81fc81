"""The machine's disk over the node graph: catalogue D1, D3, D4, D8, D10; the same results as the devices' raw disk."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.block.errors import BlockError
from machine.block.graph import Graph
from machine.block.hwnode import CLUSTER_BYTES, GraphBase, HwDisk, PackedBase
from machine.hw.blockproto import BlockError as DeviceError
from machine.hw.blockproto import BlockNode
from machine.hw.rawdisk import RawDisk

from .qcow2_util import make_image, open_image

K, M = 1 << 10, 1 << 20


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, Path, bytes]:
    """The same content as raw and as qcow2 over a backing file."""
    raw, base, top = tmp_path / "d.raw", tmp_path / "base.qcow2", tmp_path / "top.qcow2"
    data = bytearray(3 * M + 512)
    data[100_000:200_000] = random.Random(4).randbytes(100_000)
    data[2 * M : 2 * M + 9] = b"somewhere"
    raw.write_bytes(data)
    make_image(base, size=len(data))
    graph = Graph()
    node = open_image(graph, base)
    graph.run(node.pwrite(100_000, data[100_000:200_000]))
    graph.run(graph.close())
    make_image(top, size=len(data), backing_file="base.qcow2", backing_format="qcow2")
    node = open_image(graph, top)
    graph.run(node.pwrite(2 * M, b"somewhere"))
    graph.run(graph.close())
    return raw, top, bytes(data)


OPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "zero", "discard", "read", "save"]),
        st.integers(0, 3 * M),
        st.integers(1, 200 * K),
    ),
    max_size=12,
)


def apply(disk: BlockNode, ops: list[tuple[str, int, int]]) -> list[object]:
    out: list[object] = []
    for kind, offset, length in ops:
        length = min(length, disk.size_bytes - offset)
        if kind == "write":
            disk.pwrite(offset, bytes([offset & 0xFF]) * length)
        elif kind == "zero":
            disk.write_zeroes(offset, length)
        elif kind == "discard":
            disk.discard(offset, length)
        elif kind == "read":
            out.append(disk.pread(offset, length))
        else:
            out.append(disk.save_state())
    return out


def test_d1_d8_qcow2_and_raw_disks_behave_alike(images: tuple[Path, Path, bytes]) -> None:
    raw, top, _ = images

    @settings(max_examples=25, deadline=None)
    @given(OPS)
    def check(ops: list[tuple[str, int, int]]) -> None:
        graph_disk, raw_disk = HwDisk(GraphBase(str(top))), RawDisk(raw)
        assert apply(graph_disk, [*ops, ("save", 0, 1)]) == apply(raw_disk, [*ops, ("save", 0, 1)])
        again = HwDisk(GraphBase(str(raw)))
        again.load_state(raw_disk.save_state())
        assert again.pread(0, again.size_bytes) == graph_disk.pread(0, graph_disk.size_bytes)
        for disk in (graph_disk, raw_disk, again):
            disk.close()

    check()


def test_content_root_does_not_depend_on_the_format(images: tuple[Path, Path, bytes]) -> None:
    raw, top, _ = images
    first, second = GraphBase(str(raw)), GraphBase(str(top))
    assert first.root() == second.root()
    first.close()
    second.close()


def test_d3_another_base_is_refused(images: tuple[Path, Path, bytes]) -> None:
    raw, top, data = images
    base = GraphBase(str(top))
    root = base.root()
    base.close()
    GraphBase(str(raw), expected_root=root).close()
    raw.write_bytes(data[:-1] + b"!")
    with pytest.raises(BlockError, match="recorded"):
        GraphBase(str(raw), expected_root=root)


def test_d4_the_read_set_replays_without_the_image(images: tuple[Path, Path, bytes]) -> None:
    _, top, data = images
    kept: dict[int, bytes] = {}
    disk = HwDisk(GraphBase(str(top)), base_read=kept.__setitem__)

    def guest(disk: HwDisk) -> bytes:
        disk.pwrite(100_010, b"abc")
        disk.pwrite(CLUSTER_BYTES * 8, bytes(CLUSTER_BYTES))
        return disk.pread(90_000, 50_000) + disk.pread(CLUSTER_BYTES * 8, 100)

    seen = guest(disk)
    assert sorted(kept) == [1, 2] and seen[10_010:10_013] == b"abc"
    replay = HwDisk(PackedBase(len(data), kept.get))
    assert guest(replay) == seen
    with pytest.raises(BlockError, match="never read"):
        replay.pread(2 * M, 10)
    disk.close()


def test_d10_frozen_overlays_are_independent(images: tuple[Path, Path, bytes]) -> None:
    disk = HwDisk(GraphBase(str(images[1])))
    rnd, marks = random.Random(9), []
    for step in range(200):
        disk.pwrite(rnd.randrange(3 * M - 100), bytes([step]) * 100)
        marks.append((disk.freeze(), disk.pread(0, disk.size_bytes) if step % 20 == 0 else b""))
    for _ in range(60):
        frozen, content = marks[rnd.randrange(0, 200, 20)]
        disk.thaw(frozen)
        assert disk.pread(0, disk.size_bytes) == content
        disk.pwrite(rnd.randrange(3 * M), b"!")
    disk.close()


def test_errors_are_those_of_the_devices(images: tuple[Path, Path, bytes]) -> None:
    disk: BlockNode = HwDisk(GraphBase(str(images[1])), readonly=True, error=DeviceError)
    with pytest.raises(DeviceError) as caught:
        disk.pwrite(0, b"x")
    assert caught.value.errno == 30
    with pytest.raises(DeviceError):
        disk.pread(3 * M, M)

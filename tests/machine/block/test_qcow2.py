"""qcow2 against a byte-array model and against qemu-img: catalogue I1 to I7, I9, I10."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from machine.block import flags as F
from machine.block import tools
from machine.block.dirty import DirtyBitmap
from machine.block.errors import BlockError
from machine.block.graph import Graph
from machine.block.node import status_above
from machine.block.qcow2 import check, snapshots
from machine.block.qcow2.node import Qcow2Node

from .qcow2_util import make_image, memory_image, open_image, qemu_img, qemu_io, qemu_json

K, M = 1 << 10, 1 << 20
GRID: list[dict[str, Any]] = [
    {"compat": "0.10", "cluster_size": 512},
    {"compat": "0.10"},
    {"cluster_size": 512, "refcount_bits": 1},
    {"cluster_size": 4096, "refcount_bits": 2},
    {"cluster_size": 1024, "refcount_bits": 4},
    {"refcount_bits": 8},
    {"cluster_size": 512, "refcount_bits": 64},
    {"cluster_size": 2 * M, "refcount_bits": 32},
    {"cluster_size": 16384, "extended_l2": True},
    {"lazy_refcounts": True},
    {"compression_type": "zstd"},
]


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("options", GRID, ids=str)
@pytest.mark.parametrize("size", [0, 12345 * 512, 1 << 30])
def test_i1_our_images_are_clean_to_qemu_img(tmp_path: Path, options: dict[str, Any], size: int) -> None:
    path = tmp_path / "a.qcow2"
    make_image(path, size=size, **options)
    assert "No errors" in qemu_img("check", path)
    info = qemu_json("info", path)
    assert info["virtual-size"] == size
    assert info["cluster-size"] == options.get("cluster_size", 65536)
    data = info["format-specific"]["data"]
    assert data["compat"] == options.get("compat", "1.1")
    if data["compat"] == "1.1":
        assert data["refcount-bits"] == options.get("refcount_bits", 16)
        assert data["extended-l2"] == options.get("extended_l2", False)
        assert data["compression-type"] == options.get("compression_type", "zlib")
        assert data["lazy-refcounts"] == options.get("lazy_refcounts", False)


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("size", [0, 12345 * 512, 1 << 40])
@pytest.mark.parametrize(
    "options",
    [
        "compat=0.10",
        "cluster_size=64k,refcount_bits=1",
        "extended_l2=on",
        "compression_type=zstd",
        "lazy_refcounts=on",
    ],
)
def test_i2_we_read_what_qemu_img_created(graph: Graph, tmp_path: Path, options: str, size: int) -> None:
    path = tmp_path / "q.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, str(size))
    node = open_image(graph, path)
    assert node.size_bytes == size
    if size:
        graph.run(node.pwrite(size - 512, b"end!" * 128))
        assert graph.run(node.read(size - 512, 4)) == b"end!"
    result = graph.run(check.check(node))
    assert (result.corruptions, result.leaks) == (0, 0)
    graph.run(graph.close())
    qemu_img("check", path)


class ImageMachine(RuleBasedStateMachine):
    """I3: random operations on an image against a byte array; every state must check clean."""

    size = 300 * K + 512

    @initialize(which=st.integers(0, len(GRID) - 1), backed=st.booleans())
    def start(self, which: int, backed: bool) -> None:
        self.graph = Graph()
        self.options: dict[str, Any] = dict(GRID[which])
        self.node = memory_image(self.graph, size=self.size, **self.options)
        self.model = bytearray(self.size)
        self.saved: dict[str, bytes] = {}
        if backed:
            base = self.graph.run(self.graph.open({"driver": "memory", "size": 200 * K}))
            self.graph.run(base.pwrite(0, b"\xb5" * (200 * K)))
            base.read_only = True
            self.graph.set_backing(self.node, base)
            self.model[: 200 * K] = b"\xb5" * (200 * K)

    span = st.tuples(st.integers(0, size - 1), st.integers(1, 150 * K))

    def clip(self, span: tuple[int, int]) -> tuple[int, int]:
        return span[0], min(span[1], self.size - span[0])

    @rule(span=span, fill=st.integers(1, 255))
    def write(self, span: tuple[int, int], fill: int) -> None:
        offset, length = self.clip(span)
        self.graph.run(self.node.pwrite(offset, bytes([fill]) * length))
        self.model[offset : offset + length] = bytes([fill]) * length

    @rule(span=span, unmap=st.booleans())
    def zero(self, span: tuple[int, int], unmap: bool) -> None:
        offset, length = self.clip(span)
        self.graph.run(self.node.pwrite_zeroes(offset, length, F.MAY_UNMAP if unmap else 0))
        self.model[offset : offset + length] = bytes(length)

    @rule(span=span)
    def discard(self, span: tuple[int, int]) -> None:
        offset, length = self.clip(span)
        self.graph.run(self.node.pdiscard(offset, length))
        cluster = self.node.cluster
        low, high = -(-offset // cluster) * cluster, (offset + length) // cluster * cluster
        if offset + length == self.size:
            high = self.size
        if low < high and not (self.node.header.version == 2 and self.node.backing):
            self.model[low:high] = bytes(high - low)

    @rule(index=st.integers(0, 1 << 20), fill=st.integers(1, 255))
    def write_compressed(self, index: int, fill: int) -> None:
        cluster = self.node.cluster
        offset = index % -(-self.size // cluster) * cluster
        length = min(cluster, self.size - offset)
        data = (bytes([fill]) * 7 + b"q") * (length // 8 + 1)
        try:
            self.graph.run(self.node.pwrite(offset, data[:length], F.COMPRESSED))
        except BlockError as error:
            assert "allocated already" in error.message
        else:
            self.model[offset : offset + length] = data[:length]

    @rule(span=span)
    def read(self, span: tuple[int, int]) -> None:
        offset, length = self.clip(span)
        assert self.graph.run(self.node.read(offset, length)) == self.model[offset : offset + length]

    @rule(name=st.sampled_from("abc"))
    def snapshot(self, name: str) -> None:
        if name in self.saved:
            return
        try:
            self.graph.run(snapshots.create(self.node, name, icount=77))
        except BlockError as error:
            assert "refcount" in error.message and self.node.refs.order < 3
        else:
            self.saved[name] = bytes(self.model)

    @precondition(lambda self: self.saved)
    @rule(pick=st.integers(0, 9), delete=st.booleans())
    def use_snapshot(self, pick: int, delete: bool) -> None:
        name = sorted(self.saved)[pick % len(self.saved)]
        if delete:
            self.graph.run(snapshots.delete(self.node, name))
            del self.saved[name]
            return
        try:
            self.graph.run(snapshots.apply(self.node, name))
        except BlockError as error:
            assert "refcount" in error.message and self.node.refs.order < 3
        else:
            self.model[:] = self.saved[name]

    @rule()
    def reopen(self) -> None:
        backing = self.node.backing
        if backing is not None:
            backing.monitor_owned = True
        self.graph.run(self.graph.close_node(self.node))
        spec = {"driver": "qcow2", "discard": "unmap", "file": "disk", "backing": backing}
        node = self.graph.run(self.graph.open(spec))
        assert isinstance(node, Qcow2Node)
        self.node = node
        assert {s.name for s in node.snapshots} == set(self.saved)

    @rule()
    def make_empty(self) -> None:
        self.graph.run(self.node.make_empty())
        backing = self.node.backing
        self.model[:] = bytes(self.size)
        if backing is not None:
            self.model[: 200 * K] = b"\xb5" * (200 * K)

    def teardown(self) -> None:
        if not hasattr(self, "node"):
            return
        assert self.graph.run(self.node.read(0, self.size)) == self.model
        self.graph.run(self.node.flush())
        result = self.graph.run(check.check(self.node))
        assert (result.corruptions, result.leaks, result.check_errors) == (0, 0, 0), result.messages


ImageMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=18, deadline=None, suppress_health_check=list(HealthCheck)
)
test_i3_random_operations_match_a_byte_array = ImageMachine.TestCase


@pytest.mark.requires("qemu-img", "qemu-io")
@pytest.mark.parametrize("options", GRID, ids=str)
def test_i4_i5_alternating_writers_agree(tmp_path: Path, options: dict[str, Any]) -> None:
    path, size = tmp_path / "a.qcow2", 3 * M + 1536
    make_image(path, size=size, **options)
    model, rnd = bytearray(size), random.Random(str(options))
    for turn in range(4):
        ops = []
        for _ in range(12):
            offset = rnd.randrange(size // 512) * 512
            length = min(rnd.randrange(1, 300) * 512, size - offset)
            ops.append((rnd.random() < 0.75, offset, length, rnd.randrange(1, 255)))
        if turn % 2:
            words = [f"write {f'-P {f}' if w else '-z'} {o} {n}" for w, o, n, f in ops]
            qemu_io(path, *words)
            graph = Graph()
            found = graph.run(tools.check(graph, str(path)))
            assert not (found.corruptions or found.leaks or found.check_errors)
            graph.run(graph.close())
        else:
            graph = Graph()
            node = open_image(graph, path)
            assert graph.run(node.read(0, size)) == model
            for write, offset, length, fill in ops:
                call = (
                    node.pwrite(offset, bytes([fill]) * length)
                    if write
                    else node.pwrite_zeroes(offset, length)
                )
                graph.run(call)
            graph.run(graph.close())
        for write, offset, length, fill in ops:
            model[offset : offset + length] = bytes([fill if write else 0]) * length
        assert "No errors" in qemu_img("check", path)
    raw = tmp_path / "model.raw"
    raw.write_bytes(model)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", path, raw)


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_i6_compressed_clusters_both_ways(graph: Graph, tmp_path: Path, kind: str) -> None:
    raw, path, theirs = tmp_path / "s.raw", tmp_path / "c.qcow2", tmp_path / "t.qcow2"
    data = b"".join(bytes([i % 251]) * 3000 + os.urandom(900) for i in range(512))
    raw.write_bytes(data)
    make_image(path, size=len(data), compression_type=kind)
    node = open_image(graph, path)
    for offset in range(0, len(data), 65536):
        graph.run(node.pwrite(offset, data[offset : offset + 65536], F.COMPRESSED))
    assert graph.run(node.read(1000, 400000)) == data[1000:401000]
    graph.run(graph.close())
    assert "No errors" in qemu_img("check", path)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", path, raw)
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", f"compression_type={kind}", raw, theirs)
    other = open_image(graph, theirs)
    assert graph.run(other.read(0, len(data))) == data
    graph.run(other.pwrite(65536 * 2 + 100, b"new"))
    assert graph.run(other.read(65536 * 2 + 98, 7)) == data[131170:131172] + b"new" + data[131175:131177]
    graph.run(graph.close())
    assert "No errors" in qemu_img("check", theirs)


@pytest.mark.requires("qemu-img")
def test_i7_chain_of_overlays_with_mixed_sizes(graph: Graph, tmp_path: Path) -> None:
    base, mid, top = (tmp_path / n for n in ("base.qcow2", "mid.qcow2", "top.qcow2"))
    make_image(base, size=700 * K, cluster_size=4096)
    make_image(mid, size=500 * K, backing_file="base.qcow2", backing_format="qcow2", cluster_size=512)
    make_image(top, size=M, backing_file="mid.qcow2", backing_format="qcow2")
    model = bytearray(M)
    for path, fill, spans in (
        (base, 1, [(0, 700 * K)]),
        (mid, 2, [(1000, 3000), (400 * K, 100 * K)]),
        (top, 3, [(2000, 10), (499 * K, 4 * K)]),
    ):
        node = open_image(graph, path)
        for offset, length in spans:
            graph.run(node.pwrite(offset, bytes([fill]) * length))
            model[offset : offset + length] = bytes([fill]) * length
        graph.run(graph.close())
        if path is mid:
            model[500 * K :] = bytes(len(model) - 500 * K)
    node = open_image(graph, top)
    assert graph.run(node.read(0, M)) == model
    status, layer = graph.run(status_above(node, None, 600 * K, 4096))
    assert status.flags & F.ST_ZERO and layer is not None, (
        "beyond the short middle layer nothing shines through"
    )
    graph.run(graph.close())
    raw = tmp_path / "model.raw"
    raw.write_bytes(model)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", top, raw)
    assert len(qemu_json("info", "--backing-chain", top)) == 3


@pytest.mark.requires("qemu-img")
def test_i9_snapshots_with_machine_state_and_icount(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "s.qcow2"
    make_image(path, size=M)
    node = open_image(graph, path)
    graph.run(node.pwrite(0, b"first" * 100))
    state = os.urandom(100_000)
    graph.run(snapshots.save_vmstate(node, 0, state))
    graph.run(snapshots.create(node, "one", sec=1_000_000, vm_size=len(state), icount=123_456))
    graph.run(node.pwrite(0, b"second" * 100))
    graph.run(graph.close())
    assert "No errors" in qemu_img("check", path)
    listing = qemu_json("info", path)["snapshots"]
    assert [(s["name"], s["vm-state-size"], s["icount"]) for s in listing] == [("one", 100_000, 123_456)]
    node = open_image(graph, path)
    graph.run(snapshots.apply(node, "one"))
    assert graph.run(snapshots.load_vmstate(node, 0, len(state))) == state
    graph.run(graph.close())
    graph.run(_assert_starts(graph, path, b"firstfirst"))
    assert "No errors" in qemu_img("check", path)
    qemu_img("snapshot", "-c", "theirs", path)
    node = open_image(graph, path)
    graph.run(node.pwrite(0, b"third"))
    graph.run(snapshots.delete(node, "one"))
    graph.run(snapshots.apply(node, "theirs"))
    graph.run(graph.close())
    graph.run(_assert_starts(graph, path, b"firstfirst"))
    assert "No errors" in qemu_img("check", path)


async def _assert_starts(graph: Graph, path: Path, expected: bytes) -> None:
    node = await graph.open(
        {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}, read_only=True
    )
    assert await node.read(0, len(expected)) == expected
    await graph.close()


@pytest.mark.requires("qemu-img")
def test_i10_persistent_bitmaps_survive_and_qemu_reads_them(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "b.qcow2"
    make_image(path, size=100 * M)
    node = open_image(graph, path)
    bitmap = node.bitmaps.add(DirtyBitmap("back", node.size_bytes, 65536))
    bitmap.persistent = True
    graph.run(node.pwrite(10 * M, b"x" * M))
    graph.run(graph.close())
    info = qemu_json("info", path)["format-specific"]["data"]["bitmaps"]
    assert info == [{"flags": ["auto"], "name": "back", "granularity": 65536}]
    assert "No errors" in qemu_img("check", path)
    qemu_img("bitmap", "--add", "--disable", path, "other")
    node = open_image(graph, path)
    assert list(node.bitmaps.get("back").dirty_ranges()) == [(10 * M, M)]
    assert not node.bitmaps.get("other").enabled
    crashed = path.read_bytes()
    graph.run(graph.close())
    path.write_bytes(crashed)
    node = open_image(graph, path)
    assert node.bitmaps.get("back").inconsistent, "in use when the writer died"


@pytest.mark.requires("qemu-img")
def test_external_data_file_keeps_guest_offsets(graph: Graph, tmp_path: Path) -> None:
    path, data = tmp_path / "m.qcow2", tmp_path / "m.data"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on", path, "2M")
    node = open_image(graph, path)
    graph.run(node.pwrite(300_000, b"payload"))
    graph.run(node.pwrite_zeroes(0, 65536))
    with pytest.raises(BlockError):
        graph.run(snapshots.create(node, "no"))
    graph.run(graph.close())
    assert data.read_bytes()[299_999:300_008] == b"\0payload\0"
    assert "No errors" in qemu_img("check", path)


def test_resize_grows_and_shrinks(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "r.qcow2"
    make_image(path, size=M, cluster_size=4096)
    node = open_image(graph, path)
    graph.run(node.pwrite(0, b"\xaa" * M))
    graph.run(node.truncate(300 * M))
    graph.run(node.pwrite(299 * M, b"far"))
    graph.run(node.truncate(500_000))
    graph.run(node.truncate(M))
    assert graph.run(node.read(0, M)) == b"\xaa" * 500_000 + bytes(M - 500_000)
    result = graph.run(check.check(node))
    assert (result.corruptions, result.leaks) == (0, 0), result.messages

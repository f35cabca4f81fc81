"""Drives opened from configurations: catalogue D1, D3, D4, D8, whatever the image's format."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.block.graph import Graph
from machine.config import DriveConfig
from machine.drives import open_drive, packed_drive
from machine.errors import ConfigError, ImageError
from machine.hw.blockproto import CLUSTER_BYTES, BlockError
from machine.hw.overlay import OverlayDisk
from tests.machine.block.qcow2_util import make_image, open_image

K, M = 1 << 10, 1 << 20


@pytest.fixture
def images(tmp_path: Path) -> tuple[DriveConfig, DriveConfig, bytes]:
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
    return DriveConfig(str(raw)), DriveConfig(str(top), format="qcow2"), bytes(data)


OPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "zero", "discard", "read", "save"]),
        st.integers(0, 3 * M),
        st.integers(1, 200 * K),
    ),
    max_size=12,
)


def apply(disk: OverlayDisk, ops: list[tuple[str, int, int]]) -> list[object]:
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


def test_d1_d8_qcow2_and_raw_disks_behave_alike(images: tuple[DriveConfig, DriveConfig, bytes]) -> None:
    raw, top, _ = images

    @settings(max_examples=25, deadline=None)
    @given(OPS)
    def check(ops: list[tuple[str, int, int]]) -> None:
        _, one = open_drive(top, identify=False)
        _, two = open_drive(raw, identify=False)
        assert apply(one, [*ops, ("save", 0, 1)]) == apply(two, [*ops, ("save", 0, 1)])
        _, again = open_drive(raw, identify=False)
        again.load_state(two.save_state())
        assert again.pread(0, again.size_bytes) == one.pread(0, one.size_bytes)
        for disk in (one, two, again):
            disk.close()

    check()


@pytest.mark.parametrize("which", [0, 1], ids=["raw", "qcow2"])
def test_d3_another_base_is_refused(images: tuple[DriveConfig, DriveConfig, bytes], which: int) -> None:
    drive = images[which]
    assert isinstance(drive, DriveConfig)
    found, disk = open_drive(drive)
    disk.close()
    assert len(found.hash) == 64 and found.size_bytes == 3 * M + 512
    open_drive(found)[1].close()
    with pytest.raises(ImageError, match="Give the image that was recorded"):
        open_drive(replace(found, hash="0" * 64))
    with pytest.raises(ImageError, match="bytes, not 512 bytes; it changed"):
        open_drive(replace(found, size_bytes=512))
    with pytest.raises(ConfigError, match="vmdk"):
        open_drive(replace(found, format="vmdk"))
    Path(drive.file).unlink()
    with pytest.raises(ImageError, match="drive"):
        open_drive(found)


def test_d4_the_read_set_replays_without_the_image(images: tuple[DriveConfig, DriveConfig, bytes]) -> None:
    _, top, _ = images
    kept: dict[int, bytes] = {}
    found, disk = open_drive(top, kept.__setitem__)

    def guest(disk: OverlayDisk) -> bytes:
        disk.pwrite(100_010, b"abc")
        disk.pwrite(CLUSTER_BYTES * 8, bytes(CLUSTER_BYTES))
        return disk.pread(90_000, 50_000) + disk.pread(CLUSTER_BYTES * 8, 100)

    seen = guest(disk)
    assert sorted(kept) == [1, 2] and seen[10_010:10_013] == b"abc"
    replay = packed_drive(found, kept.get)
    assert guest(replay) == seen
    with pytest.raises(BlockError, match="never read"):
        replay.pread(2 * M, 10)
    disk.close()
    with pytest.raises(ImageError, match="damaged"):
        packed_drive(replace(found, size_bytes=1 << 60), kept.get)


def test_a_raw_format_is_never_probed(tmp_path: Path) -> None:
    """A drive of format raw over json: or NBD was probed, so a guest's own qcow2 header chose what is read."""
    image = tmp_path / "inner.qcow2"
    make_image(image, size=M)
    size = image.stat().st_size
    _, disk = open_drive(DriveConfig("json:" + json.dumps({"driver": "file", "filename": str(image)})))
    assert disk.size_bytes == size and disk.pread(0, 4) == b"QFI\xfb"
    disk.close()

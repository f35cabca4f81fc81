"""measure, dd, bitmap, amend, bench and convert's further options against qemu-img: catalogue I17 and section 11."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from machine.block.graph import Graph
from machine.block.qcow2 import snapshots
from machine.block.qcow2.node import Qcow2Node
from workbench.cli.imgtools import img

from .qcow2_util import make_image, open_image, qemu_img, qemu_io, qemu_json
from .test_tools import run

K, M = 1 << 10, 1 << 20


def filled(path: Path, size: int = 3 * M + 512, **options: Any) -> bytes:
    """Make an image with data, holes and zero clusters; returns what it shows."""
    make_image(path, size=size, **options)
    graph, rnd, model = Graph(), random.Random(5), bytearray(size)
    node = open_image(graph, path)
    for i in range(12):
        at, length = rnd.randrange(size - 70_000), rnd.randrange(1, 70_000)
        graph.run(node.pwrite(at, bytes([i + 1]) * length))
        model[at : at + length] = bytes([i + 1]) * length
    cluster = node.cluster
    if node.header.version == 3:
        graph.run(node.pwrite_zeroes(8 * cluster, 2 * cluster))
        model[8 * cluster : 10 * cluster] = bytes(2 * cluster)
    graph.run(graph.close())
    return bytes(model)


def refused(code: int, *args: object) -> None:
    """Run ``workbench img``, which has to fail with this exit status."""
    result = CliRunner().invoke(img, [str(a) for a in args])
    found = getattr(result.exception, "exit_code", result.exit_code)
    assert found == code, f"{args}: {found} {result.output} {result.exception!r}"


GRID = [
    "cluster_size=64k",
    "cluster_size=512,compat=0.10",
    "cluster_size=2M,refcount_bits=1",
    "cluster_size=4k,refcount_bits=64",
    "extended_l2=on,cluster_size=16k",
    "preallocation=full",
]


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("options", GRID)
def test_i17_measure_agrees_with_qemu_img(tmp_path: Path, options: str) -> None:
    for size in ("0", "1", "777k", "1G", "100G", "5T", "1E"):
        ask = ("-O", "qcow2", "-o", options, "--size", size, "--output=json")
        theirs = qemu_img("measure", *ask, ok=(0, 1))
        if not theirs:
            refused(3, "measure", *ask)
        else:
            assert json.loads(run("measure", *ask)) == json.loads(theirs), (options, size)


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("target", ["raw", "qcow2"])
def test_i17_measure_of_images_agrees_with_qemu_img(tmp_path: Path, target: str) -> None:
    raw, top = tmp_path / "s.raw", tmp_path / "s.qcow2"
    raw.write_bytes(bytes(M) + b"\1" * 300_000 + bytes(5 * M) + b"\2")
    filled(top)
    qemu_img("bitmap", "--add", top, "one")
    qemu_img("bitmap", "--add", "-g", "512", top, "another")
    qemu_img("snapshot", "-c", "snap", top)
    for ask in (("-f", "raw", raw), ("-f", "qcow2", top), ("-l", "snapshot.name=snap", top)):
        ours = json.loads(run("measure", "-O", target, "--output=json", *ask))
        assert ours == json.loads(qemu_img("measure", "-O", target, "--output=json", *ask)), ask
    assert "required size" in run("measure", "-O", target, top)


@pytest.mark.parametrize(
    ("how", "low", "high"),
    [
        (["bs=64k"], 0, None),
        (["bs=1000", "skip=7"], 7000, None),
        (["bs=4k", "count=3", "skip=250"], 250 * 4 * K, 253 * 4 * K),
        (["bs=1M", "skip=9"], 9 * M, None),
    ],
    ids=str,
)
def test_dd_copies_count_blocks_behind_the_skipped_ones(
    tmp_path: Path, how: list[str], low: int, high: int | None
) -> None:
    source, out = tmp_path / "s.qcow2", tmp_path / "o.raw"
    data = filled(source)
    run("dd", "-O", "raw", f"if={source}", f"of={out}", *how)
    assert out.read_bytes() == data[low:high]


def test_dd_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    source = f"if={tmp_path / 's'}"
    (tmp_path / "s").write_bytes(bytes(512))
    for wrong in (
        ["if=x"],
        ["if=x", "of=y", "conv=sync"],
        ["if=x", "if=x", "of=y"],
        [source, "of=y", "bs=0"],
    ):
        refused(2, "dd", *wrong)


@pytest.mark.requires("qemu-img", "qemu-io")
def test_bitmap_actions_in_their_order_give_what_qemu_img_gives(tmp_path: Path) -> None:
    images = [tmp_path / "o.qcow2", tmp_path / "t.qcow2"]
    script = [
        ["--add", "-g", "64k", "a"],
        ["--add", "--disable", "b"],
        ["--merge", "a", "--enable", "b"],
    ]
    tools: tuple[Any, Any] = (run, qemu_img)
    for image, tool in zip(images, tools, strict=True):
        make_image(image, size=8 * M)
        for step in script[:2]:
            tool("bitmap", *step[:-1], image, step[-1])
        qemu_io(image, "write -P 1 1M 100k")
        tool("bitmap", *script[2][:-1], image, "b")
        tool("bitmap", "--clear", image, "a")
        qemu_io(image, "write -P 1 5M 1")
    infos = [qemu_json("info", image)["format-specific"]["data"]["bitmaps"] for image in images]
    assert infos[0] == infos[1] and len(infos[0]) == 2
    graph = Graph()
    dirty = []
    for image in images:
        node = open_image(graph, image, **{"read-only": True})
        dirty.append({b.name: list(b.dirty_ranges()) for b in node.bitmaps})
    assert (
        dirty[0]
        == dirty[1]
        == {
            "a": [(5 * M, 64 * K)],
            "b": [(M, 128 * K), (5 * M, 64 * K)],
        }
    )
    graph.run(graph.close())


@pytest.mark.requires("qemu-img")
def test_a_bitmap_action_that_fails_leaves_all_as_it_was(tmp_path: Path) -> None:
    image = tmp_path / "i.qcow2"
    make_image(image, size=M)
    run("bitmap", "--add", image, "a")
    before = qemu_json("info", image)["format-specific"]["data"]["bitmaps"]
    refused(3, "bitmap", "--disable", "--merge", "nobody", image, "a")
    refused(3, "bitmap", "--add", image, "a")
    refused(2, "bitmap", image, "a")
    assert qemu_json("info", image)["format-specific"]["data"]["bitmaps"] == before
    run("bitmap", "--remove", image, "a")
    assert "bitmaps" not in qemu_json("info", image)["format-specific"]["data"]
    qemu_img("check", image)


@pytest.mark.requires("qemu-img")
def test_bitmaps_merge_from_another_image(tmp_path: Path) -> None:
    one, two = tmp_path / "1.qcow2", tmp_path / "2.qcow2"
    for path in (one, two):
        make_image(path, size=M)
        run("bitmap", "--add", path, "b")
    qemu_io(one, "write 512k 1")
    run("bitmap", "--merge", "b", "-b", one, "-F", "qcow2", two, "b")
    graph = Graph()
    node = open_image(graph, two, **{"read-only": True})
    assert list(node.bitmaps.get("b").dirty_ranges()) == [(512 * K, 64 * K)]
    graph.run(graph.close())


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
def test_amend_gives_refcounts_another_width(tmp_path: Path, bits: int) -> None:
    image, raw = tmp_path / "i.qcow2", tmp_path / "m.raw"
    raw.write_bytes(filled(image, refcount_bits=8, cluster_size=4096))
    run("bitmap", "--add", image, "kept")
    run("amend", "-o", f"refcount_bits={bits}", image)
    assert qemu_json("info", image)["format-specific"]["data"]["refcount-bits"] == bits
    qemu_img("check", image)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", image, raw)
    qemu_io(image, "write -P 9 100k 1M")
    qemu_img("check", image)


@pytest.mark.requires("qemu-img")
def test_amend_refuses_a_width_that_is_too_small_for_snapshots(tmp_path: Path) -> None:
    image = tmp_path / "i.qcow2"
    filled(image)
    qemu_img("snapshot", "-c", "s", image)
    before = image.read_bytes()
    refused(3, "amend", "-o", "refcount_bits=1", image)
    qemu_img("check", image)
    assert qemu_json("info", image)["format-specific"]["data"]["refcount-bits"] == 16
    assert image.read_bytes()[:104] == before[:104]


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("backing", [False, True])
def test_amend_changes_the_compatibility_level_and_keeps_the_data(tmp_path: Path, backing: bool) -> None:
    base, image, raw = tmp_path / "b.raw", tmp_path / "i.qcow2", tmp_path / "m.raw"
    base.write_bytes(b"\xee" * (3 * M + 512))
    extra: dict[str, Any] = {"backing_file": str(base), "backing_format": "raw"} if backing else {}
    filled(image, lazy_refcounts=True, **extra)
    qemu_img("convert", "-O", "raw", image, raw)
    run("amend", "-o", "compat=0.10", image)
    assert qemu_json("info", image)["format-specific"]["data"]["compat"] == "0.10"
    qemu_img("check", image)
    qemu_img("compare", "-F", "raw", image, raw)
    refused(2, "amend", "-o", "lazy_refcounts=on", image)
    run("amend", "-o", "compat=1.1,lazy_refcounts=on,size=4M", image)
    data = qemu_json("info", image)["format-specific"]["data"]
    assert data["compat"] == "1.1" and data["lazy-refcounts"] is True
    assert qemu_json("info", image)["virtual-size"] == 4 * M
    qemu_img("check", image)
    qemu_img("compare", "-F", "raw", image, raw)


@pytest.mark.parametrize(
    "options", [{"refcount_bits": 8}, {"extended_l2": True}, {"compression_type": "zstd"}], ids=str
)
def test_amend_refuses_a_downgrade_that_would_lose_something(tmp_path: Path, options: dict[str, Any]) -> None:
    image = tmp_path / "i.qcow2"
    make_image(image, size=M, **options)
    before = image.read_bytes()
    refused(3, "amend", "-o", "compat=0.10", image)
    assert image.read_bytes() == before
    refused(2, "amend", "-o", "cluster_size=4k", image)


def test_bench_sends_its_requests(tmp_path: Path) -> None:
    image = tmp_path / "i.qcow2"
    make_image(image, size=M)
    assert "Run completed" in run("bench", "-c", 100, "-d", 8, image)
    run(
        "bench", "-q", "-w", "-c", 10, "-s", "64k", "-S", "128k", "--pattern", 7, "--flush-interval", 3, image
    )
    graph = Graph()
    node = open_image(graph, image, **{"read-only": True})
    data = graph.run(node.read(0, M))
    assert [data[i * 64 * K] for i in range(16)] == [7, 0] * 8
    graph.run(graph.close())
    refused(2, "bench", "-c", 0, image)


# convert


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("how", [["-m", "1"], ["-m", "16", "-W"], ["-m", "16"]], ids=str)
def test_convert_with_pieces_in_flight(tmp_path: Path, how: list[str]) -> None:
    source, target, raw = tmp_path / "s.qcow2", tmp_path / "t.qcow2", tmp_path / "m.raw"
    raw.write_bytes(filled(source, size=40 * M + 512))
    run("convert", *how, "-O", "qcow2", source, target)
    qemu_img("compare", "-F", "raw", target, raw)
    qemu_img("check", target)
    refused(2, "convert", "-m", "17", "-O", "qcow2", source, target)


@pytest.mark.requires("qemu-img")
def test_convert_takes_bitmaps_along(tmp_path: Path) -> None:
    source, ours, theirs = (tmp_path / n for n in ("s.qcow2", "o.qcow2", "t.qcow2"))
    make_image(source, size=4 * M)
    run("bitmap", "--add", source, "a")
    run("bitmap", "--add", "-g", "512", "--disable", source, "b")
    qemu_io(source, "write 2M 1")
    run("convert", "--bitmaps", "-O", "qcow2", source, ours)
    qemu_img("convert", "--bitmaps", "-O", "qcow2", source, theirs)
    one, two = (qemu_json("info", p)["format-specific"]["data"]["bitmaps"] for p in (ours, theirs))
    assert sorted(one, key=str) == sorted(two, key=str)
    qemu_img("check", ours)
    refused(2, "convert", "--bitmaps", "-O", "raw", source, tmp_path / "x.raw")
    with source.open("r+b") as file:  # a bitmap that was in use when its program died
        graph = Graph()
        node = open_image(graph, source, **{"read-only": True})
        assert isinstance(node, Qcow2Node) and node.header.bitmaps is not None
        offset = int.from_bytes(node.header.bitmaps[16:24], "big")
        graph.run(graph.close())
        file.seek(offset + 15)
        file.write(b"\1")
    refused(2, "convert", "--bitmaps", "-O", "qcow2", source, ours)
    run("convert", "--bitmaps", "--skip-broken-bitmaps", "-O", "qcow2", source, ours)
    assert [b["name"] for b in qemu_json("info", ours)["format-specific"]["data"]["bitmaps"]] == ["b"]


def test_convert_salvages_what_can_be_read(tmp_path: Path) -> None:
    raw, out = tmp_path / "s.raw", tmp_path / "o.raw"
    raw.write_bytes(b"\5" * M)
    bad = {"driver": "blkdebug", "image": {"driver": "file", "filename": str(raw)}}
    rules = [{"event": "none", "iotype": "read", "sector": sector} for sector in (100, 1000)]
    name = "json:" + json.dumps({"driver": "raw", "file": {**bad, "inject-error": rules}})
    refused(3, "convert", "-O", "raw", name, out)
    run("convert", "--salvage", "-O", "raw", name, out)
    expected = bytearray(b"\5" * M)
    for sector in (100, 1000):
        expected[512 * sector : 512 * sector + 512] = bytes(512)
    assert out.read_bytes() == expected


def test_snapshots_are_kept_by_an_amend_of_the_refcounts(tmp_path: Path) -> None:
    image = tmp_path / "i.qcow2"
    data = filled(image)
    graph = Graph()
    node = open_image(graph, image)
    graph.run(snapshots.create(node, "s"))
    graph.run(node.pwrite(0, b"\xaa" * M))
    graph.run(graph.close())
    run("amend", "-o", "refcount_bits=64", image)
    run("check", image)
    run("snapshot", "-a", "s", image)
    graph = Graph()
    node = open_image(graph, image, **{"read-only": True})
    assert graph.run(node.read(0, len(data))) == data
    graph.run(graph.close())

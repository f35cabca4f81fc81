"""The whole grid of creation options, both ways: catalogue I1, I2; and verdicts on damaged images: I11, I18."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from machine.block.errors import BlockError
from machine.block.graph import Graph
from machine.block.qcow2 import check
from machine.block.qcow2.node import Qcow2Node

from .qcow2_util import make_image, open_image, qemu_img, qemu_json
from .test_qcow2_damage import image_bytes, patch
from .test_tools import run

K, M, G, T = 1 << 10, 1 << 20, 1 << 30, 1 << 40
CLUSTERS = [1 << bits for bits in range(9, 22)]


def same_info(ours: Any, theirs: Any) -> None:
    for key in ("virtual-size", "cluster-size", "format", "format-specific", "dirty-flag"):
        assert ours[key] == theirs[key], key


@pytest.mark.slow
@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_i1_i2_the_whole_grid(tmp_path: Path, cluster: int) -> None:
    ours, theirs = tmp_path / "o.qcow2", tmp_path / "t.qcow2"
    sizes = [size for size in (0, 12345 * 512, G, T) if size // cluster // (cluster // 8) * 8 < 32 * M]
    for size, bits, compat in itertools.product(sizes, (1, 2, 4, 8, 16, 32, 64), ("0.10", "1.1")):
        if compat == "0.10" and bits != 16:
            continue
        options = f"cluster_size={cluster},refcount_bits={bits},compat={compat}"
        run("create", "-q", "-f", "qcow2", "-o", options, ours, size)
        assert "No errors" in qemu_img("check", ours)
        qemu_img("create", "-q", "-f", "qcow2", "-o", options, theirs, str(size))
        assert json.loads(run("check", "--output=json", theirs))["corruptions"] == 0
        same_info(json.loads(run("info", "--output=json", ours)), qemu_json("info", theirs))
        same_info(json.loads(run("info", "--output=json", theirs)), qemu_json("info", ours))


@pytest.mark.slow
@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize(
    "options", ["extended_l2=on", "compression_type=zstd", "lazy_refcounts=on", "data_file=D", "preallocation=metadata",
                "data_file=D,data_file_raw=on", "extended_l2=on,lazy_refcounts=on,compression_type=zstd"],
)  # fmt: skip
def test_i2_images_of_qemu_with_newer_features(tmp_path: Path, options: str) -> None:
    path, raw = tmp_path / "q.qcow2", tmp_path / "m.raw"
    options = options.replace("=D", f"={tmp_path}/data")
    for size in (12345 * 512, G):
        qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, str(size))
        same_info(json.loads(run("info", "--output=json", path)), qemu_json("info", path))
        graph, model = Graph(), bytearray(12345 * 512)
        node = open_image(graph, path)
        for at, length in ((0, 70_000), (3 * M + 5, 100), (5 * M, M)):
            graph.run(node.pwrite(at, b"\x5c" * length))
            model[at : at + length] = b"\x5c" * length
        graph.run(graph.close())
        qemu_img("check", path)
        raw.write_bytes(bytes(model[: min(size, len(model))]))
        qemu_img("compare", "-F", "raw", path, raw)


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("extra", [1025, 0xFFFF_FFFF], ids=str)
def test_i11_a_snapshot_with_too_much_extra_data_is_refused_as_by_qemu_img(
    tmp_path: Path, extra: int
) -> None:
    path, data = tmp_path / "s.qcow2", image_bytes()
    table = int.from_bytes(data[64:72], "big")
    path.write_bytes(patch(data, table + 36, extra, 4))
    assert verdicts(path) == (False, False)


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("extra", [0, 8], ids=str)
def test_i11_a_snapshot_that_lacks_extra_data_is_repaired(tmp_path: Path, extra: int) -> None:
    """Such images, which old programs made, were refused, while qemu-img opens and repairs them."""
    path, data = tmp_path / "s.qcow2", image_bytes()
    table = int.from_bytes(data[64:72], "big")
    fixed, rest = data[table : table + 36], data[table + 40 + 24 : table + 40 + 24 + 8]
    entry = fixed + extra.to_bytes(4, "big") + data[table + 40 : table + 40 + extra] + rest[:2]
    path.write_bytes(data[:table] + entry.ljust(128, b"\0") + data[table + 128 :])
    assert verdicts(path) == (True, True)
    theirs = qemu_json("check", path, ok=(2,))
    ours = json.loads(run("check", "--output=json", path, ok=(2,)))
    assert ours["corruptions"] == theirs["corruptions"] == 1
    run("check", "-r", "all", path)
    assert "No errors" in qemu_img("check", path)
    assert [s["name"] for s in qemu_json("info", path)["snapshots"]] == ["s"]


def verdicts(path: Path) -> tuple[bool, bool]:
    """Return whether we open an image, and whether qemu-img does."""
    graph = Graph()
    try:
        node = graph.run(
            graph.open(
                {
                    "driver": "qcow2",
                    "read-only": True,
                    "backing": None,
                    "file": {"driver": "file", "filename": str(path)},
                }
            )
        )
        assert isinstance(node, Qcow2Node)
        graph.run(check.check(node))
        ours = True
    except BlockError:
        ours = False
    finally:
        graph.run(graph.close())
    return ours, bool(qemu_img("info", "-f", "qcow2", path, ok=(0, 1)))


def compare_verdicts(tmp_path: Path, seeds: range) -> None:
    base, path = image_bytes(), tmp_path / "m.qcow2"
    for seed in seeds:
        rnd, image = random.Random(seed), bytearray(base)
        for _ in range(rnd.randrange(1, 3)):
            at = rnd.choice((rnd.randrange(104), rnd.randrange(4, 104), rnd.randrange(104, 600)))
            value = rnd.choice((bytes([rnd.randrange(256)]), b"\xff" * 8, bytes(8), rnd.randbytes(4)))
            image[at : at + len(value)] = value
        path.write_bytes(image)
        ours, theirs = verdicts(path)
        if ours != theirs:
            changed = [(i, image[i]) for i in range(len(base)) if image[i] != base[i]]
            assert not ours, f"seed {seed}: qemu-img refuses what we open: {changed}"
            # Stricter than qemu-img only where a value can't be one of a whole image.
            assert theirs, changed


@pytest.mark.requires("qemu-img")
def test_i18_what_qemu_img_refuses_we_refuse(tmp_path: Path) -> None:
    for seed in (
        *range(30),
        100,
        622,
        809,
    ):  # the last three were opened: no refcount table, an end that is too long
        compare_verdicts(tmp_path, range(seed, seed + 1))


@pytest.mark.slow
@pytest.mark.requires("qemu-img")
def test_i18_what_qemu_img_refuses_we_refuse_many(tmp_path: Path) -> None:
    compare_verdicts(tmp_path, range(40, 1500))


def test_the_grid_makes_the_image_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    for cluster in CLUSTERS:
        make_image(path, size=5 * M, cluster_size=cluster)
        graph = Graph()
        node = open_image(graph, path)
        assert node.cluster == cluster and node.size_bytes == 5 * M
        graph.run(graph.close())

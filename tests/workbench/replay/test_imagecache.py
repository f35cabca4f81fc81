"""Packed images that are kept: found by contents alone, and never used when they are not what was written."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from machine.tcg.ramfold import tree_hash
from traces import blobs
from traces.blobs import BlobPacker, Packed
from workbench.replay import imagecache
from workbench.replay.imagecache import cache_path, load, packed_image, save

IMAGE = b"".join(n.to_bytes(4, "little") * 8 for n in range(1 << 16)) + b"a tail"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "workbench" / "images"


def held(packed: Packed) -> bytes:
    return blobs.check(
        blobs.unpack(packed.codec, bytes(packed.stored), packed.size, "here"), packed.name, "here"
    )


def test_an_image_is_packed_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = packed_image(IMAGE)
    assert held(first) == IMAGE
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(BlobPacker, "pack", lambda *_: pytest.fail("packed once more"))
    again = packed_image(IMAGE)
    assert (again.name, again.size, again.codec, again.stored) == (
        first.name,
        first.size,
        "zstd",
        first.stored,
    )
    assert [each.name for each in cache.iterdir()] == [cache_path(tree_hash(IMAGE)).name]


def test_another_image_is_never_taken_for_it() -> None:
    packed_image(IMAGE)
    for other in (IMAGE[:-1], IMAGE + b"\0", b"x" + IMAGE[1:], IMAGE[:-1] + b"x"):
        assert held(packed_image(other)) == other


def test_what_is_damaged_is_packed_anew(cache: Path) -> None:
    whole = packed_image(IMAGE)
    path = cache_path(tree_hash(IMAGE))
    good = path.read_bytes()
    choose = random.Random(1)
    damaged = [b"", good[:50], good[:-1], good + b"\0", bytes(len(good))]
    for _ in range(20):
        flipped = bytearray(good)
        flipped[choose.randrange(len(good))] ^= 1 << choose.randrange(8)
        damaged.append(bytes(flipped))
    for bad in damaged:
        path.write_bytes(bad)
        assert load(path) is None
        assert held(packed_image(IMAGE)) == IMAGE
        assert load(path) == whole


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert held(packed_image(IMAGE)) == IMAGE


def test_the_images_not_used_for_longest_go(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagecache, "_MOST_FILES", 3)
    paths = [cache_path(bytes([n]) * 32) for n in range(5)]
    for n, path in enumerate(paths):
        save(path, BlobPacker().pack(bytes(4096)))
        os.utime(path, (n, n))
        if n == 2:
            assert load(paths[0]) is not None
    assert sorted(cache.iterdir()) == sorted([paths[0], *paths[3:]])


def test_small_images_and_those_that_do_not_compress_are_not_kept(cache: Path) -> None:
    for data in (b"", IMAGE[:1000], random.Random(1).randbytes(1 << 20)):
        assert held(packed_image(data)) == data
    assert not cache.exists()

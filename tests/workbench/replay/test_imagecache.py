"""Beginnings of traces that are kept: found by the images alone, never used when they are not what was written."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from machine.tcg.ramfold import page_names
from traces.blobs import BlobPacker, blob_hash
from traces.reader import TraceReader
from traces.schema import FORMAT
from traces.writer import TraceWriter
from workbench.replay import imagecache
from workbench.replay.imagecache import begin_with, cache_path, load, save, tree_hash

IMAGE = b"".join(n.to_bytes(4, "little") * 8 for n in range(1 << 16)) + b"a tail"
RANDOM = random.Random(1).randbytes(5000)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "workbench" / "images"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "t.trace"


def path_of(*images: bytes) -> Path:
    return cache_path(*by_role(images))


def by_role(images: Sequence[bytes]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    roles = {f"role{n}": data for n, data in enumerate(images)}
    return roles, {role: page_names(data) for role, data in roles.items()}


def recorded(trace: Path, *images: bytes) -> list[bytes]:
    """Make a trace of some images; return those that it holds, each held against its hash."""
    writer = TraceWriter.create(trace, begin=False)
    for role, each in begin_with(writer, *by_role(images)).items():
        writer.add_packed_image(role, role, each)
    writer.close(0)
    with TraceReader.open(trace) as reader:
        reader.verify()
        assert [row.size for row in reader.images()] == [len(data) for data in images]
        return [reader.image(f"role{n}") or b"" for n in range(len(images))]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 65 * 4096 + 17, 130 * 4096])
def test_the_tree_hash_is_over_the_names_of_pages_what_is_left_and_the_length(size: int) -> None:
    data = random.Random(size).randbytes(size)
    text = page_names(data) + data[size - size % 4096 :] + size.to_bytes(8, "little")
    assert tree_hash(data, page_names(data)) == blob_hash(text)


def test_images_are_packed_once(cache: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recorded(trace, IMAGE, RANDOM) == [IMAGE, RANDOM]
    made = trace.read_bytes()
    monkeypatch.setattr(BlobPacker, "pack", lambda *_: pytest.fail("packed once more"))
    assert recorded(trace, IMAGE, RANDOM) == [IMAGE, RANDOM]
    assert trace.read_bytes() == made
    assert [each.name for each in cache.iterdir()] == [path_of(IMAGE, RANDOM).name]


def test_other_images_are_never_taken_for_them(trace: Path) -> None:
    recorded(trace, IMAGE, RANDOM)
    for other in (IMAGE[:-1], IMAGE + b"\0", b"x" + IMAGE[1:], IMAGE[:-1] + b"x"):
        assert recorded(trace, other, RANDOM) == [other, RANDOM]
    assert recorded(trace, IMAGE) == [IMAGE]
    assert recorded(trace, RANDOM, IMAGE) == [RANDOM, IMAGE]
    assert recorded(trace, IMAGE, RANDOM[1:]) == [IMAGE, RANDOM[1:]]


def test_what_is_damaged_is_made_anew(trace: Path) -> None:
    recorded(trace, IMAGE)
    path = path_of(IMAGE)
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
        assert recorded(trace, IMAGE) == [IMAGE]
        assert path.read_bytes() == good


def test_a_trace_of_another_format_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = path_of(IMAGE)
    monkeypatch.setattr(imagecache, "FORMAT", FORMAT + 1)
    assert path_of(IMAGE) != before


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert recorded(trace, IMAGE) == [IMAGE]


def test_what_was_not_used_for_longest_goes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagecache, "_MOST_FILES", 3)
    cache.mkdir(parents=True)
    paths = [cache / f"{n}.begin" for n in range(5)]
    for n, path in enumerate(paths):
        save(path, bytes(4096))
        os.utime(path, (n, n))
        if n == 2:
            assert load(paths[0]) is not None
    assert sorted(cache.iterdir()) == sorted([paths[0], *paths[3:]])


def test_small_images_are_not_kept(cache: Path, trace: Path) -> None:
    for data in (b"x", IMAGE[:1000], RANDOM):
        assert recorded(trace, data) == [data]
    assert not cache.exists()

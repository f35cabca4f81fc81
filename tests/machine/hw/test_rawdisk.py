"""Raw images as bases."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.errors import ImageError
from machine.hw.blockproto import CLUSTER_BYTES, BlockError
from machine.hw.rawdisk import RawBase

SIZE = 3 * CLUSTER_BYTES + 512


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(i >> 9 & 0xFF for i in range(SIZE)))
    return path


@pytest.mark.parametrize("content", [None, b"", b"x" * 100])
def test_unusable_image_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.img"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.img"):
        RawBase(path)
    with pytest.raises(ImageError, match="not a regular file"):
        RawBase(tmp_path)


def test_clusters_are_those_of_the_file_and_the_last_one_is_short(image: Path) -> None:
    base, data = RawBase(image), image.read_bytes()
    assert base.size_bytes == SIZE
    assert base.cluster(1, CLUSTER_BYTES) == data[CLUSTER_BYTES : 2 * CLUSTER_BYTES]
    assert base.cluster(3, 512) == data[-512:]


def test_identity_is_of_the_content(image: Path, tmp_path: Path) -> None:
    base = RawBase(image)
    name = base.identity()
    copy = tmp_path / "copy"
    copy.write_bytes(image.read_bytes())
    assert RawBase(copy).identity() == name
    copy.write_bytes(image.read_bytes()[:-1] + b"!")
    assert RawBase(copy).identity() != name
    assert base.cluster(0, 512) == bytes(512)


def test_image_that_shrinks_is_an_io_error(image: Path) -> None:
    base = RawBase(image)
    image.write_bytes(bytes(512))
    with pytest.raises(BlockError, match="shorter"):
        base.cluster(2, CLUSTER_BYTES)

"""Raw images: base, overlay, identity, state."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.errors import ImageError
from machine.hw.blockproto import BlockError
from machine.hw.rawdisk import CLUSTER_BYTES, RawDisk, content_hash, file_hash

SIZE = 3 * CLUSTER_BYTES + 512


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(i >> 9 & 0xFF for i in range(SIZE)))
    return path


class Store:
    """Blobs in memory."""

    def __init__(self) -> None:
        self.blobs: dict[bytes, bytes] = {}

    def put(self, data: bytes) -> bytes:
        self.blobs[content_hash(data)] = data
        return content_hash(data)

    def get(self, digest: bytes) -> bytes:
        return self.blobs[digest]


def test_writes_stay_in_the_overlay(image: Path) -> None:
    before = image.read_bytes()
    disk = RawDisk(image)
    disk.pwrite(CLUSTER_BYTES - 512, b"x" * 1024)
    expected = before[: CLUSTER_BYTES - 512] + b"x" * 1024 + before[CLUSTER_BYTES + 512 :]
    assert disk.pread(0, SIZE) == expected
    assert image.read_bytes() == before


def test_base_reads_are_told_once_for_each_cluster(image: Path) -> None:
    told: list[tuple[int, int]] = []
    disk = RawDisk(image, base_read=lambda cluster, data: told.append((cluster, len(data))))
    disk.pread(0, 512)
    disk.pread(512, CLUSTER_BYTES)
    disk.pread(SIZE - 512, 512)
    disk.pwrite(2 * CLUSTER_BYTES, bytes(CLUSTER_BYTES))
    assert told == [(0, CLUSTER_BYTES), (1, CLUSTER_BYTES), (3, 512)]


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1), (0, -1)])
def test_range_outside_the_disk_is_a_block_error(image: Path, offset: int, size: int) -> None:
    with pytest.raises(BlockError):
        RawDisk(image).pread(offset, size)


def test_readonly_disk_refuses_writes(image: Path) -> None:
    with pytest.raises(BlockError) as caught:
        RawDisk(image, readonly=True).pwrite(0, b"x")
    assert caught.value.errno == 30


@pytest.mark.parametrize("content", [None, b"", b"x" * 100])
def test_unusable_image_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.img"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.img"):
        RawDisk(path)
    with pytest.raises(ImageError, match="not a regular file"):
        RawDisk(tmp_path)


def test_identity_is_checked(image: Path) -> None:
    good = file_hash(image)
    RawDisk(image, expected_hash=good, expected_size=SIZE).close()
    with pytest.raises(ImageError, match="another image"):
        RawDisk(image, expected_size=SIZE + 512)
    image.write_bytes(bytes(SIZE))
    with pytest.raises(ImageError, match="changed"):
        RawDisk(image, expected_hash=good)


def test_image_that_shrinks_is_an_io_error(image: Path) -> None:
    disk = RawDisk(image)
    image.write_bytes(bytes(512))
    with pytest.raises(BlockError, match="shorter"):
        disk.pread(2 * CLUSTER_BYTES, 512)


@pytest.mark.parametrize("with_store", [False, True])
def test_state_comes_back(image: Path, with_store: bool) -> None:
    store = Store() if with_store else None
    disk = RawDisk(image)
    disk.set_blob_store(store)
    disk.pwrite(200 * 512, b"one" * 512)
    first = disk.save_state()
    content = disk.pread(0, SIZE)
    disk.pwrite(0, b"two" * 512)
    disk.write_zeroes(SIZE - 512, 512)
    second = disk.save_state()
    assert list(second["clusters"]) == ["0", "1", "3"]
    assert bool(second["data"]) != with_store
    other = RawDisk(image)
    other.set_blob_store(store)
    other.load_state(second)
    assert other.pread(0, SIZE) == disk.pread(0, SIZE)
    disk.load_state(first)
    assert disk.pread(0, SIZE) == content
    assert disk.save_state() == first


def test_foreign_or_damaged_state_is_refused(image: Path) -> None:
    disk = RawDisk(image)
    disk.pwrite(0, b"data")
    good = disk.save_state()
    digest = good["clusters"]["0"]
    for bad in (
        {},
        {**good, "version": 2},
        {**good, "clusters": {"9": digest}},
        {**good, "clusters": {"-1": digest}},
        {**good, "clusters": {"0": "zz"}},
        {**good, "data": {digest: "AAAA"}},
        {**good, "data": {digest: "!"}},
        {**good, "data": {}},
    ):
        with pytest.raises(ValueError, match=r"."):
            RawDisk(image).load_state(bad)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, SIZE // 512 - 1), st.integers(1, 200), st.sampled_from("wzr")), max_size=12
    )
)
def test_disk_behaves_as_an_array_of_bytes(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[int, int, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "model.img"
    if not path.exists():
        path.write_bytes(bytes(i * 7 >> 8 & 0xFF for i in range(SIZE)))
    disk, model = RawDisk(path), bytearray(path.read_bytes())
    for number, (sector, count, kind) in enumerate(operations):
        offset, size = sector * 512, min(count * 512, SIZE - sector * 512)
        if kind == "r":
            assert disk.pread(offset, size) == model[offset : offset + size]
        else:
            data = bytes(size) if kind == "z" else bytes((number + 1,)) * size
            disk.write_zeroes(offset, size) if kind == "z" else disk.pwrite(offset, data)
            model[offset : offset + size] = data
    assert disk.pread(0, SIZE) == model
    disk.close()

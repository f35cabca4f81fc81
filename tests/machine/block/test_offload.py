"""Copies that the host makes: ``img convert -C``."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from machine.block.errors import UnsupportedError
from machine.block.extent import HostExtent
from workbench.cli.imgtools import img

from .qcow2_util import qemu_img
from .test_imgtools import filled
from .test_tools import run

K, M = 1 << 10, 1 << 20


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each piece that the host copies."""
    calls: list[int] = []
    real = os.copy_file_range

    def count(*args: int) -> int:
        calls.append(real(*args))
        return calls[-1]

    monkeypatch.setattr(os, "copy_file_range", count)
    return calls


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("source_format", ["raw", "qcow2"])
@pytest.mark.parametrize("target", ["raw", "qcow2", "qcow2,cluster_size=512", "qcow2,extended_l2=on"])
def test_convert_lets_the_host_copy(
    tmp_path: Path, copied: list[int], source_format: str, target: str
) -> None:
    image, out = tmp_path / "s.qcow2", tmp_path / "out"
    data = filled(image)
    source = image
    if source_format == "raw":
        source = tmp_path / "s.raw"
        source.write_bytes(data)
    fmt, _, options = target.partition(",")
    run("convert", "-C", "-O", fmt, *(["-o", options] if options else []), "-f", source_format, source, out)
    assert sum(copied) >= 200_000
    qemu_img("compare", "-f", source_format, "-F", fmt, source, out)
    if fmt == "qcow2":
        assert "No errors" in qemu_img("check", out)


@pytest.mark.requires("qemu-img")
def test_convert_copies_itself_where_the_host_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host may refuse in the middle: between file systems, or above a file's end."""
    raw, out = tmp_path / "s.raw", tmp_path / "o.qcow2"
    raw.write_bytes(os.urandom(9 * M + 512))
    real, calls = os.copy_file_range, []

    def refuse(*args: int) -> int:
        calls.append(args)
        if len(calls) > 2:
            raise OSError(errno.EXDEV, "another file system")
        return real(*args)

    monkeypatch.setattr(os, "copy_file_range", refuse)
    run("convert", "-C", "-O", "qcow2", "-f", "raw", "-m", "1", raw, out)
    assert len(calls) == 3
    qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, out)
    assert "No errors" in qemu_img("check", out)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_an_error_of_the_hosts_copy_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    raw = tmp_path / "s.raw"
    raw.write_bytes(os.urandom(M))

    def fail(*args: int) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "copy_file_range", fail)
    result = CliRunner().invoke(img, ["convert", "-C", "-f", "raw", str(raw), str(tmp_path / "o")])
    assert os.strerror(error) in str(result.exception)


@pytest.mark.parametrize("other", [["-c"], ["-S", "64k"], ["--salvage"]], ids=str)
def test_offloading_goes_with_nothing_that_looks_at_data(tmp_path: Path, other: list[str]) -> None:
    raw = tmp_path / "s.raw"
    raw.write_bytes(bytes(512))
    args = ["convert", "-C", *other, "-f", "raw", "-O", "qcow2", str(raw), str(tmp_path / "o")]
    result = CliRunner().invoke(img, args)
    assert "copy offloading" in str(result.exception) and not (tmp_path / "o").exists()


def test_an_extent_is_sliced_as_a_buffer_is(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(bytes(range(100)))
    with path.open("rb") as source, other.open("w+b") as target:
        extent = HostExtent(source.fileno(), 10, 60)
        part = extent[20:][:30]
        assert len(part) == 30 and part.load() == bytes(range(30, 60))
        part.copy_to(target.fileno(), 5)
        assert len(HostExtent(source.fileno(), 90, 20).load()) == 20
        with pytest.raises(UnsupportedError, match="ends before"):
            HostExtent(source.fileno(), 90, 20).copy_to(target.fileno(), 100)
    assert other.read_bytes()[5:35] == bytes(range(30, 60))

"""The image tools against qemu-img, through the command line: catalogue I8, and section 11."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from workbench.cli.img import img
from workbench.cli.nbd import nbd

from .qcow2_util import qemu_img, qemu_io, qemu_json
from .sockets import wait_listening

K, M = 1 << 10, 1 << 20


def run(*args: object, ok: tuple[int, ...] = (0,)) -> str:
    """Run ``workbench img`` in this process."""
    result = CliRunner().invoke(img, [str(a) for a in args])
    assert result.exit_code in ok, f"{args}: {result.exit_code} {result.output} {result.exception!r}"
    return result.stdout


def source(path: Path, size: int = 5 * M + 512) -> bytes:
    data = bytearray(size)
    rnd = random.Random(3)
    for _ in range(6):
        at = rnd.randrange(size - 300_000)
        data[at : at + 200_000] = bytes(rnd.choices(range(40), k=1000)) * 200
    path.write_bytes(data)
    return bytes(data)


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize(
    "options", [[], ["-o", "cluster_size=4k,refcount_bits=8"], ["-o", "compat=0.10"]], ids=str
)
def test_create_and_info_agree_with_qemu_img(tmp_path: Path, options: list[str]) -> None:
    ours, theirs = tmp_path / "o.qcow2", tmp_path / "t.qcow2"
    run("create", "-f", "qcow2", *options, ours, "3G")
    qemu_img("create", "-q", "-f", "qcow2", *options, theirs, "3G")
    for path in (ours, theirs):
        mine, reference = json.loads(run("info", "--output=json", path)), qemu_json("info", path)
        for key in ("virtual-size", "cluster-size", "format", "format-specific", "dirty-flag"):
            assert mine[key] == reference[key], key


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("extra", [[], ["-c"], ["-c", "-o", "compression_type=zstd"], ["-S", "0"]], ids=str)
def test_convert_there_and_back(tmp_path: Path, extra: list[str]) -> None:
    raw, image, back = (tmp_path / n for n in ("s.raw", "i.qcow2", "b.raw"))
    data = source(raw)
    run("convert", "-f", "raw", "-O", "qcow2", *extra, raw, image)
    assert "No errors" in qemu_img("check", image)
    qemu_img("compare", "-F", "raw", image, raw)
    run("convert", "-f", "qcow2", "-O", "raw", image, back)
    assert back.read_bytes() == data
    if not extra:
        assert image.stat().st_size < 3 * M and back.stat().st_blocks * 512 < 4 * M


@pytest.mark.requires("qemu-img")
def test_map_agrees_with_qemu_img(tmp_path: Path) -> None:
    base, top = tmp_path / "b.qcow2", tmp_path / "t.qcow2"
    run("create", "-q", "-f", "qcow2", base, "4M")
    qemu_io(base, "write -P 1 0 1M", "write -z 1M 512k")
    run("create", "-q", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", top)
    qemu_io(top, "write -P 2 256k 64k", "write -z 3M 64k")
    keys = ("start", "length", "depth", "zero", "data")
    mine, reference = json.loads(run("map", "--output=json", top)), qemu_json("map", top)
    assert [[r[k] for k in keys] for r in mine] == [[r[k] for k in keys] for r in reference]


@pytest.mark.requires("qemu-img")
def test_compare_and_check_exit_codes(tmp_path: Path) -> None:
    raw, image = tmp_path / "s.raw", tmp_path / "i.qcow2"
    data = source(raw)
    run("convert", "-f", "raw", "-O", "qcow2", raw, image)
    assert "identical" in run("compare", "-F", "raw", image, raw)
    raw.write_bytes(data[:-1] + b"!")
    assert f"offset {len(data) - 1}" in run("compare", "-F", "raw", image, raw, ok=(1,))
    run("compare", image, tmp_path / "none", ok=(2,))
    run("check", image)
    run("check", "-f", "raw", raw, ok=(63,))
    damaged = bytearray(image.read_bytes())
    damaged[2 * 65536 + 2 * 3 + 1] = 0
    image.write_bytes(damaged)
    run("check", image, ok=(2,))
    run("check", "-r", "all", image)
    assert "No errors" in qemu_img("check", image)


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("change", ["", "write -z 256k 64k", "write -P 0 256k 64k", "resize"])
@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_strict_compare_agrees_with_qemu_img(tmp_path: Path, fmt: str, change: str) -> None:
    """Strict looked at the sizes only: another allocation was no difference."""
    first, second = tmp_path / "a.qcow2", tmp_path / "b"
    for path, kind in ((first, "qcow2"), (second, fmt)):
        qemu_img("create", "-q", "-f", kind, path, "2M")
        qemu_io(path, "write -P 1 0 2M", fmt=kind)
        qemu_io(path, "discard 1M 512k", fmt=kind)
    if change == "resize":
        qemu_img("resize", "-q", "-f", fmt, second, "3M")
    elif change:
        qemu_io(second, change.replace("256k", "1280k"), fmt=fmt)
    for strict in ([], ["-s"]):
        args = ["compare", *strict, "-f", "qcow2", "-F", fmt, str(first), str(second)]
        theirs = subprocess.run(["qemu-img", *args], capture_output=True, timeout=60).returncode
        run(*args, ok=(theirs,))


def test_compare_tells_a_status_that_is_not_to_be_had(tmp_path: Path) -> None:
    image = tmp_path / "i.qcow2"
    run("create", "-q", "-f", "qcow2", image, "4M")
    data = bytearray(image.read_bytes().ljust(0x50000, b"\0"))
    data[3 << 16 : (3 << 16) + 8] = (1 << 63 | 0x40001).to_bytes(8, "big")  # an L2 table that is not aligned
    image.write_bytes(data)
    run("compare", image, image, ok=(3,))


@pytest.mark.requires("qemu-img")
def test_commit_to_an_image_further_down_keeps_the_overlay(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        base, mid, top = (tmp_path / name / n for n in ("base.qcow2", "mid.qcow2", "top.qcow2"))
        qemu_img("create", "-q", "-f", "qcow2", base, "1M")
        qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", mid, "2M")
        qemu_img("create", "-q", "-f", "qcow2", "-b", mid, "-F", "qcow2", top)
        qemu_io(mid, "write -P 2 512k 1M")
        qemu_io(top, "write -P 3 700k 64k", "write -z 512k 64k")
        (run if name == "ours" else qemu_img)("commit", "-b", base, top)
    for image in ("base", "top"):
        qemu_img("compare", *(tmp_path / name / f"{image}.qcow2" for name in ("ours", "theirs")))
        assert "No errors" in qemu_img("check", tmp_path / "ours" / f"{image}.qcow2")
    kept = qemu_json("map", tmp_path / "ours" / "top.qcow2")
    assert any(run["depth"] == 0 and run["data"] for run in kept)
    result = CliRunner().invoke(img, ["commit", "-b", str(tmp_path / "none"), str(top)])
    assert "is not below" in str(result.exception)


@pytest.mark.requires("qemu-img")
def test_i8_commit_and_rebase_like_qemu_img(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        folder = tmp_path / name
        folder.mkdir()
        for image, below in (("base", None), ("mid", "base"), ("top", "mid")):
            args: list[str | Path] = [folder / "base.qcow2", "2M"]
            if below:
                args = ["-b", f"{below}.qcow2", "-F", "qcow2", folder / f"{image}.qcow2"]
            qemu_img("create", "-q", "-f", "qcow2", *args)
        qemu_io(folder / "base.qcow2", "write -P 1 0 1M")
        qemu_io(folder / "mid.qcow2", "write -P 2 512k 1M")
        qemu_io(folder / "top.qcow2", "write -P 3 700k 64k", "write -z 0 64k")
        tool = run if name == "ours" else qemu_img
        tool("rebase", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", folder / "top.qcow2")
        tool("commit", "-f", "qcow2", folder / "top.qcow2")
    for image in ("base", "top"):
        qemu_img("compare", tmp_path / "ours" / f"{image}.qcow2", tmp_path / "theirs" / f"{image}.qcow2")
        assert "No errors" in qemu_img("check", tmp_path / "ours" / f"{image}.qcow2")
    assert qemu_json("info", tmp_path / "ours" / "top.qcow2")["backing-filename"] == "base.qcow2"


@pytest.mark.requires("qemu-img")
def test_snapshot_resize_and_hash(tmp_path: Path) -> None:
    image = tmp_path / "i.qcow2"
    run("create", "-q", "-f", "qcow2", image, "1M")
    qemu_io(image, "write -P 9 0 64k")
    first = run("hash", image)
    run("snapshot", "-c", "one", image)
    qemu_io(image, "write -P 8 0 64k")
    assert run("hash", image) != first
    assert json.loads(run("snapshot", "-l", "--json", image))[0]["name"] == "one"
    assert "one" in qemu_img("snapshot", "-l", image)
    run("convert", "-l", "one", "-O", "raw", image, tmp_path / "one.raw")
    assert (tmp_path / "one.raw").read_bytes()[:65536] == b"\x09" * 65536
    run("snapshot", "-a", "one", image)
    assert run("hash", image) == first
    run("snapshot", "-d", "one", image)
    run("resize", image, "+1M")
    assert qemu_json("info", image)["virtual-size"] == 2 * M
    assert CliRunner().invoke(img, ["resize", str(image), "1M"]).exit_code != 0
    run("resize", "--shrink", image, "512k")
    assert "No errors" in qemu_img("check", image)


@pytest.mark.requires("nbdinfo", "nbdcopy")
@contextlib.contextmanager
def serving(path: Path, *args: object) -> Iterator[None]:
    """Run ``workbench nbd serve`` in a process of its own, which has to end well."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = CliRunner().invoke(nbd, ["serve", *map(str, args)]).exit_code
        finally:
            os._exit(code)
    try:
        wait_listening(path)
        yield
    finally:
        os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_nbd_serve_and_list(tmp_path: Path) -> None:
    image, raw, path = tmp_path / "i.qcow2", tmp_path / "s.raw", tmp_path / "sock"
    data = source(raw)
    run("convert", "-f", "raw", "-O", "qcow2", raw, image)
    with serving(path, "--listen", f"unix:{path}", "-x", "disk", "-t", "-r", image):
        uri = f"nbd+unix:///disk?socket={path}"
        listing = CliRunner().invoke(nbd, ["list", uri, "--json"])
        assert json.loads(listing.stdout) == [{"export": "disk", "description": ""}]
        subprocess.run(["nbdcopy", uri, str(tmp_path / "out")], check=True, timeout=30)
        assert (tmp_path / "out").read_bytes() == data


@pytest.mark.requires("qemu-io")
@pytest.mark.parametrize("options", [[], ["-f", "raw"]], ids=str)
def test_nbd_serve_beside_the_image(tmp_path: Path, options: list[str]) -> None:
    """With -s clients see their writes, and the image never does."""
    raw, path = tmp_path / "s.raw", tmp_path / "sock"
    data = source(raw)
    with serving(path, "-k", path, "-t", "-s", *options, raw):
        uri = f"nbd+unix:///?socket={path}"
        qemu_io(uri, "write -P 7 64k 1M", fmt="raw")
        qemu_io(uri, "read -P 7 64k 1M", fmt="raw")
        assert raw.read_bytes() == data
    assert raw.read_bytes() == data
    result = CliRunner().invoke(nbd, ["serve", "-k", "x", "-p", "1", str(raw)])
    assert result.exit_code == 2 and "two places" in result.output

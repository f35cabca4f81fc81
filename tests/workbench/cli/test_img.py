"""``workbench img`` for people and scripts: word for word what qemu-img prints, with the same options."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from workbench.cli import run
from workbench.cli.imgtext import size_text

pytestmark = pytest.mark.requires("qemu-img")

#: What is made before the commands run: by qemu-img, so that both see the same images.
IMAGES = (
    "create -q -f qcow2 a.q 10M",
    "create -q -f qcow2 -b a.q -F qcow2 b.q 12M",
    "create -q -f qcow2 -b b.q -F qcow2 c.q 14M",
    "create -q -f raw r.raw 1M",
    "create -q -f qcow2 -o data_file=ext.raw,data_file_raw=on d.q 1M",
    "bitmap --add d.q one",
    "bitmap --add --disable d.q two",
    "create -q -f qcow2 -o compat=0.10 old.q 1G",
    "create -q -f qcow2 -o extended_l2=on,cluster_size=64k,lazy_refcounts=on e.q 1M",
    "snapshot -c first e.q",
    "snapshot -c a-name-longer-than-its-column e.q",
    "create -q -f qcow2 -b ../a.q -F qcow2 sub/o.q",
)
WRITES = (
    ("a.q", "write -P 1 0 1M", "write -P 2 5M 70k", "write -z 2M 1M"),
    ("b.q", "write -P 7 3M 64k"),
    ("e.q", "write 8k 4k"),
)

PLAIN = ("a.q", "r.raw", "d.q", "old.q", "e.q", "sub/o.q", "--backing-chain c.q", "-f raw a.q")
PAIRS = ("a.q b.q", "-s a.q b.q", "a.q a.q", "r.raw d.q", "r.raw old.q", "-T none a.q c.q")

COMMANDS = (
    *(f"info {name}" for name in PLAIN),
    *(f"map {name}" for name in ("a.q", "b.q", "c.q", "r.raw", "e.q", "-s 5M -l 32k a.q")),
    *(f"map --output=json {name}" for name in ("b.q", "c.q", "r.raw", "--start-offset=4M --max-length=2M a.q")),
    *(f"check {name}" for name in ("a.q", "b.q", "e.q", "old.q")),
    *(f"compare {names}" for names in PAIRS),
    "snapshot -l e.q",
    "snapshot -l -U a.q",
    *(
        f"create -f qcow2 {options}"
        for options in (
            "n1.q 1G",
            "-o compat=0.10 n2.q 100",
            "-o preallocation=metadata,cluster_size=4k n3.q 1M",
            "-b a.q -F qcow2 n4.q",
            "-o data_file=x.raw,data_file_raw=on,refcount_bits=8 n5.q 1M",
            "-u -b with,comma -F raw n6.q 1M",
        )
    ),
    "measure -O qcow2 a.q",
    "measure -O qcow2 --output=json a.q",
    "measure --size 1G -O raw",
    "create n7.raw 3000",
    "create -o preallocation=full n8.raw 64k",
    "resize r.raw -f raw --shrink -64k",
    "resize a.q +1M",
    "resize --shrink a.q -1M",
)  # fmt: skip


def prepared(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    for line in IMAGES:
        subprocess.run(["qemu-img", *line.split()], cwd=folder, check=True, capture_output=True)
    for name, *writes in WRITES:
        each = [part for write in writes for part in ("-c", write)]
        subprocess.run(["qemu-io", *each, name], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("ours"))


def plain(text: str) -> str:
    """Leave out what depends on the clock and on the host's file system."""
    text = re.sub(r"disk size: .*", "disk size", text)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", text)


@pytest.mark.requires("qemu-io")
@pytest.mark.parametrize("line", COMMANDS)
def test_what_is_printed_is_what_qemu_img_prints(
    line: str, theirs: Path, ours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The layouts for people were our own, so scripts that read qemu-img's did not find what they look for."""
    expected = subprocess.run(
        ["qemu-img", *line.split()], cwd=theirs, check=False, capture_output=True, text=True
    )
    monkeypatch.chdir(ours)
    code = run(["img", *line.split()])
    printed = capsys.readouterr()
    assert code == expected.returncode, printed.err
    if "json" in line:
        assert json.loads(printed.out) == json.loads(expected.stdout)
    else:
        assert plain(printed.out) == plain(expected.stdout)


def test_a_repair_tells_what_was_repaired_and_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.q"
    assert run(["img", "create", "-q", "-f", "qcow2", str(path), "1M"]) == 0
    with path.open("r+b") as file:
        file.truncate(10 << 16)
        file.seek(0x20000 + 2 * 9)  # of the refcount block: cluster 9, which nothing refers to
        file.write(b"\0\1")
    copy = tmp_path / "b.q"
    copy.write_bytes(path.read_bytes())
    repairs: tuple[tuple[list[str], int], ...] = (([], 3), (["-r", "leaks"], 0))
    for options, code in repairs:
        command = ["qemu-img", "check", *options, str(copy)]
        expected = subprocess.run(command, check=False, capture_output=True, text=True)
        assert run(["img", "check", *options, str(path)]) == expected.returncode == code
        assert capsys.readouterr().out == expected.stdout


def test_a_map_of_compressed_data_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, packed = tmp_path / "r.raw", str(tmp_path / "c.q")
    raw.write_bytes(bytes(65536) + b"x" * 65536)
    assert (
        run(["img", "convert", "-t", "none", "-T", "writeback", "-c", "-O", "qcow2", str(raw), packed]) == 0
    )
    assert run(["img", "map", packed]) != 0
    assert "use --output=json" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ["rebase b.q", "convert -S 3 a.q x", "convert -S 32M a.q x", "convert --target-is-zero a.q x"]
)
def test_what_qemu_img_refuses_is_refused_before_anything_is_done(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``rebase`` without -b copied the whole backing chain into the overlay and cut it off."""
    monkeypatch.chdir(tmp_path)
    assert run(["img", "create", "-q", "-f", "qcow2", "a.q", "1M"]) == 0
    assert run(["img", "create", "-q", "-f", "qcow2", "-b", "a.q", "-F", "qcow2", "b.q"]) == 0
    before = Path("b.q").read_bytes()
    assert run(["img", *line.split()]) == 2
    assert capsys.readouterr().err.startswith("workbench: error: ")
    assert Path("b.q").read_bytes() == before
    assert not Path("x").exists()


def test_preallocation_of_a_raw_image_is_done(tmp_path: Path) -> None:
    """It was taken and not done."""
    path = tmp_path / "full.raw"
    assert run(["img", "create", "-q", "-o", "preallocation=full", str(path), "1M"]) == 0
    assert path.stat().st_blocks * 512 >= 1 << 20


@pytest.mark.parametrize(
    "options", [["-o", "cluster_size=4k"], ["-o", "nosuch=1"], ["-f", "qcow2", "-o", "nosuch=1"]]
)
def test_an_option_that_the_format_lacks_is_refused_with_those_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """A raw image took every option of qcow2, and did nothing about it."""
    assert run(["img", "create", *options, str(tmp_path / "x"), "1M"]) == 2
    assert "expected size, " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_options_of_a_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["img", "create", "-f", "qcow2", "-o", "help"]) == 0
    assert "  cluster_size " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (10 << 20, "10 MiB"), (1 << 62, "4 EiB")],
)
def test_sizes_have_three_digits(size: int, text: str) -> None:
    assert size_text(size) == text

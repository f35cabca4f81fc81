"""Debug information from Debian's archive: its size first, then the kernel out of a package; with a made-up archive."""

from __future__ import annotations

import queue
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import InputError, UsageError
from workbench.guests import apt, debug, fetch
from workbench.guests.debug import DebugPackage

KERNEL = "6.12.9-riscv64"


def note(build_id: bytes) -> bytes:
    return struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id


def elf_with(build_id: bytes) -> bytes:
    """Return an ELF file that has nothing but a note section."""
    names, data = b"\0.note\0.names\0", note(build_id)
    at = 64
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack(
        "<HHIQQQIHHHHHH", 2, 243, 1, 0, 0, at + len(data) + len(names), 0, 64, 0, 0, 64, 3, 2
    )
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 1, 7, 2, 0, at, len(data), 0, 0, 4, 0)
    sections += struct.pack("<IIQQQQIIQQ", 7, 3, 0, 0, at + len(data), len(names), 0, 0, 1, 0)
    return header + data + names + sections


class Archive:
    """apt with one package, which is built when it is downloaded."""

    kernel = elf_with(b"B" * 20)
    folder: Path

    def __init__(self, root: Path, architecture: str, mirror: apt.Mirror, suite: str) -> None:
        assert (architecture, suite) == ("riscv64", "trixie")
        self.archives = self.folder

    def fields(self, package: str) -> dict[str, str]:
        if package != f"linux-image-{KERNEL}-dbg":
            raise apt.AptError(f"guest fetch: trixie has no package {package}")
        return {"version": "6.12.9-1", "size": str(900 << 20), "installed-size": str(5 << 20)}

    def download_all(self, packages: Sequence[str]) -> list[Path]:
        (package,) = packages
        tree = self.folder / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        control = (
            f"Package: {package}\nVersion: 1\nArchitecture: riscv64\nMaintainer: nobody\nDescription: x\n"
        )
        (tree / "DEBIAN/control").write_text(control)
        boot = tree / "usr/lib/debug/boot"
        boot.mkdir(parents=True)
        (boot / f"vmlinux-{KERNEL}").write_bytes(self.kernel)
        deb = self.folder / "dbg.deb"
        subprocess.run(
            ["dpkg-deb", "-Znone", "--build", str(tree), str(deb)], check=True, capture_output=True
        )
        return [deb]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Archive]:
    """Return the archive, with a guest of it in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(apt, "PrivateApt", Archive)
    monkeypatch.setattr(apt, "system_mirror", lambda: apt.Mirror("http://127.0.0.1/mirror"))
    space: Any = type("Space", (), {"free": 1 << 40})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: space)
    monkeypatch.setattr(Archive, "folder", tmp_path, raising=False)
    monkeypatch.setattr(Archive, "kernel", elf_with(b"B" * 20))
    image = b"MZ" + note(b"B" * 20) + f"Linux version {KERNEL} (x)".encode()
    files = {"Image": image, "initrd.cpio.gz": b"x"}
    fetch._store(fetch.GUESTS["debian-riscv64"], files, {"suite": "trixie"}, KERNEL)
    return Archive


def test_size_is_told_and_nothing_fetched(archive: type[Archive], tmp_path: Path) -> None:
    offer = DebugPackage("debian-riscv64").offer()
    size = "900 MiB to fetch, 5120 MiB when unpacked, of which the kernel alone is kept"
    assert str(offer) == f"linux-image-{KERNEL}-dbg 6.12.9-1: {size}"
    assert not (tmp_path / "dbg.deb").exists()


@pytest.mark.requires("dpkg-deb")
def test_kernel_is_taken_out_of_the_package(archive: type[Archive], tmp_path: Path) -> None:
    told: list[str] = []
    path = DebugPackage("debian-riscv64").fetch(told.append)
    assert path.read_bytes() == archive.kernel and path.name == "vmlinux"
    assert "900 MiB" in told[0] and not (tmp_path / "dbg.deb").exists()
    assert fetch.cached("debian-riscv64") is not None
    (tmp_path / "tree").rename(tmp_path / "built")
    assert DebugPackage("debian-riscv64").fetch(told.append) == path  # nothing is fetched again
    assert told[-1].endswith("its kernel is here") and not (tmp_path / "tree").exists()


@pytest.mark.requires("dpkg-deb")
def test_kernel_of_another_build_is_refused(archive: type[Archive], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "kernel", elf_with(b"C" * 20))
    package = DebugPackage("debian-riscv64")
    with pytest.raises(InputError, match="of another build"):
        package.fetch()
    assert {path.name for path in package.guest.folder.iterdir()} == {
        "Image",
        "initrd.cpio.gz",
        "manifest.json",
    }


def test_too_little_space_is_told_before_anything_is_fetched(
    archive: type[Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    space: Any = type("Space", (), {"free": 1 << 30})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: space)
    with pytest.raises(InputError, match="1024 MiB free"):
        DebugPackage("debian-riscv64").fetch()


def test_guest_must_be_here_and_of_the_archive(archive: type[Archive]) -> None:
    fetch._store(
        fetch.GUESTS["debian-riscv64"], {"Image": b"MZ", "initrd.cpio.gz": b"x"}, {"kernel": "x"}, KERNEL
    )
    with pytest.raises(UsageError, match="made of files"):
        DebugPackage("debian-riscv64")
    with pytest.raises(UsageError, match="no guest named"):
        DebugPackage("plan9")


def test_progress_of_a_download_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug, "_WATCH_S", 0.001)
    offer, told = debug.Offer("linux-dbg", "1", 4 << 20, 0), queue.SimpleQueue[str]()
    part = tmp_path / "partial/linux-dbg_1_riscv64.deb"
    part.parent.mkdir()
    with debug._watched(tmp_path, offer, told.put):
        part.write_bytes(bytes(1 << 20))
        assert told.get(timeout=60) in ("0 of 4 MiB", "1 of 4 MiB")
        part.write_bytes(bytes(3 << 20))
        while (line := told.get(timeout=60)) != "3 of 4 MiB":
            assert line.endswith("of 4 MiB")

"""The cache of fetched guests, files supplied by hand, and module order."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from workbench.errors import InputError, UsageError
from workbench.guests import fetch
from workbench.guests.debs import PackedModule, module_name, module_needs, order_modules

BUSYBOX = b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xf3\x00" + bytes(44)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def by_hand(tmp_path: Path, busybox: bytes = BUSYBOX) -> fetch.Guest:
    kernel, shell = tmp_path / "vmlinuz", tmp_path / "busybox"
    kernel.write_bytes(b"MZ...Linux version 6.12.9-test (someone)")
    shell.write_bytes(busybox)
    return fetch.fetch("debian-riscv64", kernel_file=kernel, busybox_file=shell)


def test_files_by_hand_become_a_cached_guest(tmp_path: Path) -> None:
    assert fetch.cached("debian-riscv64") is None
    guest = by_hand(tmp_path)
    assert guest == fetch.cached("debian-riscv64") == fetch.fetch("debian-riscv64")
    assert guest.kernel.read_bytes().startswith(b"MZ")
    assert guest.options()[:2] == ["--kernel", str(guest.kernel)]
    row = fetch.list_guests()[0]
    assert (row["fetched"], row["kernel"]) == (True, "6.12.9-test")


def test_a_guest_with_a_cut_file_is_not_taken_for_whole(tmp_path: Path) -> None:
    guest = by_hand(tmp_path)
    guest.kernel.write_bytes(b"MZ")
    assert fetch.cached("debian-riscv64") is None


@pytest.mark.parametrize("manifest", ["", "[]", '{"files": {"Image": 3}}', '{"files": {}}'])
def test_a_damaged_manifest_is_not_taken_for_whole(tmp_path: Path, manifest: str) -> None:
    guest = by_hand(tmp_path)
    (guest.folder / "manifest.json").write_text(manifest)
    assert fetch.cached("debian-riscv64") is None


def test_a_guest_that_was_built_in_an_older_way_is_fetched_anew(tmp_path: Path) -> None:
    """A kept initramfs without the module that ext4 needs was taken for today's guest."""
    guest = by_hand(tmp_path)
    path = guest.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    assert fetch.cached(guest.name) is not None
    path.write_text(json.dumps({**manifest, "recipe": manifest["recipe"] - 1}))
    assert fetch.cached(guest.name) is None


def test_manifest_names_every_file_with_its_hash(tmp_path: Path) -> None:
    guest = by_hand(tmp_path)
    files = json.loads((guest.folder / "manifest.json").read_text())["files"]
    on_disk = {path.name for path in guest.folder.iterdir()} - {"manifest.json"}
    assert files.keys() == on_disk
    assert all(len(entry["sha256"]) == 64 for entry in files.values())


def test_a_host_busybox_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="riscv64"):
        by_hand(tmp_path, b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e\x00")


def test_unknown_guests_and_half_the_files_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="debian-riscv64"):
        fetch.fetch("plan9")
    with pytest.raises(UsageError, match="go together"):
        fetch.fetch("debian-riscv64", kernel_file=tmp_path / "vmlinuz")


def test_modules_come_after_what_they_need() -> None:
    def module(needs: str) -> bytes:
        return b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0name=x\0"

    modules = {
        "net": PackedModule("a/net.ko.xz", lzma.compress(module("failover,base"))),
        "failover": PackedModule("a/failover.ko", module("base")),
        "base": PackedModule("a/base.ko", module("")),
        "loop": PackedModule("a/loop.ko", module("loop")),
    }
    ordered = [name for name, _ in order_modules(["net", "built_in", "loop"], modules)]
    assert ordered == ["base", "failover", "net", "loop"]
    assert module_needs(module("a-b,c")) == ["a_b", "c"]
    assert module_name("kernel/drivers/virtio-rng.ko.zst") == "virtio_rng"


def test_a_damaged_module_is_bad_input() -> None:
    with pytest.raises(InputError, match="damaged"):
        PackedModule("x.ko.xz", b"not xz").unpack()

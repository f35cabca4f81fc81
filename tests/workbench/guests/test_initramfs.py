"""The initramfs writer, read back by an independent reader of the format."""

from __future__ import annotations

import gzip
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.guests.initramfs import APPLETS, CpioArchive, build_busybox_initramfs

NAMES = st.text("abcdefghijklmnop.-_", min_size=1, max_size=40).filter(lambda name: name != "TRAILER!!!")


def read_cpio(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Return mode and contents by name; asserts what the kernel's unpacker relies on."""
    entries: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        at = (at + 110 + name_size + 3) & ~3
        contents = data[at : at + size]
        assert len(contents) == size
        at = (at + size + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert not data[at:].strip(b"\0")
            return entries
        entries[name[:-1].decode()] = (mode, contents)


@given(st.dictionaries(NAMES, st.binary(max_size=300), max_size=8))
def test_files_come_back_as_they_went_in(files: dict[str, bytes]) -> None:
    archive = CpioArchive()
    for name, data in files.items():
        archive.add_file(name, data)
    packed = archive.to_bytes()
    assert len(packed) % 512 == 0
    assert read_cpio(packed) == {name: (stat.S_IFREG | 0o644, data) for name, data in files.items()}


@pytest.mark.parametrize("name", ["/etc", "TRAILER!!!", "bin"])
def test_absolute_reserved_and_repeated_names_are_refused(name: str) -> None:
    archive = CpioArchive()
    archive.add_directory("bin")
    with pytest.raises(ValueError, match="bad or repeated"):
        archive.add_file(name, b"")


def test_busybox_image_has_console_init_links_and_ordered_modules() -> None:
    image = build_busybox_initramfs(b"\x7fELF busybox", [("need", b"1"), ("user", b"22")])
    entries = read_cpio(gzip.decompress(image))
    assert stat.S_ISCHR(entries["dev/console"][0])
    assert entries["bin/busybox"] == (stat.S_IFREG | 0o755, b"\x7fELF busybox")
    assert entries["lib/modules/order"][1] == b"need\nuser\n"
    assert entries["lib/modules/user.ko"][1] == b"22"
    assert entries["init"][1].startswith(b"#!/bin/busybox sh\n") and entries["init"][0] & 0o111 == 0o111
    for applet in APPLETS:
        assert entries[f"bin/{applet}"] == (stat.S_IFLNK | 0o777, b"busybox")
    assert image == build_busybox_initramfs(b"\x7fELF busybox", [("need", b"1"), ("user", b"22")])

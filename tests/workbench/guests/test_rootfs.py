"""A disk of packages: their files as packed, dpkg's database as after unpacking, nothing from outside the root."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.guests import rootfs

CONTROL = """Package: {name}
Version: 1.0-1
Architecture: all
Multi-Arch: {multi}
Maintainer: Nobody <nobody@example.org>
Description: for a test
 with a second line
"""


def tar_of(members: dict[str, bytes], mode: int = 0o644) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid, member.gid = len(data), mode, 0, 42
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def package(
    path: Path, files: dict[str, bytes], name: str = "one", multi: str = "no", mode: int = 0o644
) -> Path:
    """Write a .deb: an ar archive of a version, the control and the data."""
    control = {"./control": CONTROL.format(name=name, multi=multi).encode(), "./postinst": b"#!/bin/sh\n"}
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": tar_of(control), "data.tar.gz": tar_of(files, mode)}
    out = b"!<arch>\n"
    for part, data in parts.items():
        out += (
            f"{part:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
            + data
            + b"\n" * (len(data) % 2)
        )
    path.write_bytes(out)
    return path


def debugfs(image: Path, request: str) -> str:
    done = subprocess.run(["debugfs", "-R", request, str(image)], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.requires("genext2fs", "dpkg-deb", "debugfs")
def test_files_and_dpkgs_database_are_on_the_disk(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    files = {"./usr/bin/tool": b"binary", "./usr/share/doc/one/README": b"left out"}
    first = package(tmp_path / "one.deb", files, mode=0o4755)
    second = package(tmp_path / "two.deb", {"./etc/two": b"2"}, "two", "same")
    rootfs.build_rootfs([first, second], image)
    assert image.stat().st_size == rootfs.DISK_BYTES
    assert debugfs(image, "cat /usr/bin/tool") == "binary"
    status = debugfs(image, "stat /usr/bin/tool")
    assert "Mode:  04755" in status and "Group:    42" in status
    assert "README" not in debugfs(image, "ls /usr/share/doc/one")
    assert debugfs(image, "cat /var/lib/dpkg/info/one.list") == "/usr/bin/tool\n/usr/share/doc/one/README\n"
    assert "#!/bin/sh" in debugfs(image, "cat /var/lib/dpkg/info/two:all.postinst")
    stanzas = debugfs(image, "cat /var/lib/dpkg/status").split("\n\n")
    assert stanzas[0].splitlines()[:2] == ["Package: one", "Status: install ok unpacked"]
    assert "Package: two" in stanzas[1] and " with a second line" in stanzas[1]
    assert "exec /sbin/init" in debugfs(image, f"cat /{rootfs.FIRST_BOOT}")
    assert not image.with_suffix(".tar").exists()


@pytest.mark.requires("genext2fs", "dpkg-deb")
@pytest.mark.parametrize("name", ["./../evil", "./usr/../../evil"])
def test_a_file_outside_of_the_root_is_refused(tmp_path: Path, name: str) -> None:
    deb = package(tmp_path / "evil.deb", {name: b"x"})
    with pytest.raises(InputError, match="outside of the root"):
        rootfs.build_rootfs([deb], tmp_path / "disk.img")


@pytest.mark.requires("genext2fs", "dpkg-deb")
def test_a_damaged_package_is_bad_input(tmp_path: Path) -> None:
    deb = tmp_path / "cut.deb"
    package(deb, {"./usr/bin/tool": b"binary" * 1000})
    deb.write_bytes(deb.read_bytes()[:300])
    with pytest.raises(InputError, match=r"cut\.deb"):
        rootfs.build_rootfs([deb], tmp_path / "disk.img")

"""Build a disk of Debian packages: an ext2 image as dpkg leaves it when all is unpacked and nothing configured.

The guest's own dpkg configures it at its first boot (``first-boot.sh``), so nothing of the guest runs here. Every
file has its package's owner and mode; root has no password.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from workbench.errors import InputError, MissingToolError

MKFS = "genext2fs"
BLOCK_BYTES = 4096
DISK_BYTES = 640 << 20
INODES = 40_000
FIRST_BOOT = "usr/sbin/first-boot"
#: Not needed to run: half of the bytes.
_LEFT_OUT = re.compile(r"usr/share/(doc|man|locale|info|lintian|bug)/.")
#: Where each package's own scripts and lists go.
_INFO = "var/lib/dpkg/info"
_MASTERS = {
    "usr/share/base-passwd/passwd.master": "etc/passwd",
    "usr/share/base-passwd/group.master": "etc/group",
}


@dataclass
class Tree:
    """A file system in the making: one tar, in which the first member of a path counts."""

    out: tarfile.TarFile
    seen: set[str] = field(default_factory=set)

    def add(self, member: tarfile.TarInfo, data: bytes | None = None) -> None:
        """Add a member, its name relative, with folders of root's above it; a path that is there already stays."""
        if not member.name or member.name in self.seen:
            return
        parts = member.name.split("/")
        for i in range(1, len(parts)):
            self.add_folder("/".join(parts[:i]))
        self.seen.add(member.name)
        if data is not None:
            member.size = len(data)
        self.out.addfile(member, io.BytesIO(data) if data is not None else None)

    def add_file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a file of root's."""
        member = tarfile.TarInfo(name)
        member.mode = mode
        self.add(member, data)

    def add_folder(self, name: str, mode: int = 0o755) -> None:
        """Add a folder of root's."""
        member = tarfile.TarInfo(name)
        member.type, member.mode = tarfile.DIRTYPE, mode
        self.add(member)


def require_tools() -> None:
    """Raise MissingToolError unless file systems can be made here."""
    if shutil.which(MKFS) is None:
        raise MissingToolError(f"guest fetch: a disk needs {MKFS}; install the package {MKFS}")


def build_rootfs(packages: list[Path], image: Path) -> None:
    """Write an image with these packages unpacked.

    Args:
        packages: .deb files, each after those that it needs before it can be unpacked.
        image: what to write.

    Raises:
        MissingToolError: there is no program to make a file system with.
        InputError: a package is damaged, or all of them do not fit.
    """
    require_tools()
    archive = image.with_suffix(".tar")
    try:
        with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as out:
            tree = Tree(out)
            status = [_unpack(package, tree) for package in packages]
            tree.add_file("var/lib/dpkg/status", "".join(status).encode())
            _configure(tree)
        blocks = str(DISK_BYTES // BLOCK_BYTES)
        command = [MKFS, "-B", str(BLOCK_BYTES), "-b", blocks, "-N", str(INODES), "-z", "-f", "-L", "rootfs"]
        done = subprocess.run(
            [*command, "-a", str(archive), str(image)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(f"guest fetch: {MKFS} could not make the disk: {last}")
    finally:
        archive.unlink(missing_ok=True)


def _members(deb: Path, what: str) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """Yield the members of a package's tar (``--fsys-tarfile`` or ``--ctrl-tarfile``), names without ``./``."""
    with subprocess.Popen(["dpkg-deb", what, str(deb)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    member.name = (
                        "" if member.name in (".", "./") else member.name.removeprefix("./").rstrip("/")
                    )
                    if member.islnk():
                        member.linkname = member.linkname.removeprefix("./")
                    if member.name.startswith("/") or ".." in member.name.split("/"):
                        raise InputError(
                            f"guest fetch: {deb.name} holds a file outside of the root: {member.name}"
                        )
                    stream = archive.extractfile(member) if member.isfile() else None
                    yield member, stream.read() if stream is not None else None
        except tarfile.TarError as error:
            raise InputError(
                f"guest fetch: {deb.name} is damaged ({error}); remove it and fetch again"
            ) from error
    if process.returncode:
        raise InputError(f"guest fetch: dpkg-deb cannot read {deb.name}; remove it and fetch again")


def _unpack(deb: Path, tree: Tree) -> str:
    """Add a package's files and its entries in dpkg's database. Return its stanza in the status file."""
    control: dict[str, bytes] = {
        m.name: data for m, data in _members(deb, "--ctrl-tarfile") if data is not None
    }
    text = control.pop("control", b"").decode("utf-8", "replace")
    fields = dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", text, re.MULTILINE))
    if "Package" not in fields:
        raise InputError(f"guest fetch: {deb.name} says no name; remove it and fetch again")
    paths = []
    for member, data in _members(deb, "--fsys-tarfile"):
        paths.append("/" + member.name if member.name else "/.")
        if not _LEFT_OUT.match(member.name):
            tree.add(member, data)
        if member.name in _MASTERS and data is not None:
            # The package's preinst would have put them there.
            tree.add_file(_MASTERS[member.name], data.replace(b"root:*:", b"root::", 1))
    name = fields["Package"]
    if fields.get("Multi-Arch") == "same":
        name += f":{fields['Architecture']}"
    tree.add_file(f"{_INFO}/{name}.list", "".join(path + "\n" for path in paths).encode())
    for file, data in control.items():
        if file != "conffiles":  # they are in place already
            tree.add_file(f"{_INFO}/{name}.{file}", data, 0o755 if file in _SCRIPTS else 0o644)
    return text.rstrip("\n").replace("\n", "\nStatus: install ok unpacked\n", 1) + "\n\n"


_SCRIPTS = ("preinst", "postinst", "prerm", "postrm", "config")


def _configure(tree: Tree) -> None:
    """Add what an installer would have asked for."""
    first_boot = resources.files(__package__).joinpath("first-boot.sh").read_bytes()
    tree.add_file(FIRST_BOOT, first_boot, 0o755)
    tree.add_file("usr/sbin/policy-rc.d", b"#!/bin/sh\nexit 101\n", 0o755)
    tree.add_file("etc/hostname", b"debian\n")
    tree.add_file("etc/fstab", b"/dev/vda / auto defaults 0 0\n")
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "var/lib/dpkg/updates"):
        tree.add_folder(name, 0o1777 if name == "tmp" else 0o755)

"""Real guests: Debian's own kernel and a busybox initramfs, fetched once through the system's apt and kept.

The files of a guest lie in one folder of the user's cache: ``Image``, ``initrd.cpio.gz``, ``System.map``,
``config`` and ``manifest.json``, which names their versions and hashes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from machine.errors import MachineError
from machine.images import unpack
from workbench.errors import InputError, UsageError
from workbench.guests import apt, debs, rootfs
from workbench.guests.initramfs import build_busybox_initramfs
from workbench.kallsyms import find_symbols

#: The archive's releases that have a riscv64 kernel of 6.12 or newer, in the order in which they are tried.
SUITES = ("trixie", "sid")
#: Modules put into the initramfs, with those that they need (`wb.modules=` loads them).
MODULES = (
    *("virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "9pnet_virtio", "9p"),
    *("crc32c_generic", "ext4"),  # ext4 asks for the checksum by name, which no dependency tells
)

#: Grows when a guest is built in another way of the same packages; one that was kept from before is fetched anew.
RECIPE = 2

#: System.map's letters for the kinds of symbols that are told apart.
_LETTERS = {"func": "t", "object": "d"}

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class GuestInfo:
    """A guest that can be fetched."""

    name: str
    description: str
    architecture: str
    kernel_package: str
    #: the kernel's command line
    append: str
    #: what apt is to put on a disk, with all that this needs; none: no disk
    root_packages: tuple[str, ...] = ()


GUESTS = {
    info.name: info
    for info in (
        GuestInfo(
            "debian-riscv64",
            "Debian's kernel with a busybox initramfs",
            "riscv64",
            "linux-image-riscv64",
            "console=ttyS0 wb.poweroff",
        ),
        GuestInfo(
            "debian-riscv64-installer",
            "Debian's installer, as it comes from the network",
            "riscv64",
            "debian-installer-13-netboot-riscv64",
            "console=ttyS0",
        ),
        GuestInfo(
            "debian-riscv64-rootfs",
            "Debian with systemd on a virtio disk, configured at its first boot",
            "riscv64",
            "linux-image-riscv64",
            "console=ttyS0 wb.root=/dev/vda",
            ("?essential", "systemd-sysv", "udev", "login", "bzip2", "procps"),
        ),
    )
}
DISK = "rootfs.img"


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest's files, ready to boot."""

    name: str
    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "Image"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.cpio.gz"

    @property
    def system_map(self) -> Path:
        return self.folder / "System.map"

    @property
    def manifest(self) -> dict[str, Any]:
        """What it was built of: ``packages`` with their versions, ``files`` with their SHA-256."""
        manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return manifest

    @property
    def disk(self) -> Path | None:
        """The root file system, of a guest that has one."""
        path = self.folder / DISK
        return path if path.exists() else None

    def options(self, append: str = "") -> list[str]:
        """Return the options that boot it with ``workbench record`` or ``workbench run``.

        Args:
            append: the kernel's command line, instead of the guest's own.
        """
        drive = [] if self.disk is None else ["--drive", f"file={self.disk},format=raw"]
        append = append or GUESTS[self.name].append
        return ["--kernel", str(self.kernel), "--initrd", str(self.initrd), *drive, "--append", append]

    def command(self) -> str:
        """Return a command that records its boot, ready for a shell."""
        return "workbench record -o boot.trace " + shlex.join(self.options()) + " --no-input"


def cache_folder() -> Path:
    """Return the folder of the fetched guests: ``workbench/guests`` under the XDG cache folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return root / "workbench" / "guests"


def cached(name: str) -> Guest | None:
    """Return the guest ``name`` if it was fetched, in today's way, and its files are whole, else None.

    Raises:
        UsageError: there is no guest of this name.
    """
    _info(name)
    guest = Guest(name, cache_folder() / name)
    try:
        sizes = {file: entry["bytes"] for file, entry in guest.manifest["files"].items()}
        whole = guest.manifest.get("recipe") == RECIPE and all(
            (guest.folder / file).stat().st_size == size for file, size in sizes.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return guest if whole and {"Image", "initrd.cpio.gz"} <= sizes.keys() else None


def list_guests() -> list[dict[str, Any]]:
    """Return a row for each guest: name, description, fetched or not, its kernel's version, its folder."""
    rows = []
    for info in GUESTS.values():
        guest = cached(info.name)
        rows.append(
            {
                "name": info.name,
                "description": info.description,
                "fetched": guest is not None,
                "kernel": guest.manifest["kernel"] if guest else None,
                "folder": str(guest.folder) if guest else None,
            }
        )
    return rows


def fetch(
    name: str,
    *,
    mirror: str | None = None,
    suite: str | None = None,
    kernel_file: Path | None = None,
    busybox_file: Path | None = None,
    refresh: bool = False,
    progress: Progress = lambda text: None,
) -> Guest:
    """Fetch a guest, or return it at once if it is here.

    Args:
        mirror: a Debian archive's address, instead of that of the system's sources.
        suite: the release to take it from, instead of the first of ``SUITES`` that works.
        kernel_file, busybox_file: both together: use these files and no apt.
        refresh: fetch again what is here.
        progress: called with a line for each thing it does.

    Raises:
        UsageError: no such guest, or one of two files that go together.
        MissingToolError: there is no apt, and no files were given.
        AptError: apt could not fetch or verify.
        InputError: a file is not what it should be.
    """
    info = _info(name)
    if (kernel_file is None) != (busybox_file is None):
        raise UsageError("guest fetch: --kernel-file and --busybox-file go together")
    guest = cached(name)
    if guest is not None and not refresh and kernel_file is None:
        return guest
    if kernel_file is not None and busybox_file is not None:
        files: dict[str, bytes] = {"Image": _read(kernel_file)}
        files["initrd.cpio.gz"] = build_busybox_initramfs(_static_busybox(_read(busybox_file)), [])
        _add_symbols(files)
        packages = {"kernel": str(kernel_file), "busybox": str(busybox_file)}
        return _store(info, files, packages, kernel_version(files["Image"]))
    source = apt.Mirror(mirror) if mirror else apt.system_mirror()
    failures = []
    for release in [suite] if suite else SUITES:
        try:
            return _fetch_from(info, source, release, progress)
        except apt.AptError as error:
            failures.append(error)
            progress(str(error))
    raise failures[0]


def _fetch_from(info: GuestInfo, mirror: apt.Mirror, suite: str, progress: Progress) -> Guest:
    client = apt.PrivateApt(cache_folder() / "apt" / info.architecture, info.architecture, mirror, suite)
    progress(f"{suite}: package lists")
    client.update()
    packages: dict[str, str] = {}
    files: dict[str, bytes] = {}
    modules: dict[str, debs.PackedModule] = {}
    if "netboot" in info.kernel_package:
        return _fetch_installer(info, client, progress)
    for package in [*_kernel_packages(client, info), "busybox-static"]:
        packages[package] = client.fields(package)["version"]
        progress(f"{suite}: {package} {packages[package]}")
        members = debs.read_members(client.download(package), _is_needed)
        for path, data in members.items():
            if ".ko" in path:
                modules[debs.module_name(path)] = debs.PackedModule(path, data)
            else:
                files[_role(path)] = data
    missing = {"Image", "busybox", "config"} - files.keys()
    if missing:
        raise InputError(f"guest fetch: {suite}: its packages hold no {', '.join(sorted(missing))}")
    disk = _make_disk(client, info, progress, packages)
    ordered = debs.order_modules(list(MODULES), modules)
    files["initrd.cpio.gz"] = build_busybox_initramfs(_static_busybox(files.pop("busybox")), ordered)
    _add_symbols(files)
    return _store(info, files, {"suite": suite, **packages}, kernel_version(files["Image"]), disk)


def _fetch_installer(info: GuestInfo, client: apt.PrivateApt, progress: Progress) -> Guest:
    version = client.fields(info.kernel_package)["version"]
    progress(f"{client.suite}: {info.kernel_package} {version}")
    roles = {"linux": "Image", "initrd.gz": "initrd.cpio.gz"}
    members = debs.read_members(client.download(info.kernel_package), lambda path: Path(path).name in roles)
    files = {roles[Path(path).name]: data for path, data in members.items()}
    if files.keys() != set(roles.values()):
        raise InputError(f"guest fetch: {client.suite}: {info.kernel_package} holds no linux or no initrd.gz")
    _add_symbols(files)
    packages = {"suite": client.suite, info.kernel_package: version}
    return _store(info, files, packages, kernel_version(files["Image"]))


def _make_disk(
    client: apt.PrivateApt, info: GuestInfo, progress: Progress, packages: dict[str, str]
) -> Path | None:
    """Return the guest's disk, in apt's folder, and note its packages; None for a guest without one."""
    if not info.root_packages:
        return None
    rootfs.require_tools()
    paths = client.download_all(info.root_packages)
    progress(f"{client.suite}: {len(paths)} packages for the disk")
    for path in paths:
        name, version, _ = path.stem.split("_")
        packages[name] = unquote(version)
    image = client.root / DISK
    rootfs.build_rootfs(paths, image)
    return image


def _kernel_packages(client: apt.PrivateApt, info: GuestInfo) -> list[str]:
    """Return the packages that make up the kernel: some releases have it in one, some split it in four."""
    found: list[str] = []
    queue = [info.kernel_package]
    while queue:
        package = queue.pop(0)
        found.append(package)
        depends = client.fields(package).get("depends", "")
        for name in re.findall(r"(?:^|, )([a-z0-9.+-]+)", depends):
            part = re.fullmatch(rf"linux-(image|binary|base|modules)-\S*{info.architecture}", name)
            if part and name not in found and name not in queue:
                queue.append(name)
    return [package for package in found if package != info.kernel_package]


def _is_needed(path: str) -> bool:
    return path.endswith((".ko", ".ko.xz", ".ko.zst")) or _role(path) != ""


def _role(path: str) -> str:
    """Return what a package's file is to a guest, an empty text for one that is not needed."""
    if re.fullmatch(r"(boot/vmlinu[xz]-.*|usr/lib/modules/[^/]*/vmlinuz)", path):
        return "Image"
    if re.fullmatch(r"(boot/System\.map-.*|usr/lib/modules/[^/]*/System\.map)", path):
        return "System.map"
    if re.fullmatch(r"(boot/config-.*|usr/lib/modules/[^/]*/config)", path):
        return "config"
    return "busybox" if re.fullmatch(r"(usr/)?bin/busybox", path) else ""


def _add_symbols(files: dict[str, bytes]) -> None:
    """Put the kernel's own symbols in place of a System.map that only says where the real one is."""
    if files.get("System.map", b"").count(b"\n") > 1:
        return
    files.pop("System.map", None)
    try:
        symbols = find_symbols(unpack(files["Image"], "kernel"))
    except MachineError:
        return
    if symbols:
        rows = [f"{s.address:016x} {_LETTERS.get(s.kind, '?')} {s.name}\n" for s in symbols]
        files["System.map"] = "".join(rows).encode()


def _static_busybox(data: bytes) -> bytes:
    if data[:4] != b"\x7fELF" or data[18:20] != b"\xf3\x00":
        raise InputError("guest fetch: the busybox given is not a riscv64 ELF program")
    return data


def kernel_version(image: bytes) -> str:
    """Return the release that a kernel image says it is, or ``unknown``."""
    match = re.search(rb"Linux version (\S+)", image)
    return match.group(1).decode("ascii", "replace") if match else "unknown"


def _store(
    info: GuestInfo, files: dict[str, bytes], packages: dict[str, str], version: str, disk: Path | None = None
) -> Guest:
    """Write the files and their manifest into a new folder, with the disk, then put it in place of the old one."""
    manifest: dict[str, Any] = {
        "guest": info.name,
        "recipe": RECIPE,
        "kernel": version,
        "packages": packages,
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        },
    }
    if disk is not None:
        with disk.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        manifest["files"][DISK] = {"bytes": disk.stat().st_size, "sha256": digest}
    root = cache_folder()
    root.mkdir(parents=True, exist_ok=True)
    target = root / info.name
    with tempfile.TemporaryDirectory(prefix=f".{info.name}-", dir=root) as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        fresh.mkdir()
        for name, data in files.items():
            (fresh / name).write_bytes(data)
        if disk is not None:
            disk.rename(fresh / DISK)
        (fresh / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    return Guest(info.name, target)


def _info(name: str) -> GuestInfo:
    if name not in GUESTS:
        raise UsageError(f"guest: no guest named {name!r}; there is {', '.join(GUESTS)}")
    return GUESTS[name]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"guest fetch: {path}: {error.strerror}") from error

"""A guest's debug information, from Debian's -dbg package of its kernel: about a gigabyte, so asked for apart."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workbench.buildid import build_ids, elf_build_id
from workbench.errors import InputError, UsageError
from workbench.guests import apt
from workbench.guests.fetch import Guest, Progress, cache_folder, cached

#: A kernel with its debug information is not larger than this.
MAX_BYTES = 4 << 30
#: How much room there must be for the kernel itself.
KERNEL_BYTES = 1 << 30
_CHUNK = 1 << 20
#: How often a download is looked at, in seconds.
_WATCH_S = 0.5
FILE = "vmlinux"


@dataclass(frozen=True, slots=True)
class Offer:
    """What the archive has: the package, its version, how much is fetched and how much it is when unpacked."""

    package: str
    version: str
    download_bytes: int
    installed_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.package} {self.version}: {self.download_bytes >> 20} MiB to fetch, "
            f"{self.installed_bytes >> 20} MiB when unpacked, of which the kernel alone is kept"
        )


class DebugPackage:
    """The -dbg package of a guest's kernel.

    Args:
        name: the guest. mirror: a Debian archive's address, instead of that of the system's sources.

    Raises:
        UsageError: there is no such guest, or it was not fetched through apt.
    """

    def __init__(self, name: str, mirror: str | None = None) -> None:
        guest = cached(name)
        if guest is None:
            raise UsageError(f"guest fetch --debug: {name} is not here; 'workbench guest fetch {name}' first")
        suite = guest.manifest["packages"].get("suite")
        if suite is None:
            raise UsageError(f"guest fetch --debug: {name} was made of files, not of Debian's packages")
        self.guest: Guest = guest
        self.package = f"linux-image-{guest.manifest['kernel']}-dbg"
        architecture = name.rpartition("-")[2]
        source = apt.Mirror(mirror) if mirror else apt.system_mirror()
        self._client = apt.PrivateApt(cache_folder() / "apt" / architecture, architecture, source, suite)

    def offer(self) -> Offer:
        """Return what the archive has, by its package lists. Raises AptError: it has no such package any more."""
        try:
            fields = self._client.fields(self.package)
        except apt.AptError as error:
            raise apt.AptError(
                f"{error}; where the archive has gone on to another kernel: 'workbench guest fetch --refresh'"
            ) from error
        sizes = [fields.get(name, "") for name in ("size", "installed-size")]
        if not all(size.isdecimal() for size in sizes):
            raise apt.AptError(f"guest fetch: the entry of {self.package} tells no size")
        return Offer(self.package, fields["version"], int(sizes[0]), int(sizes[1]) << 10)

    def fetch(self, progress: Progress = lambda text: None) -> Path:
        """Fetch the package and keep its kernel; return where that lies.

        A download that was interrupted goes on when it is asked for again.

        Raises:
            AptError: apt could not fetch or verify. InputError: it is of another build, or there is too little space.
        """
        target = self.guest.folder / FILE
        if target.exists() and self._is_of_the_kernel(target):
            progress(f"{self.package}: its kernel is here")
            return target
        offer = self.offer()
        free = shutil.disk_usage(self.guest.folder).free
        if offer.download_bytes + KERNEL_BYTES > free:
            raise InputError(f"guest fetch: {offer}, but {self.guest.folder} has {free >> 20} MiB free")
        progress(str(offer))
        with _watched(self._client.archives, offer, progress):
            # this way of apt's, unlike that for single packages, goes on with what it had when it was interrupted
            (deb,) = self._client.download_all([self.package])
        progress("taking the kernel out of the package")
        part = target.with_suffix(".part")
        try:
            _take_kernel(deb, part)
            if not self._is_of_the_kernel(part):
                raise InputError(
                    f"guest fetch: {self.package} is of another build than the kernel that is here; "
                    f"'workbench guest fetch {self.guest.name} --refresh' gets its own"
                )
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        deb.unlink()
        return target

    def _is_of_the_kernel(self, file: Path) -> bool:
        from machine.images import unpack

        mine = elf_build_id(file.read_bytes())
        known = build_ids(unpack(self.guest.kernel.read_bytes(), "kernel"))
        return mine is not None and (not known or mine in known)


@contextmanager
def _watched(folder: Path, offer: Offer, progress: Progress) -> Iterator[None]:
    """Tell how much of a package has come, as long as it is being fetched into a folder of apt's."""
    done = threading.Event()
    names = f"{offer.package}_*.deb"

    def watch() -> None:
        told = -1
        while not done.wait(_WATCH_S):
            files = [*folder.glob(names), *(folder / "partial").glob(names)]
            have = max((file.stat().st_size for file in files if file.exists()), default=0)
            tenths = 10 * have // max(offer.download_bytes, 1)
            if tenths > told and have:
                told = tenths
                progress(f"{have >> 20} of {offer.download_bytes >> 20} MiB")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _take_kernel(deb: Path, target: Path) -> None:
    """Write a package's vmlinux to a file, a piece at a time. Raises InputError: it has none, or is damaged."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    if not member.isfile() or not re.search(r"(^|/)boot/vmlinux-[^/]*$", member.name):
                        continue
                    stream = archive.extractfile(member)
                    if stream is None or member.size > MAX_BYTES:
                        raise InputError(f"guest fetch: {deb.name}: {member.name} is too large")
                    with target.open("wb") as file:
                        shutil.copyfileobj(stream, file, _CHUNK)
                    process.kill()  # what follows are the modules'
                    return
        except tarfile.TarError as error:
            raise InputError(
                f"guest fetch: {deb.name} is damaged ({error}); remove it and fetch again"
            ) from error
    raise InputError(f"guest fetch: {deb.name} holds no boot/vmlinux")

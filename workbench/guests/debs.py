"""Read files out of Debian packages, and modules out of a kernel's tree, without unpacking to the disk."""

from __future__ import annotations

import lzma
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import zstandard

from workbench.errors import InputError

#: No file we take out of a package is larger than this.
MAX_FILE_BYTES = 256 << 20


def read_members(deb: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the regular files of a package whose path (no leading ``./``) is ``wanted``.

    Raises:
        InputError: the package is damaged.
    """
    found: dict[str, bytes] = {}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    if member.isfile() and wanted(name):
                        stream = archive.extractfile(member)
                        if stream is None or member.size > MAX_FILE_BYTES:
                            raise InputError(f"guest fetch: {deb.name}: {name} is too large")
                        found[name] = stream.read()
        except tarfile.TarError as error:
            raise InputError(
                f"guest fetch: {deb.name} is damaged ({error}); remove it and fetch again"
            ) from error
    if process.returncode != 0:
        raise InputError(f"guest fetch: dpkg-deb cannot read {deb.name}; remove it and fetch again")
    return found


def module_name(path: str) -> str:
    """Return a module's name from its file's: ``…/virtio-rng.ko.xz`` is ``virtio_rng``."""
    return re.sub(r"\.ko(\.[a-z]+)?$", "", Path(path).name).replace("-", "_")


class PackedModule(NamedTuple):
    """A kernel module as a package has it: its path, whose suffix says the compression, its bytes."""

    path: str
    data: bytes

    def unpack(self) -> bytes:
        """Return the module's ELF.

        Raises:
            InputError: a compression that is not known, or damaged data.
        """
        try:
            if self.path.endswith(".ko"):
                return self.data
            if self.path.endswith(".ko.xz"):
                return lzma.decompress(self.data)
            if self.path.endswith(".ko.zst"):
                return zstandard.ZstdDecompressor().decompress(self.data, max_output_size=MAX_FILE_BYTES)
        except (lzma.LZMAError, zstandard.ZstdError) as error:
            raise InputError(f"guest fetch: module {self.path} is damaged ({error})") from error
        raise InputError(f"guest fetch: module {self.path}: its compression is none of plain, xz and zstd")


def module_needs(module: bytes) -> list[str]:
    """Return the names of the modules that a module says it depends on."""
    match = re.search(rb"(?:^|\0)depends=([^\0]*)\0", module)
    return [name.replace("-", "_") for name in match.group(1).decode().split(",") if name] if match else []


def order_modules(wanted: list[str], modules: dict[str, PackedModule]) -> list[tuple[str, bytes]]:
    """Return ``wanted`` and what they need as (name, ELF), each after its needs.

    Args:
        modules: every module that there is, by name. A wanted one that is not there is left out: the kernel
            has it built in, or not at all.
    """
    ordered: dict[str, bytes] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in ordered or name not in modules or name in path:
            return
        data = modules[name].unpack()
        for need in module_needs(data):
            add(need, (*path, name))
        ordered[name] = data

    for name in wanted:
        add(name, ())
    return list(ordered.items())

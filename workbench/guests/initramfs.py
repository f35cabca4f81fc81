"""Build an initramfs: a cpio archive in the kernel's "newc" format, the same bytes for the same contents.

Everything in it belongs to root and has time 0, and inode numbers count from 1, so an image depends on its
contents alone.
"""

from __future__ import annotations

import gzip
import io
import stat
from dataclasses import dataclass, field
from importlib import resources

#: Commands that are links to busybox.
APPLETS = (
    "ash awk basename blkid cat chmod chown clear cmp cp cttyhack cut date dd df diff dirname dmesg du "
    "echo egrep env expr false find free grep gunzip gzip halt head hexdump hostname id insmod ip kill "
    "killall less ln ls lsmod md5sum mkdir mkfifo mknod mkswap mktemp more mount mv nc nproc od ping "
    "poweroff printf ps pwd readlink reboot rm rmdir rmmod sed seq setsid sh sha256sum sleep sort stat "
    "stty swapoff swapon switch_root sync tail tar tee test time top touch tr true tty umount uname uniq usleep vi "
    "watch wc which xargs yes zcat"
).split()

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


@dataclass
class CpioArchive:
    """A newc cpio archive in the making; entries come out in the order in which they were added.

    Spec: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
    """

    _entries: list[_Entry] = field(default_factory=list)

    def add_directory(self, name: str, mode: int = 0o755) -> None:
        """Add directory ``name`` (relative, no leading slash); its parents come before it."""
        self._add(_Entry(name, stat.S_IFDIR | mode))

    def add_file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._add(_Entry(name, stat.S_IFREG | mode, data))

    def add_symlink(self, name: str, target: str) -> None:
        """Add a symbolic link ``name`` to ``target``."""
        self._add(_Entry(name, stat.S_IFLNK | 0o777, target.encode()))

    def add_char_device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device node."""
        self._add(_Entry(name, stat.S_IFCHR | mode, device=(major, minor)))

    def _add(self, entry: _Entry) -> None:
        if (
            entry.name.startswith("/")
            or entry.name == _TRAILER
            or any(e.name == entry.name for e in self._entries)
        ):
            raise ValueError(f"initramfs: bad or repeated name {entry.name!r}")
        self._entries.append(entry)

    def to_bytes(self) -> bytes:
        """Return the archive, its trailer included, padded to 512 bytes."""
        out = io.BytesIO()
        for inode, entry in enumerate([*self._entries, _Entry(_TRAILER, 0)], start=1):
            _write_entry(out, inode if entry.mode else 0, entry)
        _pad(out, 512)
        return out.getvalue()


def _write_entry(out: io.BytesIO, inode: int, entry: _Entry) -> None:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, uid, gid, links, mtime, size, device (2), node's major and minor, name size, checksum
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    out.write(_MAGIC + b"".join(b"%08x" % value for value in fields))
    out.write(name)
    _pad(out, 4)
    out.write(entry.data)
    _pad(out, 4)


def _pad(out: io.BytesIO, alignment: int) -> None:
    out.write(bytes(-out.tell() % alignment))


def build_busybox_initramfs(busybox: bytes, modules: list[tuple[str, bytes]]) -> bytes:
    """Return a gzip-compressed initramfs whose ``/init`` is ``init.sh``.

    Args:
        busybox: a static busybox for the guest.
        modules: kernel modules as (name, uncompressed ELF), each after those it needs. They go to
            ``/lib/modules/NAME.ko``, their names in this order to ``/lib/modules/order``.
    """
    archive = CpioArchive()
    for directory in ("bin", "dev", "etc", "lib", "lib/modules", "mnt", "proc", "root", "run", "sys", "tmp"):
        archive.add_directory(directory)
    archive.add_char_device("dev/console", 5, 1)
    archive.add_char_device("dev/null", 1, 3, 0o666)
    archive.add_file("bin/busybox", busybox, 0o755)
    for applet in APPLETS:
        archive.add_symlink(f"bin/{applet}", "busybox")
    for name, data in modules:
        archive.add_file(f"lib/modules/{name}.ko", data)
    archive.add_file("lib/modules/order", "".join(f"{name}\n" for name, _ in modules).encode())
    archive.add_file("init", resources.files(__package__).joinpath("init.sh").read_bytes(), 0o755)
    return gzip.compress(archive.to_bytes(), compresslevel=9, mtime=0)

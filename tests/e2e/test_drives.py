"""A Linux guest on disks that are no plain files: recorded, packed, replayed with the images gone."""

from __future__ import annotations

import gzip
import hashlib
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_builtin import run, start

if TYPE_CHECKING:
    from workbench.guests.fetch import Guest

pytestmark = pytest.mark.slow

SCRIPT = "md5sum /dev/vda; echo hello > /dev/vda; sync; head -c 6 /dev/vda"


def record(guest: Guest, out: Path, drive: str) -> str:
    machine = guest.options(f"console=ttyS0 wb.modules=all wb.sh={SCRIPT}")
    return run("record", "-o", str(out), *machine, "--drive", drive, "--no-input", "--timeout", "600")


@pytest.fixture
def disk(tmp_path: Path) -> tuple[Path, str]:
    """Return a qcow2 overlay over a qcow2 image, and the digest of what a guest sees."""
    data = b"".join(hashlib.blake2b(i.to_bytes(4, "little")).digest() * 64 for i in range(1024))
    raw, base, overlay = (tmp_path / name for name in ("disk.raw", "base.qcow2", "overlay.qcow2"))
    raw.write_bytes(data)
    run("img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(base))
    run("img", "create", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(overlay))
    return overlay, hashlib.md5(data, usedforsecurity=False).hexdigest()


def check_replay_without_images(trace: Path, output: str, digest: str, images: Path) -> None:
    assert f"{digest}  /dev/vda" in output and "\nhello" in output.replace("\r", "")
    packed = trace.with_name("packed.trace")
    run("trace", "pack", str(trace), "-o", str(packed))
    for path in images.glob("*.qcow2"):
        path.unlink()
    assert "verified:" in run("replay", "--verify", str(packed))
    run("replay", "--verify", str(trace), code=3)


def test_a_guest_on_a_qcow2_overlay_replays_from_the_packed_trace_alone(
    debian_guest: Guest, tmp_path: Path, disk: tuple[Path, str]
) -> None:
    overlay, digest = disk
    trace = tmp_path / "qcow2.trace"
    before = overlay.read_bytes()
    output = record(debian_guest, trace, f"file={overlay},format=qcow2")
    assert overlay.read_bytes() == before
    assert "verified:" in run("replay", "--verify", str(trace))
    check_replay_without_images(trace, output, digest, tmp_path)


def test_a_guest_on_an_nbd_export_replays_when_the_server_is_gone(
    debian_guest: Guest, tmp_path: Path, disk: tuple[Path, str]
) -> None:
    overlay, digest = disk
    socket = tmp_path / "nbd.sock"
    server = start("nbd", "serve", str(overlay), "--listen", f"unix:{socket}", "--readonly", "--persistent")
    try:
        assert server.stderr is not None and re.search("serving", server.stderr.readline())
        trace = tmp_path / "nbd.trace"
        output = record(debian_guest, trace, f"file=nbd+unix:///?socket={socket},format=raw")
        assert "verified:" in run("replay", "--verify", str(trace))
    finally:
        server.terminate()
        server.communicate()
    check_replay_without_images(trace, output, digest, tmp_path)


ROOT_INIT = """#!/bin/busybox sh
mount -t proc proc /proc
grep ' / ' /proc/mounts | tail -n 1
md5sum /data
echo 'kept on the overlay' > /note
sync
echo 3 > /proc/sys/vm/drop_caches
cat /note
poweroff -f
"""
#: First process of the initramfs: loads modules, mounts the disk and makes it the root of everything.
TO_ROOT = (
    "b=/bin/busybox; $b mount -t devtmpfs dev /dev; for m in $($b cat /lib/modules/order); "
    "do $b insmod /lib/modules/$m.ko; done; $b mount -t ext4 /dev/vda /mnt; exec $b switch_root /mnt /sbin/init"
)


def initrd_file(initrd: Path, wanted: str) -> bytes:
    """Return a file of a gzipped newc archive."""
    data, at = gzip.decompress(initrd.read_bytes()), 0
    while at < len(data):
        size, name_size = (int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in (6, 11))
        name = data[at + 110 : at + 109 + name_size].decode()
        body = (at + 110 + name_size + 3) & ~3
        if name == wanted:
            return data[body : body + size]
        at = (body + size + 3) & ~3
    raise FileNotFoundError(f"no {wanted} in {initrd}")


def make_root(folder: Path, initrd: Path) -> tuple[Path, str]:
    """Make a root file system of 32 MiB with busybox, an init and some data; returns it and the data's digest."""
    tree, image = folder / "root", folder / "root.ext4"
    for name in ("bin", "sbin", "proc", "dev"):
        (tree / name).mkdir(parents=True)
    (tree / "bin/busybox").write_bytes(initrd_file(initrd, "bin/busybox"))
    for name in ("sh", "mount", "grep", "tail", "md5sum", "sync", "cat", "poweroff"):
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "sbin/init").write_text(ROOT_INIT)
    for name in ("bin/busybox", "sbin/init"):
        (tree / name).chmod(0o755)
    data = b"".join(hashlib.blake2b(i.to_bytes(4, "little")).digest() * 32 for i in range(2048))
    (tree / "data").write_bytes(data)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(image), "32M"], check=True)
    return image, hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.mark.timeout(1200)
@pytest.mark.requires("mke2fs")
def test_a_guest_whose_root_is_an_overlay_over_nbd_replays_from_the_packed_trace_alone(
    debian_guest: Guest, tmp_path: Path
) -> None:
    """The server takes one client and ends with it, so this also fails when the image is opened twice."""
    machine = debian_guest.options("")
    initrd = Path(machine[machine.index("--initrd") + 1])
    image, digest = make_root(tmp_path, initrd)
    socket, overlay = tmp_path / "nbd.sock", tmp_path / "overlay.qcow2"
    trace, packed = tmp_path / "root.trace", tmp_path / "packed.trace"
    run(
        "img",
        "create",
        "-f",
        "qcow2",
        "-u",
        "-b",
        f"nbd+unix:///?socket={socket}",
        "-F",
        "raw",
        str(overlay),
        "32M",
    )
    server = start("nbd", "serve", "-f", "raw", str(image), "--listen", f"unix:{socket}", "--readonly")
    assert server.stderr is not None and re.search("serving", server.stderr.readline())
    append = f'console=ttyS0 panic=-1 rdinit=/bin/sh -- -c "{TO_ROOT}"'
    output = run(
        "record", "-o", str(trace), *debian_guest.options(append), "--drive",
        f"file={overlay},format=qcow2,serial=ROOT-1,num-queues=2", "--no-input", "--timeout", "600",
    ).replace("\r", "")  # fmt: skip
    server.communicate(timeout=30)
    assert re.search(r"^/dev/\w+ / ext4 rw", output, re.MULTILINE), output[-2000:]
    assert f"{digest}  /data" in output and "\nkept on the overlay" in output
    run("trace", "pack", str(trace), "-o", str(packed))
    run("replay", "--verify", str(trace), code=3)
    for path in (overlay, image):
        path.unlink()
    first = run("replay", "--verify", str(packed))
    assert re.search(r"verified: \d+ digests", first)
    slow = run("replay", "--verify", str(packed), "--backend", "interp", timeout_s=900)
    assert slow[-200:] == first[-200:]

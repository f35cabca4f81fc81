"""A Linux guest on disks that are no plain files: recorded, packed, replayed with the images gone."""

from __future__ import annotations

import hashlib
import re
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

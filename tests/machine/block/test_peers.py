"""QEMU itself as the other side: catalogue R-a to R-f, N5, N6, the rest of N11 and of I8."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machine.block.errors import BlockError
from machine.block.graph import Graph
from machine.block.jobs.backup import BackupJob
from machine.block.jobs.chain import StreamJob
from machine.block.jobs.job import JobState
from machine.block.jobs.mirror import MirrorJob
from machine.block.nbd.server import Export, NbdServer
from machine.block.options import from_filename
from machine.block.replication import ReplicationNode

from .qcow2_util import make_image, open_image, qemu_img, qemu_io, qemu_json
from .qmp import DAEMON, SYSTEM, Qmp
from .replication_util import Secondary
from .test_nbd import nbdkit, pattern, serving
from .test_replica import Pair

K, M = 1 << 10, 1 << 20
SIZE = 8 * M
REPLICATION = "xen-set-replication"


@pytest.fixture
def disks(tmp_path: Path) -> Path:
    """A folder with the secondary's disk, full of 0x11, and two empty buffers."""
    for name in ("s", "act", "hid"):
        make_image(tmp_path / f"{name}.q2", size=SIZE)
    qemu_io(tmp_path / "s.q2", f"write -q -P 0x11 0 {SIZE}")
    return tmp_path


def qemu_secondary(folder: Path) -> Qmp:
    top = "if=none,id=sid,driver=replication,mode=secondary,top-id=sid"
    active = f"file.driver=qcow2,file.file.filename={folder}/act.q2"
    hidden = (
        f"file.backing.driver=qcow2,file.backing.file.filename={folder}/hid.q2,file.backing.backing=slocal"
    )
    return Qmp(
        *SYSTEM,
        *("-drive", f"if=none,driver=qcow2,file.filename={folder}/s.q2,id=slocal"),
        *("-drive", f"{top},{active},{hidden}"),
    )


def wait_failover(peer: Qmp) -> None:
    for _ in range(500):
        if not peer("query-jobs"):
            return
        time.sleep(0.02)
    raise AssertionError("the failover did not end")


@pytest.mark.requires("qemu-system-riscv64", "qemu-img", "qemu-io")
@pytest.mark.parametrize("seed", range(4))
def test_r_a_t36_a_secondary_of_qemu_and_ours_show_the_same(disks: Path, seed: int) -> None:
    rnd = random.Random(seed)
    side = Secondary(size=SIZE)
    side.start()
    with qemu_secondary(disks) as peer:
        peer(REPLICATION, enable=True, primary=False)
        for _ in range(25):
            at, length = rnd.randrange(0, SIZE - 300 * K, 512), rnd.choice((512, 4096, 70 * K, 256 * K))
            length, fill = length // 512 * 512, rnd.randrange(1, 256)
            kind = rnd.choice(("guest", "guest", "nbd", "nbd", "zero", "checkpoint"))
            if kind == "guest":
                side.write(at, bytes([fill]) * length)
                assert not peer.io("sid", f"write -q -P {fill} {at} {length}")
            elif kind == "nbd":
                side.nbd_write(at, bytes([fill]) * length)
                assert not peer.io("slocal", f"write -q -P {fill} {at} {length}")
            elif kind == "zero":
                side.run(side.guest.write_zeroes(at, length))
                assert not peer.io("sid", f"write -q -z {at} {length}")
            else:
                side.run(side.top.do_checkpoint())
                peer("xen-colo-do-checkpoint")
            look = rnd.randrange(0, SIZE - 64 * K, 512)
            check_same(peer, side.read(look, 64 * K), look)
        check_same(peer, side.read(), 0)
        side.failover()
        peer(REPLICATION, enable=False, primary=False, failover=True)
        wait_failover(peer)
        check_same(peer, side.read(), 0)
        assert not peer.io("slocal", "flush")
    (disks / "ours.raw").write_bytes(side.nbd_read())
    qemu_img("compare", "-F", "raw", disks / "s.q2", disks / "ours.raw")


def check_same(peer: Qmp, ours: bytes, offset: int) -> None:
    """Compare with what the peer's guest sees, run by run."""
    at = 0
    while at < len(ours):
        end = at + len(ours[at:]) - len(ours[at:].lstrip(ours[at : at + 1]))
        found = peer.io("sid", f"read -q -P {ours[at]} {offset + at} {end - at}")
        assert not found, (found, offset + at, end - at)
        at = end


@pytest.mark.requires("qemu-system-riscv64", "qemu-io")
def test_r_b_our_primary_replicates_to_a_secondary_of_qemu(disks: Path) -> None:
    local, sock = disks / "p.raw", disks / "r.sock"
    local.write_bytes(b"\x11" * SIZE)
    with qemu_secondary(disks) as peer:
        peer(REPLICATION, enable=True, primary=False)
        peer("nbd-server-start", addr={"type": "unix", "data": {"path": str(sock)}})
        peer("nbd-server-add", device="slocal", writable=True)
        graph = Graph()
        remote = graph.run(graph.open(from_filename(f"nbd+unix:///slocal?socket={sock}")))
        node = graph.run(graph.open({"driver": "replication", "mode": "primary", "file": remote}))
        assert isinstance(node, ReplicationNode)
        below = graph.run(graph.open(str(local), driver="raw"))
        spec = {"driver": "quorum", "children": [below, node], "vote-threshold": 1, "read-pattern": "fifo"}
        guest = graph.run(graph.backend(graph.run(graph.open(spec))))
        graph.run(node.start("primary"))
        graph.run(guest.write(M + 100, b"\x22" * 100_000))
        assert graph.run(guest.read(M + 99, 2)) == b"\x11\x22"
        assert not peer.io("sid", f"read -q -P 0x11 0 {SIZE}"), "the guest there sees the last checkpoint"
        peer("xen-colo-do-checkpoint")
        assert not peer.io("sid", f"read -q -P 0x22 {M + 100} 100000")
        graph.run(guest.write(0, b"\x33" * 512))
        peer(REPLICATION, enable=False, primary=False, failover=True)
        wait_failover(peer)
        assert not peer.io("slocal", "read -q -P 0x11 0 512"), "what came after the checkpoint is not kept"
        assert not peer.io("slocal", f"read -q -P 0x22 {M + 100} 100000")
        peer("quit")
        graph.run(guest.write(512, b"\x44" * 512))
        with pytest.raises(BlockError):
            node.get_error()
        graph.run(node.stop(True))
        assert graph.run(guest.read(0, 1024)) == b"\x33" * 512 + b"\x44" * 512
        remote.no_flush = True


@pytest.mark.requires("qemu-system-riscv64", "qemu-img")
def test_r_c_a_primary_of_qemu_replicates_to_our_secondary(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    ours = pair.disks[0]
    make_image(tmp_path / "p.q2", size=M)
    qemu_io(tmp_path / "p.q2", "write -q -P 0x11 0 1M")
    side = pair.secondary(ours, "sock")
    assert side.say("start") == ["running"]
    quorum = "if=none,id=colo1,driver=quorum,read-pattern=fifo,vote-threshold=1"
    drive = f"{quorum},children.0.driver=qcow2,children.0.file.filename={tmp_path}/p.q2"
    with Qmp(*SYSTEM, "-drive", drive) as peer:
        server = f"file.server.type=unix,file.server.path={tmp_path}/sock,file.export=disk"
        line = f"drive_add -n buddy driver=replication,mode=primary,file.driver=nbd,{server},node-name=cl"
        peer("human-monitor-command", **{"command-line": line})
        peer("x-blockdev-change", parent="colo1", node="cl")
        peer(REPLICATION, enable=True, primary=True)
        assert not peer.io("colo1", "write -q -P 0x42 100k 64k")
        assert not peer.io("colo1", "flush")
        assert side.say("read -q -P 0x11 0 1M") == [], "our guest sees the last checkpoint"
        assert side.say("checkpoint") == ["running"]
        assert side.say("read -q -P 0x42 100k 64k") == []
        side.say("write -q -P 0x77 512k 512")
        assert not peer.io("colo1", "write -q -P 0x43 0 4k")
    assert side.say("failover") == ["done"] and side.end() == 0
    model = bytearray(b"\x11" * M)
    model[100 * K : 164 * K], model[512 * K : 512 * K + 512] = b"\x42" * 64 * K, b"\x77" * 512
    assert ours.read_bytes() == model


@pytest.mark.requires("qemu-img", "qemu-io", "nbdcopy")
def test_r_d_fleecing_over_nbd_while_the_source_is_written(tmp_path: Path) -> None:
    frozen, out = tmp_path / "frozen.raw", tmp_path / "out.raw"
    frozen.write_bytes(pattern())

    def setup(graph: Graph, server: NbdServer) -> None:
        source = graph.run(graph.open({"driver": "memory", "size": 4 * M, "node-name": "source"}))
        graph.run(source.pwrite(0, pattern()))
        make_image(tmp_path / "fleece.q2", size=4 * M)
        target = graph.run(
            graph.open({"driver": "qcow2", "file": str(tmp_path / "fleece.q2"), "backing": "source"})
        )
        job = BackupJob(graph, source, target, sync="none")
        job.start()
        graph.sched.settle()
        server.add(Export(graph, source, "disk", writable=True))
        server.add(Export(graph, target, "frozen"))

    with serving(tmp_path, setup) as path:
        disk, view = (f"nbd+unix:///{name}?socket={path}" for name in ("disk", "frozen"))
        ended = threading.Event()

        def write() -> None:
            rnd = random.Random(1)
            while not ended.is_set():
                commands = [
                    f"write -q -P {rnd.randrange(256)} {rnd.randrange(3 * M)} 70000" for _ in range(20)
                ]
                qemu_io(disk, *commands, fmt="raw")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(3):
                qemu_img("compare", "-f", "raw", "-F", "raw", frozen, view)
                subprocess.run(["nbdcopy", view, str(out)], check=True, timeout=60)
                assert out.read_bytes() == frozen.read_bytes()
        finally:
            ended.set()
            writer.join()
        qemu_img("compare", "-f", "raw", "-F", "raw", frozen, disk, ok=(1,))


CBW_SCRIPT = [
    ("disk", "write -q -P 0x22 0 512"),
    ("disk", "read -q -P 0x22 0 512"),
    ("snap", "read -q -P 0x11 0 8M"),
    ("disk", "write -q -P 0x22 1M 512"),
    ("snap", "read -q -P 0x11 0 64k"),
    ("snap", "read -q -P 0x11 2M 64k"),
    ("disk", "write -q -P 0x33 3M 100k"),
    ("disk", "read -q -P 0x33 3M 100k"),
]
FAIL_SECOND = {
    "inject-error": [{"event": "write_aio", "sector": -1, "once": True, "state": 2}],
    "set-state": [{"event": "write_aio", "state": 1, "new_state": 2}],
}


def outcomes(path: str) -> list[bool]:
    """Return which commands of the script succeed."""
    found = []
    for export, command in CBW_SCRIPT:
        uri = f"nbd+unix:///{export}?socket={path}"
        mode = ["-r"] if export == "snap" else []
        result = subprocess.run(
            ["qemu-io", *mode, "-f", "raw", "-c", command, uri], capture_output=True, text=True, timeout=30
        )
        found.append(result.returncode == 0 and not result.stdout)
    return found


def daemon_server(peer: Qmp, path: str, exports: dict[str, tuple[str, bool]]) -> None:
    """Export nodes of a storage daemon: name to (node, writable)."""
    peer("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    for name, (node, writable) in exports.items():
        peer("block-export-add", id=f"e-{name}", type="nbd", node_name=node, name=name, writable=writable)


@pytest.mark.requires("qemu-storage-daemon", "qemu-io")
@pytest.mark.parametrize("policy", ["break-guest-write", "break-snapshot"])
def test_r_e_a_copy_that_fails_has_the_outcome_it_has_in_qemu(tmp_path: Path, policy: str) -> None:
    for name in ("theirs", "ours", "t1", "t2"):
        make_image(tmp_path / f"{name}.q2", size=SIZE)
    for name in ("theirs", "ours"):
        qemu_io(tmp_path / f"{name}.q2", "write -q -P 0x11 0 8M")

    def nodes(disk: str, target: str) -> list[dict[str, Any]]:
        def file(name: str) -> dict[str, Any]:
            return {"driver": "file", "filename": str(tmp_path / f"{name}.q2")}

        broken = {"driver": "blkdebug", "image": file(target), **FAIL_SECOND}
        return [
            {"driver": "qcow2", "node-name": "src", "file": file(disk)},
            {"driver": "qcow2", "node-name": "tmp", "file": broken},
            {"driver": "copy-before-write", "node-name": "cbw", "file": "src", "target": "tmp",
             "on-cbw-error": policy},
            {"driver": "snapshot-access", "node-name": "acc", "file": "cbw"},
        ]  # fmt: skip

    exports = {"disk": ("cbw", True), "snap": ("acc", False)}
    path = str(tmp_path / "q.sock")
    with Qmp(*DAEMON) as peer:
        for spec in nodes("theirs", "t1"):
            peer("blockdev-add", **spec)
        daemon_server(peer, path, exports)
        theirs = outcomes(path)

    def setup(graph: Graph, server: NbdServer) -> None:
        for spec in nodes("ours", "t2"):
            node = graph.run(graph.open(spec))
            node.monitor_owned = True
        for name, (node_name, writable) in exports.items():
            server.add(Export(graph, graph.node(node_name), name, writable=writable))

    with serving(tmp_path, setup) as ours_path:
        assert outcomes(ours_path) == theirs
    assert theirs[3] == (policy == "break-snapshot") and theirs[4] == (policy == "break-guest-write")


@pytest.mark.requires("qemu-storage-daemon", "qemu-img", "qemu-io")
def test_r_e_an_incremental_backup_of_qemu_into_our_export(tmp_path: Path) -> None:
    source, copy = tmp_path / "s.q2", tmp_path / "copy.raw"
    make_image(source, size=4 * M)
    qemu_io(source, "write -q -P 1 0 4M")
    qemu_img("bitmap", "--add", source, "b")
    copy.write_bytes(b"\1" * 4 * M)
    qemu_io(source, "write -q -P 2 1M 100k", "write -q -z 3M 64k")

    def setup(graph: Graph, server: NbdServer) -> None:
        server.add(Export(graph, graph.run(graph.open(str(copy), driver="raw")), "copy", writable=True))

    with serving(tmp_path, setup) as path, Qmp(*DAEMON) as peer:
        peer("blockdev-add", driver="qcow2", node_name="s", file={"driver": "file", "filename": str(source)})
        peer(
            "blockdev-add", driver="nbd", node_name="t", server={"type": "unix", "path": path}, export="copy"
        )
        peer("blockdev-backup", job_id="j", device="s", target="t", sync="incremental", bitmap="b")
        assert "error" not in peer.wait_event("BLOCK_JOB_COMPLETED")["data"]
        peer("blockdev-del", node_name="t")
    qemu_img("compare", "-F", "raw", source, copy)


@pytest.mark.requires("qemu-storage-daemon", "qemu-img")
def test_r_f_a_mirror_of_qemu_into_our_export(tmp_path: Path) -> None:
    source, copy = tmp_path / "s.raw", tmp_path / "copy.q2"
    source.write_bytes(pattern())
    make_image(copy, size=4 * M)

    def setup(graph: Graph, server: NbdServer) -> None:
        server.add(Export(graph, open_image(graph, copy), "copy", writable=True))

    with serving(tmp_path, setup) as path, Qmp(*DAEMON) as peer:
        peer("blockdev-add", driver="file", node_name="s", filename=str(source))
        peer(
            "blockdev-add", driver="nbd", node_name="t", server={"type": "unix", "path": path}, export="copy"
        )
        peer("blockdev-mirror", job_id="j", device="s", target="t", sync="full", copy_mode="write-blocking")
        peer.wait_event("BLOCK_JOB_READY")
        peer("job-complete", id="j")
        assert "error" not in peer.wait_event("BLOCK_JOB_COMPLETED")["data"]
    qemu_img("compare", "-F", "raw", copy, source)
    qemu_img("check", copy)


@pytest.mark.requires("qemu-storage-daemon", "qemu-img")
@pytest.mark.parametrize("mode", ["background", "write-blocking"])
def test_r_f_our_mirror_and_backup_into_an_export_of_qemu(tmp_path: Path, mode: str) -> None:
    for name in ("m", "b"):
        make_image(tmp_path / f"{name}.q2", size=4 * M)
    (tmp_path / "s.raw").write_bytes(pattern())
    path = str(tmp_path / "q.sock")
    with Qmp(*DAEMON) as peer:
        for name in ("m", "b"):
            file = {"driver": "file", "filename": str(tmp_path / f"{name}.q2")}
            peer("blockdev-add", driver="qcow2", node_name=name, file=file)
        daemon_server(peer, path, {"m": ("m", True), "b": ("b", True)})
        graph = Graph()
        source = graph.run(graph.open(str(tmp_path / "s.raw"), driver="raw"))
        targets = [graph.run(graph.open(f"nbd+unix:///{n}?socket={path}", driver="raw")) for n in ("m", "b")]
        backup = BackupJob(graph, source, targets[1], workers=8)
        backup.start()
        mirror = MirrorJob(graph, source, targets[0], copy_mode=mode)
        mirror.start()
        guest = graph.run(graph.backend(source))
        for at in (5, 2 * M + 1000, 4 * M - 7):
            graph.run(guest.write(at, b"written"))
        graph.run(backup.wait())
        graph.run(mirror.wait_for(JobState.READY))
        mirror.cancel()
        graph.run(mirror.wait())
        assert backup.error is None and mirror.error is None
        graph.run(graph.close())
    qemu_img("compare", "-F", "raw", tmp_path / "m.q2", tmp_path / "s.raw")
    (tmp_path / "frozen.raw").write_bytes(pattern())
    qemu_img("compare", "-F", "raw", tmp_path / "b.q2", tmp_path / "frozen.raw")
    assert (tmp_path / "s.raw").read_bytes() != pattern()


@pytest.mark.requires("qemu-storage-daemon", "qemu-img", "qemu-io")
@pytest.mark.parametrize("base", [None, "base"])
def test_i8_stream_like_qemu(tmp_path: Path, base: str | None) -> None:
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        folder.mkdir()
        make_image(folder / "base.q2", size=4 * M)
        for image, below in (("mid", "base"), ("top", "mid")):
            make_image(folder / f"{image}.q2", size=4 * M, backing_file=f"{below}.q2", backing_format="qcow2")
        qemu_io(folder / "base.q2", "write -q -P 1 0 1M")
        qemu_io(folder / "mid.q2", "write -q -P 2 700k 1M", "write -q -z 3M 64k")
        qemu_io(folder / "top.q2", "write -q -P 3 1M 100k")
    graph = Graph()
    top = open_image(graph, tmp_path / "ours" / "top.q2")
    assert top.backing is not None
    job = StreamJob(graph, top, top.backing.backing if base else None)
    job.start()
    graph.run(job.wait())
    assert job.error is None
    graph.run(graph.close())

    def node(name: str, backing: str | None) -> dict[str, Any]:
        file = {"driver": "file", "filename": str(tmp_path / "theirs" / f"{name}.q2")}
        return {
            "driver": "qcow2",
            "node-name": name,
            "file": file,
            **({"backing": backing} if backing else {}),
        }

    with Qmp(*DAEMON) as peer:
        for name, backing in (("base", None), ("mid", "base"), ("top", "mid")):
            peer("blockdev-add", **node(name, backing))
        peer("block-stream", job_id="j", device="top", **({"base-node": base} if base else {}))
        assert "error" not in peer.wait_event("BLOCK_JOB_COMPLETED")["data"]
    one, two = (tmp_path / folder / "top.q2" for folder in ("ours", "theirs"))
    qemu_img("compare", one, two)
    qemu_img("check", one)
    runs = [
        [(r["start"], r["length"], r["depth"], r["zero"]) for r in qemu_json("map", path)]
        for path in (one, two)
    ]
    assert runs[0] == runs[1]
    assert Path(qemu_json("info", one).get("backing-filename", "")).name == ("base.q2" if base else "")


def writable_disk(graph: Graph, server: NbdServer) -> None:
    node = graph.run(graph.open({"driver": "memory", "size": 4 * M, "discard": "unmap", "growable": False}))
    graph.run(node.pwrite(0, pattern()))
    server.add(Export(graph, node, "disk", writable=True, description="a disk"))


@pytest.mark.requires("qemu-nbd", "qemu-storage-daemon", "qemu-img", "qemu-io")
def test_n5_qemus_clients_list_our_exports_and_export_them_again(tmp_path: Path) -> None:
    (tmp_path / "m.raw").write_bytes(pattern())
    with serving(tmp_path, writable_disk) as path:
        listed = subprocess.run(
            ["qemu-nbd", "--list", "-k", path], capture_output=True, text=True, timeout=30
        )
        assert listed.returncode == 0 and "exports available: 1" in listed.stdout
        assert "a disk" in listed.stdout and f"size:  {4 * M}" in listed.stdout
        again = str(tmp_path / "q.sock")
        with Qmp(*DAEMON) as peer:
            peer(
                "blockdev-add",
                driver="nbd",
                node_name="n",
                server={"type": "unix", "path": path},
                export="disk",
            )
            daemon_server(peer, again, {"again": ("n", True)})
            uri = f"nbd+unix:///again?socket={again}"
            qemu_img("compare", "-f", "raw", "-F", "raw", uri, tmp_path / "m.raw")


@pytest.fixture
def through_nbdkit(tmp_path: Path) -> Iterator[str]:
    """Our export behind nbdkit's nbd plugin and filters that cut requests up."""
    with serving(tmp_path, writable_disk) as path, nbdkit(
        tmp_path, "--filter=fua", "--filter=blocksize", "--filter=stats",
        "nbd", f"uri=nbd+unix:///disk?socket={path}", "maxdata=64k", "maxlen=1M", f"statsfile={tmp_path}/stats",
    ) as server:  # fmt: skip
        yield server["path"]


@pytest.mark.requires("nbdkit", "nbdcopy")
def test_n6_nbdkits_client_and_filters_in_front_of_our_server(tmp_path: Path, through_nbdkit: str) -> None:
    uri, out, new = f"nbd+unix:///?socket={through_nbdkit}", tmp_path / "o.raw", tmp_path / "n.raw"
    subprocess.run(["nbdcopy", "--requests=16", uri, str(out)], check=True, timeout=60)
    assert out.read_bytes() == pattern()
    new.write_bytes(random.Random(9).randbytes(4 * M))
    subprocess.run(["nbdcopy", "--requests=16", "--flush", str(new), uri], check=True, timeout=60)
    subprocess.run(["nbdcopy", uri, str(out)], check=True, timeout=60)
    assert out.read_bytes() == new.read_bytes()


@pytest.mark.requires("nbdfuse")
@pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="needs /dev/fuse")
def test_n6_a_file_of_nbdfuse_over_our_server_holds_what_is_written(tmp_path: Path) -> None:
    point = tmp_path / "point"
    point.mkdir()
    with serving(tmp_path, writable_disk) as path:
        uri = f"nbd+unix:///disk?socket={path}"
        process = subprocess.Popen(["nbdfuse", str(point / "nbd"), uri], stderr=subprocess.PIPE, text=True)
        try:
            file = point / "nbd"
            for _ in range(250):
                if file.exists() or process.poll() is not None:
                    break
                time.sleep(0.02)
            if process.poll() is not None:
                pytest.skip(f"this host lets nobody mount: {process.communicate()[1].strip()[:80]}")
            model, rnd = bytearray(pattern()), random.Random(6)
            with file.open("r+b", buffering=0) as held:
                for i in range(60):
                    at, length = rnd.randrange(4 * M - 200_000), rnd.randrange(1, 200_000)
                    held.seek(at)
                    held.write(bytes([i]) * length)
                    model[at : at + length] = bytes([i]) * length
                os.fsync(held.fileno())
                held.seek(0)
                assert held.read() == model
        finally:
            subprocess.run(["umount", str(point / "nbd")], capture_output=True)
            process.terminate()
            process.communicate(timeout=10)


@pytest.mark.requires("nbdkit")
def test_n11_an_oldstyle_server_is_understood(tmp_path: Path) -> None:
    with nbdkit(tmp_path, "-o", "memory", "size=4M") as server:
        graph = Graph()
        spec = {
            "driver": "nbd",
            "server": server,
            "cache": {"no-flush": True},
        }  # nbdkit offers flush and refuses it
        node = graph.run(graph.open(spec))
        assert node.size_bytes == 4 * M
        graph.run(node.pwrite(1000, b"old" * 1000))
        assert graph.run(node.read(999, 5)) == b"\0oldo"
        with pytest.raises(BlockError, match="no names"):
            graph.run(graph.open({**spec, "export": "some"}))
        graph.run(graph.close())


@pytest.mark.requires("nbdkit")
def test_n11_delays_and_failures_that_end_are_carried_by_nbdkits_retry(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    with nbdkit(
        tmp_path, "--filter=retry", "--filter=delay", "--filter=error", "memory", "size=1M", "retry-delay=1",
        "retry-exponential=no", "rdelay=20ms", "wdelay=20ms", "error-rate=100%", f"error-file={broken}",
    ) as server:  # fmt: skip
        graph = Graph()
        node = graph.run(graph.open({"driver": "nbd", "server": server}))
        threading.Timer(0.3, broken.unlink).start()
        writes = [graph.sched.spawn(node.pwrite(i * 5000, bytes([i + 1]) * 5000)) for i in range(8)]
        for task in writes:
            graph.sched.run_task(task)
        assert graph.run(node.read(0, 40_000)) == b"".join(bytes([i + 1]) * 5000 for i in range(8))
        graph.run(graph.close())


@pytest.mark.requires("nbdkit")
def test_n11_a_block_size_policy_is_kept_to(tmp_path: Path) -> None:
    with nbdkit(
        tmp_path, "--filter=blocksize-policy", "memory", "size=1M", "blocksize-minimum=4k",
        "blocksize-preferred=64k", "blocksize-maximum=128k", "blocksize-error-policy=error",
    ) as server:  # fmt: skip
        graph = Graph()
        node = graph.run(graph.open({"driver": "nbd", "server": server}))
        assert node.limits.alignment == 4096 and node.limits.max_transfer == 128 * K
        graph.run(node.pwrite(1, b"x" * 300_000))
        assert graph.run(node.read(0, 300_002)) == b"\0" + b"x" * 300_000 + b"\0"
        graph.run(graph.close())

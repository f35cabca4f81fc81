"""NBD server and client against real peers, each other and hostile ones: catalogue N1 to N14."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.block import hostio
from machine.block.dirty import DirtyBitmap
from machine.block.errors import BlockError, OptionError
from machine.block.graph import Graph
from machine.block.nbd import wire as W
from machine.block.nbd.client import list_exports
from machine.block.nbd.server import Export, NbdServer

from .fuzzing import examples
from .sockets import wait_listening

K, M = 1 << 10, 1 << 20
SIZE = 4 * M


@contextmanager
def serving(tmp_path: Path, setup: Callable[[Graph, NbdServer], None], **options: Any) -> Iterator[str]:
    """Run our server in a thread; yields the socket's path."""
    path = str(tmp_path / "s.sock")
    ours, theirs = socket.socketpair()
    failure: list[BaseException] = []

    def main() -> None:
        try:
            graph = Graph()
            server = NbdServer(graph, **options)
            setup(graph, server)
            server.listen(listener)
            graph.run(until_told(graph, server))
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failure.append(error)

    async def until_told(graph: Graph, server: NbdServer) -> None:
        ours.setblocking(False)
        await hostio.SocketPoller.of(graph.sched).wait(ours.fileno())
        await server.stop()
        await graph.close()

    listener = hostio.listen(f"unix:{path}")
    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        theirs.close()
        thread.join(10)
        listener.close()
        ours.close()
        if failure:
            raise failure[0]  # what clients saw is its consequence
    assert not thread.is_alive()


def pattern(size: int = SIZE) -> bytes:
    data = bytearray(size)
    data[0 : 100 * K] = random.Random(1).randbytes(100 * K)
    data[2 * M : 2 * M + 64 * K] = b"\x5a" * 64 * K
    return bytes(data)


def one_disk(graph: Graph, server: NbdServer, *, writable: bool = True, **options: Any) -> None:
    node = graph.run(graph.open({"driver": "memory", "size": SIZE, "discard": "unmap", "growable": False}))
    data = pattern()
    for at in range(0, SIZE, 64 * K):
        if any(data[at : at + 64 * K]):
            graph.run(node.pwrite(at, data[at : at + 64 * K]))
    bitmap = node.bitmaps.add(DirtyBitmap("b0", SIZE))
    bitmap.set(M, 100 * K)
    bitmap.enabled = False
    server.add(Export(graph, node, "", writable=writable, description="a disk", **options))
    extra = graph.run(graph.open({"driver": "null-co", "size": M}))
    server.add(Export(graph, extra, "other"))


def run(*args: str, ok: tuple[int, ...] = (0,)) -> str:
    result = subprocess.run(args, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode in ok, f"{args}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.requires("nbdinfo")
def test_n1_nbdinfo_sees_the_export(tmp_path: Path) -> None:
    with serving(tmp_path, one_disk) as path:
        info = json.loads(run("nbdinfo", "--json", f"nbd+unix:///?socket={path}"))
        listing = json.loads(run("nbdinfo", "--json", "--list", f"nbd+unix:///?socket={path}"))
        sizes = json.loads(run("nbdinfo", "--map", "--json", f"nbd+unix:///?socket={path}"))
    assert info["protocol"] == "newstyle-fixed" and info["structured"] is True
    export = info["exports"][0]
    assert (export["export-size"], export["description"], export["is_read_only"]) == (SIZE, "a disk", False)
    for ability in (
        "can_flush",
        "can_fua",
        "can_trim",
        "can_zero",
        "can_df",
        "can_multi_conn",
        "can_fast_zero",
    ):
        assert export[ability] is True, ability
    assert (export["block_size_minimum"], export["block_size_maximum"]) == (1, 32 * M)
    assert {e["export-name"] for e in listing["exports"]} == {"", "other"}
    assert [(e["offset"], e["length"], e["type"]) for e in sizes] == [
        (0, 128 * K, 0), (128 * K, 2 * M - 128 * K, 3), (2 * M, 64 * K, 0), (2 * M + 64 * K, 2 * M - 64 * K, 3),
    ]  # fmt: skip


NBDSH = """
import errno
assert h.pread(10, 0) == open(DATA, "rb").read(10)
h.pwrite(b"hello", 5000, nbd.CMD_FLAG_FUA)
assert h.pread(5, 5000) == b"hello"
h.zero(4096, 4096); h.trim(65536, 65536); h.flush(); h.cache(4096, 0)
assert h.pread(5, 5000) == bytes(5)
for call in (lambda: h.pread(10, SIZE - 5), lambda: h.pwrite(b"x" * 10, SIZE - 5), lambda: h.trim(10, SIZE)):
    try:
        call()
        raise SystemExit("no error")
    except nbd.Error as e:
        assert e.errnum in (errno.EINVAL, errno.ENOSPC), e
seen = []
h.block_status(SIZE, 0, lambda ctx, off, ext, err: seen.append((ctx, list(ext))))
assert seen[0][0] == "base:allocation" and sum(seen[0][1][::2]) == SIZE, seen
"""


@pytest.mark.requires("nbdsh")
def test_n2_nbdsh_commands_and_errors(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(pattern())
    script = NBDSH.replace("DATA", repr(str(tmp_path / "data"))).replace("SIZE", str(SIZE))
    with serving(tmp_path, one_disk) as path:
        env = {**os.environ, "PATH": "/usr/bin:/bin"}
        command = [
            "nbdsh", "-c", "h.add_meta_context('base:allocation'); h.set_strict_mode(0)",
            "-c", f"h.connect_uri('nbd+unix:///?socket={path}')", "-c", script,
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, env=env, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.requires("nbdcopy")
def test_n3_nbdcopy_both_ways(tmp_path: Path) -> None:
    target, source = tmp_path / "out.raw", tmp_path / "in.raw"
    source.write_bytes(pattern()[::-1])
    with serving(tmp_path, one_disk) as path:
        uri = f"nbd+unix:///?socket={path}"
        run("nbdcopy", "--connections=2", "--requests=16", uri, str(target))
        assert target.read_bytes() == pattern()
        run("nbdcopy", str(source), uri)
        run("nbdcopy", uri, str(target))
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.requires("qemu-img", "qemu-io")
def test_n4_qemu_img_and_qemu_io(tmp_path: Path) -> None:
    raw = tmp_path / "x.raw"
    raw.write_bytes(pattern())
    with serving(tmp_path, one_disk) as path:
        uri = f"nbd+unix:///?socket={path}"
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, str(raw))
        theirs = run("qemu-img", "info", "-f", "raw", "--output=json", uri)
        ours = run(sys.executable, "-m", "workbench", "img", "info", "-f", "raw", "--output=json", uri)
        assert json.loads(ours) == json.loads(theirs)  # no port, and 0 bytes on disk, were told once
        extents = json.loads(run("qemu-img", "map", "-f", "raw", "--output=json", uri))
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, str(tmp_path / "c.qcow2"))
        out = run(
            "qemu-io", "-f", "raw", "-c", "write -P 7 1M 64k", "-c", "read -P 7 1M 64k", "-c", "flush", uri
        )
    assert [e["zero"] for e in extents] == [False, True, False, True]
    assert "failed" not in out and "verification" not in out
    run("qemu-img", "compare", "-F", "raw", str(tmp_path / "c.qcow2"), str(raw))


@pytest.mark.requires("nbdinfo")
def test_n10_dirty_bitmap_and_depth_contexts(tmp_path: Path) -> None:
    def setup(graph: Graph, server: NbdServer) -> None:
        one_disk(graph, server, bitmaps=("b0",), allocation_depth=True)

    with serving(tmp_path, setup) as path:
        uri = f"nbd+unix:///?socket={path}"
        dirty = json.loads(run("nbdinfo", "--json", "--map=qemu:dirty-bitmap:b0", uri))
        depth = json.loads(run("nbdinfo", "--json", "--map=qemu:allocation-depth", uri))
        graph = Graph()
        options = {
            "driver": "nbd",
            "server": {"type": "unix", "path": path},
            "x-dirty-bitmap": "qemu:dirty-bitmap:b0",
        }
        node = graph.run(graph.open(options, read_only=True))
        first = graph.run(node.block_status(0, SIZE))
        graph.run(graph.close())
    assert [(e["offset"], e["length"], e["type"]) for e in dirty if e["type"]] == [(M, 128 * K, 1)]
    assert sum(e["length"] for e in depth) == SIZE and {e["type"] for e in depth} == {1}
    assert first.length == M


def test_our_client_and_our_server_agree(tmp_path: Path) -> None:
    with serving(tmp_path, one_disk) as path:
        graph = Graph()
        server = {"type": "unix", "path": path}
        assert dict(graph.run(list_exports(graph.sched, dict(server)))) == {"": "a disk", "other": ""}
        node = graph.run(graph.open({"driver": "nbd", "server": server, "discard": "unmap"}))
        assert graph.run(node.read(0, SIZE)) == pattern()

        async def many() -> None:
            tasks = [graph.sched.spawn(node.pwrite(M + n * 5000, bytes([n + 1]) * 5000)) for n in range(50)]
            for task in tasks:
                await task.join()

        graph.run(many())
        data = graph.run(node.read(M, 250_000))
        assert all(data[n * 5000 : (n + 1) * 5000] == bytes([n + 1]) * 5000 for n in range(50))
        graph.run(node.pwrite_zeroes(M, 100_000))
        graph.run(node.pdiscard(0, 64 * K))
        graph.run(node.flush())
        assert graph.run(node.read(M, 100_000)) == bytes(100_000)
        with pytest.raises(BlockError) as caught:
            graph.run(graph.open({"driver": "nbd", "server": server, "export": "none"}))
        assert caught.value.errno == errno.ENOENT
        with pytest.raises(BlockError, match="read-only"):
            graph.run(graph.open({"driver": "nbd", "server": server, "export": "other"}))
        graph.run(graph.close())


@contextmanager
def nbdkit(tmp_path: Path, *args: str) -> Iterator[dict[str, str]]:
    path = tmp_path / "kit.sock"
    with subprocess.Popen(["nbdkit", "-f", "-U", str(path), *args], stderr=subprocess.PIPE) as process:
        try:
            wait_listening(path)
            yield {"type": "unix", "path": str(path)}
        finally:
            process.terminate()


@pytest.mark.requires("nbdkit")
@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["--no-sr"],
        ["--filter=nozero"],
        ["--filter=noextents"],
        ["--mask-handshake=0"],
        ["--filter=fua", "fuamode=emulate"],
    ],
    ids=str,
)
def test_n11_client_against_nbdkit(tmp_path: Path, extra: list[str]) -> None:
    filters, params = [a for a in extra if a.startswith("-")], [a for a in extra if not a.startswith("-")]
    with nbdkit(tmp_path, *filters, "memory", "size=4M", *params) as server:
        graph = Graph()
        node = graph.run(graph.open({"driver": "nbd", "server": server}))
        graph.run(node.pwrite(1000, b"data" * 5000))
        graph.run(node.pwrite_zeroes(2000, 3000))
        graph.run(node.flush())
        model = bytearray(SIZE)
        model[1000:21000] = b"data" * 5000
        model[2000:5000] = bytes(3000)
        assert graph.run(node.read(0, SIZE)) == model
        offset = 0
        while offset < SIZE:
            status = graph.run(node.block_status(offset, SIZE - offset))
            if status.flags & 2:
                assert not any(model[offset : offset + status.length])
            offset += status.length
        graph.run(graph.close())


@pytest.mark.requires("nbdkit")
def test_n11_injected_errors_of_nbdkit_arrive_as_errno(tmp_path: Path) -> None:
    with nbdkit(
        tmp_path, "--filter=error", "memory", "size=1M", "error-pwrite=ENOSPC", "error-pwrite-rate=1"
    ) as server:
        graph = Graph()
        node = graph.run(graph.open({"driver": "nbd", "server": server}))
        with pytest.raises(BlockError) as caught:
            graph.run(node.pwrite(0, b"x"))
        assert caught.value.errno == errno.ENOSPC
        assert graph.run(node.read(0, 1)) == b"\0"
        graph.run(graph.close())


@pytest.mark.requires("qemu-nbd", "qemu-img")
def test_n12_client_against_qemu_nbd(tmp_path: Path) -> None:
    image, path = tmp_path / "i.qcow2", tmp_path / "q.sock"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(image), "4M")
    with subprocess.Popen(["qemu-nbd", "-f", "qcow2", "-k", str(path), "-e", "2", str(image)]) as process:
        try:
            wait_listening(path)
            graph = Graph()
            options = {"driver": "nbd", "server": {"type": "unix", "path": str(path)}, "open-timeout": 5}
            node = graph.run(graph.open(options))
            graph.run(node.pwrite(M, b"qemu" * 1000))
            assert graph.run(node.read(M - 2, 6)) == b"\0\0qemu"
            assert graph.run(node.block_status(0, SIZE)).flags & 2
            graph.run(graph.close())
        finally:
            process.terminate()


def test_n13_reconnect_delay_carries_requests_over_a_restart(tmp_path: Path) -> None:
    graph = Graph()
    with serving(tmp_path, one_disk) as path:
        server = {"type": "unix", "path": path}
        node = graph.run(graph.open({"driver": "nbd", "server": server, "reconnect-delay": 10}))
        plain = graph.run(graph.open({"driver": "nbd", "server": server}))
        assert graph.run(node.read(0, 4)) == pattern()[:4]
    Path(path).unlink()
    with pytest.raises(BlockError) as caught:
        graph.run(plain.read(0, 4))
    assert caught.value.errno == errno.EIO
    with serving(tmp_path, one_disk) as path:
        assert graph.run(node.read(0, 4)) == pattern()[:4]
        graph.run(graph.close())


def certificates(folder: Path) -> None:
    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-key.pem", "-out", "ca-cert.pem",
            "-subj", "/CN=ca", "-days", "2")  # fmt: skip
    for word in ("server", "client"):
        (folder / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{word}-key.pem", "-out", f"{word}.csr",
                "-subj", f"/CN={word}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{word}.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
                "-days", "2", "-extfile", "ext", "-out", f"{word}-cert.pem")  # fmt: skip


@pytest.mark.requires("openssl", "nbdinfo")
def test_n7_tls_with_certificates(tmp_path: Path) -> None:
    certificates(tmp_path)
    context = hostio.tls_context(str(tmp_path), server=True)
    with serving(tmp_path, one_disk, tls=context) as path:
        uri = f"nbds+unix:///?socket={path}&tls-certificates={tmp_path}&tls-verify-peer=false"
        assert json.loads(run("nbdinfo", "--json", uri))["TLS"] is True
        graph = Graph()
        server = {"type": "unix", "path": path}
        node = graph.run(graph.open({"driver": "nbd", "server": server, "tls-creds": str(tmp_path)}))
        assert graph.run(node.read(0, 100_000)) == pattern()[:100_000]
        with pytest.raises(BlockError):
            graph.run(graph.open({"driver": "nbd", "server": server}))
        graph.run(graph.close())
        (tmp_path / "client-cert.pem").unlink()
        with pytest.raises(BlockError):
            graph.run(graph.open({"driver": "nbd", "server": server, "tls-creds": str(tmp_path)}))


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([
    struct.pack(">I", 3),
    W.OPTION.pack(W.OPTION_MAGIC, W.OPT_GO, 1 << 31),
    W.OPTION.pack(W.OPTION_MAGIC, W.OPT_GO, 6) + struct.pack(">IH", 0xFFFFFFFF, 1),
    W.OPTION.pack(W.OPTION_MAGIC, W.OPT_SET_META, 8) + struct.pack(">II", 0, 0xFFFFFFFF),
    W.OPTION.pack(W.OPTION_MAGIC, W.OPT_STRUCTURED_REPLY, 0),
    W.OPTION.pack(W.OPTION_MAGIC, W.OPT_EXPORT_NAME, 0),
    W.REQUEST.pack(W.REQUEST_MAGIC, 0, W.CMD_WRITE, 1, 0, 0xFFFFFFFF),
    W.REQUEST.pack(W.REQUEST_MAGIC, 0xFFFF, 9, 1, 1 << 63, 5),
])), max_size=6))  # fmt: skip
def test_n8_hostile_clients_are_dropped(pieces: list[bytes]) -> None:
    graph = Graph()
    server = NbdServer(graph)
    one_disk(graph, server)
    ours, theirs = socket.socketpair()
    theirs.sendall(b"".join(pieces))
    theirs.shutdown(socket.SHUT_WR)
    server.attach(ours)
    graph.run(server.wait_served(1))
    theirs.close()
    graph.run(server.stop())
    graph.run(graph.close())


@settings(max_examples=examples(40), deadline=None)
@given(cut=st.integers(0, 400), noise=st.binary(max_size=30), flip=st.integers(0, 400))
def test_n14_misbehaving_servers_give_errors(cut: int, noise: bytes, flip: int) -> None:
    """The server's half of a real conversation, cut off or with a byte changed, then noise."""
    import tempfile

    reply = W.OPTION_REPLY.pack
    said = W.INIT_MAGIC + W.OPTION_MAGIC + struct.pack(">H", 3) + reply(W.REPLY_MAGIC, 8, W.REP_ACK, 0)
    said += reply(W.REPLY_MAGIC, 10, W.REP_META, 19) + struct.pack(">I", 1) + b"base:allocation"
    said += reply(W.REPLY_MAGIC, 10, W.REP_ACK, 0)
    said += (
        reply(W.REPLY_MAGIC, 7, W.REP_INFO, 12)
        + struct.pack(">HQH", 0, M, 1)
        + reply(W.REPLY_MAGIC, 7, W.REP_ACK, 0)
    )
    said += W.CHUNK.pack(W.CHUNK_MAGIC, 1, W.CHUNK_DATA, 1, 520) + bytes(520)
    data = bytearray(said[:cut] if cut < len(said) else said)
    if flip < len(data):
        data[flip] ^= 0xFF
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(bytes(data) + noise)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        graph = Graph()
        try:
            node = graph.run(graph.open({"driver": "nbd", "server": {"type": "unix", "path": path}}))
            graph.run(node.read(0, 512))
            graph.run(node.read(0, 512))
        except BlockError:
            pass
        finally:
            graph.run(graph.close())
            thread.join(5)
            listener.close()
        assert not thread.is_alive()


def test_data_in_flight_are_bounded_over_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clients that announce large writes and then wait hold no more than the bound between them."""
    monkeypatch.setattr("machine.block.nbd.server.MAX_BYTES_IN_FLIGHT", 3 * M)
    graph = Graph()
    server = NbdServer(graph)
    one_disk(graph, server)
    hello = struct.pack(">I", 3) + W.OPTION.pack(W.OPTION_MAGIC, W.OPT_EXPORT_NAME, 0)
    request = W.REQUEST.pack(W.REQUEST_MAGIC, 0, W.CMD_WRITE, 1, 0, 2 * M)
    peers = []
    for _ in range(2):
        ours, theirs = socket.socketpair()
        server.attach(ours)
        theirs.sendall(hello + request)
        peers.append(theirs)

    async def main() -> int:
        for _ in range(200):
            await graph.sched.yield_now()
        held = server._bytes
        for peer in peers:
            peer.close()
        await server.wait_served(2)
        return held

    assert graph.run(main()) == 2 * M
    assert server._bytes == 0
    graph.run(server.stop())


def test_throttled_export_in_virtual_time_does_not_wait_for_sockets(tmp_path: Path) -> None:
    def setup(graph: Graph, server: NbdServer) -> None:
        spec = {"driver": "throttle", "limits": {"iops-read": 1}, "file": {"driver": "null-co", "size": M}}
        server.add(Export(graph, graph.run(graph.open(spec)), "slow"))

    with serving(tmp_path, setup) as path:
        graph = Graph()
        options = {"driver": "nbd", "server": {"type": "unix", "path": path}, "export": "slow"}
        node = graph.run(graph.open(options, read_only=True))
        for _ in range(5):
            assert graph.run(node.read(0, 512)) == bytes(512)
        graph.run(graph.close())


@pytest.mark.parametrize(
    ("address", "kind", "told"),
    [
        ("foo", OptionError, "expected HOST:PORT"),
        ("127.0.0.1:99999", OptionError, "expected HOST:PORT"),
        ("unix:/proc/nowhere/s", BlockError, "No such file"),
        ("unix:" + "x" * 200, BlockError, "too long"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_told_in_words(
    address: str, kind: type[BlockError], told: str
) -> None:
    """The words were Python's: invalid literal for int, and numbers of errors in brackets."""
    with pytest.raises(kind, match=told) as caught:
        hostio.listen(address)
    assert "[Errno" not in str(caught.value)

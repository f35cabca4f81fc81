"""The NBD server: exports, connections, transmission."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import TYPE_CHECKING

from machine.block import flags as F
from machine.block.backend import BlockBackend
from machine.block.errors import BlockError, UnsupportedError
from machine.block.flags import Perm
from machine.block.hostio import HostClock, SocketPoller, Stream, StreamClosedError
from machine.block.nbd import wire as W
from machine.block.nbd.handshake import DroppedError, Handshake
from machine.block.node import Node, status_above
from machine.block.sched import CoMutex, CoQueue, Task, TaskCancelled

if TYPE_CHECKING:
    import ssl

    from machine.block.graph import Graph

IN_FLIGHT = 16
NEGOTIATION_NS = 10_000_000_000
MAX_EXTENTS = 1024
#: Data of all requests in flight on a server; more than one request waits until there is room.
MAX_BYTES_IN_FLIGHT = 256 << 20
_WRITES = (W.CMD_WRITE, W.CMD_ZEROES, W.CMD_TRIM)


class Export:
    """A node under a name.

    Args:
        bitmaps: names of dirty bitmaps of the node to offer as contexts.
        allocation_depth: offer ``qemu:allocation-depth``.
    """

    def __init__(
        self,
        graph: Graph,
        node: Node,
        name: str = "",
        *,
        writable: bool = False,
        description: str = "",
        bitmaps: tuple[str, ...] = (),
        allocation_depth: bool = False,
    ) -> None:
        self.name, self.description, self.writable = name, description, writable
        self.bitmaps = {bitmap: node.bitmaps.get(bitmap) for bitmap in bitmaps}
        for bitmap in self.bitmaps.values():
            if writable and bitmap.enabled:
                raise BlockError(
                    errno.EINVAL, f"export '{name}': bitmap '{bitmap.name}' still records: disable it"
                )
        self.depth = allocation_depth
        perm = Perm.CONSISTENT_READ | (Perm.WRITE if writable else Perm.NONE)
        self.backend = BlockBackend(graph, f"export '{name}'", perm, Perm.ALL & ~Perm.RESIZE)
        try:
            self.backend.attach(node)
        except BlockError:
            self.backend.close()
            raise

    @property
    def size_bytes(self) -> int:
        """Size of the export."""
        return self.backend.size_bytes

    @property
    def alignment(self) -> int:
        """Smallest block a client should use; unaligned requests are served too."""
        return min(self.backend.node.limits.alignment, 65536)

    def flags(self, structured: bool) -> int:
        """Return the transmission flags."""
        value = W.HAS_FLAGS | W.SEND_FLUSH | W.SEND_FUA | W.MULTI_CONN | W.SEND_CACHE
        value |= W.SEND_TRIM | W.SEND_ZEROES | W.SEND_FAST_ZERO if self.writable else W.READ_ONLY
        return value | (W.SEND_DF if structured else 0)

    def contexts(self) -> dict[str, int]:
        """Return context names and their ids."""
        names = ["base:allocation"] + (["qemu:allocation-depth"] if self.depth else [])
        names += [f"qemu:dirty-bitmap:{name}" for name in self.bitmaps]
        return {name: number for number, name in enumerate(names)}

    async def extents(self, context: str, offset: int, length: int, one: bool) -> list[tuple[int, int]]:
        """Return (length, state) runs of a context; neighbours differ."""
        runs: list[tuple[int, int]] = []
        end = offset + length
        while offset < end and len(runs) < MAX_EXTENTS:
            count, state = await self._state(context, offset, end - offset)
            if runs and runs[-1][1] == state:
                runs[-1] = (runs[-1][0] + count, state)
            elif one and runs:
                break
            else:
                runs.append((count, state))
            offset += count
        return runs

    async def _state(self, context: str, offset: int, length: int) -> tuple[int, int]:
        node = self.backend.node
        if context.startswith("qemu:dirty-bitmap:"):
            bitmap = self.bitmaps[context.removeprefix("qemu:dirty-bitmap:")]
            dirty = bitmap.get(offset)
            limit = bitmap.next_clean(offset) if dirty else bitmap.next_dirty(offset)
            return min(length, (node.size_bytes if limit is None else limit) - offset), int(dirty)
        status, layer = await status_above(node, None, offset, length)
        if context == "qemu:allocation-depth":
            depth, walk = 0, node.skip_filters()
            while layer is not None:
                depth += 1
                if walk is layer or walk.below is None:
                    break
                walk = walk.below
            return status.length, depth
        zero = W.STATE_ZERO if status.flags & F.ST_ZERO else 0
        return status.length, zero | (
            0 if status.flags & F.ST_DATA or (layer is not None and not zero) else W.STATE_HOLE
        )

    def close(self) -> None:
        """Let go of the node."""
        self.backend.close()


class Connection:
    """Transmission with one client."""

    def __init__(self, server: NbdServer, stream: Stream) -> None:
        self.server, self.stream, self.sched = server, stream, server.sched
        self._write_lock = CoMutex(self.sched, "nbd replies")
        self._room = CoQueue(self.sched, "nbd requests")
        self._tasks: set[Task[None]] = set()
        self._structured = False
        self._contexts: dict[str, int] = {}

    async def run(self) -> None:
        """Negotiate and serve until the client leaves or breaks the rules."""
        watchdog = self.sched.spawn(self._watch(), "nbd negotiation")
        try:
            handshake = Handshake(
                self.stream, self.server.exports, self.server.tls, tls_required=self.server.tls_required
            )
            export = await handshake.run()
            watchdog.cancel()
            if export is not None:
                self._structured, self._contexts = handshake.structured, handshake.contexts
                await self._serve(export)
        except (DroppedError, StreamClosedError, BlockError):
            pass  # a client's end, not the server's
        finally:
            watchdog.cancel()
            for task in tuple(self._tasks):
                with contextlib.suppress(BlockError):
                    await task.join()
            self.stream.close()

    async def _watch(self) -> None:
        await self.sched.sleep(NEGOTIATION_NS, HostClock())
        self.stream.close()

    async def _serve(self, export: Export) -> None:
        while True:
            while len(self._tasks) >= IN_FLIGHT:
                await self._room.wait()
            magic, flags, kind, cookie, offset, length = W.REQUEST.unpack(
                await self.stream.read(W.REQUEST.size)
            )
            if magic != W.REQUEST_MAGIC:
                raise DroppedError("request with a wrong magic")
            if kind == W.CMD_DISC:
                return
            payload = None
            if kind == W.CMD_WRITE and length > W.MAX_PAYLOAD:
                raise DroppedError("payload is too long")
            cost = min(length, W.MAX_PAYLOAD) if kind in (W.CMD_READ, W.CMD_WRITE) else 0
            await self.server.take(cost)
            try:
                if kind == W.CMD_WRITE:
                    payload = bytearray(length)
                    await self.stream.read_into(memoryview(payload))
            except BaseException:
                self.server.give(cost)
                raise
            task = self.sched.spawn(
                self._request(export, flags, kind, cookie, offset, length, payload), "nbd request"
            )
            self._tasks.add(task)

    async def _request(
        self,
        export: Export,
        flags: int,
        kind: int,
        cookie: int,
        offset: int,
        length: int,
        payload: bytearray | None,
    ) -> None:
        try:
            try:
                self._validate(export, flags, kind, offset, length)
                await self._do(export, flags, kind, cookie, offset, length, payload)
            except StreamClosedError:
                raise
            except BlockError as error:
                await self._fail(cookie, error, kind)
        except StreamClosedError:
            self.stream.close()
        finally:
            if self.sched.current is not None:
                self._tasks.discard(self.sched.current)
            self.server.give(min(length, W.MAX_PAYLOAD) if kind in (W.CMD_READ, W.CMD_WRITE) else 0)
            self._room.wake_one()

    def _validate(self, export: Export, flags: int, kind: int, offset: int, length: int) -> None:
        if kind > W.CMD_STATUS:
            raise BlockError(errno.EINVAL, f"unknown command {kind}")
        allowed = {
            W.CMD_READ: W.CMD_DF if self._structured else 0,
            W.CMD_WRITE: W.CMD_FUA,
            W.CMD_TRIM: W.CMD_FUA,
            W.CMD_ZEROES: W.CMD_FUA | W.CMD_NO_HOLE | W.CMD_FAST_ZERO,
            W.CMD_STATUS: W.CMD_REQ_ONE,
        }.get(kind, 0)
        if flags & ~(allowed | W.CMD_FUA):
            raise BlockError(errno.EINVAL, f"flags {flags:#x} don't go with command {kind}")
        if kind in _WRITES and not export.writable:
            raise BlockError(errno.EPERM, "export is read-only")
        if kind == W.CMD_READ and length > W.MAX_PAYLOAD:
            raise BlockError(errno.EINVAL, "read is too long")
        if offset + length > export.size_bytes and kind != W.CMD_FLUSH:
            number = errno.ENOSPC if kind in (W.CMD_WRITE, W.CMD_ZEROES) else errno.EINVAL
            raise BlockError(number, "request beyond the end of the export")
        if kind == W.CMD_STATUS and (not length or not self._contexts):
            raise BlockError(errno.EINVAL, "block status without length or contexts")

    async def _do(
        self,
        export: Export,
        flags: int,
        kind: int,
        cookie: int,
        offset: int,
        length: int,
        payload: bytearray | None,
    ) -> None:
        backend = export.backend
        if kind == W.CMD_READ:
            await self._read(backend, flags, cookie, offset, length)
            return
        if kind == W.CMD_STATUS:
            await self._status(export, cookie, offset, length, bool(flags & W.CMD_REQ_ONE))
            return
        fua = F.FUA if flags & W.CMD_FUA else 0
        if kind == W.CMD_WRITE and payload is not None:
            await backend.write(offset, payload, fua)
        elif kind == W.CMD_ZEROES:
            zero = fua | (0 if flags & W.CMD_NO_HOLE else F.MAY_UNMAP)
            zero |= F.NO_FALLBACK if flags & W.CMD_FAST_ZERO else 0
            await backend.write_zeroes(offset, length, zero)
        elif kind == W.CMD_TRIM:
            await backend.discard(offset, length)
            if fua:
                await backend.flush()
        elif kind == W.CMD_FLUSH:
            await backend.flush()
        await self._ok(cookie)

    async def _ok(self, cookie: int) -> None:
        if self._structured:
            reply = W.CHUNK.pack(W.CHUNK_MAGIC, W.CHUNK_DONE, W.CHUNK_NONE, cookie, 0)
        else:
            reply = W.SIMPLE.pack(W.SIMPLE_MAGIC, 0, cookie)
        async with self._write_lock:
            await self.stream.write(reply)

    async def _fail(self, cookie: int, error: BlockError, kind: int) -> None:
        number = W.to_wire(errno.ENOTSUP if isinstance(error, UnsupportedError) else error.errno)
        async with self._write_lock:
            if not self._structured:
                await self.stream.write(W.SIMPLE.pack(W.SIMPLE_MAGIC, number, cookie))
                return
            text = error.message.encode()[:400]
            body = struct.pack(">IH", number, len(text)) + text
            head = W.CHUNK.pack(W.CHUNK_MAGIC, W.CHUNK_DONE, W.CHUNK_ERROR, cookie, len(body))
            await self.stream.write(head, body)

    async def _read(self, backend: BlockBackend, flags: int, cookie: int, offset: int, length: int) -> None:
        if not self._structured or flags & W.CMD_DF or not length:
            data = await backend.read(offset, length)
            async with self._write_lock:
                if not self._structured:
                    await self.stream.write(W.SIMPLE.pack(W.SIMPLE_MAGIC, 0, cookie), data)
                elif not length:
                    await self.stream.write(
                        W.CHUNK.pack(W.CHUNK_MAGIC, W.CHUNK_DONE, W.CHUNK_NONE, cookie, 0)
                    )
                else:
                    await self._data_chunk(cookie, offset, data, done=True)
            return
        end = offset + length
        while offset < end:
            status, _ = await status_above(backend.node, None, offset, end - offset)
            count = status.length
            if status.flags & F.ST_ZERO:
                body = struct.pack(">QI", offset, count)
                done = W.CHUNK_DONE if offset + count == end else 0
                async with self._write_lock:
                    head = W.CHUNK.pack(W.CHUNK_MAGIC, done, W.CHUNK_HOLE, cookie, len(body))
                    await self.stream.write(head, body)
            else:
                data = await backend.read(offset, count)
                async with self._write_lock:
                    await self._data_chunk(cookie, offset, data, done=offset + count == end)
            offset += count

    async def _data_chunk(self, cookie: int, offset: int, data: bytearray, *, done: bool) -> None:
        head = W.CHUNK.pack(W.CHUNK_MAGIC, W.CHUNK_DONE if done else 0, W.CHUNK_DATA, cookie, 8 + len(data))
        await self.stream.write(head + offset.to_bytes(8, "big"), data)

    async def _status(self, export: Export, cookie: int, offset: int, length: int, one: bool) -> None:
        items = list(self._contexts.items())
        for position, (context, number) in enumerate(items):
            runs = await export.extents(context, offset, length, one)
            body = struct.pack(">I", number) + b"".join(struct.pack(">II", *run) for run in runs)
            done = W.CHUNK_DONE if position == len(items) - 1 else 0
            async with self._write_lock:
                head = W.CHUNK.pack(W.CHUNK_MAGIC, done, W.CHUNK_STATUS, cookie, len(body))
                await self.stream.write(head, body)


class NbdServer:
    """Serves exports on listening sockets; ``serve`` runs until ``stop``.

    Args:
        max_clients: more than that many wait to be accepted.
        tls: offer TLS; with ``tls_required`` nothing else is answered before it.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        tls: ssl.SSLContext | None = None,
        tls_required: bool = True,
        max_clients: int = 64,
    ) -> None:
        self.graph, self.sched = graph, graph.sched
        self.exports: dict[str, Export] = {}
        self.tls, self.tls_required = tls, tls_required
        self.max_clients = max_clients
        self.served = 0
        self._bytes = 0
        self._freed = CoQueue(self.sched, "nbd memory")
        self._clients: dict[Connection, Task[None]] = {}
        self._changed = CoQueue(self.sched, "nbd clients")
        self._acceptors: list[Task[None]] = []

    async def take(self, cost: int) -> None:
        """Wait until ``cost`` bytes more may be in flight."""
        while self._bytes and self._bytes + cost > MAX_BYTES_IN_FLIGHT:
            await self._freed.wait()
        self._bytes += cost

    def give(self, cost: int) -> None:
        """Undo ``take``."""
        self._bytes -= cost
        self._freed.wake_all()

    def add(self, export: Export) -> None:
        """Offer an export. Raises BlockError EEXIST for a name in use."""
        if export.name in self.exports:
            raise BlockError(errno.EEXIST, f"export '{export.name}' exists already")
        self.exports[export.name] = export

    def listen(self, sock: socket.socket) -> None:
        """Accept clients on a listening socket from now on."""
        self._acceptors.append(self.sched.spawn(self._accept(sock), "nbd listener"))

    async def _accept(self, sock: socket.socket) -> None:
        poller = SocketPoller.of(self.sched)
        while True:
            while len(self._clients) >= self.max_clients:
                await self._changed.wait()
            try:
                client, _ = sock.accept()
            except BlockingIOError:
                await poller.wait(sock.fileno())
                continue
            self.attach(client)

    def attach(self, sock: socket.socket) -> None:
        """Serve a connected socket."""
        connection = Connection(self, Stream(self.sched, sock))
        self._clients[connection] = self.sched.spawn(self._run(connection), "nbd client")

    async def _run(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            del self._clients[connection]
            self.served += 1
            self._changed.wake_all()

    async def wait_served(self, clients: int) -> None:
        """Wait until that many clients have come and gone."""
        while self.served < clients:
            await self._changed.wait()

    async def stop(self) -> None:
        """Close the listeners, cut every client, let go of the exports."""
        for task in self._acceptors:
            task.cancel()
        for connection, client in tuple(self._clients.items()):
            connection.stream.close()
            client.cancel()
            with contextlib.suppress(TaskCancelled, BlockError):
                await client.join()
        for export in self.exports.values():
            export.close()
        self.exports.clear()

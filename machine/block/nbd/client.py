"""The NBD client: a node whose disk is an export of a server."""

from __future__ import annotations

import contextlib
import errno
import struct
from typing import Any

from machine.block import flags as F
from machine.block.errors import BlockError, UnsupportedError
from machine.block.flags import Status
from machine.block.hostio import HostClock, Stream, StreamClosedError, connect, tls_context
from machine.block.nbd import wire as W
from machine.block.nbd.handshake import DroppedError
from machine.block.node import Buffer, Node
from machine.block.options import OptionReader
from machine.block.sched import CoEvent, CoMutex, CoQueue, Scheduler, Task, TaskCancelled

IN_FLIGHT = 16
_RETRY_NS = 100_000_000


class Session:
    """A negotiated connection: what the server said about the export."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.size = 0
        self.flags = 0
        self.min_block = 1
        self.max_block = W.MAX_PAYLOAD
        self.structured = False
        self.oldstyle = False
        self.context_id: int | None = None
        self.description = ""

    async def _option(self, option: int, data: bytes = b"") -> None:
        await self.stream.write(W.OPTION.pack(W.OPTION_MAGIC, option, len(data)), data)

    async def _answer(self, option: int) -> tuple[int, bytes]:
        magic, echoed, kind, length = W.OPTION_REPLY.unpack(await self.stream.read(W.OPTION_REPLY.size))
        if magic != W.REPLY_MAGIC or echoed != option or length > W.MAX_PAYLOAD:
            raise DroppedError("option reply with a wrong magic, option or length")
        return kind, await self.stream.read(length)

    async def negotiate(self, export: str, context: str, tls: Any, hostname: str | None) -> None:
        """Go through the handshake to transmission. Raises BlockError or DroppedError."""
        if await self.hello():
            await self._start_tls(tls, hostname)
            await self._option(W.OPT_STRUCTURED_REPLY)
            kind, _ = await self._answer(W.OPT_STRUCTURED_REPLY)
            self.structured = kind == W.REP_ACK
            if self.structured:
                await self._set_context(export, context)
            if await self._go(export):
                return
        elif tls is not None:
            raise BlockError(errno.EACCES, "the server does not know TLS")
        if self.oldstyle:
            if export:
                raise BlockError(
                    errno.ENOENT, f"export '{export}' not found: the server is old, it has no names"
                )
            return
        await self._export_name(export)

    async def hello(self) -> bool:
        """Exchange greetings; False for a server that knows only export names."""
        magic = await self.stream.read(8)
        second = await self.stream.read(8)
        if magic == W.INIT_MAGIC and second == W.CLISERV_MAGIC.to_bytes(8, "big"):
            self.size, flags = struct.unpack(">QI", await self.stream.read(12))
            self.flags = flags & 0xFFFF
            await self.stream.read(124)
            self.oldstyle = True
            return False
        if magic != W.INIT_MAGIC or second != W.OPTION_MAGIC:
            raise DroppedError("the server does not speak NBD")
        (flags,) = struct.unpack(">H", await self.stream.read(2))
        fixed = bool(flags & W.FLAG_FIXED_NEWSTYLE)
        self._no_zeroes = bool(flags & W.FLAG_NO_ZEROES)
        await self.stream.write(struct.pack(">I", flags & 3))
        return fixed

    async def _start_tls(self, tls: Any, hostname: str | None) -> None:
        if tls is None:
            return
        await self._option(W.OPT_STARTTLS)
        kind, text = await self._answer(W.OPT_STARTTLS)
        if kind != W.REP_ACK:
            raise BlockError(errno.EACCES, f"the server refuses TLS: {text.decode(errors='replace')}")
        await self.stream.start_tls(tls, server=False, hostname=hostname)

    async def _set_context(self, export: str, context: str) -> None:
        name, query = export.encode(), context.encode()
        data = struct.pack(">I", len(name)) + name + struct.pack(">II", 1, len(query)) + query
        await self._option(W.OPT_SET_META, data)
        while True:
            kind, body = await self._answer(W.OPT_SET_META)
            if kind == W.REP_META and len(body) >= 4 and body[4:] == query:
                (self.context_id,) = struct.unpack_from(">I", body)
            elif kind != W.REP_META:
                return

    async def _go(self, export: str) -> bool:
        name = export.encode()
        await self._option(
            W.OPT_GO, struct.pack(">I", len(name)) + name + struct.pack(">HH", 1, W.INFO_BLOCK_SIZE)
        )
        while True:
            kind, body = await self._answer(W.OPT_GO)
            if kind == W.REP_ACK:
                return True
            if kind == W.REP_INFO and len(body) >= 2:
                self._info(body)
            elif kind == W.ERR_UNSUP:
                return False
            elif kind & 0x8000_0000:
                number = errno.ENOENT if kind == W.ERR_UNKNOWN else errno.EINVAL
                number = errno.EACCES if kind in (W.ERR_TLS_REQD, W.ERR_POLICY) else number
                text = body.decode(errors="replace") or f"error {kind & 0xFF}"
                raise BlockError(number, f"server refuses export '{export}': {text}")
            else:
                raise DroppedError("unexpected reply to GO")

    def _info(self, body: bytes) -> None:
        (what,) = struct.unpack_from(">H", body)
        if what == W.INFO_EXPORT and len(body) == 12:
            self.size, self.flags = struct.unpack_from(">QH", body, 2)
        elif what == W.INFO_BLOCK_SIZE and len(body) == 14:
            low, _, high = struct.unpack_from(">III", body, 2)
            if low & (low - 1) or not 1 <= low <= 65536 or high < low:
                raise DroppedError("block sizes make no sense")
            self.min_block, self.max_block = low, min(high, W.MAX_PAYLOAD)

    async def _export_name(self, export: str) -> None:
        await self._option(W.OPT_EXPORT_NAME, export.encode())
        self.size, self.flags = struct.unpack(">QH", await self.stream.read(10))
        if not self._no_zeroes:
            await self.stream.read(124)

    async def list_exports(self) -> list[tuple[str, str]]:
        """Return (name, description) of what the server offers."""
        await self._option(W.OPT_LIST)
        found: list[tuple[str, str]] = []
        while True:
            kind, body = await self._answer(W.OPT_LIST)
            if kind == W.REP_ACK:
                return found
            if kind != W.REP_SERVER or len(body) < 4 or len(found) > 10_000:
                raise BlockError(errno.ENOTSUP, "the server does not list its exports")
            (length,) = struct.unpack_from(">I", body)
            name = body[4 : 4 + length].decode(errors="replace")
            found.append((name, body[4 + length :].decode(errors="replace")))


class _Pending:
    __slots__ = ("buffer", "done", "error", "extents", "finished", "got", "offset")

    def __init__(self, sched: Scheduler, offset: int, buffer: memoryview | None) -> None:
        self.offset = offset
        self.buffer = buffer
        self.done = CoEvent(sched, "nbd reply")
        self.error: BlockError | None = None
        self.extents: list[tuple[int, int]] = []
        self.got = 0
        self.finished = False


class NbdNode(Node):
    """An export of an NBD server.

    Options: ``server`` {type, path | host, port}; ``export``; ``tls-creds`` (a folder of certificates),
    ``tls-hostname``; ``reconnect-delay`` and ``open-timeout`` in seconds; ``x-dirty-bitmap``, a bitmap's context
    read as if it were allocation.
    """

    driver = "nbd"
    supports_fua = True

    async def drv_open(self, options: OptionReader) -> None:
        server = options.take("server")
        if not isinstance(server, dict):
            server = {k: options.take(k) for k in ("path", "host", "port")}
            server = {k: v for k, v in server.items() if v is not None}
        self._server = server
        self.export = options.text("export", "")
        folder = options.take("tls-creds")
        want_tls = options.flag("tls", folder is not None)
        self._hostname = str(options.take("tls-hostname", server.get("host", "localhost")))
        if want_tls and folder is None:
            raise BlockError(errno.EINVAL, "nbd: TLS needs tls-creds, a folder with ca-cert.pem")
        self._tls = tls_context(str(folder), server=False) if want_tls else None
        self._reconnect_ns = options.size("reconnect-delay", 0) * 1_000_000_000
        open_ns = options.size("open-timeout", 0) * 1_000_000_000
        bitmap = options.take("x-dirty-bitmap")
        self._context = str(bitmap) if bitmap else "base:allocation"
        self._clock = HostClock()
        self._session: Session | None = None
        self._reader: Task[None] | None = None
        self._pending: dict[int, _Pending] = {}
        self._cookie = 0
        self._room = CoQueue(self.sched, f"requests of {self.name}")
        self._write_lock = CoMutex(self.sched, f"sending of {self.name}")
        self._connect_lock = CoMutex(self.sched, f"connecting of {self.name}")
        place, name = server.get("path"), f"/{self.export}" if self.export else ""
        host = f"{server.get('host')}:{server.get('port', 10809)}"
        self.filename = f"nbd+unix://{name}?socket={place}" if place else f"nbd://{host}{name}"
        session = await self._connect_within(open_ns)
        self.size_bytes = session.size
        self.limits.alignment = session.min_block
        self.limits.max_transfer = session.max_block
        self.limits.max_zeroes = 1 << 30
        self.limits.max_discard = 1 << 30
        if session.flags & W.READ_ONLY and not self.read_only:
            if not self.auto_read_only:
                await self.drv_close()
                raise BlockError(errno.EACCES, f"{self.filename}: the export is read-only: open it so")
            self.read_only = True

    # Connection.

    async def _connect(self) -> Session:
        stream = await connect(self.sched, self._server)
        session = Session(stream)
        try:
            await session.negotiate(self.export, self._context, self._tls, self._hostname)
        except (DroppedError, StreamClosedError) as error:
            stream.close()
            raise BlockError(errno.EIO, f"{self.filename}: {error}") from error
        except BaseException:
            stream.close()
            raise
        if session.size > F.MAX_SIZE or (self.size_bytes and session.size != self.size_bytes):
            stream.close()
            raise BlockError(errno.EINVAL, f"{self.filename}: export has the unusable size {session.size}")
        self._session = session
        self._reader = self.sched.spawn(self._read_replies(session), f"replies of {self.name}")
        return session

    async def _connect_within(self, limit_ns: int) -> Session:
        deadline = self._clock.now_ns() + limit_ns
        while True:
            try:
                return await self._connect()
            except BlockError:
                if self._clock.now_ns() >= deadline or self.closed:
                    raise
            await self.sched.sleep(_RETRY_NS, self._clock)

    async def _live(self) -> Session:
        if self._session is not None:
            return self._session
        if not self._reconnect_ns:
            raise BlockError(errno.EIO, f"{self.filename}: the connection is lost")
        async with self._connect_lock:
            if self._session is None:
                await self._connect_within(self._reconnect_ns)
        if self._session is None:
            raise BlockError(errno.EIO, f"{self.filename}: the connection is lost")
        return self._session

    def _drop(self, session: Session, why: str) -> None:
        session.stream.close()
        if self._session is session:
            self._session = None
        pending, self._pending = self._pending, {}
        for request in pending.values():
            request.error = StreamClosedError(f"{self.filename}: {why}")
            request.done.set()
        self._room.wake_all()

    async def drv_close(self) -> None:
        session = self._session
        if session is not None:
            with contextlib.suppress(StreamClosedError):
                await self._send(session, 0, W.CMD_DISC, 0, 0, 0, None)
            self._drop(session, "closed")
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(TaskCancelled):
                await self._reader.join()

    # Replies.

    async def _read_replies(self, session: Session) -> None:
        try:
            while True:
                (magic,) = struct.unpack(">I", await session.stream.read(4))
                if magic == W.SIMPLE_MAGIC:
                    await self._simple(session)
                elif magic == W.CHUNK_MAGIC and session.structured:
                    await self._chunk(session)
                else:
                    raise DroppedError(f"reply with the wrong magic {magic:#x}")
        except (DroppedError, StreamClosedError) as error:
            self._drop(session, str(error))

    def _find(self, cookie: int) -> _Pending:
        request = self._pending.get(cookie)
        if request is None:
            raise DroppedError("reply to a request that was not made")
        return request

    def _finish(self, cookie: int, request: _Pending) -> None:
        del self._pending[cookie]
        request.finished = True
        request.done.set()
        self._room.wake_one()

    async def _simple(self, session: Session) -> None:
        number, cookie = struct.unpack(">IQ", await session.stream.read(12))
        request = self._find(cookie)
        if number:
            request.error = BlockError(W.from_wire(number), f"{self.filename}: the server reports an error")
        elif request.buffer is not None:
            if session.structured:
                raise DroppedError("simple reply to a read after structured replies were agreed")
            await session.stream.read_into(request.buffer)
            request.got = len(request.buffer)
        self._finish(cookie, request)

    async def _chunk(self, session: Session) -> None:
        flags, kind, cookie, length = struct.unpack(">HHQI", await session.stream.read(16))
        request = self._find(cookie)
        if length > W.MAX_PAYLOAD + 8:
            raise DroppedError("chunk is too long")
        if kind == W.CHUNK_DATA and request.buffer is not None and length > 8:
            (offset,) = struct.unpack(">Q", await session.stream.read(8))
            await session.stream.read_into(self._part(request, offset, length - 8))
        elif kind == W.CHUNK_HOLE and request.buffer is not None and length == 12:
            offset, count = struct.unpack(">QI", await session.stream.read(12))
            self._part(request, offset, count)[:] = bytes(count)
        elif kind == W.CHUNK_STATUS and length >= 12 and length % 8 == 4:
            body = await session.stream.read(length)
            if struct.unpack_from(">I", body)[0] == session.context_id:
                request.extents = [struct.unpack_from(">II", body, at) for at in range(4, length, 8)]
        elif kind & 0x8000 and length >= 6:
            body = await session.stream.read(length)
            number, size = struct.unpack_from(">IH", body)
            text = body[6 : 6 + size].decode(errors="replace")
            if not number or size > length - 6:
                raise DroppedError("error chunk makes no sense")
            request.error = BlockError(
                W.from_wire(number), f"{self.filename}: {text or 'the server reports an error'}"
            )
        elif kind == W.CHUNK_NONE and not length and flags & W.CHUNK_DONE:
            pass
        else:
            raise DroppedError(f"unexpected chunk of type {kind}")
        if flags & W.CHUNK_DONE:
            self._finish(cookie, request)

    def _part(self, request: _Pending, offset: int, count: int) -> memoryview:
        assert request.buffer is not None
        start = offset - request.offset
        if request.error is not None or start < 0 or not count or start + count > len(request.buffer):
            raise DroppedError("data chunk outside the request")
        request.got += count
        if request.got > len(request.buffer):
            raise DroppedError("data chunks overlap")
        return request.buffer[start : start + count]

    # Requests.

    async def _send(
        self,
        session: Session,
        flags: int,
        kind: int,
        cookie: int,
        offset: int,
        length: int,
        data: Buffer | None,
    ) -> None:
        head = W.REQUEST.pack(W.REQUEST_MAGIC, flags, kind, cookie, offset, length)
        async with self._write_lock:
            if data is None:
                await session.stream.write(head)
            else:
                await session.stream.write(head, data)

    async def _request(
        self, kind: int, offset: int, length: int, *, flags: int = 0, data: Buffer | None = None,
        buffer: memoryview | None = None,
    ) -> _Pending:  # fmt: skip
        while True:
            session = await self._live()
            if len(self._pending) >= IN_FLIGHT:
                await self._room.wait()
                continue
            self._cookie += 1
            cookie = self._cookie
            request = self._pending[cookie] = _Pending(self.sched, offset, buffer)
            try:
                await self._send(session, flags, kind, cookie, offset, length, data)
                await request.done.wait()
            except StreamClosedError as error:
                self._drop(session, str(error))
                request.error = error
            finally:
                self._pending.pop(cookie, None)
            if request.error is None:
                if buffer is not None and request.got != len(buffer):
                    self._drop(session, "a read was answered only in part")
                    raise BlockError(errno.EIO, f"{self.filename}: a read was answered only in part")
                return request
            if not isinstance(request.error, StreamClosedError):
                raise request.error
            if not self._reconnect_ns or self.closed:
                raise BlockError(errno.EIO, request.error.message)

    def _flag(self, bit: int) -> bool:
        return self._session is None or bool(self._session.flags & bit)

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        await self._request(W.CMD_READ, offset, len(buf), buffer=buf)

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        fua = bool(flags & F.FUA)
        wire = W.CMD_FUA if fua and self._flag(W.SEND_FUA) else 0
        await self._request(W.CMD_WRITE, offset, len(data), flags=wire, data=data)
        if fua and not wire:
            await self.drv_flush_disk()

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        if not self._flag(W.SEND_ZEROES):
            raise UnsupportedError
        wire = 0 if flags & F.MAY_UNMAP else W.CMD_NO_HOLE
        if flags & F.NO_FALLBACK:
            if not self._flag(W.SEND_FAST_ZERO):
                raise UnsupportedError
            wire |= W.CMD_FAST_ZERO
        try:
            await self._request(W.CMD_ZEROES, offset, length, flags=wire)
        except BlockError as error:
            if error.errno == errno.ENOTSUP:
                raise UnsupportedError(error.message) from error
            raise

    async def drv_discard(self, offset: int, length: int) -> None:
        if not self._flag(W.SEND_TRIM):
            raise UnsupportedError
        await self._request(W.CMD_TRIM, offset, length)

    async def drv_flush_disk(self) -> None:
        if self._flag(W.SEND_FLUSH):
            await self._request(W.CMD_FLUSH, 0, 0)

    async def drv_status(self, offset: int, length: int) -> Status:
        session = await self._live()
        if session.context_id is None:
            return Status(F.ST_DATA | F.ST_OFFSET, length, offset, self)
        length = min(length, (1 << 32) - 65536)
        request = await self._request(W.CMD_STATUS, offset, length, flags=W.CMD_REQ_ONE)
        if not request.extents or not request.extents[0][0]:
            raise BlockError(errno.EIO, f"{self.filename}: block status without extents")
        count, state = request.extents[0]
        if self._context != "base:allocation":
            state = 0 if state & 1 else W.STATE_ZERO
        flags = (0 if state & W.STATE_ZERO else F.ST_DATA) | (F.ST_ZERO if state & W.STATE_ZERO else 0)
        return Status(flags | F.ST_OFFSET, min(count, length), offset, self)


async def list_exports(sched: Scheduler, server: dict[str, object], tls: Any = None) -> list[tuple[str, str]]:
    """Return (name, description) of a server's exports. Raises BlockError."""
    stream = await connect(sched, server)
    session = Session(stream)
    try:
        if not await session.hello():
            raise BlockError(errno.ENOTSUP, "the server has no list of exports")
        await session._start_tls(tls, str(server.get("host", "localhost")))
        return await session.list_exports()
    except DroppedError as error:
        raise BlockError(errno.EIO, f"nbd: {error}") from error
    finally:
        stream.close()

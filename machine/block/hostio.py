"""The block layer's only door to sockets and host time: descriptors to wait for, byte streams, a host clock.

Nothing that a recorded machine's guest can see comes through here while it is recorded or replayed: NBD bases
are read as immutable content, exports are users of their own (block.md 10.2, D12).
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import ssl
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from machine.block.errors import BlockError, OptionError, from_oserror
from machine.block.sched import Scheduler, Task

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")
_CHUNK = 1 << 18
_THREADS = 8


class HostClock:
    """The host's monotonic time."""

    virtual = False

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def advance_to(self, ns: int) -> None:
        raise RuntimeError("host time can't be advanced")


class SocketPoller:
    """Descriptors that tasks of one scheduler wait for."""

    def __init__(self, sched: Scheduler) -> None:
        self._sched = sched
        self._selector = selectors.DefaultSelector()
        self._tasks: dict[tuple[int, int], Task[object]] = {}
        self._calls: dict[Future[Any], Task[Any]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._woken, self._wake = -1, -1  # a pipe to which threads write when they are done

    @classmethod
    def of(cls, sched: Scheduler) -> SocketPoller:
        """Return the scheduler's poller, made when first asked for."""
        if not isinstance(sched.poller, cls):
            sched.poller = cls(sched)
        return sched.poller

    def waiting(self) -> bool:
        return bool(self._tasks or self._calls)

    def poll(self, timeout_ns: int | None) -> None:
        if not self.waiting():
            if timeout_ns:
                time.sleep(timeout_ns / 1e9)
            return
        for key, mask in self._selector.select(None if timeout_ns is None else timeout_ns / 1e9):
            if key.fd == self._woken:
                self._end_calls()
                continue
            for bit in (selectors.EVENT_READ, selectors.EVENT_WRITE):
                task = self._tasks.get((key.fd, bit)) if mask & bit else None
                if task is not None:
                    self._sched.ready(task)

    def _end_calls(self) -> None:
        os.read(self._woken, 4096)
        for future, task in tuple(self._calls.items()):
            if future.done():
                self._sched.ready(task)

    async def offload(self, call: Callable[[], T]) -> T:
        """Run a blocking call of the host in a thread, and other tasks meanwhile; return what it returns.

        A task that is cancelled here waits for the call's end first: the call may use the task's buffers.
        """
        from concurrent.futures import ThreadPoolExecutor, wait

        task = self._sched.current
        if task is None:
            raise RuntimeError("a call is offloaded outside a task")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, "block")
            self._woken, self._wake = os.pipe()
            self._selector.register(self._woken, selectors.EVENT_READ)
        future = self._pool.submit(call)
        self._calls[future] = task
        future.add_done_callback(lambda _: os.write(self._wake, b"\0"))
        try:
            while not future.done():
                await self._sched.park("a call of the host")
        except BaseException:
            wait([future])
            raise
        finally:
            del self._calls[future]
        return future.result()

    def __del__(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._selector.close()
            os.close(self._woken)
            os.close(self._wake)

    def _update(self, fd: int) -> None:
        mask = sum(bit for bit in (selectors.EVENT_READ, selectors.EVENT_WRITE) if (fd, bit) in self._tasks)
        known = fd in self._selector.get_map()
        if mask and known:
            self._selector.modify(fd, mask)
        elif mask:
            self._selector.register(fd, mask)
        elif known:
            self._selector.unregister(fd)

    def release(self, fd: int) -> None:
        """Wake whoever waits for a descriptor that is about to be closed."""
        for bit in (selectors.EVENT_READ, selectors.EVENT_WRITE):
            task = self._tasks.pop((fd, bit), None)
            if task is not None:
                self._sched.ready(task)
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    async def wait(self, fd: int, *, write: bool = False) -> None:
        """Suspend until the descriptor is readable (or writable)."""
        key = (fd, selectors.EVENT_WRITE if write else selectors.EVENT_READ)
        task = self._sched.current
        if task is None or key in self._tasks:
            raise RuntimeError("a descriptor is waited for outside a task or twice")
        self._tasks[key] = task
        self._update(fd)
        try:
            await self._sched.park(f"descriptor {fd}")
        finally:
            if (
                self._tasks.get(key) is task
            ):  # else the descriptor was released, and its number may be another's
                del self._tasks[key]
                self._update(fd)


def host_scheduler() -> Scheduler:
    """Return a scheduler whose time is the host's: for servers, where throttling is meant in real seconds."""
    sched = Scheduler(clock=HostClock())
    SocketPoller.of(sched)
    return sched


class StreamClosedError(BlockError):
    """The peer closed the connection, or it was cut."""

    def __init__(self, message: str = "connection closed by the peer") -> None:
        super().__init__(errno.ENOTCONN, message)


class Stream:
    """A non-blocking byte stream over a socket, with TLS if asked for. One reader and one writer at a time."""

    def __init__(self, sched: Scheduler, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._poller = SocketPoller.of(sched)
        self._buffer = bytearray()
        self.closed = False

    async def read_into(self, view: memoryview) -> None:
        """Fill the view. Raises StreamClosedError at the end of the stream."""
        have = min(len(self._buffer), len(view))
        if have:
            view[:have] = self._buffer[:have]
            del self._buffer[:have]
        while have < len(view):
            if len(view) - have >= _CHUNK:
                have += await self._receive(view[have:])
                continue
            chunk = bytearray(_CHUNK)
            got = await self._receive(memoryview(chunk))
            take = min(got, len(view) - have)
            view[have : have + take] = chunk[:take]
            self._buffer += chunk[take:got]
            have += take

    async def _receive(self, view: memoryview) -> int:
        while True:
            try:
                got = self.sock.recv_into(view)
            except (BlockingIOError, ssl.SSLWantReadError):
                await self._poller.wait(self.sock.fileno())
                continue
            except ssl.SSLWantWriteError:
                await self._poller.wait(self.sock.fileno(), write=True)
                continue
            except OSError as error:
                raise StreamClosedError(f"connection lost: {error.strerror or error}") from error
            if got == 0:
                raise StreamClosedError
            return got

    async def read(self, length: int) -> bytes:
        """Return exactly ``length`` bytes."""
        data = bytearray(length)
        await self.read_into(memoryview(data))
        return bytes(data)

    async def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Send all pieces."""
        views = [memoryview(p) for p in pieces if len(p)]
        if isinstance(self.sock, ssl.SSLSocket):
            views = [memoryview(b"".join(views))]
        while views:
            try:
                secure = isinstance(self.sock, ssl.SSLSocket)
                sent = self.sock.send(views[0]) if secure else self.sock.sendmsg(views)
            except (BlockingIOError, ssl.SSLWantWriteError):
                await self._poller.wait(self.sock.fileno(), write=True)
                continue
            except ssl.SSLWantReadError:
                await self._poller.wait(self.sock.fileno())
                continue
            except OSError as error:
                raise StreamClosedError(f"connection lost: {error.strerror or error}") from error
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if views and sent:
                views[0] = views[0][sent:]

    async def start_tls(self, context: ssl.SSLContext, *, server: bool, hostname: str | None = None) -> None:
        """Put TLS on the stream. Raises BlockError EACCES when the handshake fails."""
        try:
            self.sock = context.wrap_socket(
                self.sock, server_side=server, do_handshake_on_connect=False, server_hostname=hostname
            )
            while True:
                try:
                    self.sock.do_handshake()
                    return
                except ssl.SSLWantReadError:
                    await self._poller.wait(self.sock.fileno())
                except ssl.SSLWantWriteError:
                    await self._poller.wait(self.sock.fileno(), write=True)
        except (OSError, ValueError) as error:
            raise BlockError(errno.EACCES, f"TLS handshake failed: {error}") from error

    def close(self) -> None:
        """Cut the connection."""
        if not self.closed:
            self.closed = True
            self._poller.release(self.sock.fileno())
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
            self.sock.close()


async def connect(sched: Scheduler, server: dict[str, object]) -> Stream:
    """Connect to {type: unix, path} or {type: inet, host, port}. Raises BlockError."""
    kind = server.get("type", "unix" if "path" in server else "inet")
    try:
        if kind == "unix":
            sock = socket.socket(socket.AF_UNIX)
            address: object = str(server["path"])
        else:
            host, port = str(server["host"]), int(str(server.get("port", 10809)))
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            sock = socket.socket(family)
    except (KeyError, ValueError, OSError) as error:
        raise BlockError(errno.EINVAL, f"nbd: server address {server} can't be used: {error}") from error
    stream = Stream(sched, sock)
    try:
        sock.connect(address)  # type: ignore[arg-type]
    except BlockingIOError:
        await SocketPoller.of(sched).wait(sock.fileno(), write=True)
        failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            stream.close()
            raise from_oserror(OSError(failed, ""), f"connecting to {address}") from None
    except OSError as error:
        stream.close()
        raise from_oserror(error, f"connecting to {address}") from error
    return stream


def listen(address: str) -> socket.socket:
    """Listen on ``HOST:PORT`` or ``unix:PATH``. Raises BlockError; OptionError: it is neither."""
    host, _, port = (f"{address}10809" if address.endswith(":") else address).rpartition(":")
    if not address.startswith("unix:") and not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise OptionError(f"can't listen on '{address}': expected HOST:PORT or unix:PATH")
    try:
        if address.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(address[5:])
        else:
            sock = socket.create_server((host or "127.0.0.1", int(port)), backlog=16)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise BlockError(error.errno or errno.EINVAL, f"can't listen on '{address}': {why}") from error
    sock.listen(16)
    sock.setblocking(False)
    return sock


def tls_context(folder: str, *, server: bool) -> ssl.SSLContext:
    """Return a context from ca-cert.pem and {server,client}-{cert,key}.pem in a folder; peers must prove themselves."""
    base = Path(folder)
    word = "server" if server else "client"
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(base / "ca-cert.pem")
        if server or (base / f"{word}-cert.pem").exists():
            context.load_cert_chain(base / f"{word}-cert.pem", base / f"{word}-key.pem")
        if server:
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise BlockError(errno.EINVAL, f"TLS certificates in '{folder}' can't be used: {error}") from error
    return context


class LineReader:
    """Lines of a descriptor, read while other tasks run; a regular file is read without waiting."""

    def __init__(self, sched: Scheduler, fd: int) -> None:
        self._poller = SocketPoller.of(sched)
        self._fd = fd
        self._buffer = b""
        self._pollable = not stat.S_ISREG(os.fstat(fd).st_mode)

    async def next(self) -> str | None:
        """Return the next line without its end, None at the end of the input."""
        while b"\n" not in self._buffer:
            if self._pollable:
                await self._poller.wait(self._fd)
            data = os.read(self._fd, 4096)
            if not data or len(self._buffer) > 1 << 20:
                rest, self._buffer = self._buffer, b""
                return rest.decode(errors="replace") if rest else None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace")

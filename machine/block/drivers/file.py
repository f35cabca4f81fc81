"""The file driver: a regular file or block device of the host."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Callable

from machine.block import flags as F
from machine.block.drivers import hostfile
from machine.block.errors import BlockError, ImageFormatError, UnsupportedError, from_oserror
from machine.block.extent import HostExtent
from machine.block.flags import Perm, Status
from machine.block.hostio import SocketPoller
from machine.block.node import Buffer, Node
from machine.block.options import OptionReader
from machine.block.sched import CoMutex

_DIRECT_ALIGN = 4096
_DIRECT_MAX = 1 << 20


class FileNode(Node):
    """A host file.

    Options: ``filename``; ``locking`` on, off or auto; ``aio`` inline, or threads for files that are slow (native and
    io_uring mean the same); the common ``cache.direct``, ``cache.no-flush``, ``discard``.
    """

    driver = "file"

    async def drv_open(self, options: OptionReader) -> None:
        self.filename = options.text("filename")
        aio = options.choice("aio", ("inline", "threads", "native", "io_uring"), "inline")
        self._threads = SocketPoller.of(self.sched) if aio != "inline" else None
        self._scratch_lock = CoMutex(self.sched, f"direct I/O of {self.name}")
        locking = options.choice("locking", ("on", "off", "auto"), "auto")
        self._fd = -1
        self._data: tuple[int, int] = (0, 0)
        self._use_locks = locking != "off" and not self.force_share
        self._locks: hostfile.FileLocks | None = None
        self._held = (Perm.NONE, Perm.ALL)
        self._scratch: mmap.mmap | None = None
        if self.cache_direct:
            self.limits.alignment = _DIRECT_ALIGN
            self.limits.max_transfer = _DIRECT_MAX
            self._scratch = mmap.mmap(-1, _DIRECT_MAX)
        self._adopt(self._open_host(self.read_only))

    def _open_host(self, read_only: bool) -> int:
        mode = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC
        if self.cache_direct:
            mode |= os.O_DIRECT
        try:
            fd = os.open(self.filename, mode)
        except (OSError, ValueError) as error:
            if (
                isinstance(error, OSError)
                and error.errno in (errno.EACCES, errno.EROFS)
                and self.auto_read_only
            ):
                self.read_only = True
                return self._open_host(True) if not read_only else self._raise(error)
            return self._raise(error)
        kind = os.fstat(fd).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            os.close(fd)
            raise ImageFormatError(
                f"could not open '{self.filename}': expected a regular file or a block device"
            )
        return fd

    def _raise(self, error: OSError | ValueError) -> int:
        if isinstance(error, OSError):
            raise from_oserror(error, f"could not open '{self.filename}'") from error
        raise ImageFormatError(f"could not open file: {error}") from error

    def _adopt(self, fd: int) -> None:
        """Take a new descriptor into use, with its locks, then drop the old one."""
        locks = None
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        if self._use_locks and regular:
            locks = hostfile.FileLocks(fd, self.filename)
            if self._fd >= 0 and self._locks is not None:
                self._locks.release()
            try:
                locks.hold(*self._held)
            except BlockError:
                os.close(fd)
                if self._locks is not None:
                    self._locks.hold(*self._held)
                raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._locks = fd, locks
        self.growable = regular
        self.size_bytes = os.lseek(fd, 0, os.SEEK_END)

    async def drv_reopen(self, read_only: bool) -> None:
        self._adopt(self._open_host(read_only))

    async def drv_close(self) -> None:
        if self._fd >= 0:
            if self._locks is not None:
                self._locks.release()
            os.close(self._fd)
            self._fd = -1
        if self._scratch is not None:
            self._scratch.close()

    def drv_perm_check(self, perm: Perm, shared: Perm) -> None:
        if self._locks is not None and self._fd >= 0:
            self._locks.hold(perm, shared)
        self._held = (perm, shared)

    async def _host(self, call: Callable[[], None], what: str) -> None:
        """Do something with the file, in a thread where that is asked for. Raises BlockError."""
        try:
            if self._threads is None:
                call()
            else:
                await self._threads.offload(call)
        except OSError as error:
            raise from_oserror(error, what.format(self.filename)) from error

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        if self._threads is None and self._scratch is None:
            try:
                self._read_all(offset, buf)
            except OSError as error:
                raise from_oserror(error, f"reading {self.filename} at {offset}") from error
        elif self._scratch is not None:
            async with self._scratch_lock:
                await self._host(lambda: self._read_direct(offset, buf), f"reading {{}} at {offset}")
        elif (got := self._read_cached(offset, buf)) < len(buf):
            await self._host(lambda: self._read_all(offset + got, buf[got:]), f"reading {{}} at {offset}")

    def _read_cached(self, offset: int, buf: memoryview) -> int:
        """Read what needs no waiting, and return how much that is."""
        try:
            return os.preadv(self._fd, [buf], offset, os.RWF_NOWAIT)
        except OSError:
            return 0

    def _read_all(self, offset: int, buf: memoryview) -> None:
        got = os.preadv(self._fd, [buf], offset)
        while got < len(buf):
            more = os.preadv(self._fd, [buf[got:]], offset + got)
            if more == 0:
                buf[got:] = bytes(len(buf) - got)  # somebody shortened the file: reads zero
                return
            got += more

    def _read_direct(self, offset: int, buf: memoryview) -> None:
        assert self._scratch is not None
        want = -(-len(buf) // _DIRECT_ALIGN) * _DIRECT_ALIGN
        with memoryview(self._scratch) as scratch:
            got = os.preadv(self._fd, [scratch[:want]], offset)
            got = min(got, len(buf))
            buf[:got] = scratch[:got]
            buf[got:] = bytes(len(buf) - got)

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        if self._threads is None and self._scratch is None:
            try:
                done = os.pwrite(self._fd, data, offset)
                if done < len(data):
                    self._write_all(offset + done, memoryview(data)[done:])
            except OSError as error:
                raise from_oserror(error, f"writing {self.filename} at {offset}") from error
        elif self._scratch is None:
            view = memoryview(data)
            await self._host(lambda: self._write_all(offset, view), f"writing {{}} at {offset}")
        else:
            async with self._scratch_lock:
                await self._host(lambda: self._write_direct(offset, data), f"writing {{}} at {offset}")

    def _write_direct(self, offset: int, data: Buffer) -> None:
        assert self._scratch is not None
        with memoryview(self._scratch) as scratch:
            scratch[: len(data)] = data
            self._write_all(offset, scratch[: len(data)])

    async def drv_copy_in(self, offset: int, extent: HostExtent) -> None:
        if self._scratch is not None:
            raise UnsupportedError(f"{self.name}: copy offloading goes through the page cache")
        self._data = (0, 0)
        await self._host(lambda: extent.copy_to(self._fd, offset), f"copying to {{}} at {offset}")

    def extent(self, offset: int, length: int) -> HostExtent:
        """Return a range of the file as the payload of another node's ``copy_in``."""
        return HostExtent(self._fd, offset, length)

    def _write_all(self, offset: int, view: memoryview) -> None:
        while len(view):
            done = os.pwrite(self._fd, view, offset)
            if done == 0:
                raise OSError(errno.ENOSPC, "no progress")
            offset, view = offset + done, view[done:]

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        if not self.growable:
            raise UnsupportedError
        self._data = (0, 0)
        end = offset + length
        try:
            if offset >= self.size_bytes:
                os.ftruncate(self._fd, end)
                return
            if flags & F.MAY_UNMAP:
                hostfile.fallocate(self._fd, hostfile.PUNCH_HOLE | hostfile.KEEP_SIZE, offset, length)
            else:
                try:
                    hostfile.fallocate(self._fd, hostfile.ZERO_RANGE, offset, length)
                except UnsupportedError:
                    hostfile.fallocate(self._fd, hostfile.PUNCH_HOLE | hostfile.KEEP_SIZE, offset, length)
                    os.posix_fallocate(self._fd, offset, length)
            if end > self.size_bytes:
                os.ftruncate(self._fd, end)
        except OSError as error:
            raise from_oserror(error, f"zeroing {self.filename} at {offset}") from error

    async def drv_discard(self, offset: int, length: int) -> None:
        if not self.growable:
            raise UnsupportedError
        self._data = (0, 0)
        try:
            hostfile.fallocate(self._fd, hostfile.PUNCH_HOLE | hostfile.KEEP_SIZE, offset, length)
        except OSError as error:
            raise from_oserror(error, f"discarding in {self.filename} at {offset}") from error

    async def drv_flush_disk(self) -> None:
        await self._host(lambda: os.fdatasync(self._fd), "flushing {}")

    async def drv_truncate(self, size: int, prealloc: str) -> None:
        if not self.growable:
            if size > self.size_bytes:
                raise BlockError(errno.EINVAL, f"{self.filename}: can't grow a block device")
            return
        self._data = (0, 0)
        old = self.size_bytes
        try:
            os.ftruncate(self._fd, size)
            if size > old and prealloc == "falloc":
                os.posix_fallocate(self._fd, old, size - old)
            elif size > old and prealloc == "full":
                for at in range(old, size, 1 << 20):
                    self._write_all(at, memoryview(bytes(min(1 << 20, size - at))))
        except OSError as error:
            os.ftruncate(self._fd, old)
            raise from_oserror(error, f"resizing {self.filename} to {size}") from error

    async def drv_status(self, offset: int, length: int) -> Status:
        low, high = self._data
        if not low <= offset < high:
            data, end = hostfile.data_extent(self._fd, offset, self.size_bytes)
            if not data:
                return Status(F.ST_ZERO | F.ST_OFFSET, end - offset, offset, self)
            self._data = (offset, end)
            high = end
        return Status(F.ST_DATA | F.ST_OFFSET, high - offset, offset, self)

    def allocated_bytes(self) -> int:
        """Return bytes of disk space the file takes."""
        return os.fstat(self._fd).st_blocks * 512


def create_file(filename: str, size: int = 0) -> None:
    """Make an empty host file of that size, or empty the one that is there.

    Raises:
        BlockError: with the errno of what failed, EBUSY when another process uses the file.
    """
    try:
        fd = os.open(filename, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
        raise BlockError(number, f"could not create '{filename}': {os.strerror(number)}") from error
    locks = hostfile.FileLocks(fd, filename)
    try:
        locks.hold(Perm.WRITE | Perm.RESIZE, Perm.ALL & ~(Perm.WRITE | Perm.RESIZE))
        os.ftruncate(fd, 0)
        os.ftruncate(fd, size)
    except OSError as error:
        raise from_oserror(error, f"could not create '{filename}'") from error
    finally:
        locks.release()
        os.close(fd)

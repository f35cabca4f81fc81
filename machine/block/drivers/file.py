"""The file driver: a regular file or block device of the host."""

from __future__ import annotations

import errno
import mmap
import os
import stat

from machine.block import flags as F
from machine.block.drivers import hostfile
from machine.block.errors import BlockError, ImageFormatError, UnsupportedError, from_oserror
from machine.block.extent import HostExtent
from machine.block.flags import Perm, Status
from machine.block.node import Buffer, Node
from machine.block.options import OptionReader

_DIRECT_ALIGN = 4096
_DIRECT_MAX = 1 << 20


class FileNode(Node):
    """A host file.

    Options: ``filename``; ``locking`` on, off or auto; ``aio`` (inline or threads, accepted for carrying
    options over; requests run inline); the common ``cache.direct``, ``cache.no-flush``, ``discard``.
    """

    driver = "file"

    async def drv_open(self, options: OptionReader) -> None:
        self.filename = options.text("filename")
        options.choice("aio", ("inline", "threads", "native", "io_uring"), "inline")
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
                self._locks.hold(Perm.NONE, Perm.ALL)
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
            os.close(self._fd)
            self._fd = -1
        if self._scratch is not None:
            self._scratch.close()

    def drv_perm_check(self, perm: Perm, shared: Perm) -> None:
        if self._locks is not None and self._fd >= 0:
            self._locks.hold(perm, shared)
        self._held = (perm, shared)

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        try:
            if self._scratch is not None:
                self._read_direct(offset, buf)
                return
            got = os.preadv(self._fd, [buf], offset)
            while got < len(buf):
                more = os.preadv(self._fd, [buf[got:]], offset + got)
                if more == 0:
                    buf[got:] = bytes(len(buf) - got)  # somebody shortened the file: reads zero
                    return
                got += more
        except OSError as error:
            raise from_oserror(error, f"reading {self.filename} at {offset}") from error

    def _read_direct(self, offset: int, buf: memoryview) -> None:
        assert self._scratch is not None
        want = -(-len(buf) // _DIRECT_ALIGN) * _DIRECT_ALIGN
        with memoryview(self._scratch) as scratch:
            got = os.preadv(self._fd, [scratch[:want]], offset)
            got = min(got, len(buf))
            buf[:got] = scratch[:got]
            buf[got:] = bytes(len(buf) - got)

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        try:
            if self._scratch is not None:
                with memoryview(self._scratch) as scratch:
                    scratch[: len(data)] = data
                    self._write_all(offset, scratch[: len(data)])
                return
            done = os.pwrite(self._fd, data, offset)
            if done < len(data):
                self._write_all(offset + done, memoryview(data)[done:])
        except OSError as error:
            raise from_oserror(error, f"writing {self.filename} at {offset}") from error

    async def drv_copy_in(self, offset: int, extent: HostExtent) -> None:
        if self._scratch is not None:
            raise UnsupportedError(f"{self.name}: copy offloading goes through the page cache")
        self._data = (0, 0)
        try:
            extent.copy_to(self._fd, offset)
        except OSError as error:
            raise from_oserror(error, f"copying to {self.filename} at {offset}") from error

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
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise from_oserror(error, f"flushing {self.filename}") from error

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
    try:
        locks = hostfile.FileLocks(fd, filename)
        locks.hold(Perm.WRITE | Perm.RESIZE, Perm.ALL & ~(Perm.WRITE | Perm.RESIZE))
        os.ftruncate(fd, 0)
        os.ftruncate(fd, size)
    except OSError as error:
        raise from_oserror(error, f"could not create '{filename}'") from error
    finally:
        os.close(fd)

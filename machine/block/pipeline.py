"""The life of a request on one node: checks, padding, tracking, hooks, splitting, completion (block.md 3).

Drivers implement the ``drv_*`` coroutines; everybody else calls the public ones without the prefix.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import ClassVar

from machine.block import flags as F
from machine.block.dirty import BitmapSet
from machine.block.errors import BlockError, UnsupportedError
from machine.block.extent import HostExtent
from machine.block.flags import Status
from machine.block.requests import DISCARD, READ, TRUNCATE, WRITE, RequestTracker, Tracked
from machine.block.sched import CoMutex, Scheduler

Buffer = bytes | bytearray | memoryview
Hook = Callable[[int, int], Awaitable[None]]
AfterHook = Callable[[int, int, bool], Awaitable[None]]
#: Zeroes are written by buffer in pieces of at most this many bytes.
MAX_BOUNCE = 16 << 20


class Limits:
    """What a node's requests must look like; 0 means no limit. Alignments are powers of two."""

    __slots__ = (
        "alignment",
        "discard_alignment",
        "max_discard",
        "max_transfer",
        "max_zeroes",
        "zeroes_alignment",
    )

    def __init__(self, alignment: int = 1, max_transfer: int = 0) -> None:
        self.alignment = alignment
        self.max_transfer = max_transfer
        self.zeroes_alignment = 1
        self.max_zeroes = 0
        self.discard_alignment = 1
        self.max_discard = 0


class RequestPipeline:
    """The request side of a node."""

    #: Whether ``drv_write`` honours FUA itself.
    supports_fua: ClassVar[bool] = False

    def __init__(self, sched: Scheduler, name: str, read_only: bool) -> None:
        self.sched = sched
        self.name = name
        self.size_bytes = 0
        self.read_only = read_only
        self.growable = False
        self.closed = False
        self.limits = Limits()
        self.tracker = RequestTracker(sched)
        self.bitmaps = BitmapSet()
        self.before_write: list[Hook] = []
        #: Called with (offset, length, whether it succeeded) after a write, before it is reported.
        self.after_write: list[AfterHook] = []
        self.copy_on_read = 0
        #: Of reads of the backing: NO_SERIALISING while a backup holds up its writers for this overlay's readers.
        self.backing_flags = 0
        self.detect_zeroes = "off"
        self.discard_mode = "ignore"
        self.no_flush = False
        self.write_gen = 0
        self.flushed_gen = 0
        self._flush_lock = CoMutex(sched, f"flush of {name}")

    # What drivers implement.

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        raise UnsupportedError(f"{self.name}: reading is not supported")

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        raise UnsupportedError(f"{self.name}: writing is not supported")

    async def drv_write_compressed(self, offset: int, data: Buffer) -> None:
        raise UnsupportedError(f"{self.name}: compressed writes are not supported")

    async def drv_copy_in(self, offset: int, extent: HostExtent) -> None:
        raise UnsupportedError(f"{self.name}: copy offloading is not supported")

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        raise UnsupportedError

    async def drv_discard(self, offset: int, length: int) -> None:
        raise UnsupportedError

    async def drv_flush_os(self) -> None:
        """Write the driver's own caches to its children."""

    async def drv_flush_disk(self) -> None:
        """Make what was written durable."""

    async def drv_truncate(self, size: int, prealloc: str) -> None:
        raise UnsupportedError(f"{self.name}: resizing is not supported")

    async def drv_status(self, offset: int, length: int) -> Status:
        return Status(F.ST_DATA | F.ST_ALLOCATED, length)

    async def flush_children(self) -> None:
        """Flush what lies below."""

    def cluster_bytes(self) -> int:
        """Return the unit of allocation, or the request alignment where there is none."""
        return self.limits.alignment

    async def copy_on_read_range(
        self, request: Tracked, offset: int, buf: memoryview | None, length: int
    ) -> None:
        """Read, copying unallocated clusters into this layer; the graph side implements it."""
        raise NotImplementedError

    def size_changed(self) -> None:
        """Tell bitmaps and parents that ``size_bytes`` is another one."""
        self.bitmaps.resize(self.size_bytes)

    # Checks.

    def _check(self, offset: int, length: int, *, write: bool) -> None:
        if self.closed:
            raise BlockError(errno.ENOMEDIUM, f"{self.name}: the node is closed")
        if write and self.read_only:
            raise BlockError(errno.EPERM, f"{self.name}: the node is read-only")
        end = offset + length
        if offset < 0 or length < 0 or end > F.MAX_SIZE:
            raise BlockError(errno.EIO, f"{self.name}: request {offset}+{length} is out of range")
        if end > self.size_bytes and not (write and self.growable):
            raise BlockError(
                errno.EIO, f"{self.name}: request {offset}+{length} lies beyond the end at {self.size_bytes}"
            )

    # Reads.

    async def pread(self, offset: int, buf: memoryview, flags: int = 0) -> None:
        """Fill ``buf`` from ``offset``.

        Raises:
            BlockError: EIO out of range, ENOMEDIUM when closed, or what the driver met.
        """
        length = len(buf)
        end = offset + length
        if offset < 0 or end > self.size_bytes or self.closed:
            self._check(offset, length, write=False)
        if not length:
            return
        tracker = self.tracker
        request = tracker.begin(offset, end, READ)
        try:
            if self.copy_on_read and not flags & F.NO_SERIALISING:
                flags |= F.COPY_ON_READ
            if flags & F.COPY_ON_READ:
                tracker.make_serialising(request, max(self.cluster_bytes(), self.limits.alignment))
            if tracker.serialising and not flags & F.NO_SERIALISING:
                await tracker.wait_serialising(request)
            if flags & F.COPY_ON_READ:
                await self.copy_on_read_range(request, offset, None if flags & F.PREFETCH else buf, length)
            else:
                await self.read_aligned(offset, buf, flags)
        finally:
            tracker.finish(request)

    async def read(self, offset: int, length: int, flags: int = 0) -> bytearray:
        """Return ``length`` bytes from ``offset``; as ``pread``."""
        data = bytearray(length)
        await self.pread(offset, memoryview(data), flags)
        return data

    async def read_aligned(self, offset: int, buf: memoryview, flags: int) -> None:
        """Read inside a request that is tracked already: pad and split as the driver wants it."""
        limits = self.limits
        length = len(buf)
        mask = limits.alignment - 1
        if (offset | length) & mask:
            start, end = offset & ~mask, (offset + length + mask) & ~mask
            scratch = bytearray(end - start)
            inside = min(end, self.size_bytes) - start
            await self._read_split(start, memoryview(scratch)[:inside], flags)
            buf[:] = scratch[offset - start : offset - start + length]
        elif limits.max_transfer and length > limits.max_transfer:
            await self._read_split(offset, buf, flags)
        else:
            await self.drv_read(offset, buf, flags)

    async def _read_split(self, offset: int, buf: memoryview, flags: int) -> None:
        step = self.limits.max_transfer or len(buf)
        for at in range(0, len(buf), step or 1):
            await self.drv_read(offset + at, buf[at : at + step], flags)

    # Writes.

    async def pwrite(self, offset: int, data: Buffer, flags: int = 0) -> None:
        """Write ``data`` at ``offset``.

        Raises:
            BlockError: EPERM on a read-only node, EIO out of range, ENOMEDIUM when closed, or what the
            driver,
                a read of a partial block or a before-write hook met.
        """
        length = len(data)
        self._check(offset, length, write=True)
        if not length:
            return
        tracker = self.tracker
        mask = self.limits.alignment - 1
        request = tracker.begin(offset, offset + length, WRITE)
        try:
            if flags & F.SERIALISING:
                tracker.make_serialising(request, max(self.cluster_bytes(), mask + 1))
            if (offset | length) & mask:
                tracker.make_serialising(request, mask + 1)
                await tracker.wait_serialising(request)
                offset, data = await self._pad(offset, data)
            elif tracker.serialising:
                await tracker.wait_serialising(request)
            await self.write_aligned(offset, len(data), data, flags)
        finally:
            tracker.finish(request)

    async def copy_in(self, offset: int, extent: HostExtent) -> None:
        """Write what a range of a host file holds; the host moves it.

        Raises:
            UnsupportedError: this node, or the host, can't; parts of the range may be written already.
            BlockError: as ``pwrite``.
        """
        length = len(extent)
        self._check(offset, length, write=True)
        if (offset | length) & (self.limits.alignment - 1):
            raise UnsupportedError(f"{self.name}: copy offloading of partial blocks is not supported")
        if not length:
            return
        request = self.tracker.begin(offset, offset + length, WRITE)
        try:
            await self.tracker.wait_serialising(request)
            await self.write_aligned(offset, length, extent, 0)
        finally:
            self.tracker.finish(request)

    async def _pad(self, offset: int, data: Buffer) -> tuple[int, bytearray]:
        """Return the request rounded out to whole blocks, the rest filled from the disk."""
        mask = self.limits.alignment - 1
        end = offset + len(data)
        start = offset & ~mask
        stop = min((end + mask) & ~mask, max(self.size_bytes, end))
        whole = bytearray(stop - start)
        view = memoryview(whole)
        block = mask + 1
        tail = stop - (-(-stop // block) - 1) * block if stop > end else 0
        if stop - start <= block:
            await self._read_old(start, view, "pwritev_rmw_head")
        else:
            if start < offset:
                await self._read_old(start, view[:block], "pwritev_rmw_head")
            if tail:
                await self._read_old(stop - tail, view[len(whole) - tail :], "pwritev_rmw_tail")
        view[offset - start : end - start] = data
        return start, whole

    async def _read_old(self, offset: int, view: memoryview, event: str) -> None:
        await self.debug_event(event)
        inside = max(0, min(len(view), self.size_bytes - offset))
        if inside:
            await self.drv_read(offset, view[:inside], F.NO_SERIALISING)
        await self.debug_event(event.replace("rmw_", "rmw_after_"))

    async def child_event(self, event: str) -> None:
        """Announce a point in the driver's work to a blkdebug node below."""

    async def debug_event(self, event: str) -> None:
        """As ``child_event``; a blkdebug node takes it itself."""
        await self.child_event(event)

    async def write_aligned(
        self, offset: int, length: int, data: Buffer | HostExtent | None, flags: int
    ) -> None:
        """Hooks, zero detection, dispatch and completion; ``data`` None means zeroes."""
        for hook in tuple(self.before_write):
            await hook(offset, length)
        extent, data = (data, b"") if isinstance(data, HostExtent) else (None, data)
        if data and self.detect_zeroes != "off" and not flags & F.COMPRESSED and F.is_zero(data):
            data = None
            if self.detect_zeroes == "unmap":
                flags |= F.MAY_UNMAP
        done = False
        try:
            if extent is not None:
                await self.drv_copy_in(offset, extent)
            elif data is None:
                await self._zeroes(offset, length, flags)
            elif flags & F.COMPRESSED:
                await self.drv_write_compressed(offset, data)
            else:
                await self._write_split(offset, data, flags)
            if offset + length > self.size_bytes:
                self.size_bytes = offset + length
                self.size_changed()
            done = True
        finally:
            self.write_gen += 1
            if self.bitmaps:
                self.bitmaps.mark(offset, length)
            for after in tuple(self.after_write):
                await after(offset, length, done)

    async def _write_split(self, offset: int, data: Buffer, flags: int) -> None:
        fua = flags & F.FUA
        emulate = fua and not self.supports_fua
        step = self.limits.max_transfer
        if emulate:
            flags &= ~F.FUA
        if not step or len(data) <= step:
            await self.drv_write(offset, data, flags)
        else:
            view = memoryview(data)
            for at in range(0, len(view), step):
                last = at + step >= len(view)
                await self.drv_write(offset + at, view[at : at + step], flags if last else flags & ~F.FUA)
        if emulate:
            self.write_gen += 1
            await self.flush()

    async def pwrite_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        """Make [offset, offset+length) read as zeroes.

        Args:
            flags: MAY_UNMAP lets the driver give space back where the node was opened with discard=unmap;
                NO_FALLBACK raises UnsupportedError instead of writing zeroes.
        """
        self._check(offset, length, write=True)
        if not length:
            return
        tracker = self.tracker
        block = self.limits.alignment
        request = tracker.begin(offset, offset + length, WRITE)
        try:
            if flags & F.SERIALISING:
                tracker.make_serialising(request, max(self.cluster_bytes(), block))
            if not (offset | length) & (block - 1):
                if tracker.serialising:
                    await tracker.wait_serialising(request)
                await self.write_aligned(offset, length, None, flags)
                return
            tracker.make_serialising(request, block)
            await tracker.wait_serialising(request)
            end = offset + length
            first, last = -(-offset // block) * block, end // block * block
            if first >= last:
                first = last = end
            for start, stop in ((offset, first), (last, end)):
                if start < stop:
                    at, data = await self._pad(start, bytes(stop - start))
                    await self.write_aligned(at, len(data), data, flags & ~F.MAY_UNMAP)
            if first < last:
                await self.write_aligned(first, last - first, None, flags)
        finally:
            tracker.finish(request)

    async def _zeroes(self, offset: int, length: int, flags: int) -> None:
        if self.discard_mode != "unmap":
            flags &= ~F.MAY_UNMAP
        align = self.limits.zeroes_alignment
        end = offset + length
        while offset < end:
            if offset % align:
                stop = min(end, offset - offset % align + align)
            elif end - offset >= align:
                stop = end - end % align
                if self.limits.max_zeroes:
                    stop = min(stop, offset + max(align, self.limits.max_zeroes // align * align))
            else:
                stop = end
            try:
                await self.drv_zeroes(offset, stop - offset, flags & ~F.FUA)
            except UnsupportedError:
                if flags & F.NO_FALLBACK:
                    raise
                for at in range(offset, stop, MAX_BOUNCE):
                    await self._write_split(
                        at, bytes(min(MAX_BOUNCE, stop - at)), flags & ~(F.FUA | F.MAY_UNMAP)
                    )
            offset = stop
        if flags & F.FUA:
            self.write_gen += 1
            await self.flush()

    async def pdiscard(self, offset: int, length: int) -> None:
        """Tell the node that the range is not needed; with discard=ignore nothing happens at all."""
        self._check(offset, length, write=True)
        if self.discard_mode != "unmap" or not length:
            return
        request = self.tracker.begin(offset, offset + length, DISCARD)
        try:
            await self.tracker.wait_serialising(request)
            for hook in tuple(self.before_write):
                await hook(offset, length)
            done = False
            try:
                await self._discard(offset, length)
                done = True
            finally:
                self.write_gen += 1
                self.bitmaps.mark(offset, length)
                for after in tuple(self.after_write):
                    await after(offset, length, done)
        finally:
            self.tracker.finish(request)

    async def _discard(self, offset: int, length: int) -> None:
        align = max(self.limits.discard_alignment, self.limits.alignment)
        end = offset + length
        limit = self.limits.max_discard // align * align
        while offset < end:
            if offset % align:
                stop = min(end, offset - offset % align + align)
            else:
                stop = end - end % align if end - offset >= align else end
                if limit:
                    stop = min(stop, offset + limit)
            try:
                await self.drv_discard(offset, stop - offset)
            except UnsupportedError:
                if not (offset % align or (stop - offset) % align):
                    return  # advisory: a device without discard keeps the data
            offset = stop

    async def flush(self) -> None:
        """Make every completed write durable; skipped when nothing was written since the last one."""
        if self.closed:
            raise BlockError(errno.ENOMEDIUM, f"{self.name}: the node is closed")
        async with self._flush_lock:
            generation = self.write_gen
            await self.child_event("flush_to_os")
            await self.drv_flush_os()
            if self.flushed_gen != generation:
                if not self.no_flush:
                    await self.child_event("flush_to_disk")
                    await self.drv_flush_disk()
                self.flushed_gen = generation
            if not self.no_flush:
                await self.flush_children()

    async def truncate(self, size: int, prealloc: str = "off") -> None:
        """Change the size. New space reads as zeroes.

        Args:
            prealloc: off, metadata, falloc or full.
        """
        if not 0 <= size <= F.MAX_SIZE:
            raise BlockError(errno.EFBIG, f"{self.name}: size {size} is out of range")
        self._check(0, 0, write=True)
        old = self.size_bytes
        request = self.tracker.begin(min(old, size), max(old, size), TRUNCATE)
        try:
            self.tracker.make_serialising(request, 1)
            await self.tracker.wait_serialising(request)
            await self.drv_truncate(size, prealloc)
            self.write_gen += 1
            self.size_bytes = size
            self.size_changed()
        finally:
            self.tracker.finish(request)

    async def block_status(self, offset: int, length: int) -> Status:
        """Return what a prefix of the range is in this layer (block.md 3.8); length 0 only at the end."""
        if offset >= self.size_bytes or length <= 0:
            return Status(F.ST_EOF, 0)
        length = min(length, self.size_bytes - offset)
        status = await self.drv_status(offset, length)
        flags = status.flags
        if flags & (F.ST_DATA | F.ST_ZERO):
            flags |= F.ST_ALLOCATED
        else:
            flags = self.unallocated_flags(offset, flags)
        got = min(status.length, length)
        if offset + got == self.size_bytes:
            flags |= F.ST_EOF
        return Status(flags, got, status.offset, status.node)

    def unallocated_flags(self, offset: int, flags: int) -> int:
        """Add ST_ZERO where nothing lies below an unallocated range."""
        return flags | F.ST_ZERO

"""The qcow2 driver's requests: reading, writing, zeroing, discarding, block status."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from machine.block import flags as F
from machine.block.errors import BlockError, ImageCorruptError, UnsupportedError
from machine.block.extent import HostExtent
from machine.block.flags import Status
from machine.block.node import Buffer
from machine.block.qcow2 import compress
from machine.block.qcow2.cache import read_padded
from machine.block.qcow2.image import Claim, Qcow2Image
from machine.block.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK
from machine.block.qcow2.mapping import SUBCLUSTERS, Kind

_IGNORED = ("refcount-cache-size", "cache-clean-interval", "l2-cache-entry-size", "cache-size")


@dataclass(slots=True)
class _Plan:
    """An allocating write: clusters from guest offset ``start`` get the place ``host``."""

    claim: Claim
    start: int
    host: int
    fresh: bool
    old: list[tuple[int, int]]
    copy_from: int
    copy_to: int


class Qcow2Node(Qcow2Image):
    """A qcow2 image.

    Options: ``file``, ``backing`` (null cuts the chain), ``data-file``, ``lazy-refcounts``,
    ``l2-cache-size``,
    ``overlap-check`` none, constant, cached or all, ``pass-discard-request``, ``pass-discard-snapshot``,
    ``pass-discard-other``. Sizes of caches other than ``l2-cache-size`` are accepted, for options that are carried
    over, and have no effect.
    """

    # Reading.

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        try:
            position, length = 0, len(buf)
            lookup = self.mapping.lookup
            while position < length:
                extent = await lookup(offset + position, length - position)
                part = buf if extent.length == length else buf[position : position + extent.length]
                kind = extent.kind
                if kind is Kind.NORMAL and extent.in_place:
                    if self.debug_node is not None:
                        await self.child_event("read_aio")
                    await self._read_data(extent.host, part)
                elif kind is Kind.NORMAL or kind is Kind.COMPRESSED:
                    await self._read_shared(offset + position, extent.word, extent.host, part, kind)
                elif kind is Kind.UNALLOCATED:
                    await self._read_backing(offset + position, part, flags)
                else:
                    part[:] = bytes(len(part))
                position += extent.length
        except ImageCorruptError:
            await self.mark_corrupt()
            raise

    async def _read_data(self, host: int, part: memoryview) -> None:
        node = self.data_node
        if host + len(part) > node.size_bytes:
            inside = max(0, min(len(part), node.size_bytes - host))
            part[inside:] = bytes(len(part) - inside)
            part = part[:inside]
        if len(part):
            await node.pread(host, part)

    async def _read_shared(self, offset: int, word: int, host: int, part: memoryview, kind: Kind) -> None:
        """Read clusters that an overlapping write would give up: keep such writes waiting meanwhile."""
        mask = self.cluster - 1
        claim = self.claim(offset & ~mask, (offset + len(part) + mask) & ~mask, True)
        try:
            if kind is Kind.NORMAL:
                await self.child_event("read_aio")
                await self._read_data(host, part)
                return
            place, size = self.mapping.compressed_place(word)
            await self.child_event("read_compressed")
            data = await read_padded(self.file, place, size)
            where = self.filename or self.name
            cluster = compress.decompress(self.header.compression_type, bytes(data), self.cluster, where)
            inside = offset & mask
            part[:] = cluster[inside : inside + len(part)]
        finally:
            self.unclaim(claim)

    async def _read_backing(self, offset: int, part: memoryview, flags: int) -> None:
        backing = self.backing
        inside = 0 if backing is None else max(0, min(len(part), backing.size_bytes - offset))
        if inside < len(part):
            part[inside:] = bytes(len(part) - inside)
        if inside and backing is not None:
            if self.debug_node is not None:
                await self.child_event("read_backing_aio")
            await backing.pread(offset, part[:inside], (flags | self.backing_flags) & F.NO_SERIALISING)

    # Writing.

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        self._check_usable(write=True)
        try:
            view = memoryview(data)
            while len(view):
                done = await self._write_some(offset, view)
                offset, view = offset + done, view[done:]
        except ImageCorruptError:
            await self.mark_corrupt()
            raise

    async def drv_copy_in(self, offset: int, extent: HostExtent) -> None:
        self._check_usable(write=True)
        async with self.marking_corrupt():
            while len(extent):
                done = await self._write_some(offset, extent)
                offset, extent = offset + done, extent[done:]

    async def _put(self, host: int, data: Buffer | HostExtent) -> None:
        if isinstance(data, HostExtent):
            await self.data_node.copy_in(host, data)
        else:
            await self.data_node.pwrite(host, data)

    async def _write_some(self, offset: int, view: memoryview | HostExtent) -> int:
        """Write a prefix that lies in one extent or one allocation; return its length."""
        lock = self.lock
        mask = self.cluster - 1
        await lock.acquire()
        try:
            while True:
                extent = await self.mapping.lookup(offset, len(view))
                end = offset + extent.length
                other = self.conflict(offset & ~mask, (end + mask) & ~mask, extent.in_place)
                if other is None:
                    break
                await self.claim_free(offset & ~mask, (end + mask) & ~mask, extent.in_place)
            if extent.in_place:
                claim = self.claim(offset & ~mask, (end + mask) & ~mask, True)
                plan = None
            else:
                plan = await self._plan(offset, len(view))
                claim = plan.claim
        finally:
            lock.release()
        try:
            if plan is None:
                if self.debug_node is not None:
                    await self.child_event("write_aio")
                if not self.data_file_external:
                    self.check_overlap(extent.host, extent.length)
                part = view if extent.length == len(view) else view[: extent.length]
                await self._put(extent.host, part)
                return extent.length
            return await self._write_planned(plan, offset, view)
        finally:
            self.unclaim(claim)

    async def _plan(self, offset: int, length: int) -> _Plan:
        """Choose places for the clusters of an allocating write; called with the lock."""
        mapping, mask = self.mapping, self.cluster - 1
        start = offset & ~mask
        limit = min(
            (offset + length + mask) & ~mask, (start & ~(mapping.table_span - 1)) + mapping.table_span
        )
        first = await mapping.entry(start)
        reuse = self._reusable(first[0])
        old = [first]
        place = (first[0] & OFFSET_MASK) + self.cluster
        position = start + self.cluster
        while position < limit and self.conflict(position, position + self.cluster, False) is None:
            word, bitmap = await mapping.entry(position)
            if self._reusable(word) != reuse or (reuse and word & OFFSET_MASK != place):
                break
            if not mapping.extended and mapping.kind(word, bitmap, 0) is Kind.NORMAL and word & COPIED:
                break
            old.append((word, bitmap))
            position += self.cluster
            place += self.cluster
        claim = self.claim(start, position, False)
        try:
            if reuse:
                host = first[0] & OFFSET_MASK
            elif self.data_file_external:
                host = start
            else:
                await self.mark_lazy_dirty()
                host = await self.refs.allocate(len(old))
        except BaseException:
            self.unclaim(claim)
            raise
        unit = mapping.unit
        end = min(offset + length, position)
        low, high = offset & ~(unit - 1), (end + unit - 1) & ~(unit - 1)
        if not reuse:
            if old[0][0] & (COMPRESSED | OFFSET_MASK):
                low = start
            if old[-1][0] & (COMPRESSED | OFFSET_MASK):
                high = position
        return _Plan(claim, start, host, not reuse, old, low, high)

    def _reusable(self, word: int) -> bool:
        """Whether an entry has a place of its own that an allocating write may fill."""
        return bool(
            word & COPIED and not word & COMPRESSED and (word & OFFSET_MASK or self.data_file_external)
        )

    async def _write_planned(self, plan: _Plan, offset: int, view: memoryview | HostExtent) -> int:
        limit = plan.start + len(plan.old) * self.cluster
        length = min(len(view), limit - offset)
        try:
            data: Buffer | HostExtent = view[:length]
            if plan.copy_from < offset or plan.copy_to > offset + length:
                data = await self._merge_old(plan, offset, view[:length])
            await self.child_event("write_aio")
            host = plan.host + plan.copy_from - plan.start
            if not self.data_file_external:
                self.check_overlap(host, len(data))
            await self._put(host, data)
        except BaseException:
            await self._abandon(plan)
            raise
        async with self.lock:
            try:
                await self._link(plan)
            except BaseException:
                if plan.fresh and not self.data_file_external and not self.broken:
                    await self.refs.release(plan.host, len(plan.old) * self.cluster)
                raise
        return length

    async def _abandon(self, plan: _Plan) -> None:
        if plan.fresh and not self.data_file_external and not self.broken:
            async with self.lock:
                await self.refs.release(plan.host, len(plan.old) * self.cluster)

    async def _merge_old(self, plan: _Plan, offset: int, part: memoryview | HostExtent) -> bytearray:
        """Return the data with the rest of the first and last unit filled from the old content."""
        await self.child_event("cow_read")
        whole = bytearray(plan.copy_to - plan.copy_from)
        view = memoryview(whole)
        head = offset - plan.copy_from
        tail = head + len(part)
        if head:
            await self._read_old_content(plan.copy_from, view[:head])
        if tail < len(whole):
            await self._read_old_content(offset + len(part), view[tail:])
        view[head:tail] = part.load() if isinstance(part, HostExtent) else part
        await self.child_event("cow_write")
        return whole

    async def _read_old_content(self, offset: int, part: memoryview) -> None:
        inside = max(0, min(len(part), self.size_bytes - offset))
        if inside:
            await self.drv_read(offset, part[:inside], F.NO_SERIALISING)

    async def _link(self, plan: _Plan) -> None:
        mapping = self.mapping
        entries: list[tuple[int, int]] = []
        for index, (word, bitmap) in enumerate(plan.old):
            place = plan.host + index * self.cluster
            if mapping.extended:
                begin = plan.start + index * self.cluster
                low = max(0, (plan.copy_from - begin) // mapping.unit)
                high = min(SUBCLUSTERS, (plan.copy_to - begin) // mapping.unit)
                written = ((1 << (high - low)) - 1) << low
                bitmap = (bitmap | written) & ~(written << 32)
                if word & COMPRESSED:
                    bitmap = written
            entries.append((place | COPIED, bitmap))
        await mapping.set_entries(plan.start, entries, allocating=plan.fresh)
        if plan.fresh:
            for word, _ in plan.old:
                await mapping.release_entry(word, discard=self.pass_discard_other)

    async def drv_write_compressed(self, offset: int, data: Buffer) -> None:
        self._check_usable(write=True)
        if self.data_file_external:
            raise UnsupportedError(f"{self.name}: compressed data can't be stored in an external data file")
        view = memoryview(data)
        while len(view):
            part = bytes(view[: self.cluster])
            if offset & (self.cluster - 1) or (
                len(part) < self.cluster and offset + len(part) != self.size_bytes
            ):
                raise BlockError(errno.EINVAL, f"{self.name}: a compressed write must cover whole clusters")
            await self.write_cluster(offset, part, None)
            offset, view = offset + len(part), view[len(part) :]

    async def write_cluster(self, offset: int, part: bytes, packed: bytes | None) -> None:
        """Store one whole cluster compressed; ``packed`` is its compressed form if the caller made it
        already."""
        whole = part + bytes(self.cluster - len(part))
        if packed is None:
            packed = compress.compress(self.header.compression_type, whole)
        if len(packed) >= self.cluster:
            await self.drv_write(offset, part, 0)
            return
        async with self.lock:
            await self.claim_free(offset, offset + self.cluster, False)
            word, bitmap = await self.mapping.entry(offset)
            if word & (COMPRESSED | OFFSET_MASK) or bitmap & 0xFFFF_FFFF:
                raise BlockError(
                    errno.EIO, f"{self.name}: compressed write to a cluster that is allocated already"
                )
            await self.mark_lazy_dirty()
            place = await self.refs.allocate_bytes(len(packed))
            try:
                await self.child_event("write_compressed")
                self.check_overlap(place, len(packed))
                await self.file.pwrite(place, packed)
                entry = self.mapping.compressed_word(place, len(packed))
                await self.mapping.set_entries(offset, [(entry, 0)], allocating=True)
            except BaseException:
                if not self.broken:
                    await self.refs.release(place, len(packed))
                raise

    # Zeroes, discard, status.

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        self._check_usable(write=True)
        unit = self.mapping.unit
        end = offset + length
        start, stop = offset & ~(unit - 1), (end + unit - 1) & ~(unit - 1)
        if stop > self.size_bytes:
            end = stop if end == self.size_bytes else end
        if not self.mapping.has_zero or (self._data_raw and not flags & F.MAY_UNMAP):
            raise UnsupportedError
        if start != offset or stop != end:
            rest = ((start, offset - start), (end, min(stop, self.size_bytes) - end))
            for at, count in rest:
                if not await self._reads_zero(at, count):
                    raise UnsupportedError
        from machine.block.qcow2 import erase

        async with self.marking_corrupt():
            await erase.zero_range(self, start, stop, unmap=bool(flags & F.MAY_UNMAP))

    async def _reads_zero(self, offset: int, length: int) -> bool:
        while length > 0:
            status = await self.block_status(offset, length)
            if not status.flags & F.ST_ZERO or not status.length:
                return False
            offset, length = offset + status.length, length - status.length
        return True

    async def drv_discard(self, offset: int, length: int) -> None:
        from machine.block.qcow2 import erase

        self._check_usable(write=True)
        end = offset + length
        if offset & (self.cluster - 1) or (end & (self.cluster - 1) and end != self.size_bytes):
            raise UnsupportedError
        async with self.marking_corrupt():
            await erase.discard_range(self, offset, end, full=False)

    async def drv_status(self, offset: int, length: int) -> Status:
        async with self.marking_corrupt(), self.lock:
            extent = await self.mapping.lookup(offset, length)
        if extent.kind is Kind.NORMAL:
            return Status(F.ST_DATA | F.ST_OFFSET, extent.length, extent.host, self.data_node)
        if extent.kind is Kind.COMPRESSED:
            return Status(F.ST_DATA | F.ST_COMPRESSED, extent.length)
        if extent.kind is Kind.ZERO_ALLOCATED:
            return Status(F.ST_ZERO | F.ST_OFFSET, extent.length, extent.host, self.data_node)
        if extent.kind is Kind.ZERO_PLAIN:
            return Status(F.ST_ZERO, extent.length)
        backing = self.backing
        if backing is not None and offset < backing.size_bytes:
            return Status(0, min(extent.length, backing.size_bytes - offset))
        return Status(0, extent.length)

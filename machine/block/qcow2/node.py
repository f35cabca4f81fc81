"""The qcow2 driver: opening, reading, writing, zeroing, discarding, flushing, closing."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from machine.block import flags as F
from machine.block.errors import BlockError, ImageCorruptError, UnsupportedError
from machine.block.flags import Role, Status
from machine.block.node import Buffer, Node
from machine.block.options import OptionReader, Options, resolve_backing
from machine.block.qcow2 import compress, layout
from machine.block.qcow2.cache import TableCache, read_padded
from machine.block.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, Header
from machine.block.qcow2.mapping import SUBCLUSTERS, Kind, Mapping
from machine.block.qcow2.refcount import Refcounts
from machine.block.sched import CoMutex, CoQueue

_IGNORED = ("refcount-cache-size", "cache-clean-interval", "l2-cache-entry-size", "cache-size")


class _Claim:
    """Guest clusters [start, end) that a request works on; shared claims bear each other."""

    __slots__ = ("end", "queue", "shared", "start")

    def __init__(self, start: int, end: int, shared: bool, queue: CoQueue) -> None:
        self.start = start
        self.end = end
        self.shared = shared
        self.queue = queue


@dataclass(slots=True)
class _Plan:
    """An allocating write: clusters from guest offset ``start`` get the place ``host``."""

    claim: _Claim
    start: int
    host: int
    fresh: bool
    old: list[tuple[int, int]]
    copy_from: int
    copy_to: int


class Qcow2Node(Node):
    """A qcow2 image.

    Options: ``file``, ``backing`` (null cuts the chain), ``data-file``, ``lazy-refcounts``,
    ``l2-cache-size``,
    ``overlap-check`` none, constant, cached or all, ``pass-discard-request``, ``pass-discard-snapshot``,
    ``pass-discard-other``.
    """

    driver = "qcow2"
    supports_backing = True

    # Opening.

    async def drv_open(self, options: OptionReader) -> None:
        self.header = Header()
        self.data_file_external = False
        self.broken = False
        self.snapshots: list[Any] = []
        self.stored_bitmaps: list[Any] = []
        self.bitmap_errors: list[str] = []
        self._claims: dict[_Claim, None] = {}
        self._metadata: set[int] | None = None
        self.lock = CoMutex(self.sched, f"metadata of {self.name}")
        for name in _IGNORED:
            options.take(name)
        l2_bytes = options.size("l2-cache-size", 32 << 20)
        self.overlap_check = options.choice("overlap-check", ("none", "constant", "cached", "all"), "cached")
        self.pass_discard = options.flag("pass-discard-request", self.discard_mode == "unmap")
        options.flag("pass-discard-snapshot", True)
        options.flag("pass-discard-other", False)
        lazy = options.take("lazy-refcounts")
        self.repair_on_open = options.flag("repair-dirty", True)
        await self._open_file(options)
        self.header = layout.parse_header(await self._read_head(), where=self.filename or self.name)
        self._lazy = bool(self.header.compatible & layout.COMPAT_LAZY) if lazy is None else bool(lazy)
        self._lazy = self._lazy and self.header.version >= 3
        await self._open_data_file(options)
        self._make_tables(l2_bytes)
        await self.load_tables()
        await self._check_bits()
        await self._open_backing(options)
        await self._load_extras()

    async def _open_file(self, options: OptionReader) -> None:
        what = options.take("file")
        if what is None:
            raise BlockError(errno.EINVAL, "qcow2: option 'file' is missing")
        defaults: Options = {"discard": "unmap", "cache": {"no-flush": self.no_flush}}
        if self.force_share:
            defaults["force-share"] = True
        file = await self.graph.open_ref(what, read_only=self.read_only, defaults=defaults, protocol=True)
        self.graph.link(self, "file", file, Role.DATA | Role.METADATA | Role.PRIMARY)
        self.filename = file.filename
        self.debug_node = file if file.driver == "blkdebug" else None

    async def _read_head(self) -> bytes:
        size = min(self.file.size_bytes, 2 << 20)
        head = bytes(await self.file.read(0, min(size, 4096)))
        if len(head) >= 24 and head[:4] == layout.MAGIC:
            wanted = 1 << min(21, int.from_bytes(head[20:24], "big"))
            if wanted > len(head):
                head = bytes(await self.file.read(0, min(size, wanted)))
        return head

    async def _open_data_file(self, options: OptionReader) -> None:
        what = options.take("data-file")
        self.data_file_external = bool(self.header.incompatible & layout.INCOMPAT_DATA_FILE)
        if not self.data_file_external:
            if what is not None:
                raise BlockError(
                    errno.EINVAL, f"{self.filename}: option 'data-file' is given, but there is none"
                )
            self._data_link = "file"
            return
        if what is None:
            if not self.header.data_file:
                raise BlockError(
                    errno.EINVAL, f"{self.filename}: option 'data-file' is needed for this image"
                )
            what = {"driver": "file", "filename": resolve_backing(self.filename, self.header.data_file)}
        node = await self.graph.open_ref(
            what, read_only=self.read_only, protocol=True, defaults={"discard": "unmap"}
        )
        self.graph.link(self, "data-file", node, Role.DATA)
        self._data_link = "data-file"

    def _make_tables(self, l2_bytes: int = 32 << 20) -> None:
        header = self.header
        self.cluster = header.cluster_size
        self._l2_bytes = l2_bytes
        self.l2 = TableCache(
            self,
            lambda: self.file,
            self.cluster,
            max(4, l2_bytes >> header.cluster_bits),
            layout.decode_table,
            layout.encode_table,
            "l2",
        )
        self.refs = Refcounts(self)
        self.mapping = Mapping(self)
        self.size_bytes = header.size
        self.limits.zeroes_alignment = self.mapping.unit
        self.limits.discard_alignment = self.cluster
        self._data_raw = bool(header.autoclear & layout.AUTOCLEAR_DATA_RAW) and self.data_file_external

    async def load_tables(self) -> None:
        """Read L1 and the refcount table."""
        header = self.header
        self.mapping.l1 = layout.decode_table(
            await read_padded(self.file, header.l1_offset, header.l1_entries * 8)
        )
        await self.refs.load()
        self._metadata = None

    async def _check_bits(self) -> None:
        header = self.header
        if self.read_only:
            return
        if header.incompatible & layout.INCOMPAT_CORRUPT:
            raise BlockError(
                errno.EACCES,
                f"{self.filename}: image is corrupt and can only be opened read-only: run a check -r all",
            )
        if header.autoclear & ~layout.KNOWN_AUTOCLEAR:
            header.autoclear &= layout.KNOWN_AUTOCLEAR
            await self.write_header()
        if header.incompatible & layout.INCOMPAT_DIRTY and self.repair_on_open:
            from machine.block.qcow2 import check

            result = await check.check(self, fix_leaks=True, fix_errors=True)
            if result.corruptions or result.check_errors:
                raise ImageCorruptError(
                    f"{self.filename}: repair of a dirty image failed: run a check -r all"
                )

    async def _open_backing(self, options: OptionReader) -> None:
        missing = object()
        what: Any = options.take("backing", missing)
        if what is None or (isinstance(what, str) and what == ""):
            return
        if what is missing:
            if not self.header.backing_file:
                return
            name = resolve_backing(self.filename, self.header.backing_file)
            child = await self.graph.open(
                name,
                driver=self.header.backing_format or None,
                read_only=True,
                defaults={"force-share": True} if self.force_share else None,
            )
        else:
            if (
                isinstance(what, dict)
                and "driver" not in what
                and "file" not in what
                and self.header.backing_file
            ):
                what = {
                    **what,
                    "file": {"filename": resolve_backing(self.filename, self.header.backing_file)},
                }
            child = await self.graph.open_ref(what, read_only=True)
        try:
            self.graph.link(self, "backing", child, Role.COW)
        except BlockError:
            await self.graph.unref(child)
            raise

    async def _load_extras(self) -> None:
        from machine.block.qcow2 import bitmaps, snapshots

        self.snapshots = await snapshots.load(self)
        self.bitmap_errors = await bitmaps.load(self)

    async def drv_reopen(self, read_only: bool) -> None:
        if read_only:
            await self._settle()
            return
        self.read_only = False
        await self.graph.reopen([(self.file, False)])
        await self._check_bits()

    # Header and state.

    @property
    def data_node(self) -> Node:
        """Where guest data lie."""
        return self.children[self._data_link].node

    def cluster_bytes(self) -> int:
        return self.cluster

    async def write_header(self) -> None:
        """Write cluster 0 as the header says."""
        data = self.header.encode()
        await self.file.pwrite(0, data + bytes(self.cluster - len(data)))

    async def write_incompatible(self) -> None:
        """Write the incompatible feature bits alone, behind and before a barrier."""
        if self.header.version >= 3:
            await self.file.flush()
            await self.file.pwrite(72, self.header.incompatible.to_bytes(8, "big"))
            await self.file.flush()

    async def mark_lazy_dirty(self) -> None:
        """With lazy refcounts: say in the header that refcounts on disk are stale from now on."""
        if self._lazy and not self.header.incompatible & layout.INCOMPAT_DIRTY:
            self.header.incompatible |= layout.INCOMPAT_DIRTY
            await self.write_incompatible()
            self.refs.cache.writable = False

    async def mark_clean(self) -> None:
        """Write everything and clear the dirty bit."""
        await self.l2.flush()
        self.refs.cache.writable = True
        await self.refs.cache.flush()
        if self.header.incompatible & layout.INCOMPAT_DIRTY:
            self.header.incompatible &= ~layout.INCOMPAT_DIRTY
            await self.write_incompatible()

    def corrupt(self, what: str) -> ImageCorruptError:
        """Remember that metadata contradict themselves and return the error to raise."""
        self.header.incompatible |= layout.INCOMPAT_CORRUPT if self.header.version >= 3 else 0
        self.broken = True
        return ImageCorruptError(
            f"{self.filename or self.name}: image is corrupt: {what}; run a check -r all"
        )

    def check_overlap(self, offset: int, length: int) -> None:
        """Refuse a write that would hit metadata."""
        if self.overlap_check == "none":
            return
        if self._metadata is None:
            self._metadata = self._metadata_clusters()
        first, last = offset >> self.header.cluster_bits, (offset + length - 1) >> self.header.cluster_bits
        for cluster in range(first, last + 1):
            if cluster in self._metadata:
                raise self.corrupt(f"a write at {offset:#x} would overwrite metadata")

    def _metadata_clusters(self) -> set[int]:
        header, bits = self.header, self.header.cluster_bits
        found = {0}
        for start, length in (
            (header.l1_offset, header.l1_entries * 8),
            (header.reftable_offset, header.reftable_clusters << bits),
            (header.snapshot_offset, 1 if header.snapshot_count else 0),
        ):
            if length:
                found.update(range(start >> bits, ((start + length - 1) >> bits) + 1))
        if self.overlap_check != "constant":
            found.update((entry & OFFSET_MASK) >> bits for entry in self.mapping.l1 if entry & OFFSET_MASK)
            found.update((entry & OFFSET_MASK) >> bits for entry in self.refs.table if entry & OFFSET_MASK)
        return found

    def note_metadata(self, offset: int) -> None:
        """A cluster became metadata."""
        if self._metadata is not None:
            self._metadata.add(offset >> self.header.cluster_bits)

    def forget_metadata_map(self) -> None:
        """Where metadata lie has changed."""
        self._metadata = None

    # Claims.

    def _conflict(self, start: int, end: int, shared: bool) -> _Claim | None:
        for claim in self._claims:
            if claim.start < end and start < claim.end and not (shared and claim.shared):
                return claim
        return None

    def _claim(self, start: int, end: int, shared: bool) -> _Claim:
        claim = _Claim(start, end, shared, CoQueue(self.sched, f"clusters of {self.name} at {start}"))
        self._claims[claim] = None
        return claim

    def _unclaim(self, claim: _Claim) -> None:
        del self._claims[claim]
        claim.queue.wake_all()

    async def claim_free(self, start: int, end: int, shared: bool) -> None:
        """Wait, without the lock, until no claim stands against this one; returns with the lock held
        throughout."""
        while (other := self._conflict(start, end, shared)) is not None:
            self.lock.release()
            try:
                await other.queue.wait()
            finally:
                await self.lock.acquire()

    def _check_usable(self, *, write: bool) -> None:
        if self.broken and write:
            raise ImageCorruptError(f"{self.filename or self.name}: image is corrupt: run a check -r all")

    # Reading.

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
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
        claim = self._claim(offset & ~mask, (offset + len(part) + mask) & ~mask, True)
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
            self._unclaim(claim)

    async def _read_backing(self, offset: int, part: memoryview, flags: int) -> None:
        backing = self.backing
        inside = 0 if backing is None else max(0, min(len(part), backing.size_bytes - offset))
        if inside < len(part):
            part[inside:] = bytes(len(part) - inside)
        if inside and backing is not None:
            if self.debug_node is not None:
                await self.child_event("read_backing_aio")
            await backing.pread(offset, part[:inside], flags & F.NO_SERIALISING)

    # Writing.

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        self._check_usable(write=True)
        view = memoryview(data)
        while len(view):
            done = await self._write_some(offset, view)
            offset, view = offset + done, view[done:]

    async def _write_some(self, offset: int, view: memoryview) -> int:
        """Write a prefix that lies in one extent or one allocation; return its length."""
        lock = self.lock
        mask = self.cluster - 1
        await lock.acquire()
        try:
            while True:
                extent = await self.mapping.lookup(offset, len(view))
                end = offset + extent.length
                other = self._conflict(offset & ~mask, (end + mask) & ~mask, extent.in_place)
                if other is None:
                    break
                await self.claim_free(offset & ~mask, (end + mask) & ~mask, extent.in_place)
            if extent.in_place:
                claim = self._claim(offset & ~mask, (end + mask) & ~mask, True)
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
                await self.data_node.pwrite(extent.host, part)
                return extent.length
            return await self._write_planned(plan, offset, view)
        finally:
            self._unclaim(claim)

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
        while position < limit and self._conflict(position, position + self.cluster, False) is None:
            word, bitmap = await mapping.entry(position)
            if self._reusable(word) != reuse or (reuse and word & OFFSET_MASK != place):
                break
            if not mapping.extended and mapping.kind(word, bitmap, 0) is Kind.NORMAL and word & COPIED:
                break
            old.append((word, bitmap))
            position += self.cluster
            place += self.cluster
        claim = self._claim(start, position, False)
        try:
            if reuse:
                host = first[0] & OFFSET_MASK
            elif self.data_file_external:
                host = start
            else:
                await self.mark_lazy_dirty()
                host = await self.refs.allocate(len(old))
        except BaseException:
            self._unclaim(claim)
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

    async def _write_planned(self, plan: _Plan, offset: int, view: memoryview) -> int:
        limit = plan.start + len(plan.old) * self.cluster
        length = min(len(view), limit - offset)
        try:
            data: Buffer = view[:length]
            if plan.copy_from < offset or plan.copy_to > offset + length:
                data = await self._merge_old(plan, offset, view[:length])
            await self.child_event("write_aio")
            host = plan.host + plan.copy_from - plan.start
            if not self.data_file_external:
                self.check_overlap(host, len(data))
            await self.data_node.pwrite(host, data)
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

    async def _merge_old(self, plan: _Plan, offset: int, part: memoryview) -> bytearray:
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
        view[head:tail] = part
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
                await mapping.release_entry(word)

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
        await erase.discard_range(self, offset, end, full=False)

    async def drv_status(self, offset: int, length: int) -> Status:
        async with self.lock:
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

    # Flush, close, empty, resize.

    async def drv_flush_os(self) -> None:
        if self.broken or self.read_only:
            return
        async with self.lock:
            await self.l2.flush()
            await self.refs.cache.flush()
            freed, self.refs.freed = self.refs.freed, []
            for offset, length in freed:
                if (
                    await self.refs.get(offset >> self.header.cluster_bits) == 0
                    and offset < self.file.size_bytes
                ):
                    await self.file.pdiscard(offset, min(length, self.file.size_bytes - offset))

    async def _settle(self) -> None:
        """Bring the file to its clean state: everything written, bitmaps stored, dirty bit cleared."""
        from machine.block.qcow2 import bitmaps

        if self.broken:
            if self.header.version >= 3:
                await self.file.pwrite(72, self.header.incompatible.to_bytes(8, "big"))
            return
        await bitmaps.store(self)
        await self.mark_clean()
        await self.file.flush()

    async def drv_close(self) -> None:
        if not self.read_only and not self.force_share:
            await self._settle()

    async def drv_make_empty(self) -> None:
        from machine.block.qcow2 import erase

        self._check_usable(write=True)
        await erase.make_empty(self)

    async def drv_truncate(self, size: int, prealloc: str) -> None:
        from machine.block.qcow2 import resize

        self._check_usable(write=True)
        await resize.resize(self, size, prealloc)

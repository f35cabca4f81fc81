"""An opened qcow2 image: its header and tables, claims on guest clusters, flushing, closing."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from machine.block.errors import BlockError, ImageCorruptError, ImageFormatError
from machine.block.flags import Role
from machine.block.node import Node
from machine.block.options import OptionReader, Options, resolve_backing
from machine.block.qcow2 import layout
from machine.block.qcow2.cache import TableCache, read_padded
from machine.block.qcow2.layout import OFFSET_MASK, Header
from machine.block.qcow2.mapping import Mapping
from machine.block.qcow2.refcount import Refcounts
from machine.block.sched import CoMutex, CoQueue

_IGNORED = ("refcount-cache-size", "cache-clean-interval", "l2-cache-entry-size", "cache-size")


class Claim:
    """Guest clusters [start, end) that a request works on; shared claims bear each other."""

    __slots__ = ("end", "queue", "shared", "start")

    def __init__(self, start: int, end: int, shared: bool, queue: CoQueue) -> None:
        self.start = start
        self.end = end
        self.shared = shared
        self.queue = queue


class Qcow2Image(Node):
    """The state of a qcow2 node; ``Qcow2Node`` adds the requests."""

    driver = "qcow2"
    supports_backing = True

    # Opening.

    async def drv_open(self, options: OptionReader) -> None:
        self.header = Header()
        self.data_file_external = False
        self.broken = self._marked = False
        self.snapshots: list[Any] = []
        self.stored_bitmaps: list[Any] = []
        self.bitmap_errors: list[str] = []
        self._claims: dict[Claim, None] = {}
        self._metadata: set[int] | None = None
        self._inactive: set[int] = set()
        self.lock = CoMutex(self.sched, f"metadata of {self.name}")
        for name in _IGNORED:
            options.take(name)
        l2_bytes = options.size("l2-cache-size", 32 << 20)
        self.overlap_check = options.choice("overlap-check", ("none", "constant", "cached", "all"), "cached")
        self.pass_discard = options.flag("pass-discard-request", self.discard_mode == "unmap")
        self.pass_discard_snapshot = options.flag("pass-discard-snapshot", True)
        self.pass_discard_other = options.flag("pass-discard-other", False)
        lazy = options.take("lazy-refcounts")
        self.repair_on_open = options.flag("repair-dirty", True)
        await self._open_file(options)
        self.header = layout.parse_header(await self._read_head(), where=self.filename or self.name)
        if not self.header.reftable_clusters and self.repair_on_open:
            raise ImageFormatError(f"{self.filename}: image has no refcount table: run a check -r all")
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

    async def remake_tables(self) -> None:
        """Begin anew with the header's tables; nothing that is cached may be dirty."""
        self._make_tables(self._l2_bytes)
        await self.load_tables()
        self.forget_metadata_map()

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
        if header.incompatible & layout.INCOMPAT_CORRUPT and self.repair_on_open:
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
        await self.note_inactive()

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

    @asynccontextmanager
    async def marked_dirty(self) -> AsyncIterator[None]:
        """Let a crash in here be repaired by the next open: flags and refcounts can't change together.

        Version 2 has no such mark: there, such a crash needs a ``check -r all``.
        """
        marked = self.header.version >= 3 and not self._lazy
        if marked:
            self.header.incompatible |= layout.INCOMPAT_DIRTY
            await self.write_incompatible()
        try:
            yield
        finally:
            if marked and not self.broken:
                await self.flush()
                await self.mark_clean()

    def corrupt(self, what: str) -> ImageCorruptError:
        """Remember that metadata contradict themselves and return the error to raise."""
        self.header.incompatible |= layout.INCOMPAT_CORRUPT if self.header.version >= 3 else 0
        self.broken = True
        return ImageCorruptError(
            f"{self.filename or self.name}: image is corrupt: {what}; run a check -r all"
        )

    @asynccontextmanager
    async def marking_corrupt(self) -> AsyncIterator[None]:
        """Call ``mark_corrupt`` when an ImageCorruptError comes out of here."""
        try:
            yield
        except ImageCorruptError:
            await self.mark_corrupt()
            raise

    async def mark_corrupt(self) -> None:
        """Let the header say that the image is corrupt, once ``corrupt`` was called."""
        if self.broken and not self._marked and not self.read_only:
            self._marked = True
            with suppress(BlockError):  # the request fails for what was found, not for this
                await self.write_incompatible()

    def check_overlap(self, offset: int, length: int) -> None:
        """Refuse a write that would hit metadata."""
        if self.overlap_check == "none":
            return
        if self._metadata is None:
            self._metadata = self._metadata_clusters()
        first, last = offset >> self.header.cluster_bits, (offset + length - 1) >> self.header.cluster_bits
        for cluster in range(first, last + 1):
            if cluster in self._metadata or cluster in self._inactive:
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

    async def note_inactive(self) -> None:
        """Learn where the tables of snapshots lie, for ``overlap-check=all``."""
        if self.overlap_check != "all":
            return
        from machine.block.qcow2 import snapshots

        bits, found = self.header.cluster_bits, set[int]()
        for snapshot in self.snapshots:
            start = snapshot.l1_offset >> bits
            found.update(range(start, start + (snapshot.l1_entries * 8 + self.cluster - 1 >> bits)))
            table = await snapshots.read_l1(self, snapshot)
            found.update((entry & OFFSET_MASK) >> bits for entry in table if entry & OFFSET_MASK)
        self._inactive = found

    def note_metadata(self, offset: int) -> None:
        """A cluster became metadata."""
        if self._metadata is not None:
            self._metadata.add(offset >> self.header.cluster_bits)

    def forget_metadata_map(self) -> None:
        """Where metadata lie has changed."""
        self._metadata = None

    # Claims.

    def conflict(self, start: int, end: int, shared: bool) -> Claim | None:
        """Return a claim that stands against such a one."""
        for claim in self._claims:
            if claim.start < end and start < claim.end and not (shared and claim.shared):
                return claim
        return None

    def claim(self, start: int, end: int, shared: bool) -> Claim:
        """Register a claim; ``unclaim`` ends it."""
        claim = Claim(start, end, shared, CoQueue(self.sched, f"clusters of {self.name} at {start}"))
        self._claims[claim] = None
        return claim

    def unclaim(self, claim: Claim) -> None:
        """End a claim and wake who waits for it."""
        del self._claims[claim]
        claim.queue.wake_all()

    async def claim_free(self, start: int, end: int, shared: bool) -> None:
        """Wait, without the lock, until no claim stands against this one; returns with the lock held
        throughout."""
        while (other := self.conflict(start, end, shared)) is not None:
            self.lock.release()
            try:
                await other.queue.wait()
            finally:
                await self.lock.acquire()

    def _check_usable(self, *, write: bool) -> None:
        if self.broken and write:
            raise ImageCorruptError(f"{self.filename or self.name}: image is corrupt: run a check -r all")

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

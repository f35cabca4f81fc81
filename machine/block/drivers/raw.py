"""Nodes that hand every request to one child: the base of filters, and the raw format."""

from __future__ import annotations

import errno

from machine.block import flags as F
from machine.block.errors import BlockError, UnsupportedError
from machine.block.extent import HostExtent
from machine.block.flags import Role, Status
from machine.block.node import Buffer, Edge, Node
from machine.block.options import OptionReader, Options
from machine.block.pipeline import MAX_BOUNCE
from machine.block.registry import QCOW2_MAGIC


class PassNode(Node):
    """Passes requests to ``self.lower``; filters derive from it and override what they change.

    The lower node runs its own pipeline, so that its hooks, bitmaps and limits hold for these requests too.
    """

    is_filter = True
    supports_fua = True
    link = "file"

    @property
    def lower(self) -> Node:
        """The child that gets the requests."""
        return self.children[self.link].node

    async def open_lower(self, options: OptionReader, role: Role = Role.FILTERED | Role.PRIMARY) -> Node:
        """Open the ``file`` (or ``image``) child and take over its size and limits."""
        what = options.take(self.link)
        if what is None:
            raise BlockError(errno.EINVAL, f"{options.where}: option '{self.link}' is missing")
        defaults: Options = {"discard": "unmap"}
        if self.force_share:
            defaults["force-share"] = True
        child = await self.graph.open_ref(
            what, read_only=self.read_only, defaults=defaults, protocol=self.link != "file"
        )
        self.graph.link(self, self.link, child, role)
        self.filename = child.filename
        self.size_bytes = child.size_bytes
        self.growable = child.growable
        self.limits.alignment = child.limits.alignment
        return child

    async def drv_reopen(self, read_only: bool) -> None:
        if self.lower.read_only and not read_only:
            await self.graph.reopen([(self.lower, False)])

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        await self.lower.pread(offset, buf, flags & F.NO_SERIALISING)

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        await self.lower.pwrite(offset, data, flags & ~F.COPY_ON_READ)

    async def drv_write_compressed(self, offset: int, data: Buffer) -> None:
        await self.lower.pwrite(offset, data, F.COMPRESSED)

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        await self.lower.pwrite_zeroes(offset, length, flags & (F.MAY_UNMAP | F.NO_FALLBACK))

    async def drv_discard(self, offset: int, length: int) -> None:
        await self.lower.pdiscard(offset, length)

    async def drv_truncate(self, size: int, prealloc: str) -> None:
        await self.lower.truncate(size, prealloc)

    async def drv_status(self, offset: int, length: int) -> Status:
        return await self.lower.block_status(offset, length)

    async def drv_make_empty(self) -> None:
        await self.lower.make_empty()

    def unallocated_flags(self, offset: int, flags: int) -> int:
        return flags

    def cluster_bytes(self) -> int:
        return self.lower.cluster_bytes()

    async def flush_children(self) -> None:
        if not self.lower.read_only:
            await self.lower.flush()


class RawNode(PassNode):
    """The raw format: a window of its file. Options ``offset`` and ``size``; requests outside are errors."""

    driver = "raw"
    is_filter = False

    async def drv_open(self, options: OptionReader) -> None:
        self._offset = options.size("offset", 0)
        wanted = options.size("size", 0)
        self._fixed = bool(wanted)
        child = await self.open_lower(options, Role.DATA | Role.PRIMARY)
        room = child.size_bytes - self._offset
        if room < 0 or wanted > room:
            raise BlockError(
                errno.EINVAL,
                f"raw: offset {self._offset} and size {wanted} exceed the file's {child.size_bytes}",
            )
        if self._offset % child.limits.alignment:
            raise BlockError(
                errno.EINVAL, f"raw: offset {self._offset} is not aligned to {child.limits.alignment}"
            )
        self.growable = child.growable and not self._offset and not self._fixed
        self.size_bytes = wanted or room
        self._refuse_magic = self.probed

    def child_resized(self, edge: Edge) -> None:
        if not self._fixed:
            self.size_bytes = edge.node.size_bytes - self._offset
            self.size_changed()

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        await self.lower.pread(offset + self._offset, buf, flags & F.NO_SERIALISING)

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        if self._refuse_magic and offset < 4 and not self._offset:
            first = bytearray(4)
            if offset:
                await self.lower.pread(0, memoryview(first)[:offset])
            first[offset : offset + len(data)] = bytes(data[: 4 - offset])
            if bytes(first[:4]) == QCOW2_MAGIC:
                raise BlockError(
                    errno.EPERM,
                    f"{self.filename}: writing another format's magic to a disk whose raw format was "
                    "guessed is "
                    "refused: give format=raw",
                )
        await self.lower.pwrite(offset + self._offset, data, flags & ~F.COPY_ON_READ)

    async def drv_copy_in(self, offset: int, extent: HostExtent) -> None:
        if self._refuse_magic and offset < 4:
            raise UnsupportedError(f"{self.name}: what is written over the magic has to be looked at")
        await self.lower.copy_in(offset + self._offset, extent)

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        await self.lower.pwrite_zeroes(offset + self._offset, length, flags & (F.MAY_UNMAP | F.NO_FALLBACK))

    async def drv_discard(self, offset: int, length: int) -> None:
        await self.lower.pdiscard(offset + self._offset, length)

    async def drv_truncate(self, size: int, prealloc: str) -> None:
        if self._fixed:
            raise BlockError(errno.ENOTSUP, f"{self.name}: can't resize a raw node with a fixed size")
        if self._offset + size > F.MAX_SIZE:
            raise BlockError(errno.EFBIG, f"{self.name}: size {size} is out of range")
        await self.lower.truncate(size + self._offset, prealloc)

    async def drv_status(self, offset: int, length: int) -> Status:
        status = await self.lower.block_status(offset + self._offset, length)
        flags = status.flags & ~F.ST_EOF
        if not flags & (F.ST_DATA | F.ST_ZERO):
            flags |= F.ST_DATA
        return Status(flags, status.length, status.offset, status.node)

    async def drv_make_empty(self) -> None:
        step = MAX_BOUNCE
        for at in range(0, self.size_bytes, step):
            await self.drv_zeroes(at, min(step, self.size_bytes - at), F.MAY_UNMAP)

"""copy-before-write and snapshot-access: old contents are kept in a target and read through a second node."""

from __future__ import annotations

import errno
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from machine.block import flags as F
from machine.block.drivers.raw import PassNode
from machine.block.errors import BlockError, OptionError
from machine.block.flags import Perm, Role, Status
from machine.block.jobs.cow import CowRange, CowRanges
from machine.block.node import Buffer, Edge, Node
from machine.block.options import OptionReader
from machine.block.sched import CoEvent, Task

MIN_CLUSTER = 65536


class CopyBeforeWriteNode(PassNode):
    """A filter that copies clusters to ``target`` before they change.

    Options: ``file``; ``target``; ``bitmap`` {node, name}: only what it marks is part of the snapshot;
    ``on-cbw-error``: break-guest-write (the write fails, the snapshot stays good) or break-snapshot;
    ``cbw-timeout``: seconds after which a copy counts as failed, 0 for never.
    """

    driver = "copy-before-write"

    async def drv_open(self, options: OptionReader) -> None:
        target = options.take("target")
        chosen = options.take("bitmap")
        policy = options.choice("on-cbw-error", ("break-guest-write", "break-snapshot"), "break-guest-write")
        self._break_snapshot = policy == "break-snapshot"
        self._timeout_ns = options.size("cbw-timeout", 0) * 1_000_000_000
        await self.open_lower(options)
        if target is None:
            raise OptionError("copy-before-write: option 'target' is missing")
        node = await self.graph.open_ref(target, read_only=False)
        self.graph.link(self, "target", node, Role.DATA)
        if node.size_bytes != self.size_bytes:
            raise BlockError(errno.EINVAL, f"{self.name}: sizes of file and target differ")
        self.cluster_size = max(MIN_CLUSTER, node.cluster_bytes())
        count = -(-self.size_bytes // self.cluster_size)
        self.access = bytearray(b"\1" * count)
        self.copied = bytearray(count)
        self.snapshot_error: BlockError | None = None
        self._copies = CowRanges(self.sched, self.cluster_size)
        self._reads = CowRanges(self.sched, self.cluster_size)
        if chosen is not None:
            self._restrict(chosen)

    def _restrict(self, chosen: object) -> None:
        if not isinstance(chosen, dict) or "node" not in chosen or "name" not in chosen:
            raise OptionError("copy-before-write: bitmap needs 'node' and 'name'")
        bitmap = self.graph.node(str(chosen["node"])).bitmaps.get(str(chosen["name"]))
        bitmap.require_idle(writable=False)
        self.access = bytearray(len(self.access))
        for offset, length in bitmap.dirty_ranges():
            first, last = self._copies.round(offset, length)
            self.access[first:last] = b"\1" * (last - first)

    def drv_child_perm(self, edge: Edge, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        if edge.link == "target":
            return Perm.WRITE, Perm.ALL & ~Perm.RESIZE
        taken = perm | (Perm.CONSISTENT_READ if perm & (Perm.WRITE | Perm.WRITE_UNCHANGED) else Perm.NONE)
        return taken, shared & ~(Perm.WRITE | Perm.RESIZE)

    @property
    def target(self) -> Node:
        """Where old contents go."""
        return self.children["target"].node

    async def _save(self, offset: int, length: int) -> None:
        """Keep the old contents of a range, then wait for snapshot readers that still read it here."""
        if self.snapshot_error is not None:
            return
        try:
            if self._timeout_ns:
                await self._in_time(self._copy(offset, length))
            else:
                await self._copy(offset, length)
        except BlockError as error:
            if not self._break_snapshot:
                raise
            self.snapshot_error = error
            return
        await self._reads.wait(offset, length)

    async def _in_time(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a copy have its time; one that is late goes on by itself, and is not waited for."""
        task = self.sched.spawn(work, f"copy before write of {self.name}")
        over = CoEvent(self.sched, f"copy before write of {self.name}")
        ender = self.sched.spawn(self._end_of(task, over), "end of a copy")
        timer = self.sched.spawn(self._end_after(over), "cbw-timeout")
        try:
            await over.wait()
        finally:
            timer.cancel()
        if not task.done:
            raise BlockError(
                errno.ETIMEDOUT, f"{self.name}: a copy took more than {self._timeout_ns // 10**9} s"
            )
        await ender.join()
        task.result()

    async def _end_of(self, task: Task[None], over: CoEvent) -> None:
        with suppress(BlockError):
            await task.join()
        over.set()

    async def _end_after(self, over: CoEvent) -> None:
        await self.sched.sleep(self._timeout_ns)
        over.set()

    async def _copy(self, offset: int, length: int) -> None:
        size = self.cluster_size
        async with self._copies.hold(offset, length) as held:
            for cluster in range(held.start, held.end):
                if self.copied[cluster] or not self.access[cluster]:
                    continue
                start = cluster * size
                data = await self.lower.read(start, min(size, self.size_bytes - start), F.NO_SERIALISING)
                if F.is_zero(data):
                    await self.target.pwrite_zeroes(start, len(data), F.MAY_UNMAP)
                else:
                    await self.target.pwrite(start, data)
                self.copied[cluster] = 1

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        await self._save(offset, len(data))
        await super().drv_write(offset, data, flags)

    async def drv_write_compressed(self, offset: int, data: Buffer) -> None:
        await self._save(offset, len(data))
        await super().drv_write_compressed(offset, data)

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        await self._save(offset, length)
        await super().drv_zeroes(offset, length, flags)

    async def drv_discard(self, offset: int, length: int) -> None:
        await self._save(offset, length)
        await super().drv_discard(offset, length)

    async def drv_truncate(self, size: int, prealloc: str) -> None:
        raise BlockError(errno.EPERM, f"{self.name}: can't resize while a snapshot is kept")

    # The snapshot's side.

    async def snapshot_read(self, offset: int, buf: memoryview) -> None:
        """Read what the disk held when the filter was put in. Raises BlockError EACCES outside the snapshot."""
        at, length, size = 0, len(buf), self.cluster_size
        while at < length:
            position = offset + at
            cluster = position // size
            if self.snapshot_error is not None or not self.access[cluster]:
                raise BlockError(errno.EACCES, f"{self.name}: the snapshot does not hold {position}")
            saved = self.copied[cluster]
            end = cluster + 1
            while end * size < offset + length and self.copied[end] == saved and self.access[end]:
                end += 1
            part = buf[at : min(length, end * size - offset)]
            if saved:
                await self.target.pread(position, part)
            else:
                held: CowRange = self._reads.begin(position, len(part), shared=True)
                try:
                    await self.lower.pread(position, part, F.NO_SERIALISING)
                finally:
                    self._reads.finish(held)
            at += len(part)

    def snapshot_discard(self, offset: int, length: int) -> None:
        """The reader needs these whole clusters no longer."""
        first, last = -(-offset // self.cluster_size), (offset + length) // self.cluster_size
        self.access[first:last] = bytes(max(0, last - first))

    async def snapshot_status(self, offset: int, length: int) -> Status:
        """Return the status of the snapshot's content."""
        size = self.cluster_size
        cluster = offset // size
        if self.snapshot_error is not None or not self.access[cluster]:
            raise BlockError(errno.EACCES, f"{self.name}: the snapshot does not hold {offset}")
        inside = min(length, (cluster + 1) * size - offset)
        node = self.target if self.copied[cluster] else self.lower
        status = await node.block_status(offset, inside)
        keep = status.flags & F.ST_ZERO if status.flags & F.ST_ALLOCATED else 0
        return Status(keep or F.ST_DATA, min(status.length, inside))


class SnapshotAccessNode(Node):
    """Read-only view of the snapshot that a copy-before-write node keeps. Option ``file``: that node."""

    driver = "snapshot-access"

    async def drv_open(self, options: OptionReader) -> None:
        below = await self.graph.open_ref(options.take("file"), read_only=False)
        if not isinstance(below, CopyBeforeWriteNode):
            raise OptionError(f"snapshot-access: '{below.name}' is no copy-before-write node")
        self._filter = below
        self.read_only = True
        self.graph.link(self, "file", below, Role.DATA | Role.PRIMARY)
        self.size_bytes = below.size_bytes

    def drv_child_perm(self, edge: Edge, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        return Perm.NONE, Perm.ALL

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        await self._filter.snapshot_read(offset, buf)

    async def drv_status(self, offset: int, length: int) -> Status:
        return await self._filter.snapshot_status(offset, length)

    async def flush_children(self) -> None:
        """A view has nothing to flush."""

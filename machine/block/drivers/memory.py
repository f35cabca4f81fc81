"""Disks without a host behind them: sparse memory, and the null device. Both can model latency."""

from __future__ import annotations

from machine.block import flags as F
from machine.block.flags import Status
from machine.block.node import Buffer, Node
from machine.block.options import OptionReader

_CHUNK = 65536


class _Modelled(Node):
    """Latency in virtual time, and scheduling points for tests."""

    async def read_latency(self, options: OptionReader) -> None:
        self.latency_ns = options.size("latency-ns", 0)
        self.yields = options.size("yields", 0)

    async def pause(self) -> None:
        for _ in range(self.yields):
            await self.sched.yield_now()
        if self.latency_ns:
            await self.sched.sleep(self.latency_ns)


class MemoryNode(_Modelled):
    """A sparse disk in memory.

    Options: ``size``; ``latency-ns`` of a request in virtual time; ``yields``: how often a request lets
    other tasks run; ``align``: request alignment.
    """

    driver = "memory"
    supports_fua = True

    async def drv_open(self, options: OptionReader) -> None:
        self.size_bytes = options.size("size", 0)
        self.limits.alignment = options.size("align", 1)
        self.growable = options.flag("growable", True)
        self._chunks: dict[int, bytearray] = {}
        await self.read_latency(options)

    async def drv_reopen(self, read_only: bool) -> None:
        """Nothing to do."""

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        await self.pause()
        done, length = 0, len(buf)
        while done < length:
            index, inside = divmod(offset + done, _CHUNK)
            n = min(_CHUNK - inside, length - done)
            chunk = self._chunks.get(index)
            buf[done : done + n] = bytes(n) if chunk is None else chunk[inside : inside + n]
            done += n

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        await self.pause()
        done, view = 0, memoryview(data)
        while done < len(view):
            index, inside = divmod(offset + done, _CHUNK)
            n = min(_CHUNK - inside, len(view) - done)
            chunk = self._chunks.get(index)
            if chunk is None:
                chunk = self._chunks[index] = bytearray(_CHUNK)
            chunk[inside : inside + n] = view[done : done + n]
            done += n

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        await self.pause()
        self._wipe(offset, offset + length)

    async def drv_discard(self, offset: int, length: int) -> None:
        await self.drv_zeroes(offset, length, 0)

    def _wipe(self, offset: int, end: int) -> None:
        for index in [i for i in self._chunks if i * _CHUNK < end and (i + 1) * _CHUNK > offset]:
            low, high = max(offset - index * _CHUNK, 0), min(end - index * _CHUNK, _CHUNK)
            if high - low == _CHUNK:
                del self._chunks[index]
            else:
                self._chunks[index][low:high] = bytes(high - low)

    async def drv_truncate(self, size: int, prealloc: str) -> None:
        if size < self.size_bytes:
            self._wipe(size, self.size_bytes)

    async def drv_status(self, offset: int, length: int) -> Status:
        index = offset // _CHUNK
        present = index in self._chunks
        end = index + 1
        while end * _CHUNK < offset + length and (end in self._chunks) == present:
            end += 1
        flags = F.ST_DATA | F.ST_OFFSET if present else F.ST_ZERO | F.ST_OFFSET
        return Status(flags, end * _CHUNK - offset, offset, self)

    def contents(self) -> bytes:
        """Return the whole disk, for tests."""
        data = bytearray(self.size_bytes)
        for index, chunk in self._chunks.items():
            part = data[index * _CHUNK : (index + 1) * _CHUNK]
            data[index * _CHUNK : index * _CHUNK + len(part)] = chunk[: len(part)]
        return bytes(data)


class NullNode(_Modelled):
    """Reads zeroes, forgets writes. Options: ``size`` (1 GiB), ``latency-ns``, ``yields``,
    ``read-zeroes``."""

    driver = "null-co"
    supports_fua = True

    async def drv_open(self, options: OptionReader) -> None:
        self.size_bytes = options.size("size", 1 << 30)
        options.flag("read-zeroes", True)
        await self.read_latency(options)

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        await self.pause()
        buf[:] = bytes(len(buf))

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        await self.pause()

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        await self.pause()

    async def drv_discard(self, offset: int, length: int) -> None:
        await self.pause()

    async def drv_truncate(self, size: int, prealloc: str) -> None:
        """Any size will do."""

    async def drv_status(self, offset: int, length: int) -> Status:
        return Status(F.ST_ZERO | F.ST_OFFSET, length, offset, self)

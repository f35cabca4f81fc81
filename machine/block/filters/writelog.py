"""write-log: record writes and flushes on their way to a file, so that a crash can be replayed at any point."""

from __future__ import annotations

from machine.block.drivers.raw import PassNode
from machine.block.node import Buffer
from machine.block.options import OptionReader


class WriteLogNode(PassNode):
    """A filter whose ``log`` lists ("write", offset, bytes), ("zero", offset, length), ("size", size, 0),
    ("flush", 0, 0).

    Options: ``file``.
    """

    driver = "write-log"

    async def drv_open(self, options: OptionReader) -> None:
        self.log: list[tuple[str, int, bytes | int]] = []
        await self.open_lower(options)

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        self.log.append(("write", offset, bytes(data)))
        await super().drv_write(offset, data, flags)

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        self.log.append(("zero", offset, length))
        await super().drv_zeroes(offset, length, flags)

    async def drv_discard(self, offset: int, length: int) -> None:
        self.log.append(("zero", offset, length))
        await super().drv_discard(offset, length)

    async def drv_truncate(self, size: int, prealloc: str) -> None:
        self.log.append(("size", size, 0))
        await super().drv_truncate(size, prealloc)

    async def drv_flush_disk(self) -> None:
        self.log.append(("flush", 0, 0))


def materialise(base: bytes, log: list[tuple[str, int, bytes | int]]) -> bytes:
    """Return the file's content after these operations."""
    data = bytearray(base)
    for kind, offset, what in log:
        if kind == "size":
            data = data[:offset].ljust(offset, b"\0")
            continue
        if kind == "flush":
            continue
        piece = bytes(what) if isinstance(what, int) else what
        if len(data) < offset + len(piece):
            data.extend(bytes(offset + len(piece) - len(data)))
        data[offset : offset + len(piece)] = piece
    return bytes(data)

"""copy-on-read: what a read finds below the top layer is written into the top layer."""

from __future__ import annotations

import errno

from machine.block import flags as F
from machine.block.drivers.raw import PassNode
from machine.block.errors import BlockError
from machine.block.flags import Perm
from machine.block.node import Edge, Node, is_allocated_above
from machine.block.options import OptionReader


class CopyOnReadNode(PassNode):
    """A filter. Options: ``file``; ``bottom``, a node name: layers below it are not copied."""

    driver = "copy-on-read"

    async def drv_open(self, options: OptionReader) -> None:
        bottom = options.take("bottom")
        await self.open_lower(options)
        self._bottom: Node | None = None
        if bottom is not None:
            self._bottom = self.graph.node(str(bottom))
            node: Node | None = self.lower
            while node is not None and node is not self._bottom:
                node = node.below
            if node is None:
                raise BlockError(errno.EINVAL, f"{self.name}: bottom node '{bottom}' is not in the chain")

    def drv_child_perm(self, edge: Edge, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        taken = perm | Perm.CONSISTENT_READ
        if not self.read_only:
            taken |= Perm.WRITE_UNCHANGED
        return taken, shared

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        lower = self.lower
        if lower.read_only or flags & F.NO_SERIALISING:
            await lower.pread(offset, buf, flags & F.NO_SERIALISING)
            return
        at, length = 0, len(buf)
        while at < length:
            copy, run = True, length - at
            if self._bottom is not None:
                copy, run = await is_allocated_above(lower, self._bottom, True, offset + at, run)
            await lower.pread(offset + at, buf[at : at + run], F.COPY_ON_READ if copy else 0)
            at += run

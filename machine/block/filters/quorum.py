"""quorum: several children hold the same disk; writes go to all, reads are voted on or taken from the first."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Awaitable, Callable

from machine.block.errors import BlockError, OptionError
from machine.block.flags import Role
from machine.block.node import Buffer, Edge, Node
from machine.block.options import OptionReader


class QuorumNode(Node):
    """Options: ``children`` (list), ``vote-threshold``, ``read-pattern`` quorum or fifo, ``rewrite-corrupted``,
    ``blkverify`` (two children that must agree on every read)."""

    driver = "quorum"

    async def drv_open(self, options: OptionReader) -> None:
        refs = options.items("children")
        self.threshold = options.size("vote-threshold", 1)
        self.fifo = options.choice("read-pattern", ("quorum", "fifo"), "quorum") == "fifo"
        self._rewrite = options.flag("rewrite-corrupted")
        self._verify = options.flag("blkverify")
        if self._verify and (len(refs), self.threshold, self.fifo) != (2, 2, False):
            raise OptionError("quorum: blkverify needs two children and a vote-threshold of 2, and no fifo")
        if self._rewrite and (self.fifo or self._verify):
            raise OptionError("quorum: rewrite-corrupted needs votes: without blkverify and fifo")
        self.failures: list[tuple[str, int]] = []
        self._next = 0
        if not 1 <= self.threshold <= len(refs):
            raise OptionError(f"quorum: vote-threshold {self.threshold} does not fit {len(refs)} children")
        for ref in refs:
            self.add_child(await self.graph.open_ref(ref, read_only=self.read_only))

    def members(self) -> list[Node]:
        """The children in order."""
        return [edge.node for edge in self.children.values()]

    def add_child(self, node: Node) -> Edge:
        """Take in one more child of the same size."""
        if self.children and node.size_bytes != self.size_bytes:
            raise BlockError(
                errno.EINVAL, f"{self.name}: {node.name} has another size than the other children"
            )
        self.size_bytes = node.size_bytes
        edge = self.graph.link(self, f"children.{self._next}", node, Role.DATA)
        self._next += 1
        return edge

    def remove_child(self, node: Node) -> None:
        """Let go of a child; the threshold must stay reachable."""
        edge = next((e for e in self.children.values() if e.node is node), None)
        if edge is None:
            raise BlockError(errno.ENOENT, f"{self.name}: {node.name} is no child")
        if len(self.children) <= self.threshold:
            raise BlockError(
                errno.EPERM, f"{self.name}: {len(self.children)} children are needed for the threshold"
            )
        self.graph.cut(edge)

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        if self.fifo:
            error: BlockError | None = None
            for child in self.members():
                try:
                    await child.pread(offset, buf, flags)
                except BlockError as failed:
                    error = failed
                    self.failures.append((child.name, failed.errno))
                    continue
                return
            raise error or BlockError(errno.EIO, f"{self.name}: no child")
        await self._vote(offset, buf, flags)

    async def _vote(self, offset: int, buf: memoryview, flags: int) -> None:
        answers: list[tuple[Node, bytes]] = []
        for child in self.members():
            try:
                answers.append((child, bytes(await child.read(offset, len(buf), flags))))
            except BlockError as failed:
                self.failures.append((child.name, failed.errno))
        votes = Counter(data for _, data in answers)
        winner, count = votes.most_common(1)[0] if votes else (b"", 0)
        if self._verify and len(votes) == 2:
            at = next(i for i, pair in enumerate(zip(*votes, strict=True)) if pair[0] != pair[1])
            raise BlockError(errno.EIO, f"{self.name}: the children differ at {offset + at}")
        if count < self.threshold:
            raise BlockError(errno.EIO, f"{self.name}: {count} equal answers, expected {self.threshold}")
        for child, data in answers:
            if data != winner:
                self.failures.append((child.name, errno.EIO))
                if self._rewrite:
                    await child.pwrite(offset, winner)
        buf[:] = winner

    async def _all(self, call: Callable[[Node], Awaitable[None]]) -> None:
        good, errors = 0, list[BlockError]()
        for child in self.members():
            try:
                await call(child)
                good += 1
            except BlockError as error:
                errors.append(error)
                self.failures.append((child.name, error.errno))
        if good < self.threshold:
            raise errors[0] if errors else BlockError(errno.EIO, f"{self.name}: no child")

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        await self._all(lambda child: child.pwrite(offset, data, flags))

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        await self._all(lambda child: child.pwrite_zeroes(offset, length, flags))

    async def drv_discard(self, offset: int, length: int) -> None:
        await self._all(lambda child: child.pdiscard(offset, length))

    async def flush_children(self) -> None:
        await self._all(lambda child: child.flush())


class BlkverifyNode(QuorumNode):
    """Two copies of a disk that must agree on every read: ``test``, and ``raw`` to hold it against."""

    driver = "blkverify"

    async def drv_open(self, options: OptionReader) -> None:
        self.threshold, self.fifo, self._rewrite, self._verify = 2, False, False, True
        self.failures: list[tuple[str, int]] = []
        self._next = 0
        for name in ("test", "raw"):
            what = options.take(name)
            if what is None:
                raise OptionError(f"blkverify: option '{name}' is missing")
            self.add_child(await self.graph.open_ref(what, read_only=self.read_only))

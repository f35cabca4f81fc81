"""Changes of bitmaps and starts of jobs at one point in time, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Protocol

from machine.block.dirty import DirtyBitmap
from machine.block.errors import BlockError
from machine.block.jobs.job import Job, Transaction
from machine.block.node import Node

if TYPE_CHECKING:
    from machine.block.graph import Graph


class Action(Protocol):
    """One step: ``do`` raises BlockError and has then changed nothing, ``undo`` takes back what it did."""

    node: Node

    def do(self) -> None: ...

    def undo(self) -> None: ...


class _BitmapAction:
    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.name = name


class AddBitmap(_BitmapAction):
    """Make a bitmap. ``granularity`` in bytes; ``disabled``: it notes no writes yet."""

    def __init__(self, node: Node, name: str, *, granularity: int = 65536, disabled: bool = False) -> None:
        super().__init__(node, name)
        self._granularity = granularity
        self._disabled = disabled

    def do(self) -> None:
        bitmap = DirtyBitmap(self.name, self.node.size_bytes, self._granularity)
        bitmap.enabled = not self._disabled
        self.node.bitmaps.add(bitmap)

    def undo(self) -> None:
        self.node.bitmaps.remove(self.node.bitmaps.get(self.name))


class RemoveBitmap(_BitmapAction):
    """Forget a bitmap."""

    def do(self) -> None:
        self._gone = self.node.bitmaps.get(self.name)
        self.node.bitmaps.remove(self._gone)

    def undo(self) -> None:
        self.node.bitmaps.add(self._gone)


class ClearBitmap(_BitmapAction):
    """Make a bitmap clean."""

    def do(self) -> None:
        bitmap = self.node.bitmaps.get(self.name)
        bitmap.require_idle()
        self._before = bytes(bitmap.cells)
        bitmap.clear()

    def undo(self) -> None:
        self.node.bitmaps.get(self.name).cells[:] = self._before


class EnableBitmap(_BitmapAction):
    """Let a bitmap note writes, or with ``on`` False stop it."""

    def __init__(self, node: Node, name: str, *, on: bool = True) -> None:
        super().__init__(node, name)
        self._on = on

    def do(self) -> None:
        bitmap = self.node.bitmaps.get(self.name)
        bitmap.require_idle()
        self._before = bitmap.enabled
        bitmap.enabled = self._on

    def undo(self) -> None:
        self.node.bitmaps.get(self.name).enabled = self._before


class MergeBitmaps(_BitmapAction):
    """Add what other bitmaps, as (node, name), have to one."""

    def __init__(self, node: Node, name: str, sources: Sequence[tuple[Node, str]]) -> None:
        super().__init__(node, name)
        self._sources = sources

    def do(self) -> None:
        bitmap = self.node.bitmaps.get(self.name)
        bitmap.require_idle()
        before = bytes(bitmap.cells)
        try:
            for node, name in self._sources:
                other = node.bitmaps.get(name)
                other.require_idle(writable=False)
                bitmap.merge_from(other)
        except BlockError:
            bitmap.cells[:] = before
            raise
        self._before = before

    def undo(self) -> None:
        self.node.bitmaps.get(self.name).cells[:] = self._before


class StartJob:
    """Make and start a job on a node.

    Args:
        make: called with the jobs' common transaction, or None if each ends by itself; returns the job.
    """

    def __init__(
        self, node: Node, make: Callable[[Transaction | None], Job], group: Transaction | None = None
    ) -> None:
        self.node = node
        self._make = make
        self._group = group
        self.job: Job | None = None

    def do(self) -> None:
        self.job = self._make(self._group)

    def undo(self) -> None:
        if self.job is not None:
            self.job.withdraw()


async def run_transaction(graph: Graph, actions: Sequence[Action]) -> None:
    """Carry out actions while the nodes they concern are drained; jobs start when all has gone well.

    Raises:
        BlockError: an action failed; what the others did is undone.
    """
    done: list[Action] = []
    async with AsyncExitStack() as stack:
        for node in dict.fromkeys(action.node for action in actions):
            await stack.enter_async_context(graph.drained(node))
        try:
            for action in actions:
                action.do()
                done.append(action)
        except BlockError:
            for action in reversed(done):
                action.undo()
            raise
        for action in actions:
            if isinstance(action, StartJob) and action.job is not None:
                action.job.start()

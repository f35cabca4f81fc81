"""The COW-request interface: ranges of clusters that copies and readers of old contents hold against each other.

A range is (start, end) in cluster numbers, half open. Waiting reserves nothing; a caller registers right after
it with nothing suspendable in between, which ``cow_range`` does in one step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from machine.block.sched import CoQueue, Scheduler


class CowRange:
    """A registered range; its owner must end it."""

    __slots__ = ("active", "end", "queue", "shared", "start")

    def __init__(self, start: int, end: int, shared: bool, queue: CoQueue) -> None:
        self.start = start
        self.end = end
        self.shared = shared
        self.queue = queue
        self.active = True


class CowRanges:
    """The ranges in flight of one job.

    Args:
        cluster_size: bytes of a cluster.
    """

    def __init__(self, sched: Scheduler, cluster_size: int) -> None:
        self._sched = sched
        self.cluster_size = cluster_size
        self.in_flight: list[CowRange] = []  # most recent last

    def round(self, offset: int, length: int) -> tuple[int, int]:
        """Return the cluster numbers that a byte range touches."""
        return offset // self.cluster_size, -(-(offset + length) // self.cluster_size)

    async def wait(self, offset: int, length: int, shared: bool = False) -> None:
        """Suspend until no registered range overlaps; shared ones bear each other."""
        start, end = self.round(offset, length)
        if not length:
            return
        while True:
            for other in reversed(self.in_flight):
                if end > other.start and start < other.end and not (shared and other.shared):
                    await other.queue.wait()
                    break
            else:
                return

    def begin(self, offset: int, length: int, shared: bool = False) -> CowRange:
        """Register a range; no check, no suspension."""
        start, end = self.round(offset, length)
        held = CowRange(start, end, shared, CoQueue(self._sched, f"copied clusters {start} to {end}"))
        self.in_flight.append(held)
        return held

    def finish(self, held: CowRange) -> None:
        """Unregister and wake every waiter in FIFO order."""
        if not held.active:
            raise AssertionError("a range is ended twice")
        held.active = False
        self.in_flight.remove(held)
        held.queue.wake_all()

    @asynccontextmanager
    async def hold(self, offset: int, length: int, shared: bool = False) -> AsyncIterator[CowRange]:
        """Wait and register atomically; end on leaving."""
        await self.wait(offset, length, shared)
        held = self.begin(offset, length, shared)
        try:
            yield held
        finally:
            self.finish(held)

    async def drain(self) -> None:
        """Wait until nothing is registered."""
        while self.in_flight:
            await self.in_flight[-1].queue.wait()

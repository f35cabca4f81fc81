"""In-flight requests of a node, and the waiting of those that must not overlap (block.md 3.3).

A request conflicts with another if their overlap ranges intersect and at least one is serialising. A request
that itself waits is skipped by others: that is the rule against deadlock.
"""

from __future__ import annotations

from machine.block.sched import CoQueue, Scheduler, Task

READ, WRITE, DISCARD, TRUNCATE = "read", "write", "discard", "truncate"


class Tracked:
    """One request in flight: bytes [start, end), and the overlap range it defends once it is serialising."""

    __slots__ = (
        "end",
        "kind",
        "lap_end",
        "lap_start",
        "queue",
        "serialising",
        "start",
        "task",
        "waiting_for",
    )

    def __init__(self, start: int, end: int, kind: str, task: Task[object] | None) -> None:
        self.start = self.lap_start = start
        self.end = self.lap_end = end
        self.kind = kind
        self.task = task
        self.serialising = False
        self.queue: CoQueue | None = None
        self.waiting_for: Tracked | None = None


class RequestTracker:
    """The tracked requests of one node."""

    __slots__ = ("idle", "requests", "sched", "serialising")

    def __init__(self, sched: Scheduler) -> None:
        self.sched = sched
        self.requests: dict[Tracked, None] = {}
        self.serialising = 0
        self.idle = CoQueue(sched, "drain")

    def begin(self, start: int, end: int, kind: str) -> Tracked:
        """Register a request; the caller ends it with ``finish`` in a ``finally``."""
        request = Tracked(start, end, kind, self.sched.current)
        self.requests[request] = None
        return request

    def finish(self, request: Tracked) -> None:
        """Unregister and wake whoever waited for it."""
        del self.requests[request]
        if request.serialising:
            self.serialising -= 1
        if request.queue is not None:
            request.queue.wake_all()
        if not self.requests:
            self.idle.wake_all()

    def make_serialising(self, request: Tracked, align: int) -> None:
        """From now on nothing may overlap the request rounded out to ``align`` (a power of two) bytes."""
        if not request.serialising:
            request.serialising = True
            self.serialising += 1
        mask = align - 1
        request.lap_start = min(request.lap_start, request.start & ~mask)
        request.lap_end = max(request.lap_end, (request.end + mask) & ~mask)

    def _conflict(self, request: Tracked) -> Tracked | None:
        for other in self.requests:
            if other is request or not (other.serialising or request.serialising):
                continue
            if other.lap_start < request.lap_end and request.lap_start < other.lap_end:
                if other.task is not None and other.task is request.task:
                    raise AssertionError(f"a task waits for its own {other.kind} request at {other.start}")
                if other.waiting_for is None:
                    return other
        return None

    async def wait_serialising(self, request: Tracked) -> bool:
        """Wait until no conflicting request is in flight. True if it waited."""
        waited = False
        while self.serialising:
            other = self._conflict(request)
            if other is None:
                break
            request.waiting_for = other
            if other.queue is None:
                other.queue = CoQueue(self.sched, f"{other.kind} at {other.start}")
            try:
                await other.queue.wait()
            finally:
                request.waiting_for = None
            waited = True
        return waited

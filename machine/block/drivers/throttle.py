"""throttle: leaky buckets per {bps, iops} x {total, read, write}, shared by the members of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machine.block.drivers.raw import PassNode
from machine.block.errors import OptionError
from machine.block.node import Buffer
from machine.block.options import OptionReader
from machine.block.sched import CoEvent

if TYPE_CHECKING:
    from machine.block.graph import Graph

_NS = 1_000_000_000
_NAMES = ("bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write")


class Bucket:
    """One limit: ``avg`` units a second; ``max`` units a second for ``burst_length`` seconds. Integers
    only."""

    __slots__ = ("avg", "burst_length", "burst_level", "level", "max")

    def __init__(self, avg: int = 0, maximum: int = 0, burst_length: int = 1) -> None:
        self.avg = avg
        self.max = maximum
        self.burst_length = burst_length
        self.level = 0  # in units * 1e9, so that leaking by nanoseconds stays exact
        self.burst_level = 0

    def leak(self, elapsed_ns: int) -> None:
        """Let time pass."""
        self.level = max(0, self.level - self.avg * elapsed_ns)
        self.burst_level = max(0, self.burst_level - self.max * elapsed_ns)

    def wait_ns(self) -> int:
        """Return how long until a request may go."""
        if not self.avg:
            return 0
        size = self.max * self.burst_length * _NS if self.max else self.avg * _NS // 10
        excess = self.level - size
        if excess > 0:
            return -(-excess // self.avg)
        if self.burst_length > 1:
            excess = self.burst_level - self.max * _NS // 10
            if excess > 0:
                return -(-excess // self.max)
        return 0

    def account(self, units: int) -> None:
        """A request goes."""
        self.level += units * _NS
        if self.burst_length > 1:
            self.burst_level += units * _NS


class _Ticket:
    __slots__ = ("event", "member", "size")

    def __init__(self, member: ThrottleNode, size: int) -> None:
        self.member = member
        self.size = size
        self.event = CoEvent(member.sched, f"throttled by {member.name}")


class ThrottleGroup:
    """Buckets shared by nodes, served round robin."""

    def __init__(self, graph: Graph, limits: dict[str, int]) -> None:
        self._sched = graph.sched
        self._buckets: dict[str, Bucket] = {}
        self._iops_size = 0
        self._set(limits)
        self._last_ns = self._sched.clock.now_ns()
        self._waiting: dict[bool, list[_Ticket]] = {False: [], True: []}
        self._pumping = {False: False, True: False}
        self._generation = {False: 0, True: 0}
        self._token: dict[bool, ThrottleNode | None] = {False: None, True: None}
        self.members: list[ThrottleNode] = []

    def update(self, limits: dict[str, int]) -> None:
        """Set new limits; who waits now waits by them. Raises OptionError: nothing changes."""
        self._set(limits)
        for write in (False, True):
            if self._waiting[write]:  # the old pump may sleep for long by the old limits
                self._generation[write] += 1
                self._pumping[write] = True
                self._sched.spawn(self._pump(write), "throttle")

    def _set(self, limits: dict[str, int]) -> None:
        buckets: dict[str, Bucket] = {}
        for name in _NAMES:
            avg, burst = limits.get(name, 0), limits.get(f"{name}-max", 0)
            length = limits.get(f"{name}-max-length", 1)
            if (burst and (burst < avg or not avg)) or length < 1 or (length > 1 and not burst):
                raise OptionError(f"throttle: {name}-max needs {name} and can't be below it")
            buckets[name] = Bucket(avg, burst, length)
        for kind in ("bps", "iops"):
            if limits.get(f"{kind}-total", 0) and (
                limits.get(f"{kind}-read", 0) or limits.get(f"{kind}-write", 0)
            ):
                raise OptionError(f"throttle: {kind}-total excludes {kind}-read and {kind}-write")
        self._buckets, self._iops_size = buckets, limits.get("iops-size", 0)

    def _relevant(self, write: bool) -> list[tuple[Bucket, bool]]:
        word = "write" if write else "read"
        return [
            (self._buckets[f"{kind}-{which}"], kind == "iops")
            for kind in ("bps", "iops")
            for which in ("total", word)
        ]

    def _wait_ns(self, write: bool) -> int:
        now = self._sched.clock.now_ns()
        for bucket in self._buckets.values():
            bucket.leak(now - self._last_ns)
        self._last_ns = now
        return max(bucket.wait_ns() for bucket, _ in self._relevant(write))

    def _account(self, write: bool, size: int) -> None:
        operations = max(1, -(-size // self._iops_size)) if self._iops_size else 1
        for bucket, counts in self._relevant(write):
            bucket.account(operations if counts else size)

    async def admit(self, member: ThrottleNode, write: bool, size: int) -> None:
        """Wait until the request may go."""
        if not self._waiting[write] and not self._wait_ns(write):
            self._account(write, size)
            return
        ticket = _Ticket(member, size)
        self._waiting[write].append(ticket)
        if not self._pumping[write]:
            self._pumping[write] = True
            self._sched.spawn(self._pump(write), "throttle")
        try:
            await ticket.event.wait()
        finally:
            if ticket in self._waiting[write]:
                self._waiting[write].remove(ticket)

    async def _pump(self, write: bool) -> None:
        waiting, mine = self._waiting[write], self._generation[write]
        while waiting:
            pause = self._wait_ns(write)
            if pause:
                await self._sched.sleep(pause)
                if self._generation[write] != mine:
                    return
                continue
            ticket = self._next(write)
            waiting.remove(ticket)
            self._account(write, ticket.size)
            ticket.event.set()
        self._pumping[write] = False

    def _next(self, write: bool) -> _Ticket:
        """The oldest request of the member after the one served last."""
        token = self._token[write]
        start = self.members.index(token) + 1 if token in self.members else 0
        for step in range(len(self.members)):
            member = self.members[(start + step) % len(self.members)]
            found = next((t for t in self._waiting[write] if t.member is member), None)
            if found is not None:
                self._token[write] = member
                return found
        return self._waiting[write][0]


class ThrottleNode(PassNode):
    """A filter that delays requests in the scheduler's clock.

    Options: ``file``; ``throttle-group``, a name shared by nodes; ``limits``, for the whole group from now on:
    {bps-total, bps-read, …, iops-write} with ``-max`` and ``-max-length``, and ``iops-size``.
    """

    driver = "throttle"

    async def drv_open(self, options: OptionReader) -> None:
        await self.open_lower(options)
        name = options.text("throttle-group", self.name)
        raw = options.take("limits", {})
        if not isinstance(raw, dict):
            raise OptionError("throttle: limits must be a group of numbers")
        known = {n + s for n in _NAMES for s in ("", "-max", "-max-length")} | {"iops-size"}
        unknown = set(raw) - known
        if unknown:
            raise OptionError(f"throttle: unknown limit '{sorted(unknown)[0]}'")
        groups: dict[str, ThrottleGroup] = self.graph.__dict__.setdefault("throttle_groups", {})
        limits = {key: int(value) for key, value in raw.items()}
        if name not in groups:
            groups[name] = ThrottleGroup(self.graph, limits)
        elif limits:
            groups[name].update(limits)
        self.group = groups[name]
        self.group.members.append(self)

    async def drv_close(self) -> None:
        self.group.members.remove(self)

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        await self.group.admit(self, False, len(buf))
        await super().drv_read(offset, buf, flags)

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        await self.group.admit(self, True, len(data))
        await super().drv_write(offset, data, flags)

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        await self.group.admit(self, True, length)
        await super().drv_zeroes(offset, length, flags)

    async def drv_discard(self, offset: int, length: int) -> None:
        await self.group.admit(self, True, length)
        await super().drv_discard(offset, length)

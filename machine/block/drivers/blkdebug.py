"""blkdebug: inject errors and park requests at named points of the drivers above."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from machine.block.drivers.raw import PassNode
from machine.block.errors import BlockError, OptionError
from machine.block.flags import Status
from machine.block.node import Buffer
from machine.block.options import OptionReader, parse_bool, parse_size
from machine.block.sched import CoQueue

_IOTYPES = ("read", "write", "write-zeroes", "discard", "flush", "block-status")


@dataclass(slots=True, eq=False)
class InjectRule:
    """An error to raise once ``event`` fired in state ``state`` (0: any); filters by sector and type."""

    event: str
    state: int = 0
    errno: int = errno.EIO
    sector: int = -1
    iotypes: frozenset[str] = frozenset(_IOTYPES)
    once: bool = False


@dataclass(slots=True, eq=False)
class StateRule:
    """At ``event`` in ``state`` go to ``new_state``."""

    event: str
    state: int
    new_state: int


@dataclass(slots=True, eq=False)
class _Break:
    event: str
    tag: str


class BlkdebugNode(PassNode):
    """A filter for tests.

    Options: ``image``; ``inject-error`` list of {event, state, errno, sector, iotype, once}; ``set-state``
    list of {event, state, new_state}; ``align``, ``max-transfer``, ``opt-write-zero``, ``max-write-zero``,
    ``opt-discard``, ``max-discard``.
    """

    driver = "blkdebug"
    link = "image"
    supports_fua = False

    async def drv_open(self, options: OptionReader) -> None:
        self.state = 1
        self.inject = [self._inject_rule(item) for item in options.items("inject-error")]
        self.transitions = [
            StateRule(str(i["event"]), int(i.get("state", 0)), int(i["new_state"]))
            for i in options.items("set-state")
        ]
        self.armed = [rule for rule in self.inject if rule.event == "none"]
        self._breaks: list[_Break] = []
        self._suspended: dict[str, list[CoQueue]] = {}
        self._arrived = CoQueue(self.sched, f"{self.name} break")
        await self.open_lower(options)
        self.limits.alignment = max(self.limits.alignment, options.size("align", 1))
        self.limits.max_transfer = options.size("max-transfer", 0)
        self.limits.zeroes_alignment = options.size("opt-write-zero", 1)
        self.limits.max_zeroes = options.size("max-write-zero", 0)
        self.limits.discard_alignment = options.size("opt-discard", 1)
        self.limits.max_discard = options.size("max-discard", 0)
        if self.limits.alignment & (self.limits.alignment - 1):
            raise OptionError("blkdebug: align must be a power of two")

    @staticmethod
    def _inject_rule(item: Any) -> InjectRule:
        if not isinstance(item, dict) or "event" not in item:
            raise OptionError("blkdebug: an inject-error rule needs an event")
        iotype = item.get("iotype")
        return InjectRule(
            event=str(item["event"]),
            state=parse_size(item.get("state", 0)),
            errno=parse_size(item.get("errno", errno.EIO)),
            sector=int(item.get("sector", -1)),
            iotypes=frozenset(_IOTYPES if iotype is None else [str(iotype)]),
            once=parse_bool(item.get("once", False), "once"),
        )

    # Events.

    async def fire(self, event: str) -> None:
        """A driver above reached ``event``: change state, arm rules, park at break points."""
        matching = [r for r in self.inject if r.event == event and r.state in (0, self.state)]
        if matching:
            self.armed = [r for r in self.armed if r.event == "none"] + matching
        state = self.state
        for rule in self.transitions:
            if rule.event == event and rule.state in (0, state):
                self.state = rule.new_state
        for point in tuple(self._breaks):
            if point.event == event:
                self._breaks.remove(point)
                queue = CoQueue(self.sched, f"break {point.tag} at {event}")
                self._suspended.setdefault(point.tag, []).append(queue)
                self._arrived.wake_all()
                await queue.wait()

    async def debug_event(self, event: str) -> None:
        await self.fire(event)

    def set_break(self, event: str, tag: str) -> None:
        """Park the next request that reaches ``event``."""
        self._breaks.append(_Break(event, tag))

    def is_suspended(self, tag: str) -> bool:
        """Whether a request is parked under ``tag``."""
        return bool(self._suspended.get(tag))

    async def wait_break(self, tag: str) -> None:
        """Wait until a request is parked under ``tag``."""
        while not self.is_suspended(tag):
            await self._arrived.wait()

    def resume(self, tag: str) -> None:
        """Let the oldest request parked under ``tag`` go on. Raises BlockError ENOENT if there is none."""
        waiting = self._suspended.get(tag)
        if not waiting:
            raise BlockError(errno.ENOENT, f"no request is suspended under '{tag}'")
        waiting.pop(0).wake_all()

    def remove_break(self, tag: str) -> None:
        """Remove break points of ``tag`` and let its requests go on."""
        self._breaks = [b for b in self._breaks if b.tag != tag]
        for queue in self._suspended.pop(tag, []):
            queue.wake_all()

    # Requests.

    def _apply(self, kind: str, offset: int, length: int) -> None:
        for rule in self.armed:
            sector = rule.sector * 512
            inside = rule.sector < 0 or offset <= sector < offset + length
            if kind in rule.iotypes and inside and rule.errno:
                if rule.once:
                    self.armed.remove(rule)
                    if rule in self.inject:
                        self.inject.remove(rule)
                raise BlockError(rule.errno, f"{self.name}: injected error on {kind} at {offset}")

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        self._apply("read", offset, len(buf))
        await super().drv_read(offset, buf, flags)

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        self._apply("write", offset, len(data))
        await super().drv_write(offset, data, flags)

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        self._apply("write-zeroes", offset, length)
        await super().drv_zeroes(offset, length, flags)

    async def drv_discard(self, offset: int, length: int) -> None:
        self._apply("discard", offset, length)
        await super().drv_discard(offset, length)

    async def drv_flush_disk(self) -> None:
        self._apply("flush", 0, 0) if not any(r.sector >= 0 for r in self.armed) else None

    async def drv_status(self, offset: int, length: int) -> Status:
        self._apply("block-status", offset, length)
        return await super().drv_status(offset, length)

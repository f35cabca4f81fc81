"""Several copies of one job in flight at once."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from machine.block.errors import BlockError
from machine.block.sched import CoQueue, Scheduler


class Workers:
    """Tasks of a job, a bounded number at a time.

    Args:
        limit: how many run at once.
    """

    def __init__(self, sched: Scheduler, limit: int, name: str) -> None:
        self._sched = sched
        self._limit = limit
        self._name = name
        self._count = 0
        self._ended = CoQueue(sched, f"workers of {name}")
        self._error: BlockError | None = None

    def __len__(self) -> int:
        return self._count

    async def submit(self, work: Coroutine[Any, Any, None]) -> None:
        """Start the work as soon as a place is free. Raises BlockError: some work failed; this one is not started."""
        while self._count >= self._limit and self._error is None:
            await self._ended.wait()
        if self._error is not None:
            work.close()
            self._raise()
        self._count += 1
        self._sched.spawn(self._run(work), self._name)

    async def wait_one(self) -> None:
        """Wait until some work ends. Raises BlockError: it failed."""
        if self._count:
            await self._ended.wait()
        self._raise()

    async def settle(self) -> None:
        """Wait until all work has ended. Raises BlockError: some of it failed."""
        while self._count:
            await self._ended.wait()
        self._raise()

    def fail(self, error: BlockError) -> None:
        """Let the next call that waits raise this error."""
        self._error = self._error or error
        self._ended.wake_all()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except BlockError as error:
            self.fail(error)
        finally:
            self._count -= 1
            self._ended.wake_all()

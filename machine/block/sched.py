"""A small deterministic scheduler for the block layer's coroutines.

Code between two suspension points is atomic. Ready tasks run in FIFO order, or in an order that a test
chooses. Nothing here asks the host anything: clocks and descriptors come in through protocols.
"""

from __future__ import annotations

import heapq
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, Generic, Protocol, TypeVar

from machine.block.errors import DeadlockError

T = TypeVar("T")
Coro = Coroutine[Any, Any, T]


class TaskCancelled(BaseException):
    """Thrown into a task by ``Task.cancel``; not an Exception, so that error policies let it pass."""


@types.coroutine
def _suspend() -> Generator[None, None, None]:
    yield


class Order(Protocol):
    """Which of ``n`` ready tasks runs next: an index below n."""

    def pick(self, n: int) -> int: ...


class SeededOrder:
    """A pseudo-random order, the same for the same seed (splitmix64)."""

    def __init__(self, seed: int) -> None:
        self._state = seed & 0xFFFF_FFFF_FFFF_FFFF

    def pick(self, n: int) -> int:
        self._state = (self._state + 0x9E37_79B9_7F4A_7C15) & 0xFFFF_FFFF_FFFF_FFFF
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58_476D_1CE4_E5B9) & 0xFFFF_FFFF_FFFF_FFFF
        z = ((z ^ (z >> 27)) * 0x94D0_49BB_1331_11EB) & 0xFFFF_FFFF_FFFF_FFFF
        return (z ^ (z >> 31)) % n


class ScriptedOrder:
    """Follow a list of choices, then always take the first; ``widths`` records how many there were."""

    def __init__(self, choices: list[int]) -> None:
        self.choices = choices
        self.widths: list[int] = []

    def pick(self, n: int) -> int:
        position = len(self.widths)
        self.widths.append(n)
        return self.choices[position] if position < len(self.choices) else 0


def explore(limit: int | None = None) -> Iterator[ScriptedOrder]:
    """Yield orders that visit every interleaving of what the caller runs with each, depth first.

    Args:
        limit: end after that many runs; None means all.
    """
    choices: list[int] = []
    runs = 0
    while limit is None or runs < limit:
        order = ScriptedOrder(choices)
        yield order
        runs += 1
        taken = choices + [0] * (len(order.widths) - len(choices))
        while taken and taken[-1] + 1 >= order.widths[len(taken) - 1]:
            taken.pop()
        if not taken:
            return
        taken[-1] += 1
        choices = taken


class Clock(Protocol):
    """A source of time in ns. ``virtual`` ones jump when nothing else can run; host ones are waited for."""

    virtual: bool

    def now_ns(self) -> int: ...
    def advance_to(self, ns: int) -> None: ...


class VirtualClock:
    """Time that moves only when told, or when every task waits for it."""

    virtual = True

    def __init__(self, start_ns: int = 0) -> None:
        self._now = start_ns

    def now_ns(self) -> int:
        return self._now

    def advance_to(self, ns: int) -> None:
        self._now = max(self._now, ns)


class Poller(Protocol):
    """Descriptors of the host that tasks wait for."""

    def waiting(self) -> bool: ...
    def poll(self, timeout_ns: int | None) -> None: ...


class Task(Generic[T]):
    """A coroutine being driven. ``result()`` after ``done``."""

    __slots__ = (
        "_cancel",
        "_error",
        "_joiners",
        "_result",
        "coro",
        "done",
        "name",
        "parked",
        "sched",
        "where",
    )

    def __init__(self, sched: Scheduler, coro: Coro[T], name: str) -> None:
        self.sched = sched
        self.coro = coro
        self.name = name
        self.done = False
        self.parked = False
        self.where = ""
        self._cancel = False
        self._error: BaseException | None = None
        self._result: T | None = None
        self._joiners: CoQueue | None = None

    def result(self) -> T:
        """Return what the coroutine returned, or raise what it raised."""
        if not self.done:
            raise RuntimeError(f"task {self.name} is not done")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    @property
    def error(self) -> BaseException | None:
        """What the coroutine raised, or None."""
        return self._error

    async def join(self) -> T:
        """Wait for the end and return ``result()``."""
        while not self.done:
            if self._joiners is None:
                self._joiners = CoQueue(self.sched, f"join {self.name}")
            await self._joiners.wait()
        return self.result()

    def cancel(self) -> None:
        """Throw TaskCancelled into the task at its current suspension point; nothing if it is done."""
        if self.done:
            return
        self._cancel = True
        if self.parked:
            self.sched.ready(self)

    def _finish(self) -> None:
        self.done = True
        if self._joiners is not None:
            self._joiners.wake_all()


class Scheduler:
    """Runs tasks. One per graph; not for several threads.

    Args:
        order: which ready task goes next; None is FIFO.
        clock: virtual time for modelled latency and guest-visible throttling.
    """

    def __init__(self, order: Order | None = None, clock: Clock | None = None) -> None:
        self.order = order
        self.clock: Clock = clock if clock is not None else VirtualClock()
        self.current: Task[Any] | None = None
        self.poller: Poller | None = None
        self._ready: deque[Task[Any]] = deque()
        self._timers: list[tuple[int, int, Task[Any], Clock]] = []
        self._sequence = 0
        self._parked: dict[Task[Any], None] = {}

    def spawn(self, coro: Coro[T], name: str = "task") -> Task[T]:
        """Make a task that is ready to run; it does not start before the caller suspends."""
        task = Task(self, coro, name)
        self._ready.append(task)
        return task

    def ready(self, task: Task[Any]) -> None:
        """Make a parked task runnable; nothing if it already is."""
        if task.parked:
            task.parked = False
            del self._parked[task]
            self._ready.append(task)

    async def park(self, where: str) -> None:
        """Suspend the current task until somebody calls ``ready`` on it."""
        task = self.current
        if task is None:
            raise RuntimeError(f"suspension outside a task ({where})")
        task.parked = True
        task.where = where
        self._parked[task] = None
        await _suspend()

    async def yield_now(self) -> None:
        """Let the other ready tasks run first."""
        task = self.current
        if task is None:
            raise RuntimeError("yield outside a task")
        self._ready.append(task)
        await _suspend()

    async def sleep(self, ns: int, clock: Clock | None = None) -> None:
        """Suspend for ``ns`` nanoseconds of ``clock`` (default: the scheduler's)."""
        clock = clock if clock is not None else self.clock
        task = self.current
        if task is None:
            raise RuntimeError("sleep outside a task")
        self._sequence += 1
        due = clock.now_ns() + max(0, ns)
        entry = (due, self._sequence, task, clock)
        heapq.heappush(self._timers, entry)
        try:
            while clock.now_ns() < due:
                await self.park("sleep")
        finally:
            if entry in self._timers:
                self._timers.remove(entry)
                heapq.heapify(self._timers)

    def run(self, coro: Coro[T], name: str = "main") -> T:
        """Drive a coroutine, and every other task as far as needed, to its end.

        Raises:
            DeadlockError: it suspended and nothing else can make progress.
        """
        if self.current is not None:
            coro.close()
            raise RuntimeError("run() inside a task: await instead")
        task = Task(self, coro, name)
        self._step(task)
        while not task.done:
            if not self.step():
                raise DeadlockError(self.describe_parked(task))
        return task.result()

    def run_task(self, task: Task[T]) -> T:
        """Run until this task is done and return its result."""
        while not task.done:
            if not self.step():
                raise DeadlockError(self.describe_parked(task))
        return task.result()

    def settle(self, limit: int = 1_000_000) -> None:
        """Run ready tasks until none is; timers and descriptors are not waited for."""
        while self._ready:
            limit -= 1
            if limit < 0:
                raise DeadlockError("tasks keep each other busy without end")
            self._run_one()

    def step(self) -> bool:
        """Run one task, or wait for a timer or descriptor. False if there is nothing to do ever."""
        if self._ready:
            self._run_one()
            if self.poller is not None and self._sequence_due():
                self.poller.poll(0)
            return True
        return self._idle()

    def _sequence_due(self) -> bool:
        self._sequence += 1
        return self._sequence % 64 == 0

    def _run_one(self) -> None:
        if self.order is None or len(self._ready) == 1:
            task = self._ready.popleft()
        else:
            index = self.order.pick(len(self._ready))
            task = self._ready[index]
            del self._ready[index]
        self._step(task)

    def _idle(self) -> bool:
        polling = self.poller is not None and self.poller.waiting()
        host = [t for t in self._timers if not t[3].virtual]
        virtual = [t for t in self._timers if t[3].virtual]
        if virtual:
            if polling and self.poller is not None:
                self.poller.poll(0)
                if self._ready:
                    return True
            virtual[0][3].advance_to(min(t[0] for t in virtual))
            return self._fire()
        if self.poller is None or not (polling or host):
            return False
        timeout = max(0, min(t[0] - t[3].now_ns() for t in host)) if host else None
        self.poller.poll(timeout)
        self._fire()
        return True

    def _fire(self) -> bool:
        fired = False
        for due, _, task, clock in sorted(self._timers, key=lambda t: t[:2]):
            if clock.now_ns() >= due and task.parked:
                self.ready(task)
                fired = True
        return fired

    def fire_timers(self) -> None:
        """Make sleepers runnable whose time has come; for whoever advances a clock by hand."""
        self._fire()

    def _step(self, task: Task[Any]) -> None:
        self.current = task
        try:
            if task._cancel:
                task._cancel = False
                task.coro.throw(TaskCancelled())
            else:
                task.coro.send(None)
        except StopIteration as stop:
            task._result = stop.value
            task._finish()
        except (Exception, TaskCancelled) as error:  # noqa: BLE001 - kept for whoever joins the task
            task._error = error
            task._finish()
        finally:
            self.current = None

    def describe_parked(self, wanted: Task[Any]) -> str:
        """Return one line that tells who waits for what."""
        waiting = "; ".join(f"{t.name}: {t.where}" for t in self._parked)
        return f"task {wanted.name} can't finish; waiting: {waiting or 'nothing'}"


class CoQueue:
    """A FIFO queue of waiting tasks. Woken tasks must check their condition again."""

    __slots__ = ("_waiters", "name", "sched")

    def __init__(self, sched: Scheduler, name: str = "queue") -> None:
        self.sched = sched
        self.name = name
        self._waiters: deque[Task[Any]] = deque()

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self) -> None:
        """Suspend until woken."""
        task = self.sched.current
        if task is None:
            raise RuntimeError(f"wait outside a task ({self.name})")
        self._waiters.append(task)
        try:
            await self.sched.park(self.name)
        finally:
            if task in self._waiters:
                self._waiters.remove(task)

    def wake_one(self) -> bool:
        """Wake the task that waits longest; False if none waits."""
        if not self._waiters:
            return False
        self.sched.ready(self._waiters.popleft())
        return True

    def wake_all(self) -> None:
        """Wake every waiting task, in the order they came."""
        while self.wake_one():
            pass


async def wait_until(queue: CoQueue, condition: Callable[[], bool]) -> None:
    """Wait on ``queue`` until ``condition`` holds."""
    while not condition():
        await queue.wait()


class CoMutex:
    """Mutual exclusion over suspension points; ``async with``."""

    __slots__ = ("_queue", "locked")

    def __init__(self, sched: Scheduler, name: str = "mutex") -> None:
        self.locked = False
        self._queue = CoQueue(sched, name)

    async def acquire(self) -> None:
        while self.locked:
            try:
                await self._queue.wait()
            except BaseException:
                self._queue.wake_one()  # a wake-up that this task can't use goes to the next one
                raise
        self.locked = True

    def release(self) -> None:
        if not self.locked:
            raise RuntimeError("release of a mutex that is not held")
        self.locked = False
        self._queue.wake_one()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *exc: object) -> None:
        self.release()


class CoRwLock:
    """Many readers or one writer; a waiting writer holds back new readers."""

    __slots__ = ("_queue", "_writers_waiting", "readers", "writer")

    def __init__(self, sched: Scheduler, name: str = "rwlock") -> None:
        self.readers = 0
        self.writer = False
        self._writers_waiting = 0
        self._queue = CoQueue(sched, name)

    async def acquire_read(self) -> None:
        while self.writer or self._writers_waiting:
            await self._queue.wait()
        self.readers += 1

    def release_read(self) -> None:
        self.readers -= 1
        if self.readers == 0:
            self._queue.wake_all()

    async def acquire_write(self) -> None:
        self._writers_waiting += 1
        try:
            while self.writer or self.readers:
                await self._queue.wait()
        except BaseException:
            self._queue.wake_all()
            raise
        finally:
            self._writers_waiting -= 1
        self.writer = True

    def release_write(self) -> None:
        self.writer = False
        self._queue.wake_all()


class CoEvent:
    """A flag that tasks wait for."""

    __slots__ = ("_queue", "is_set")

    def __init__(self, sched: Scheduler, name: str = "event") -> None:
        self.is_set = False
        self._queue = CoQueue(sched, name)

    def set(self) -> None:
        self.is_set = True
        self._queue.wake_all()

    async def wait(self) -> None:
        while not self.is_set:
            await self._queue.wait()

"""The deterministic scheduler: orders, queues, locks, clocks, the deadlock detector."""

from __future__ import annotations

import pytest

from machine.block.errors import DeadlockError
from machine.block.sched import (
    CoEvent,
    CoMutex,
    CoQueue,
    CoRwLock,
    Scheduler,
    SeededOrder,
    TaskCancelled,
    explore,
)


def test_run_reports_deadlock_with_what_is_waited_for() -> None:
    sched = Scheduler()

    async def stuck() -> None:
        await CoQueue(sched, "never woken").wait()

    with pytest.raises(DeadlockError, match="never woken"):
        sched.run(stuck())


def test_wake_all_runs_waiters_in_the_order_they_came() -> None:
    sched = Scheduler()
    queue, seen = CoQueue(sched), list[int]()

    async def waiter(number: int) -> None:
        await queue.wait()
        seen.append(number)

    async def main() -> None:
        tasks = [sched.spawn(waiter(n)) for n in range(4)]
        await sched.yield_now()
        queue.wake_all()
        for task in tasks:
            await task.join()

    sched.run(main())
    assert seen == [0, 1, 2, 3]


def test_mutex_excludes_over_suspension_points_in_every_interleaving() -> None:
    runs = 0
    for order in explore():
        sched = Scheduler(order)
        mutex, inside, worst = CoMutex(sched), 0, 0

        async def worker(sched: Scheduler = sched, mutex: CoMutex = mutex) -> None:
            nonlocal inside, worst
            async with mutex:
                inside += 1
                worst = max(worst, inside)
                await sched.yield_now()
                inside -= 1

        async def main(sched: Scheduler = sched) -> None:
            for task in [sched.spawn(worker()) for _ in range(3)]:
                await task.join()

        sched.run(main())
        runs += 1
        assert worst == 1
    assert runs > 6


def test_explore_visits_every_order_of_three_tasks() -> None:
    seen = set()
    for order in explore():
        sched = Scheduler(order)
        out: list[str] = []

        async def say(word: str, out: list[str] = out) -> None:
            out.append(word)

        for word in "abc":
            sched.spawn(say(word))
        sched.settle()
        seen.add("".join(out))
    assert len(seen) == 6


def test_seeded_order_repeats() -> None:
    first, second = SeededOrder(7), SeededOrder(7)
    assert [first.pick(10) for _ in range(50)] == [second.pick(10) for _ in range(50)]
    assert len({SeededOrder(s).pick(1000) for s in range(20)}) > 15


def test_rwlock_lets_readers_share_and_the_waiting_writer_go_next() -> None:
    sched = Scheduler()
    lock, trail = CoRwLock(sched), list[str]()

    async def reader(name: str) -> None:
        await lock.acquire_read()
        trail.append(f"+{name}")
        await sched.yield_now()
        lock.release_read()

    async def writer() -> None:
        await lock.acquire_write()
        trail.append("w")
        lock.release_write()

    async def main() -> None:
        for task in [sched.spawn(c) for c in (reader("a"), reader("b"), writer(), reader("c"))]:
            await task.join()

    sched.run(main())
    assert trail == ["+a", "+b", "w", "+c"]


def test_virtual_clock_jumps_to_the_next_sleeper_without_waiting() -> None:
    sched = Scheduler()
    order: list[tuple[str, int]] = []

    async def sleeper(name: str, ns: int) -> None:
        await sched.sleep(ns)
        order.append((name, sched.clock.now_ns()))

    async def main() -> None:
        for task in [sched.spawn(sleeper("late", 5_000_000_000)), sched.spawn(sleeper("soon", 10))]:
            await task.join()

    sched.run(main())
    assert order == [("soon", 10), ("late", 5_000_000_000)]


def test_cancel_throws_at_the_suspension_point_and_hands_the_mutex_on() -> None:
    sched = Scheduler()
    mutex, got = CoMutex(sched), list[str]()

    async def want(name: str) -> None:
        async with mutex:
            got.append(name)

    async def main() -> None:
        await mutex.acquire()
        first, second = sched.spawn(want("first")), sched.spawn(want("second"))
        await sched.yield_now()
        mutex.release()
        first.cancel()
        await second.join()
        assert isinstance(first.error, TaskCancelled)

    sched.run(main())
    assert got == ["second"]


def test_run_inside_a_task_is_refused() -> None:
    sched = Scheduler()

    async def nothing() -> None:
        return

    async def main() -> None:
        sched.run(nothing())

    with pytest.raises(RuntimeError, match="await instead"):
        sched.run(main())


def test_event_stays_set() -> None:
    sched = Scheduler()
    event = CoEvent(sched)

    async def main() -> int:
        event.set()
        await event.wait()
        return 3

    assert sched.run(main()) == 3

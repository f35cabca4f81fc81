"""Long and exhaustive schedules of the secondary side against the model of block.md 9.6: catalogue R13, T36."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from machine.block.replication import ReplicationState
from machine.block.sched import SeededOrder, explore

from .replication_util import K, Secondary

CLUSTER = 64 * K
SLOT = 512


def run_long(seed: int, *, guard: bool = True) -> None:
    """Guest tasks own slots of shared clusters; the primary writes anywhere; checkpoints come in between."""
    size = 3 * CLUSTER + 5 * SLOT
    side = Secondary(SeededOrder(seed), size=size, yields=1)
    side.start()
    if not guard:
        assert side.top._guard is not None
        side.top._guard.job = None
    live, view = bytearray(b"\x11" * size), bytearray(b"\x11" * size)

    async def guest(number: int, rnd: random.Random) -> None:
        for step in range(8):
            slot = (rnd.randrange(size // SLOT // 3) * 3 + number) * SLOT
            if rnd.random() < 0.5:
                data = bytes([1 + (step * 31 + number * 7 + seed) % 255]) * SLOT
                await side.guest.write(slot, data)
                view[slot : slot + SLOT] = data
            else:
                assert await side.guest.read(slot, SLOT) == view[slot : slot + SLOT]

    async def primary(number: int, rnd: random.Random) -> None:
        assert side.nbd is not None
        for step in range(5):
            at = (rnd.randrange(size // SLOT // 2) * 2 + number) * SLOT
            data = bytes([0x80 | (step * 13 + number) % 127]) * min(SLOT, size - at)
            await side.nbd.write(at, data)
            live[at : at + len(data)] = data

    async def main() -> None:
        rnd = random.Random(seed)
        for phase in range(3):
            tasks = [side.graph.sched.spawn(guest(n, random.Random(rnd.random()))) for n in range(3)]
            tasks += [side.graph.sched.spawn(primary(n, random.Random(rnd.random()))) for n in range(2)]
            for task in tasks:
                await task.join()
            assert await side.guest.read(0, size) == view
            assert await side.secondary.read(0, size) == live
            if phase < 2:
                await side.top.do_checkpoint()
                view[:] = live
        await side.top.stop(True)
        await side.top.wait_failover()

    side.run(main())
    assert side.top.state is ReplicationState.DONE
    assert side.nbd_read() == view


@pytest.mark.parametrize("seed", range(20))
def test_r13_long_random_schedules_follow_the_model(seed: int) -> None:
    run_long(seed)


def test_long_schedules_fail_without_the_guard() -> None:
    failures = 0
    for seed in range(40):
        try:
            run_long(seed, guard=False)
        except AssertionError:
            failures += 1
    assert failures


def two_clusters(order: Any, operations: tuple[str, ...]) -> None:
    """Run operations on two clusters at the same time; a read sees whole epochs only, and so does the end."""
    size = 2 * CLUSTER
    side = Secondary(order, size=size)
    side.start()
    side.graph.node("sfile").yields = 1  # type: ignore[attr-defined]
    old, new = b"\x11" * size, b"\x22" * size

    async def main() -> tuple[bytes | None, bytes]:
        primary = side.nbd
        assert primary is not None
        calls: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "read": lambda: side.guest.read(0, size),
            "nbd": lambda: primary.write(0, new),
            "write": lambda: side.guest.write(CLUSTER - SLOT, b"\x33" * 2 * SLOT),
            "checkpoint": side.top.do_checkpoint,
        }
        tasks = {name: side.graph.sched.spawn(calls[name]()) for name in operations}
        for task in tasks.values():
            await task.join()
        seen = tasks["read"].result() if "read" in tasks else None
        return (None if seen is None else bytes(seen)), bytes(await side.guest.read(0, size))

    seen, after = side.run(main())

    def with_guest(data: bytes) -> bytes:
        return data[: CLUSTER - SLOT] + b"\x33" * 2 * SLOT + data[CLUSTER + SLOT :]

    bases = {old, new} if "checkpoint" in operations else {old}
    allowed = bases | {with_guest(b) for b in bases} if "write" in operations else bases
    assert seen is None or seen in allowed
    assert after in allowed
    assert side.nbd_read() == new


SETS = [
    ("nbd", "read"),
    ("nbd", "write"),
    ("nbd", "checkpoint"),
    ("nbd", "read", "checkpoint"),
    ("nbd", "read", "write"),
]


@pytest.mark.parametrize("operations", SETS, ids=str)
def test_r13_every_short_schedule_of_two_clusters_up_to_a_bound(operations: tuple[str, ...]) -> None:
    for order in explore(limit=150):
        two_clusters(order, operations)


@pytest.mark.slow
@pytest.mark.parametrize("operations", [*SETS, ("nbd", "read", "write", "checkpoint")], ids=str)
def test_r13_thousands_of_short_schedules_of_two_clusters(operations: tuple[str, ...]) -> None:
    for order in explore(limit=5000):
        two_clusters(order, operations)

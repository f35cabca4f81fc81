"""Where stretches are replayed: in this process, or in several. Either way the harvest comes in the run's order."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

from workbench.errors import WorkbenchError

from .harvest import Harvest, Harvester, Job, Take, deliver, harvest_here

#: A process of its own pays from this many steps on: starting one costs about as much as replaying so many.
STEPS_PER_PROCESS: Final = 1_500_000_000
MAX_PROCESSES: Final = 16


class Executor(Protocol):
    """Replays stretches and gives their harvest back in order, whatever the order in which it was brought in.

    ``take`` is given the records of each harvest before the harvest itself, which has none of them then.
    """

    def run(self, job: Job, stretches: Sequence[tuple[int, int]], take: Take) -> Iterator[Harvest]: ...


class Local:
    """Replays in this process."""

    def __init__(self, types: Any = None) -> None:
        self._types = types

    def run(self, job: Job, stretches: Sequence[tuple[int, int]], take: Take) -> Iterator[Harvest]:
        return harvest_here(job, stretches, self._types, take)


class Processes:
    """Replays in processes that take turns in the stretches; each opens the trace for itself, read-only.

    Args:
        count: how many, 1 to 16.
    """

    def __init__(self, count: int) -> None:
        self._count = max(1, min(count, MAX_PROCESSES))

    def run(self, job: Job, stretches: Sequence[tuple[int, int]], take: Take) -> Iterator[Harvest]:
        spawn = multiprocessing.get_context("spawn")
        count = min(self._count, max(1, len(stretches)))
        ends: list[Connection] = []
        workers = []
        try:
            for i in range(count):
                ours, theirs = spawn.Pipe(duplex=False)
                worker = spawn.Process(
                    target=_work, args=(theirs, job, list(stretches[i::count])), daemon=True
                )
                worker.start()
                theirs.close()
                ends.append(ours)
                workers.append(worker)
            for i in range(len(stretches)):
                yield from deliver(_receive(ends[i % count]), take)
        finally:
            for end in ends:
                end.close()
            for worker in workers:
                worker.terminate()
                worker.join()


def _receive(end: Connection) -> Iterator[Harvest]:
    """Yield what makes up one stretch. A pipe holds little, so a worker is never far ahead."""
    while True:
        try:
            item = end.recv()
        except EOFError:
            raise WorkbenchError(
                "a process that replays has ended by itself; is there enough memory?"
            ) from None
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        yield item


def _work(end: Connection, job: Job, stretches: list[tuple[int, int]]) -> None:
    try:
        with Harvester(job) as harvester:
            for low, high in stretches:
                for harvest in harvester.harvest(low, high):
                    end.send(harvest)
                end.send(None)
    except (BrokenPipeError, KeyboardInterrupt):
        return
    except Exception as error:  # noqa: BLE001 - handed to the process that waits, which raises it
        end.send(
            WorkbenchError(f"{type(error).__name__}: {error}")
            if not isinstance(error, WorkbenchError)
            else error
        )
    finally:
        with closing(end):
            pass


def choose(steps: int, jobs: int | None, types: Any = None) -> Executor:
    """Return where to replay so many steps: as many processes as asked for, or as pay here."""
    count = jobs if jobs is not None else min(os.cpu_count() or 1, steps // STEPS_PER_PROCESS)
    return Processes(count) if count > 1 else Local(types)

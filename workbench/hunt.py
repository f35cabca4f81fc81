"""Hunting: record a machine in chaos mode with one seed after the other, and keep the runs that fail."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from machine.config import Images, MachineConfig
from traces.newfile import remove_trace
from workbench.errors import InputError
from workbench.minimise import Choice, Placed, StrikePlan, choices_of, minimise, placed, strikes_of

if TYPE_CHECKING:
    from workbench.replay.recorder import RecordResult

T = TypeVar("T")
R = TypeVar("R")
#: How a run ends that counts as failed: its console matched, or the guest said so itself.
FAILED = ("fail_pattern", "fail")


@dataclass(frozen=True, slots=True)
class HuntRun:
    """A run that failed: its seed, how it ended (``RecordResult.reason``), where, and its trace."""

    seed: int
    reason: str
    icount: int
    trace: Path


@dataclass(frozen=True, slots=True)
class Minimal:
    """What a failing run needs of its chaos: the choices, of how many there were, and a trace with these alone."""

    choices: tuple[Placed, ...]
    of: int
    tried: int
    trace: Path


@dataclass(frozen=True, slots=True)
class _Job:
    """What is the same for every run."""

    config: MachineConfig
    images: Images
    folder: Path
    ends: Mapping[str, Any]


def hunt(
    folder: Path,
    options: dict[str, Any],
    seeds: Sequence[int],
    jobs: int = 1,
    progress: Callable[[str], None] = lambda text: None,
) -> list[HuntRun]:
    """Record one run for each seed; failing ones stay as ``seed-N.trace``.

    Args:
        folder: where the traces go; made if it is not there.
        options: the machine's options as the command line has them, with ``fail``, ``until``, ``steps``, ``timeout``.
        seeds: which runs.
        jobs: how many at a time, in processes of their own.
        progress: is told about each run that failed.

    Returns:
        the runs that failed, by seed.

    Raises:
        UsageError, MachineError: the machine can't be built. InputError: the folder can't be made.

    Replay: each trace replays like any other.
    """
    config, images, ends = _machine(options)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't be made: {error.strerror}; choose another -o") from None
    found: list[HuntRun] = []
    begun: list[int] = []

    def asked() -> Iterator[int]:
        for seed in seeds:
            begun.append(seed)
            yield seed

    try:
        for run in _runs(_Job(config, images, folder, ends), asked(), jobs):
            if run is not None:
                progress(f"seed {run.seed} failed ({run.reason}) at {run.icount:_}: {run.trace}")
                found.append(run)
    except BaseException:
        for seed in {*begun} - {run.seed for run in found}:
            remove_trace(_trace_of(folder, seed))
        raise
    return found


def minimise_run(
    found: HuntRun,
    options: dict[str, Any],
    jobs: int = 1,
    progress: Callable[[str], None] = lambda text: None,
) -> Minimal:
    """Leave out of a failing run's chaos all that its failure does not need; the rest stays as ``seed-N.min.trace``.

    A run counts as failing when it ends for the same reason: its console matches ``fail``, or the guest says so.

    Args:
        found: a run that ``hunt`` kept. options, jobs, progress: as for ``hunt``.

    Raises:
        as ``hunt`` does.

    Replay: the trace replays like any other; its strikes are inputs.
    """
    config, images, ends = _machine(options)
    job = _Job(replace(config, seed=found.seed), images, found.trace.parent, ends)
    strikes = strikes_of(found.trace)
    choices = choices_of(strikes, config.harts)
    tried = 0

    with _Pool(jobs) as pool:

        def first_failing(sets: Sequence[Sequence[Choice]]) -> int | None:
            nonlocal tried
            for index, reason in enumerate(pool.map(partial(_try, job, strikes), sets)):
                tried += 1
                if reason == found.reason:
                    progress(f"seed {found.seed}: fails with {len(sets[index])} of {len(choices)} choices")
                    return index
            return None

        kept = minimise(choices, first_failing)
    path = found.trace.with_suffix(".min.trace")
    _record(
        job,
        path,
        f"hunt, seed {found.seed}, {len(kept)} of {len(choices)} choices",
        StrikePlan(strikes, kept),
    )
    return Minimal(tuple(placed(path, kept)), len(choices), tried, path)


def _try(job: _Job, strikes: Sequence[bytes], kept: Sequence[Choice]) -> str:
    """Run with some of the choices, without a trace; returns how the run ended."""
    from workbench.runner import Runner

    runner = Runner(job.config, job.images)
    runner.gate.edit_strike = StrikePlan(strikes, kept)
    try:
        ends = job.ends
        return runner.run(ends["until"], ends["fail"], ends["steps"], ends["timeout"]).reason
    finally:
        runner.board.engine.close()


def _machine(options: dict[str, Any]) -> tuple[MachineConfig, Images, dict[str, Any]]:
    """Return the machine that all runs have, and what ends them."""
    from workbench.cli.machineopts import build_machine
    from workbench.replay.watch import compile_pattern

    compile_pattern(options["fail"], "--fail")
    if options["until"] is not None:
        compile_pattern(options["until"], "--until")
    config, images = build_machine({**options, "seed": 0, "chaos": True}, idle="jump")
    return config, images, {key: options[key] for key in ("until", "fail", "steps", "timeout")}


def _trace_of(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}.trace"


def _runs(job: _Job, seeds: Iterable[int], jobs: int) -> Iterator[HuntRun | None]:
    with _Pool(jobs) as pool:
        yield from pool.map(partial(_hunt_one, job), seeds)


def _hunt_one(job: _Job, seed: int) -> HuntRun | None:
    """Record one run; its trace goes unless it failed."""
    path = _trace_of(job.folder, seed)
    result = _record(replace(job, config=replace(job.config, seed=seed)), path, f"hunt, seed {seed}")
    if result.reason in FAILED:
        return HuntRun(seed, result.reason, result.icount, path)
    remove_trace(path)
    return None


def _record(job: _Job, path: Path, title: str, plan: StrikePlan | None = None) -> RecordResult:
    from workbench.replay.recorder import Recorder

    recorder = Recorder(job.config, job.images, path, title=title)
    if plan is not None:
        recorder.gate.edit_strike = plan
    try:
        ends = job.ends
        return recorder.run(ends["until"], ends["fail"], ends["steps"], ends["timeout"])
    finally:
        recorder.board.engine.close()


class _Pool:
    """Processes for runs, a few at a time; with one job, this process."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pool: ProcessPoolExecutor | None = None
        self._others: Sequence[BaseProcess] = ()

    def __enter__(self) -> Self:
        if self._jobs > 1:
            context = multiprocessing.get_context("spawn")
            self._others = multiprocessing.active_children()
            self._pool = ProcessPoolExecutor(self._jobs, mp_context=context)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self._pool is None:
            return
        if kind is not None:  # nobody wants what still runs
            for process in multiprocessing.active_children():
                if process not in self._others:
                    process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield results in order. Whoever stops asking leaves at most ``jobs`` runs to end for nothing."""
        if self._pool is None:
            yield from map(function, items)
            return
        running: deque[Future[R]] = deque()
        for item in items:
            running.append(self._pool.submit(function, item))
            if len(running) > self._jobs:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

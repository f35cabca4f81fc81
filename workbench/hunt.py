"""Hunting: record a machine in chaos mode with one seed after the other, and keep the runs that fail."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from machine.config import Images, MachineConfig
from workbench.errors import InputError

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
    from workbench.cli.machineopts import build_machine
    from workbench.replay.watch import compile_pattern

    compile_pattern(options["fail"], "--fail")
    if options["until"] is not None:
        compile_pattern(options["until"], "--until")
    machine = {**options, "seed": 0, "chaos": True}
    config, images = build_machine(machine, idle="jump")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't be made: {error.strerror}; choose another -o") from None
    ends = {key: options[key] for key in ("until", "fail", "steps", "timeout")}
    found = []
    for run in _runs(_Job(config, images, folder, ends), seeds, jobs):
        if run is not None:
            progress(f"seed {run.seed} failed ({run.reason}) at {run.icount:_}: {run.trace}")
            found.append(run)
    return found


def _runs(job: _Job, seeds: Sequence[int], jobs: int) -> Iterator[HuntRun | None]:
    if jobs == 1:
        yield from map(partial(_record, job), seeds)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from pool.map(partial(_record, job), seeds, chunksize=max(1, min(16, len(seeds) // jobs // 4)))


def _record(job: _Job, seed: int) -> HuntRun | None:
    """Record one run; its trace goes unless it failed."""
    from workbench.replay.recorder import Recorder

    path = job.folder / f"seed-{seed}.trace"
    config = replace(job.config, seed=seed)
    recorder = Recorder(config, job.images, path, title=f"hunt, seed {seed}")
    try:
        ends = job.ends
        result = recorder.run(ends["until"], ends["fail"], ends["steps"], ends["timeout"])
    finally:
        recorder.board.engine.close()
    if result.reason in FAILED:
        return HuntRun(seed, result.reason, result.icount, path)
    path.unlink(missing_ok=True)
    return None

"""Probes on a machine that is moved: set, and read again as what happened at a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from machine.tcg.probes import RECORD, Probe, ProbeAction, ProbeKind

from .parts import EngineLike


@dataclass(frozen=True, slots=True)
class Met:
    """How a search ended.

    Args:
        reason: ``hit``, ``limit`` or ``interrupted``.
        probes: indexes of the probes that were hit. step: the position before the step that hit them.
        records: what they saw (machine.tcg.probes.RECORD); an execution probe writes none.
    """

    reason: str
    probes: tuple[int, ...] = ()
    step: int = 0
    records: tuple[tuple[Any, ...], ...] = ()


def arm(engine: EngineLike, probes: Sequence[Probe], stopping: bool, telling: bool = False) -> None:
    """Set probes, and behind them one for each that makes a record of what it stops at.

    Whether they stop, tell or only note, it is always the same set, which keeps translated code.
    """
    action = ProbeAction.STOP if stopping else ProbeAction.LAST
    record = ProbeAction.RECORD if stopping or telling else ProbeAction.LAST
    tellers = [replace(p, action=record) for p in probes if p.kind is not ProbeKind.EXEC]
    engine.set_probes([*(replace(p, action=action) for p in probes), *tellers])


def disarm(engine: EngineLike) -> None:
    """Take all probes away."""
    engine.set_probes(())
    engine.skip_probes_at(None)


def last_steps(engine: EngineLike, probes: Sequence[Probe]) -> list[int | None]:
    """Return for each armed probe the position before the step that hit it last, None where none did."""
    return [
        at if at is None or probe.kind is ProbeKind.EXEC else at - 1
        for probe, at in ((probe, engine.probe_last(i)) for i, probe in enumerate(probes))
    ]


def met_by(engine: EngineLike, probes: Sequence[Probe], step: int | None = None) -> Met:
    """Return what probes met at an engine's stop, or at a step."""
    steps = last_steps(engine, probes)
    if step is None:
        first = engine.probe_stopped()
        found = steps[first] if first is not None and first < len(steps) else None
        step = engine.icount if found is None else found
    hit = tuple(i for i, at in enumerate(steps) if at == step)
    records = tuple(row for row in RECORD.iter_unpack(engine.take_records()) if row[0] == step)
    return Met("hit", hit, step, records)

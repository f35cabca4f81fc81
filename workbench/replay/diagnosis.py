"""Why a replay is another run than the recording: the first step that differs, and whose fault it is."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from machine.config import DriveConfig
from machine.drives import drive_name, open_drive
from machine.errors import ChangedImageError
from machine.hw.blockproto import CLUSTER_BYTES, Base, BlockError
from traces.errors import TraceError
from traces.reader import TraceReader

from .divergence import differences
from .errors import Diverged
from .packed import Clusters, clusters_of
from .parts import BoardFactory, build_board
from .playback import Playback, trace_config

#: What a divergence can be, and what there is to do about it.
KINDS: Final = {
    "damage": "the trace is damaged: copy it again from where it is whole",
    "row": "this digest's row is damaged: the replay agrees with the recording again at the next one",
    "image": "give the image that was recorded, or replay what 'workbench trace pack' makes, which needs none",
    "translator": "the two back ends disagree: replay with --backend interp, and report the step below",
    "device": "two replays of the same back end disagree: a device depends on the host; report it",
    "version": "both back ends agree with each other and not with the recording: it was made by another machine,"
    " by a translator that was wrong then, or was changed since",
}


@dataclass(frozen=True, slots=True)
class Report:
    """A divergence.

    Args:
        kind: one of ``KINDS``. advice: what there is to do.
        what: what differed first. last_good, first_bad: positions of the digests around it.
        step: the first position after which the back ends differ, or where the run first reads what changed of an
            image; None where there is none.
        pc: of that step. differing: what differs behind it, by name: (this back end, the other one).
    """

    kind: str
    advice: str
    what: str
    last_good: int
    first_bad: int
    step: int | None = None
    pc: int | None = None
    differing: dict[str, tuple[Any, Any]] | None = None

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def __str__(self) -> str:
        if self.kind == "image":
            return f"{self.what}: {self.advice}"
        where = (
            "" if self.step is None else f"; the first step that differs is {self.step}, at pc {self.pc:#x}"
        )
        return f"{self.what} between {self.last_good} and {self.first_bad}: {self.advice}{where}"


def diagnose(
    trace: TraceReader, error: Diverged, backend: str, board_factory: BoardFactory = build_board
) -> Report:
    """Find out what a divergence is.

    Args:
        trace: the trace. error: what its replay on ``backend`` raised.
    """
    found = (error.what, error.last_good, error.first_bad)
    try:
        trace.verify()
    except TraceError as e:
        return Report("damage", f"{KINDS['damage']} ({e})", *found)
    try:
        Playback(trace, backend, board_factory).close()
    except ChangedImageError as e:  # since it was opened
        return diagnose_image(trace, e, backend, board_factory)
    other = "interp" if backend == "jit" else "jit"
    first = _fingerprint(trace, backend, error, board_factory)
    if first != _fingerprint(trace, backend, error, board_factory):
        return Report("device", KINDS["device"], *found)
    if first == _fingerprint(trace, other, error, board_factory):
        if _row_alone(trace, backend, error, board_factory):
            return Report("row", KINDS["row"], *found)
        return Report("version", KINDS["version"], *found)
    step, pc, differing = _first_step(trace, backend, other, error, board_factory)
    return Report("translator", KINDS["translator"], *found, step, pc, differing)


def diagnose_image(
    trace: TraceReader, error: ChangedImageError, backend: str, board_factory: BoardFactory = build_board
) -> Report:
    """Find out what of a changed image the run would have noticed, and where it first reads that.

    Args:
        trace: the trace. error: what opening its drives raised.
    """
    config = trace_config(trace)
    name, drive = next(
        (drive_name(each, index), each) for index, each in enumerate(config.drives) if each.file == error.file
    )
    changed = _changed_clusters(trace, name, drive)
    what = f"{name}: {error.file} has {error.found}, the recording's had {error.expected}"
    if not changed:
        what += "; the run read nothing of what changed"
        return Report("image", KINDS["image"], what, trace.final_icount, trace.final_icount)
    cluster, position = _first_read(trace, name, changed, backend, board_factory)
    what += f"; the run first reads of what changed at position {position}, bytes from {cluster * CLUSTER_BYTES:#x} on"
    return Report("image", KINDS["image"], what, trace.start_icount, position, position)


def _changed_clusters(trace: TraceReader, name: str, drive: DriveConfig) -> frozenset[int]:
    """Return the clusters that the run read, and that a drive's file has otherwise now."""
    _, node = open_drive(replace(drive, hash="", size_bytes=0), identify=False)
    try:
        read = clusters_of(trace, name)
        base = node.base
        return frozenset(each for each in trace.disk_reads(name) if _cluster(base, each) != read(each))
    finally:
        node.close()


def _cluster(base: Base, cluster: int) -> bytes | None:
    size = min(CLUSTER_BYTES, base.size_bytes - cluster * CLUSTER_BYTES)
    try:
        return base.cluster(cluster, size) if size > 0 else None
    except BlockError:
        return None


def _first_read(
    trace: TraceReader, name: str, changed: frozenset[int], backend: str, board_factory: BoardFactory
) -> tuple[int, int]:
    """Return which of some clusters of a drive the run reads first, and where; its disks are the trace's own."""
    seen: list[tuple[int, int]] = []
    playbacks: list[Playback] = []

    def disks(each: str) -> Clusters:
        read = clusters_of(trace, each)

        def noted(cluster: int) -> bytes | None:
            if each == name and cluster in changed and playbacks and not seen:
                seen.append((cluster, playbacks[0].icount))
                playbacks[0].interrupt()
            return read(cluster)

        return noted

    playback = Playback(trace, backend, board_factory, disks=disks)
    playbacks.append(playback)
    try:
        playback.run_to(playback.end)
    finally:
        playback.close()
    return seen[0] if seen else (min(changed), playback.start)


def _replay(trace: TraceReader, backend: str, error: Diverged, board_factory: BoardFactory) -> Playback:
    """Return a machine at the last good position that compares nothing from there on."""
    playback = Playback(trace, backend, board_factory)
    playback.run_from(max(error.last_good, playback.start))
    playback.stop_comparing()
    return playback


def _fingerprint(
    trace: TraceReader, backend: str, error: Diverged, board_factory: BoardFactory
) -> tuple[str, int]:
    """Return where a replay of the interval ends, and in which state."""
    playback = _replay(trace, backend, error, board_factory)
    try:
        with suppress(Diverged):
            playback.run_to(min(error.first_bad, playback.end))
        return playback.digest().hex(), playback.icount
    finally:
        playback.close()


def _row_alone(trace: TraceReader, backend: str, error: Diverged, board_factory: BoardFactory) -> bool:
    """Tell whether the replay agrees with the digest behind the one that differs."""
    later = [row.icount for row in trace.digests() if error.first_bad < row.icount <= trace.final_icount]
    if not later:
        return False
    playback = Playback(trace, backend, board_factory)
    try:
        playback.run_from(max(error.last_good, playback.start))
        playback.excused.add(error.first_bad)
        before = playback.compared
        with suppress(Diverged):
            playback.run_to(later[0])
        return playback.compared > before
    finally:
        playback.close()


def _first_step(
    trace: TraceReader, backend: str, other: str, error: Diverged, board_factory: BoardFactory
) -> tuple[int, int, dict[str, tuple[Any, Any]]]:
    """Return the last position at which two back ends agree, its pc, and what differs one step later."""
    one, two = (_replay(trace, name, error, board_factory) for name in (backend, other))
    try:
        low, high = max(error.last_good, one.start), min(error.first_bad, one.end)
        nodes = (one.keep(), two.keep())
        while low + 1 < high:
            middle = (low + high) // 2
            for playback, node in zip((one, two), nodes, strict=True):
                playback.restore(node)
                with suppress(Diverged):
                    playback.run_to(middle)
            if one.digest() == two.digest():
                low, nodes = middle, (one.keep(), two.keep())
            else:
                high = middle
        for playback, node in zip((one, two), nodes, strict=True):
            playback.restore(node)
            with suppress(Diverged):
                playback.run_to(low)
        engine = one.board.engine
        pc = engine.get_reg(engine.current_hart, "pc")
        for playback in (one, two):
            with suppress(Diverged):
                playback.run_to(low + 1)
        (_, mine), (_, theirs) = one.whole(), two.whole()
        found = dict(list(differences(mine, theirs).items())[:32])
        for page in sorted({*one.fold.pages(), *two.fold.pages()}):
            a, b = one.fold.name(page).hex(), two.fold.name(page).hex()
            if a != b and len(found) < 64:
                found[f"RAM page {page:#x}"] = (a, b)
        return low, pc, found
    finally:
        one.close()
        two.close()

"""Branches: traces that leave another one at a position, and never touch it.

A branch is a trace of its own. It names its parent, begins with a checkpoint that holds the changed state, takes
over the parent's inputs from there on as far as they fit, and records like any other run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine.config import MachineConfig
from traces.blobs import blob_hash
from traces.errors import TraceError
from traces.reader import TraceReader

from .interventions import Origin, Script
from .playback import Playback, trace_images
from .recorder import Recorder, RecordLimits

_MAX_BRANCHES = 10_000


@dataclass(frozen=True, slots=True)
class BranchRow:
    """A branch of a trace: its file, where it begins and ends, and what was changed."""

    path: Path
    icount: int
    final_icount: int
    note: str


def trace_id(trace: TraceReader) -> str:
    """Return what names a recording, whatever its file is called: the hash of what was known before its first step."""
    known = [trace.meta.get(key, "") for key in ("created", "host", "version", "parent", "start_icount")]
    images = [row.hash.hex() for row in trace.images()]
    inputs = [f"{row.crc()}" for row in trace.inputs(0, 4)]
    return blob_hash("\0".join([*known, *images, *inputs]).encode()).hex()[:32]


def branch_path(parent: Path) -> Path:
    """Return the name of a new branch, beside its parent."""
    stem = parent.name.removesuffix(".trace").partition(".branch")[0]
    for number in range(1, _MAX_BRANCHES):
        path = parent.with_name(f"{stem}.branch{number}.trace")
        if not path.exists():
            return path
    raise TraceError(f"{parent}: has {_MAX_BRANCHES} branches; delete some")


def branches(trace: TraceReader) -> list[BranchRow]:
    """Return the branches of a trace that lie beside it, by name."""
    mine, found = trace_id(trace), []
    stem = trace.path.name.removesuffix(".trace").partition(".branch")[0]
    for path in sorted(trace.path.parent.glob(f"{stem.translate(_GLOB)}.branch*.trace")):
        try:
            with TraceReader.open(path) as other:
                if other.meta.get("parent") == mine:
                    note = other.meta.get("branch_note", "")
                    found.append(BranchRow(path, other.start_icount, other.final_icount, note))
        except TraceError:
            continue
    return found


_GLOB = str.maketrans({"[": "[[]", "*": "[*]", "?": "[?]"})


def open_branch(
    playback: Playback,
    path: Path,
    script: Script,
    change: Callable[[Any], None],
    note: str,
    config: MachineConfig | None = None,
) -> Recorder:
    """Return a recording that leaves a replay where it stands.

    Args:
        playback: stands at the position; it is left there.
        path: of the new trace. script: inputs to be given. change: does to the new machine what it is for.
        note: a line that says so. config: of the new machine, None for the same.

    Raises:
        MachineError, TraceError: as of a recording.
    """
    trace, node = playback.trace, playback.keep()
    pages = playback.tree.difference(node, playback.tree.root)
    origin = Origin(
        state=node.state(),
        pages=dict(sorted(playback.tree.contents_of(node, pages))),
        meta={
            "parent": trace_id(trace),
            "parent_path": trace.path.name,
            "parent_icount": playback.icount,
            "branch_note": note,
        },
        script=script,
        fetch=playback.get,
        change=change,
    )
    paths = {row.role: row.path for row in trace.images()}
    limits = RecordLimits(rolling_steps=int(trace.meta.get("rolling_steps", RecordLimits().rolling_steps)))
    recorder = Recorder(
        config or playback.config,
        trace_images(trace),
        path,
        paths=paths,
        title=trace.meta.get("title", ""),
        backend=playback.backend,
        limits=limits,
        board_factory=playback.board_factory,
        origin=origin,
    )
    try:
        recorder.start()
    except BaseException:
        recorder.board.engine.close()
        raise
    return recorder

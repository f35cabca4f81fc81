"""A small machine to record: the built-in guest, with digests and checkpoints close together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from machine.config import Images, MachineConfig
from workbench.guests import builtin
from workbench.replay.recorder import Recorder, RecordLimits, RecordResult

LIMITS = RecordLimits(rolling_steps=1 << 15, checkpoint_every=3)


def recorder(
    path: Path,
    append: str = "safe",
    backend: str = "jit",
    idle: str = "jump",
    seed: int | None = None,
    chaos: bool = False,
    **more: Any,
) -> Recorder:
    """Return a recorder of the built-in guest's boot; with a seed, every recording is the same run."""
    options = {} if seed is None else {"entropy": "seed"}
    config = MachineConfig(
        memory_bytes=32 << 20, append=append, idle=idle, seed=seed or 0, chaos=chaos, options=options
    )
    more.setdefault("limits", LIMITS)
    return Recorder(config, Images(kernel=builtin.read_image()), path, backend=backend, **more)


def record(
    path: Path, append: str = "safe", backend: str = "jit", seed: int | None = None, **ends: Any
) -> RecordResult:
    """Record a boot to its end."""
    made = recorder(path, append, backend, seed=seed)
    try:
        return made.run(**ends, timeout_s=60)
    finally:
        made.board.engine.close()

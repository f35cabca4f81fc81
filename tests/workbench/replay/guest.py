"""A small machine to record: the built-in guest, with digests and checkpoints close together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from machine.config import Images, MachineConfig
from workbench.guests import builtin
from workbench.replay.recorder import Recorder, RecordLimits, RecordResult

LIMITS = RecordLimits(rolling_steps=1 << 15, checkpoint_every=3)


def recorder(
    path: Path, append: str = "safe", backend: str = "jit", idle: str = "jump", **more: Any
) -> Recorder:
    """Return a recorder of the built-in guest's boot."""
    config = MachineConfig(memory_bytes=32 << 20, append=append, idle=idle)
    more.setdefault("limits", LIMITS)
    return Recorder(config, Images(kernel=builtin.read_image()), path, backend=backend, **more)


def record(path: Path, append: str = "safe", backend: str = "jit", **ends: Any) -> RecordResult:
    """Record a boot to its end."""
    made = recorder(path, append, backend)
    try:
        return made.run(**ends, timeout_s=60)
    finally:
        made.board.engine.close()

"""How long fuzzing tests go on: ``WORKBENCH_FUZZ=20`` makes them twenty times as long (give ``--timeout 0`` then)."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """Return how many examples a test is to try that usually tries ``count``."""
    return count * int(os.environ.get("WORKBENCH_FUZZ", "1"))

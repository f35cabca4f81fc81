"""What can go wrong in looking at a kernel."""

from __future__ import annotations

from workbench.errors import WorkbenchError


class KernelError(WorkbenchError):
    """The guest's memory does not hold what was looked for: no kernel, not yet set up, or of an unknown shape."""

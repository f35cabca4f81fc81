"""Errors of debug information."""

from __future__ import annotations

from workbench.kernel.errors import KernelError


class DwarfError(KernelError):
    """Debug information that is damaged, or does not tell what was asked; the message says which."""


class Unavailable(DwarfError):
    """A variable that has no place at this instruction: optimised out, or known to a caller alone."""

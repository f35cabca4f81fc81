"""What can go wrong in asking a trace."""

from __future__ import annotations

from workbench.errors import UsageError


class QueryRefused(UsageError):
    """A question whose answer would be absurdly large, or that names what is not there; says how to narrow it."""

"""Workbench: record, replay, reverse and query whole machines.

``from workbench import Session, Trace`` is the command line as a library; nothing heavy is imported before it
is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traces.reader import TraceReader as TraceReader
    from workbench.query.api import Trace as Trace
    from workbench.session import Session as Session

__version__ = "0.1.0"
__all__ = ["Session", "Trace", "TraceReader", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the library's classes when they are first asked for."""
    if name == "Session":
        from workbench.session import Session

        return Session
    if name == "Trace":
        from workbench.query.api import Trace

        return Trace
    if name == "TraceReader":
        from traces.reader import TraceReader

        return TraceReader
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")

"""What can be wrong with a trace. Each class is one thing a caller does differently; each knows its exit code."""

from __future__ import annotations


class TraceError(Exception):
    """A trace can't be used or written; the message is one line: what failed, where, and what to do."""

    exit_code = 3


class TraceWriteError(TraceError):
    """Writing a trace failed (disk full, read-only, in use); what was committed before stays."""


class PositionError(TraceError):
    """A text that names no position of this trace."""

    exit_code = 2

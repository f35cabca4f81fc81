"""The line under the prompt: how far, virtual time, the checkpoint and the input that are next, the kind of run."""

from __future__ import annotations

from workbench.repl.context import Context


class Toolbar:
    """Makes the line, once for each position.

    Args:
        context: whose session.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._key: tuple[object, ...] = ()
        self._text = ""

    def text(self) -> str:
        """Return the line; empty without a trace."""
        session = self._context.open_session
        if session is None:
            return ""
        key = (id(session), session.trace.path, session.cursor, session.hart, session.end)
        if key != self._key:
            self._key, self._text = key, self._make()
        return self._text

    def _make(self) -> str:
        session = self._context.session
        share = 100 * session.cursor / session.end if session.end else 0.0
        parts = [f"{share:.1f} %", f"{session.board.vtime_ns / 1e9:.6f} s"]
        before = _one(self._context, "select max(icount) from checkpoints where icount <= ?")
        if before is not None:
            parts.append(f"checkpoint -{session.cursor - before:_}")
        after = _one(self._context, "select min(icount) from inputs where icount >= ?")
        parts.append("no more inputs" if after is None else f"next input +{after - session.cursor:_}")
        parts.append(kind_of_run(self._context))
        return " · ".join(parts)


def _one(context: Context, query: str) -> int | None:
    _, rows = context.session.trace.sql(query, (context.session.cursor,))
    value = rows[0][0] if rows else None
    return value if isinstance(value, int) else None


def kind_of_run(context: Context) -> str:
    """Return ``live``, ``branch`` or ``replay``."""
    session = context.session
    if session.trace.meta.get("parent"):
        return "branch"
    return "live" if session.live else "replay"

"""What can go wrong in a replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.errors import DivergenceError, WorkbenchError


class Diverged(DivergenceError):
    """The replay is at another state, or asks for another input, than the recording.

    Args:
        what: what differs, in a few words.
        last_good: the last position whose digest matched.
        first_bad: the first position known to differ.
        registers: names of what differs, with (recorded, replayed) values, where known.
        pages: RAM pages that differ, where known.
    """

    def __init__(
        self,
        what: str,
        last_good: int,
        first_bad: int,
        registers: Mapping[str, tuple[Any, Any]] | None = None,
        pages: list[int] | None = None,
    ) -> None:
        self.what, self.last_good, self.first_bad = what, last_good, first_bad
        self.registers = dict(registers or {})
        self.pages = list(pages or [])
        text = f"replay diverged: {what}; last good position {last_good}, first bad position {first_bad}"
        if self.registers:
            some = list(self.registers.items())[:6]
            text += "; differing: " + ", ".join(f"{n} {_show(a)} became {_show(b)}" for n, (a, b) in some)
            text += f" and {len(self.registers) - 6} more" if len(self.registers) > 6 else ""
        if self.pages:
            text += f"; {len(self.pages)} RAM pages differ, the first is page {self.pages[0]:#x}"
        super().__init__(text)

    def after(self, last_good: int) -> Diverged:
        """Return the same, where a later position is known to be good."""
        return Diverged(self.what, max(last_good, self.last_good), self.first_bad, self.registers, self.pages)


class MemoryAccessError(WorkbenchError):
    """Guest memory that is not mapped, or is not RAM."""


class EvalError(WorkbenchError):
    """An expression that can't be evaluated."""


def _show(value: Any) -> str:
    return hex(value) if isinstance(value, int) else str(value)[:40]

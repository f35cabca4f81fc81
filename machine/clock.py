"""Deadlines of devices in virtual time, by name, so that they can be saved as data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from machine.hw.state import parse_int


class Clock:
    """Named deadlines. Those due at one time fire by the order of their owners' registration, then by name.

    Args:
        changed: called with the next deadline (vtime_ns, None = none) whenever it may have changed.
    """

    def __init__(self, changed: Callable[[int | None], None] | None = None) -> None:
        self._changed = changed
        self._owners: dict[str, tuple[int, Callable[[str], None]]] = {}
        self._deadlines: dict[tuple[str, str], int] = {}
        #: deadlines that have come, in this process; no part of the state
        self.fired = 0

    def register(self, owner: str, fire: Callable[[str], None]) -> None:
        """Add an owner; ``fire(name)`` runs when one of its deadlines is due."""
        if owner in self._owners:
            raise ValueError(f"two owners of deadlines are called {owner}")
        self._owners[owner] = (len(self._owners), fire)

    def schedule(self, owner: str, name: str, vtime_ns: int) -> None:
        """Set the deadline ``name`` of ``owner``, replacing an earlier one."""
        if owner not in self._owners:
            raise ValueError(f"no owner of deadlines is called {owner}")
        self._deadlines[owner, name] = vtime_ns
        self._tell()

    def cancel(self, owner: str, name: str) -> None:
        """Remove a deadline; nothing happens if it is not set."""
        if self._deadlines.pop((owner, name), None) is not None:
            self._tell()

    def next(self) -> int | None:
        """Return the earliest deadline as vtime_ns, or None."""
        return min(self._deadlines.values(), default=None)

    def run_due(self, now: int) -> int:
        """Fire every deadline at or before ``now`` (vtime_ns), in order, also those set meanwhile.

        Returns how many fired.
        """
        fired = 0
        while self._deadlines:
            due, _, name, owner = min((t, self._owners[o][0], n, o) for (o, n), t in self._deadlines.items())
            if due > now:
                break
            del self._deadlines[owner, name]
            self._owners[owner][1](name)
            fired += 1
        if fired:
            self.fired += fired
            self._tell()
        return fired

    def reset(self) -> None:
        """Forget all deadlines."""
        self._deadlines.clear()
        self._tell()

    def save_state(self) -> list[list[Any]]:
        """Return ``[owner, name, vtime_ns]`` of every deadline, in firing order."""
        rows = [(t, self._owners[o][0], n, o) for (o, n), t in self._deadlines.items()]
        return [[owner, name, due] for due, _, name, owner in sorted(rows)]

    def load_state(self, state: Any) -> None:
        """Replace all deadlines by ``save_state``'s. Raises ValueError for data that is not."""
        if not isinstance(state, list):
            raise ValueError("state clock: expected a list")
        deadlines: dict[tuple[str, str], int] = {}
        for row in state:
            if not isinstance(row, list) or len(row) != 3 or not isinstance(row[1], str):
                raise ValueError("state clock: expected [owner, name, vtime_ns]")
            if not isinstance(row[0], str) or row[0] not in self._owners:
                raise ValueError(f"state clock: this machine has no {row[0]!r}")
            deadlines[row[0], row[1]] = parse_int(row[2], 64, "clock")
        self._deadlines = deadlines
        self._tell()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed(self.next())

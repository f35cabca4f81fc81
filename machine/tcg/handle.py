"""What a Python object holds of the C core and frees with it."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from machine.tcg._core import ffi
from machine.tcg.probes import RECORD


class Handle:
    """One thing of the C core, freed by ``close``. A context manager.

    Args:
        made: what the core's ``create`` returned. destroy: the core's function that frees it.
    """

    def __init__(self, made: Any, destroy: Callable[[Any], None]) -> None:
        self._p = made
        self._destroy: Final = destroy

    def close(self) -> None:
        """Free it; safe to call twice."""
        if self._p:
            self._destroy(self._p)
            self._p = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def whole_records(records: bytes | memoryview) -> tuple[Any, int]:
    """Return probes' records as the core takes them, and how many. Raises ValueError: they are not whole records."""
    count, odd = divmod(len(records), RECORD.size)
    if odd:
        raise ValueError(f"{len(records)} bytes are not whole records of {RECORD.size}")
    return ffi.from_buffer(records), count

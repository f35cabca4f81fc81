"""Positions as users write them: ``1_234_567``, ``+100``, ``50%``, ``1.25s``, ``@panic``, ``input:42`` and others."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final, Protocol

from .errors import PositionError

_NUMBER: Final = re.compile(r"[0-9]+(_[0-9]+)*\Z", re.ASCII)
_PERCENT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)%\Z", re.ASCII)
_SECONDS: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|ms|us|ns)\Z", re.ASCII)
_NS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_FORMS: Final = 'a number, +N, -N, start, end, 50%, 1.25s, @bookmark, input:N or console:"text"'
_MAX_DIGITS: Final = 19


class PositionContext(Protocol):
    """What a text is understood against."""

    @property
    def cursor(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    def bookmark_position(self, name: str) -> int | None: ...
    def input_position(self, input_id: int) -> int | None: ...
    def vtime_position(self, vtime_ns: int) -> int: ...
    def console_position(self, text: str) -> int | None: ...


def parse_position(text: str, context: PositionContext) -> int:
    """Return the icount that a text names.

    Args:
        text: in one of the forms of the command line's contract; virtual time takes s, ms, us and ns.
        context: the cursor, the ends, and what bookmarks, inputs and virtual times mean.

    Raises:
        PositionError: no such form, or a position outside of the history.
    """
    text = text.strip()
    position = _parse(text, context)
    if not context.start <= position <= context.end:
        raise PositionError(f"position {text!r} is {position}, outside of {context.start}..{context.end}")
    return position


def _parse(text: str, context: PositionContext) -> int:
    if text in ("start", "end"):
        return context.start if text == "start" else context.end
    if text.startswith("@"):
        found = context.bookmark_position(text[1:])
        if found is None:
            raise PositionError(f"no bookmark {text[1:]!r}; 'bookmark' lists them")
        return found
    if text.startswith("input:"):
        number = _number(text[6:], text)
        found = context.input_position(number)
        if found is None:
            raise PositionError(f"no input {number}; 'workbench trace inputs' lists them")
        return found
    if text.startswith("console:"):
        wanted = text[8:]
        if len(wanted) >= 2 and wanted[0] == wanted[-1] and wanted[0] in "\"'":
            wanted = wanted[1:-1]
        found = context.console_position(wanted) if wanted else None
        if found is None:
            raise PositionError(
                f"the console never shows {wanted[:40]!r}; 'workbench trace console' prints it"
            )
        return found
    if text[:1] in ("+", "-"):
        distance = _number(text[1:], text)
        return context.cursor + (distance if text[0] == "+" else -distance)
    if match := _PERCENT.match(text):
        return context.start + int((context.end - context.start) * _decimal(match[1], text) / 100)
    if match := _SECONDS.match(text):
        return context.vtime_position(int(_decimal(match[1], text) * _NS[match[2]]))
    return _number(text, text)


def _number(digits: str, text: str) -> int:
    if not _NUMBER.match(digits) or len(digits) > 2 * _MAX_DIGITS:
        raise PositionError(f"{text[:40]!r} is no position: expected {_FORMS}")
    return int(digits)


def _decimal(digits: str, text: str) -> Decimal:
    if len(digits) > 2 * _MAX_DIGITS:
        raise PositionError(f"{text[:40]!r} is no position: expected {_FORMS}")
    return Decimal(digits)

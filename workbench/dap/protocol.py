"""The messages of the Debug Adapter Protocol: JSON behind a ``Content-Length`` header.

What a client sends is not trusted: headers, bodies and arguments are bounded and checked here.

Spec: Debug Adapter Protocol, base protocol
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

MAX_HEADER_BYTES: Final = 4096
MAX_BODY_BYTES: Final = 16 << 20
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class ProtocolError(Exception):
    """Bytes that are no message; nothing behind them can be understood."""


class BadRequest(Exception):
    """A request whose arguments mean nothing here; the client is told why."""


class MessageReader:
    """Takes bytes as they come, gives messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yield the messages that are complete with more bytes. Raises ProtocolError."""
        self._data += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> dict[str, Any] | None:
        end = self._data.find(_END, 0, MAX_HEADER_BYTES)
        if end < 0:
            if len(self._data) >= MAX_HEADER_BYTES:
                raise ProtocolError(f"no header in {MAX_HEADER_BYTES} bytes")
            return None
        size = _length(bytes(self._data[:end]))
        start = end + len(_END)
        if len(self._data) < start + size:
            return None
        body = bytes(self._data[start : start + size])
        del self._data[: start + size]
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"a body that is no JSON: {error}") from None
        if not isinstance(message, dict):
            raise ProtocolError("a message that is no object")
        return message


def _length(header: bytes) -> int:
    for line in header.split(b"\r\n"):
        if line.lower().startswith(_LENGTH):
            digits = line[len(_LENGTH) :].strip()
            if digits.isdigit() and len(digits) < 10 and int(digits) <= MAX_BODY_BYTES:
                return int(digits)
            raise ProtocolError(f"a length of at most {MAX_BODY_BYTES} bytes was expected")
    raise ProtocolError("a header without Content-Length")


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as it is sent."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


class Arguments:
    """The arguments of a request, by name; each is of the type that is asked for.

    Args:
        values: as they came.
    """

    def __init__(self, values: Any) -> None:
        self._values: dict[str, Any] = values if isinstance(values, dict) else {}

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text. Raises BadRequest: it is none, or there is none and no default."""
        return str(self._of(name, str, default))

    def number(self, name: str, default: int | None = None, low: int = 0, high: int = 1 << 53) -> int:
        """Return a whole number within bounds. Raises BadRequest."""
        value = self._of(name, int, default)
        if isinstance(value, bool) or not low <= value <= high:
            raise BadRequest(f"{name}: a whole number from {low} to {high} was expected")
        return int(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a truth value. Raises BadRequest."""
        return bool(self._of(name, bool, default))

    def inner(self, name: str) -> Arguments:
        """Return an object in the arguments, an empty one where it is left out. Raises BadRequest."""
        return Arguments(self._of(name, dict, {}))

    def objects(self, name: str) -> list[Arguments]:
        """Return a list of objects, an empty one where it is left out. Raises BadRequest."""
        return [Arguments(value) for value in self._of(name, list, [])]

    def texts(self, name: str) -> list[str]:
        """Return a list of texts; one text alone is a list of it. Raises BadRequest."""
        value = self._values.get(name)
        found = [value] if isinstance(value, str) else self._of(name, list, [])
        if not all(isinstance(each, str) for each in found):
            raise BadRequest(f"{name}: texts were expected")
        return list(found)

    def pairs(self, name: str) -> list[tuple[str, str]]:
        """Return the pairs of an object of texts, or of a list of pairs. Raises BadRequest."""
        value = self._values.get(name)
        found = list(value.items()) if isinstance(value, dict) else value or []
        pairs: list[Any] = found if isinstance(found, list) else [None]
        if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs) or not all(
            isinstance(text, str) for pair in pairs for text in pair
        ):
            raise BadRequest(f"{name}: an object whose names and values are texts was expected")
        return [(pair[0], pair[1]) for pair in pairs]

    def _of(self, name: str, kind: type, default: Any) -> Any:
        value = self._values.get(name)
        if value is None:
            value = default
        if not isinstance(value, kind):
            raise BadRequest(f"{name}: a value of type {kind.__name__} was expected")
        return value

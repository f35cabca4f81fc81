"""What a recording does with the guest's console: show it, store it by line, look for texts in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

from workbench.errors import UsageError

#: Longest stretch of console that one row holds, in bytes.
_ROW_BYTES: Final = 1024
#: How far back a pattern may begin, in bytes.
_WINDOW_BYTES: Final = 2048

#: Places that a recording names by itself.
_PLACES: Final = re.compile(
    rb"(?P<panic>kernel panic|^(?:\[[^\]]*\] *)?panic\b)"
    rb"|(?P<oops>\boops\b|unable to handle kernel|kernel bug at)"
    rb"|(?P<poweroff>reboot: power down|^(?:\[[^\]]*\] *)?(?:powering off|poweroff)\b)",
    re.IGNORECASE | re.MULTILINE,
)


class ConsoleLog(Protocol):
    """Where rows and bookmarks go."""

    def console(self, icount: int, vtime_ns: int, port: str, data: bytes) -> None: ...
    def bookmark(self, name: str, icount: int, note: str) -> None: ...


def compile_pattern(text: str, option: str) -> re.Pattern[bytes]:
    """Return a pattern for console output, where ``^`` and ``$`` are a line's ends. Raises UsageError."""
    try:
        return re.compile(text.encode(), re.MULTILINE)
    except (re.error, OverflowError) as e:
        raise UsageError(f"{option} {text!r}: not a regular expression: {e}") from None


class ConsoleWatch:
    """A console sink: rows by line, patterns, bookmarks.

    Args:
        log: takes rows and bookmarks, or None.
        echo: shows the guest's output, or None.
        patterns: by name; each is looked for at every line's end and every ``flush``.
        on_match: called once with the name of the first pattern found and the text it matched.
    """

    def __init__(
        self,
        log: ConsoleLog | None,
        echo: Callable[[bytes], None] | None = None,
        patterns: dict[str, re.Pattern[bytes]] | None = None,
        on_match: Callable[[str, str], None] | None = None,
    ) -> None:
        self._log = log
        self._echo = echo
        self._patterns = dict(patterns or {})
        self._on_match = on_match
        self._rows: dict[str, tuple[bytearray, int, int]] = {}
        self._text: dict[str, bytearray] = {}
        self._lines: dict[str, int] = {}
        #: names of the places found so far
        self.named: set[str] = set()
        self._dirty = False

    def write(self, port: str, data: bytes, icount: int, vtime_ns: int) -> None:
        """Take what the guest printed at a position."""
        if self._echo is not None:
            self._echo(data)
        row = self._rows.get(port)
        held = row[0] if row else bytearray()
        held += data
        self._rows[port] = (held, icount, vtime_ns)
        text = self._text.setdefault(port, bytearray())
        text += data.replace(b"\r", b"")
        self._dirty = True
        if b"\n" in data:
            self._bookmarks(port, icount)
            self._search()
        if b"\n" in data or len(held) >= _ROW_BYTES:
            self._put_row(port)

    def flush(self) -> None:
        """Look for patterns in what has no line's end yet; store what has been waiting for one since the last flush."""
        if self._dirty:
            self._search()
            self._dirty = False
            return
        for port in list(self._rows):
            self._put_row(port)

    def close(self) -> None:
        """Store what is left."""
        self._search()
        for port in list(self._rows):
            self._put_row(port)

    def _put_row(self, port: str) -> None:
        held, icount, vtime_ns = self._rows.pop(port, (bytearray(), 0, 0))
        if held and self._log is not None:
            self._log.console(icount, vtime_ns, port, bytes(held))

    def _bookmarks(self, port: str, icount: int) -> None:
        text = self._text[port]
        for match in _PLACES.finditer(text, self._lines.get(port, 0)):
            name = str(match.lastgroup)
            if name not in self.named and self._log is not None:
                self.named.add(name)
                line = bytes(text[match.start() :]).split(b"\n", 1)[0]
                self._log.bookmark(name, icount, line.decode("utf-8", "replace")[:200])
        cut = len(text) - _WINDOW_BYTES
        if cut > 0:
            del text[:cut]
        self._lines[port] = text.rfind(b"\n") + 1

    def _search(self) -> None:
        for name, pattern in self._patterns.items():
            for text in self._text.values():
                match = pattern.search(text)
                if match and self._on_match is not None:
                    found, self._on_match = self._on_match, None
                    found(name, match[0].decode("utf-8", "replace"))
                    return

"""Colours of results on a terminal, by their kind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from workbench.repl.settings import COLOURS

_RESET: Final = "\x1b[0m"
#: What is coloured, the first that matches at a place, by the names of COLOURS.
_RULES: Final = (
    ("heading", r"^── .*$"),
    ("current", r"^=>"),
    ("changed", r"(?<![^\s])\S+ [0-9a-f]{16}\*"),
    ("symbol", r"<[^<>\n]+>"),
    ("mnemonic", r"(?<=:  )[a-z][a-z0-9._]*(?= |$)"),
    ("address", r"\b0x[0-9a-f]{8,16}\b"),
)
_NAMES: Final = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "gray")
_HEX: Final = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
#: Kinds of results that have colours.
KINDS: Final = ("asm", "context")


class Colours:
    """Colours a text by rules.

    Args:
        configured: colours by name: ``ansired``, ``ansibrightred`` or ``#ff8800``; an empty one leaves it plain.
    """

    def __init__(self, configured: Mapping[str, str] | None = None) -> None:
        wanted = {**COLOURS, **(configured or {})}
        self._rules = [(pattern, code) for name, pattern in _RULES if (code := escape(wanted[name]))]
        self._pattern = re.compile(
            "|".join(f"({pattern})" for pattern, _ in self._rules) or r"(?!)", re.MULTILINE
        )

    def of(self, text: str, kind: str) -> str:
        """Return text with the escapes that colour it; of a kind that has no colours, as it is."""
        if kind not in KINDS:
            return text
        return self._pattern.sub(lambda m: f"{self._rules[(m.lastindex or 1) - 1][1]}{m[0]}{_RESET}", text)


def escape(name: str) -> str:
    """Return the escape of a colour's name, empty for one that there is not."""
    match = _HEX.fullmatch(name)
    if match is not None:
        return "\x1b[38;2;" + ";".join(str(int(part, 16)) for part in match.groups()) + "m"
    bright = name.startswith("ansibright")
    plain = name.removeprefix("ansibright").removeprefix("ansi")
    if plain not in _NAMES:
        return ""
    return f"\x1b[{(90 if bright else 30) + _NAMES.index(plain)}m"

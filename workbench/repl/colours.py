"""Colours of results on a terminal, by their kind."""

from __future__ import annotations

import re

_RESET = "\x1b[0m"
#: What is coloured, the first that matches at a place: headings, the line of the pc, registers that changed,
#: symbols, mnemonics behind an address.
_RULES = (
    (r"^── .*$", "\x1b[2m"),
    (r"^=>", "\x1b[1;32m"),
    (r"(?<![^\s])\S+ [0-9a-f]{16}\*", "\x1b[1;31m"),
    (r"<[^<>\n]+>", "\x1b[33m"),
    (r"(?<=:  )[a-z][a-z0-9._]*(?= |$)", "\x1b[36m"),
)
_PATTERN = re.compile("|".join(f"({pattern})" for pattern, _ in _RULES), re.MULTILINE)
#: Kinds of results that have colours.
KINDS = ("asm", "context")


def coloured(text: str, kind: str) -> str:
    """Return text with the escapes that colour it; of a kind that has no colours, as it is."""
    if kind not in KINDS:
        return text
    return _PATTERN.sub(lambda match: f"{_RULES[(match.lastindex or 1) - 1][1]}{match[0]}{_RESET}", text)

"""Colours of results on a terminal, by their kind."""

from __future__ import annotations

import re

_RESET = "\x1b[0m"
_RULES = (
    (re.compile(r"^── .*$", re.MULTILINE), "\x1b[2m"),
    (re.compile(r"^=> .*$", re.MULTILINE), "\x1b[32m"),
    (re.compile(r"\S+ [0-9a-f]{16}\*"), "\x1b[1;31m"),
    (re.compile(r"<[^<>\n]+>"), "\x1b[33m"),
)


def coloured(text: str, kind: str) -> str:
    """Return text with the escapes that colour it: ``asm`` by Pygments, ``context`` by what panes are made of."""
    if kind == "context":
        for pattern, colour in _RULES:
            text = pattern.sub(lambda match, on=colour: f"{on}{match[0]}{_RESET}", text)  # type: ignore[misc]
        return text
    from pygments import highlight
    from pygments.formatters import TerminalFormatter
    from pygments.lexers.asm import GasLexer
    from pygments.lexers.special import OutputLexer

    lexer = GasLexer() if kind == "asm" else OutputLexer()
    return str(highlight(text, lexer, TerminalFormatter()))

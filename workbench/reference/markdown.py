"""What all pages are made of: tables and prose of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table."""
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    return lines + [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


def prose(text: str) -> Iterator[str]:
    """Yield a docstring's lines: names in backquotes once, examples as code."""
    for line in text.splitlines():
        example = re.fullmatch(r"Example: (.*)", line)
        yield f"Example: `{example[1]}`" if example else line.replace("``", "`")


def text_of(lines: Iterable[str]) -> str:
    """Return lines as a file's text."""
    return "\n".join(line.rstrip() for line in lines) + "\n"

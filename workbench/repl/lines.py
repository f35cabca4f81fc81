"""The shape of a command line: the command, the format it asks for, a pipe or a file behind it; blocks of a script."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from workbench import output
from workbench.errors import CommandError

_FORMATS: dict[str, output.Format] = {"--json": "json", "--csv": "csv", "--table": "table"}
#: Commands that may be alone on a line and take the lines up to ``end``.
BLOCKS = ("py", "python", "sql")


@dataclass(frozen=True)
class Line:
    """One line, taken apart.

    Args:
        text: the command and its arguments. format: how its result is rendered.
        library: whether the library's calls are asked for instead (``--python``).
        pipe: a shell command that gets the result, or none.
        file: where the result goes, or none. append: behind what is there.
    """

    text: str
    format: output.Format = "text"
    library: bool = False
    pipe: str = ""
    file: str = ""
    append: bool = False


def parse_line(line: str, expressive: bool = False, plain: bool = False) -> Line:
    """Take a line apart.

    Args:
        line: the line.
        expressive: whether the command's arguments may hold ``|`` and ``>`` of their own (expressions, SQL): then
            only `` | PROGRAM`` is a pipe, and a file is written by ``| tee FILE``.
        plain: whether nothing behind the arguments is looked for (Python).

    Raises:
        CommandError: a pipe or a redirection to nothing.
    """
    if plain:
        return _formats(Line(line))
    at = _outside_quotes(line, "|", expressive)
    if at >= 0:
        found, pipe = _formats(Line(line[:at])), line[at + 1 :].strip()
        if not pipe:
            raise CommandError("a program is needed behind '|', as in 'console | head'")
        return Line(found.text, found.format, found.library, pipe=pipe)
    at = -1 if expressive else _outside_quotes(line, ">", False)
    if at >= 0:
        append = line[at : at + 2] == ">>"
        file = line[at + 1 + append :].strip()
        if not file:
            raise CommandError("a file is needed behind '>', as in 'console > log.txt'")
        found = _formats(Line(line[:at]))
        return Line(found.text, found.format, found.library, file=file, append=append)
    return _formats(Line(line))


def _formats(line: Line) -> Line:
    text, fmt, library = line.text.rstrip(), line.format, line.library
    while True:
        head, _, last = text.rpartition(" ")
        if last in _FORMATS:
            fmt = _FORMATS[last]
        elif last == "--python":
            library = True
        else:
            return Line(text, fmt, library)
        text = head.rstrip()


def _outside_quotes(line: str, mark: str, expressive: bool) -> int:
    """Return where a mark stands alone, with a space before it and outside of quotes; -1 for nowhere."""
    quote = ""
    for at, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == mark and at and line[at - 1] == " " and (mark == ">" or line[at + 1 : at + 2] != "|"):
            words = line[at + 1 :].split()
            if not expressive or (words and words[0][0].isalpha() and shutil.which(words[0])):
                return at
    return -1


def blocks(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a script; ``py`` or ``sql`` alone on a line takes what follows up to ``end``.

    Raises:
        CommandError: an ``end`` is missing.
    """
    source = iter(lines)
    for line in source:
        word = line.strip()
        if word not in BLOCKS:
            yield line
            continue
        inner: list[str] = []
        for more in source:
            if more.strip() == "end":
                break
            inner.append(more.rstrip("\n"))
        else:
            raise CommandError(f"{word}: the line 'end' is missing")
        yield f"{word}\n{textwrap.dedent(chr(10).join(inner))}"

"""Completion of command lines, from what each command declares that its argument is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from workbench.errors import CommandError
from workbench.registers import ABI_F, ABI_X, CSR_GROUP
from workbench.repl.context import Context
from workbench.repl.registry import Command

MAX_CHOICES = 100
_TABLES = ("inputs", "checkpoints", "digests", "console", "bookmarks", "images", "meta", "config", "blobs")
_KEYWORDS = ("select", "from", "where", "order by", "group by", "limit", "count(*)", "icount", "vtime_ns")
_WORD = re.compile(r"[$@\w.]*$")
#: A command's name has hyphens, which in an expression mean minus.
_NAME = re.compile(r"[$@\w.\-]*$")


def candidates(context: Context, line: str) -> tuple[str, list[str]]:
    """Return the word under completion at the end of a line, and what may stand in its place."""
    match = (_NAME if len(line.split()) < 2 or line.split()[0] in ("help", "h") else _WORD).search(line)
    word = match[0] if match else ""
    head = line[: len(line) - len(word)]
    if not head.strip():
        names = {entry.name.split()[0] for entry in context.registry.commands}
        return word, _beginning(word, sorted(names))
    family = head.split()[0]
    seconds = [c.name.split()[1] for c in context.registry.commands if c.name.startswith(family + " ")]
    if seconds and len(head.split()) == 1:
        return word, _beginning(word, sorted(seconds))
    try:
        entry, _rest = context.registry.resolve(head)
    except CommandError:
        return word, []
    if entry.completes == "file":
        path = line.split(None, 1)[1] if len(line.split(None, 1)) > 1 else ""
        return path, _files(path)
    return word, _arguments(context, entry, word)


def _arguments(context: Context, entry: Command, word: str) -> list[str]:
    match entry.completes:
        case "command":
            return _beginning(word, [c.name for c in context.registry.commands])
        case "sql":
            return _beginning(word, [*_TABLES, *_KEYWORDS])
    session = context.open_session
    if session is None:
        return []
    match entry.completes:
        case "address" | "expression":
            if word.startswith("$"):
                return _beginning(word, [f"${name}" for name in _registers()])
            return session.symbols.complete(word, MAX_CHOICES) if word else []
        case "register":
            return _beginning(word, ["all", "csr", "float", *_registers()])
        case "position":
            names = [f"@{row[0]}" for row in _bookmarks(context)]
            return _beginning(word, ["start", "end", *names])
    return []


def _bookmarks(context: Context) -> Iterable[tuple[object, ...]]:
    from workbench.tracetables import bookmarks

    return [tuple(row) for row in bookmarks(context.session.trace).rows]


def _registers() -> tuple[str, ...]:
    return ("pc", *ABI_X, *CSR_GROUP, *ABI_F)


def _beginning(word: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(word)]


def _files(text: str) -> list[str]:
    path = Path(text).expanduser()
    folder = path if text.endswith("/") or not text else path.parent
    try:
        found = sorted(folder.iterdir())[:1000]
    except OSError:
        return []
    out = [f"{entry}/" if entry.is_dir() else str(entry) for entry in found]
    return [name for name in out if name.startswith(str(path) if text else "")][:MAX_CHOICES]


class ReplCompleter(Completer):
    """The same, as prompt_toolkit asks for it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        word, names = candidates(self._context, document.text_before_cursor)
        for name in names[:MAX_CHOICES]:
            yield Completion(name, start_position=-len(word))

"""Completion of command lines, from what each command declares that its argument is, with help beside each entry."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from workbench.errors import CommandError
from workbench.registers import ABI_F, ABI_X, CSR_GROUP
from workbench.repl.context import Context
from workbench.repl.panes import PANES
from workbench.repl.registry import Command

MAX_CHOICES = 100
_TABLES = ("inputs", "checkpoints", "digests", "console", "bookmarks", "images", "meta", "config", "blobs")
_KEYWORDS = ("select", "from", "where", "order by", "group by", "limit", "count(*)", "icount", "vtime_ns")
_CATCHES = {
    "trap": "an exception, or one of a cause",
    "interrupt": "an interrupt, or one of a number",
    "syscall": "a system call, or one of a name",
    "priv": "a change of privilege",
    "satp": "a change of the address space",
    "csr": "a write to a CSR",
    "reg": "an instruction that writes a register",
    "mmio": "an access to a device",
    "console": "a text that the guest prints",
}
_WORD = re.compile(r"[$@\w.]*$")
#: A command's name has hyphens, which in an expression mean minus.
_NAME = re.compile(r"[$@!\w.\-]*$")


class Choice(NamedTuple):
    """What may stand in a word's place, and what is said beside it."""

    text: str
    meta: str = ""


def candidates(context: Context, line: str) -> tuple[str, list[str]]:
    """Return the word under completion at the end of a line, and what may stand in its place."""
    word, found = choices(context, line)
    return word, [choice.text for choice in found]


def choices(context: Context, line: str) -> tuple[str, list[Choice]]:
    """Return the word under completion at the end of a line, and what may stand in its place, with help.

    What begins with the word comes first; only where nothing does, what has its letters in this order.
    """
    match = (_NAME if len(line.split()) < 2 or line.split()[0] in ("help", "h") else _WORD).search(line)
    word = match[0] if match else ""
    head = line[: len(line) - len(word)]
    if not head.strip():
        return word, matching(word, _first_words(context))
    family = head.split()[0]
    seconds = {
        entry.name.split()[1]: entry.summary
        for entry in context.registry.commands
        if entry.name.startswith(family + " ")
    }
    if seconds and len(head.split()) == 1:
        return word, matching(word, [Choice(*item) for item in sorted(seconds.items())])
    try:
        entry, _rest = context.registry.resolve(head)
    except CommandError:
        return word, []
    if entry.completes == "file":
        path = line.split(None, 1)[1] if len(line.split(None, 1)) > 1 else ""
        return path, [Choice(name) for name in _files(path)]
    return word, _arguments(context, entry, word)


def matching(word: str, known: Iterable[Choice]) -> list[Choice]:
    """Return the choices that begin with a word; where none does, those that have its letters in this order."""
    entries = list(known)
    found = [entry for entry in entries if entry.text.startswith(word)]
    if found or not word:
        return found
    pattern = re.compile(".*?".join(map(re.escape, word)), re.IGNORECASE)
    ranked = [(m.end() - m.start(), m.start(), e) for e in entries if (m := pattern.search(e.text))]
    return [entry for _, _, entry in sorted(ranked)]


def _first_words(context: Context) -> list[Choice]:
    out: dict[str, str] = {}
    for entry in context.registry.commands:
        first, _, second = entry.name.partition(" ")
        out.setdefault(first, f"{first} …" if second else entry.summary)
    return [Choice(*item) for item in sorted(out.items())]


def _arguments(context: Context, entry: Command, word: str) -> list[Choice]:
    match entry.completes:
        case "command":
            return matching(word, [Choice(c.name, c.summary) for c in context.registry.commands])
        case "sql":
            return matching(word, [*(Choice(t, "table") for t in _tables(context)), *map(Choice, _KEYWORDS)])
        case "pane":
            return matching(word, [Choice(name, _summary(show)) for name, show in PANES.items()])
        case "catch":
            return matching(word, [Choice(*item) for item in _CATCHES.items()])
    if context.open_session is None:
        return []
    match entry.completes:
        case "address" | "expression":
            if word.startswith("$"):
                return matching(word, [Choice(f"${name}", meta) for name, meta in _registers()])
            return _symbols(context, word)
        case "register":
            groups = [Choice("all"), Choice("csr"), Choice("float")]
            return matching(word, [*groups, *(Choice(name, meta) for name, meta in _registers())])
        case "position":
            fixed = [Choice("start", "the first position"), Choice("end", "the last position")]
            return matching(word, [*fixed, *_bookmarks(context, "@")])
        case "bookmark":
            return matching(word, _bookmarks(context, ""))
        case "breakpoint":
            points = context.session.stoppers
            return matching(word, [Choice(str(p.number), f"{p.kind} {p.text}") for p in points])
    return []


def _symbols(context: Context, word: str) -> list[Choice]:
    if not word:
        return []
    symbols = context.session.symbols
    found = symbols.complete(word, MAX_CHOICES) or symbols.containing(word, MAX_CHOICES)
    return [Choice(name, f"{symbols.lookup(name) or 0:#x}") for name in found]


def _tables(context: Context) -> list[str]:
    if context.open_session is None:
        return list(_TABLES)
    _, rows = context.session.trace.sql("select name from sqlite_master where type in ('table', 'view')")
    names = {str(row[0]) for row in rows if isinstance(row[0], str)}
    return sorted({*_TABLES, *names})


def _bookmarks(context: Context, sign: str) -> list[Choice]:
    from workbench.tracetables import bookmarks

    return [Choice(f"{sign}{row[0]}", f"at {row[1]}") for row in bookmarks(context.session.trace).rows]


def _registers() -> list[tuple[str, str]]:
    return [
        ("pc", "program counter"),
        *((name, f"x{number}") for number, name in enumerate(ABI_X)),
        *((name, "CSR") for name in CSR_GROUP),
        *((name, f"f{number}") for number, name in enumerate(ABI_F)),
    ]


def _summary(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").partition("\n")[0]


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
        """Yield the completions of the line up to the cursor."""
        word, found = choices(self._context, document.text_before_cursor)
        for choice in found[:MAX_CHOICES]:
            yield Completion(choice.text, start_position=-len(word), display_meta=choice.meta)

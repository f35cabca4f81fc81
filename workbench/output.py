"""The one module that prints: results of commands as text, JSON or CSV.

A command returns a ``Table``, a ``Record`` or a ``Text``; nobody else formats for the terminal, so that
``--json`` works everywhere.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from math import isfinite
from typing import Any, Literal, TextIO

from machine.values import valueclass

Format = Literal["text", "json", "csv", "table"]
#: How a column's integers are written as text: hex for addresses, dec for counts.
Style = Literal["hex", "hex16", "dec"]

MAX_CELL = 200


@valueclass(frozen=True)
class Table:
    """Rows under named columns; ``styles`` say how a column's integers read as text."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    styles: Mapping[str, Style] = field(default_factory=dict)
    empty: str = ""

    def data(self) -> Any:
        """Return the JSON-able value: a list with one object for each row."""
        return [{c: plain(v) for c, v in zip(self.columns, row, strict=True)} for row in self.rows]

    def _repr_html_(self) -> str:
        """Return the table as a notebook shows it."""
        from html import escape

        heads = "".join(f"<th>{escape(column)}</th>" for column in self.columns)
        rows = [
            "".join(
                f"<td>{escape(cell(v, self.styles.get(c)))}</td>"
                for c, v in zip(self.columns, row, strict=True)
            )
            for row in self.rows
        ]
        return f"<table><tr>{heads}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


@valueclass(frozen=True)
class Record:
    """Named values of one thing."""

    fields: Mapping[str, Any]
    styles: Mapping[str, Style] = field(default_factory=dict)

    def data(self) -> Any:
        """Return the JSON-able value: one object."""
        return {key: plain(value) for key, value in self.fields.items()}

    def _repr_html_(self) -> str:
        """Return the values as a notebook shows them."""
        from html import escape

        rows = [
            f"<tr><th>{escape(k)}</th><td>{escape(cell(v, self.styles.get(k)))}</td></tr>"
            for k, v in self.fields.items()
        ]
        return f"<table>{''.join(rows)}</table>"


@valueclass(frozen=True)
class Text:
    """Something that reads best as it is; ``value`` is what it means, for ``--json``."""

    text: str
    value: Any = None
    #: The Pygments lexer that colours it on a terminal: asm, console, or none.
    kind: str = ""

    def data(self) -> Any:
        """Return the JSON-able value."""
        return plain(self.text if self.value is None else self.value)

    def _repr_html_(self) -> str:
        """Return the text as a notebook shows it."""
        from html import escape

        return f"<pre>{escape(self.text)}</pre>"


Result = Table | Record | Text | None


def plain(value: Any) -> Any:
    """Return a value as JSON has it: bytes become text where they are UTF-8, else hex."""
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return str(value)  # JSON has no such number
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def render(result: Result, fmt: Format = "text") -> str:
    """Return a result as text that ends with a line's end, or an empty string for nothing."""
    if result is None:
        return "" if fmt != "json" else "null\n"
    if fmt == "json":
        import json

        return json.dumps(result.data(), indent=2) + "\n"
    if fmt == "csv":
        return _csv(result)
    if isinstance(result, Table):
        return _table(result)
    if isinstance(result, Record):
        width = max((len(key) for key in result.fields), default=0)
        return "".join(f"{k:<{width}}  {cell(v, result.styles.get(k))}\n" for k, v in result.fields.items())
    return result.text if result.text.endswith("\n") or not result.text else result.text + "\n"


def cell(value: Any, style: Style | None = None) -> str:
    """Return one value as it reads in a table: no control characters, of bounded length."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return {"hex": f"{value:#x}", "hex16": f"{value:#018x}"}.get(style or "", str(value))
    if isinstance(value, float):
        return f"{value:g}"
    text = printable(str(plain(value)))
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def printable(text: str) -> str:
    """Return text of a guest or a trace with its control characters escaped, safe for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _csv(result: Table | Record | Text) -> str:
    import csv

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if isinstance(result, Table):
        writer.writerow(result.columns)
        writer.writerows([plain(value) for value in row] for row in result.rows)
    elif isinstance(result, Record):
        writer.writerow(result.fields)
        writer.writerow(plain(value) for value in result.fields.values())
    else:
        return result.text if result.text.endswith("\n") else result.text + "\n"
    return out.getvalue()


def _table(table: Table) -> str:
    if not table.rows:
        return table.empty + "\n" if table.empty else ""
    cells = [
        [cell(v, table.styles.get(c)) for c, v in zip(table.columns, row, strict=True)] for row in table.rows
    ]
    widths = [max(len(c), *(len(row[i]) for row in cells)) for i, c in enumerate(table.columns)]
    right = [all(isinstance(row[i], int | float | None) for row in table.rows) for i in range(len(widths))]
    lines = [_line(table.columns, widths, right), _line(["-" * w for w in widths], widths, right)]
    lines += [_line(row, widths, right) for row in cells]
    return "".join(line + "\n" for line in lines)


def _line(cells: Iterable[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
    return "  ".join(parts).rstrip()


def emit(result: Result, fmt: Format = "text", stream: TextIO | None = None) -> None:
    """Print a result: data, so to stdout."""
    out = sys.stdout if stream is None else stream
    out.write(render(result, fmt))
    out.flush()


def note(text: str) -> None:
    """Print a line for the user to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def progress_printer() -> Callable[[str], None] | None:
    """Return a function that rewrites one progress line on stderr, None where stderr is no terminal."""
    if not sys.stderr.isatty():
        return None

    def show(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    return show

"""The recorded tables of a trace as results, for the command line and the REPL alike."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from workbench.output import Record, Style, Table
from workbench.symbols import Symbols

if TYPE_CHECKING:
    from traces.reader import TraceReader

_STYLES: dict[str, Style] = {"pc": "hex16", "vaddr": "hex16", "paddr": "hex16", "address": "hex16"}


def select(
    trace: TraceReader, text: str, parameters: Sequence[Any] = ()
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return the columns and rows of a read-only query."""
    columns, rows = trace.sql(text, parameters)
    return tuple(columns), [tuple(row) for row in rows]


def query(trace: TraceReader, text: str) -> Table:
    """Return the rows of a user's query."""
    columns, rows = select(trace, text)
    return Table(columns, rows, {name: _STYLES[name] for name in columns if name in _STYLES})


def info(trace: TraceReader) -> Record:
    """Return what a trace says of itself."""
    fields: dict[str, Any] = dict(select(trace, "select key, value from meta order by key")[1])
    fields["clean"] = str(fields.get("clean", "0")) == "1"
    for key in _NUMBERS & fields.keys():
        fields[key] = _decoded(fields[key])
    for table in ("inputs", "checkpoints", "digests", "images", "bookmarks"):
        fields[table] = select(trace, f"select count(*) from {table}")[1][0][0]
    for key, value in select(trace, "select key, value from config order by key")[1]:
        fields[f"config.{key}"] = _decoded(value)
    return Record(fields)


#: What of ``meta`` is a number; the table's values are texts.
_NUMBERS = frozenset(("final_icount", "format", "semantics", "end_code", "end_settled", "rolling_steps"))


def _decoded(text: Any) -> Any:
    """Return the value of a JSON text; what is none stays as it is."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return text


def inputs(trace: TraceReader, first: int = 0, limit: int = -1) -> Table:
    """Return the inputs of a run in order, from an id on."""
    columns, rows = select(
        trace,
        "select id, icount, vtime_ns, hart, source, kind, payload from inputs "
        "where id >= ? order by id limit ?",
        (first, limit),
    )
    return Table(columns, rows, empty="No inputs.")


def checkpoints(trace: TraceReader) -> Table:
    """Return the checkpoints, with the number of pages that each stores."""
    columns, rows = select(
        trace,
        "select c.id, c.icount, c.vtime_ns, c.parent_id, count(p.page) as pages, c.digest from checkpoints c "
        "left join checkpoint_pages p on p.checkpoint_id = c.id group by c.id order by c.icount",
    )
    shown = [tuple(v.hex() if isinstance(v, bytes) else v for v in row) for row in rows]
    return Table(columns, shown, empty="No checkpoints.")


def bookmarks(trace: TraceReader) -> Table:
    """Return the bookmarks by position."""
    columns, rows = select(trace, "select name, icount, note from bookmarks order by icount, name")
    return Table(columns, rows, empty="No bookmarks.")


def images(trace: TraceReader) -> Table:
    """Return what was loaded."""
    columns, rows = select(trace, "select name, role, path, embedded, hash from images order by role, name")
    shown = [tuple(v.hex() if isinstance(v, bytes) else v for v in row) for row in rows]
    return Table(columns, shown, empty="No images.")


def console_rows(trace: TraceReader) -> Table:
    """Return what the guest printed, with positions."""
    columns, rows = select(trace, "select icount, vtime_ns, port, data from console order by icount, rowid")
    return Table(columns, rows, empty="The guest printed nothing.")


def console_chunks(trace: TraceReader, until: int | None = None) -> Iterator[bytes]:
    """Yield what the guest printed, up to a position where one is given."""
    last = (1 << 63) - 1 if until is None else until
    for (data,) in select(
        trace, "select data from console where icount <= ? order by icount, rowid", (last,)
    )[1]:
        yield data if isinstance(data, bytes) else str(data).encode()


def console_text(trace: TraceReader, until: int | None = None) -> str:
    """Return what the guest printed as text, without carriage returns."""
    return b"".join(console_chunks(trace, until)).decode("utf-8", "replace").replace("\r", "")


def symbols(known: Symbols, prefix: str) -> Table:
    """Return the symbols whose names begin with a prefix."""
    rows = [(known.lookup(name) or 0, name) for name in known.complete(prefix, 1000)]
    return Table(
        ("address", "symbol"), rows, {"address": "hex16"}, empty=f"No symbol begins with {prefix!r}."
    )

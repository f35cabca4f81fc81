"""``workbench trace verify|pack|trim|dump|diff|branches``: checks, copies and comparisons of traces."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.formats import Fmt, format_options
from workbench.errors import EXIT_DONE, EXIT_NO

if TYPE_CHECKING:
    from machine.errors import ChangedImageError
    from traces.reader import TraceReader
    from workbench.replay.comparing import Difference, Side
    from workbench.replay.errors import Diverged

_BACKENDS = click.Choice(("jit", "interp"))


@click.command()
@click.argument("trace")
@click.option("--no-replay", is_flag=True, help="Check the file only.")
@click.option("--backend", type=_BACKENDS, default="jit", show_default=True, help="What replays it.")
@click.option("--report", type=click.Path(path_type=Path), help="Where the report of a divergence goes.")
def verify(trace: str, no_replay: bool, backend: str, report: Path | None) -> None:
    """Check that a trace is whole, by structure and hashes, and that it replays to every digest.

    A replay that is another run than the recording is looked into: the report says which step differs first,
    and whether the file, the translator or a device is to blame. A disk image that changed is reported as well: what of
    it the run reads, and where first.
    """
    from machine.errors import ChangedImageError
    from traces.reader import TraceReader
    from workbench.replay.errors import Diverged
    from workbench.replay.replayer import Replayer

    with TraceReader.open(trace) as reader:
        click.echo(f"whole: {reader.verify()} blobs")
        if no_replay:
            return
        try:
            with Replayer(reader, backend) as replayer:
                click.echo(str(replayer.verify()))
        except (Diverged, ChangedImageError) as error:
            _report(reader, error, backend, report or Path(f"{trace}.divergence.json"))
            raise


def _report(reader: TraceReader, error: Diverged | ChangedImageError, backend: str, path: Path) -> None:
    from workbench import output
    from workbench.replay.diagnosis import diagnose, diagnose_image
    from workbench.replay.errors import Diverged

    found = (
        diagnose(reader, error, backend)
        if isinstance(error, Diverged)
        else diagnose_image(reader, error, backend)
    )
    output.note(f"workbench: {found}")
    try:
        found.write(path)
        output.note(f"workbench: the report is in {path}")
    except OSError as e:
        output.note(f"workbench: the report can't be written to {path}: {e.strerror}")


@click.command()
@click.argument("trace")
@click.option("-o", "out", required=True, help="The new trace.")
def pack(trace: str, out: str) -> None:
    """Write a trace that replays with nothing beside it: of disk images, what the run read of them."""
    from traces.copying import pack_trace
    from traces.reader import TraceReader

    with TraceReader.open(trace) as reader:
        done = pack_trace(reader, out)
    click.echo(f"packed {out}: {done.blobs} blobs, {Path(out).stat().st_size} bytes")


@click.command()
@click.argument("trace")
@click.argument("first", metavar="A")
@click.argument("last", metavar="B")
@click.option("-o", "out", required=True, help="The new trace.")
def trim(trace: str, first: str, last: str, out: str) -> None:
    """Write the part of a trace from position A to position B; it begins at the last checkpoint before A."""
    from traces.copying import trim_trace
    from traces.position import parse_position
    from traces.reader import TraceReader
    from workbench.cli.replay import TracePositions

    with TraceReader.open(trace) as reader:
        known = TracePositions(reader, "jit")
        done = trim_trace(reader, out, parse_position(first, known), parse_position(last, known))
    click.echo(f"trimmed {out}: positions {done.start_icount:_} to {done.final_icount:_}")


@click.command()
@click.argument("trace")
@click.option(
    "--format",
    "form",
    type=click.Choice(("jsonl", "plain")),
    default="jsonl",
    show_default=True,
    help="JSON objects, or text that 'diff' takes.",
)
def dump(trace: str, form: str) -> None:
    """Print all that makes the run but the bulk (states, RAM, images): a line for each row."""
    from traces.copying import export_rows, export_text
    from traces.reader import TraceReader

    with TraceReader.open(trace) as reader:
        rows = export_rows(reader)
        lines = (json.dumps(row) for row in rows) if form == "jsonl" else export_text(rows)
        for line in lines:
            sys.stdout.write(line + "\n")


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--backend", type=_BACKENDS, default="jit", show_default=True, help="What replays them.")
@format_options
def diff(a: str, b: str, backend: str, fmt: Fmt) -> int:
    """Find where two runs of one configuration part: the first state, and the first step, that differ."""
    from workbench import output
    from workbench.replay.comparing import compare
    from workbench.session import Session

    with Session.open(a, backend) as one, Session.open(b, backend) as two:
        found = compare(one, two, output.progress_printer())
    names = (a, b)
    if fmt == "text":
        click.echo(_difference_text(found, names))
    else:
        output.emit(output.Record(_difference_record(found, names)), fmt)
    return EXIT_DONE if found.state is None and found.path is None else EXIT_NO


def _difference_text(found: Difference, names: tuple[str, str]) -> str:
    if found.state is None and found.path is None:
        return f"the same run over positions {found.start:_} to {found.end:_}"
    lines = []
    if found.state is not None:
        lines.append(f"the states differ from position {found.state:_} on")
    if found.path is None:
        lines.append(f"the steps are the same up to {found.end:_}")
    else:
        lines.append(f"the runs part at position {found.path:_}:")
    for name, side in zip(names, found.sides or (), strict=False):
        lines.append(f"{name}: {side.does}")
        lines += [f"  #{i} {frame}" for i, frame in enumerate(side.stack)]
        for title, rows in (("inputs before", side.before), ("inputs from here on", side.after)):
            shown = ", ".join(f"{row.id}: {row.source} {row.kind} at {row.icount:_}" for row in rows)
            lines.append(f"  {title}: {shown or 'none'}")
    if found.traps is not None:
        lines.append("the first interrupt or exception that is not the same:")
        lines += [f"  {name}: {text or 'none'}" for name, text in zip(names, found.traps, strict=True)]
    return "\n".join(lines)


def _difference_record(found: Difference, names: tuple[str, str]) -> dict[str, Any]:
    return {
        "start": found.start,
        "end": found.end,
        "state": found.state,
        "path": found.path,
        "traps": list(found.traps or ()),
        "runs": [_side_record(name, side) for name, side in zip(names, found.sides or (), strict=False)],
    }


def _side_record(name: str, side: Side) -> dict[str, Any]:
    inputs = [
        {"id": row.id, "position": row.icount, "source": row.source, "kind": row.kind}
        for row in (*side.before, *side.after)
    ]
    return {"trace": name, "next": side.does, "stack": list(side.stack), "inputs": inputs}


@click.command()
@click.argument("trace")
@format_options
def branches(trace: str, fmt: Fmt) -> None:
    """List the branches of a trace that lie beside it."""
    from traces.reader import TraceReader
    from workbench import output
    from workbench.replay.branches import branches as find

    with TraceReader.open(trace) as reader:
        rows = [(str(row.path), row.icount, row.final_icount, row.note) for row in find(reader)]
    output.emit(output.Table(("trace", "from", "to", "change"), rows, empty="No branches."), fmt)


@click.command()
@click.argument("trace")
def metadata(trace: str) -> None:
    """Print metadata for Datasette: what the tables are, and questions that are ready to run."""
    from traces.datasette import metadata as of
    from traces.reader import TraceReader

    with TraceReader.open(trace) as reader:
        click.echo(json.dumps(of(reader.path, str(reader.meta.get("title", ""))), indent=2))


TOOLS = (verify, pack, trim, diff, dump, branches, metadata)

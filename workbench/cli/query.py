"""``workbench query``, ``workbench profile`` and ``workbench trace export``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from workbench.cli.formats import Fmt, format_options


@click.command()
@click.argument("trace")
@click.argument("sql")
@click.option("--jobs", type=click.IntRange(1, 16), help="Processes that replay; as many as pay, by default.")
@click.option("--read-only", is_flag=True, help="Keep the trace untouched: rows go to a file beside it.")
@click.option(
    "--debug-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An ELF file with symbols and source lines, for sym() and line().",
)
@click.option("--cluster", metavar="ADDRESS", help="A dask scheduler whose workers replay: tcp://HOST:8786.")
@format_options
def query(
    trace: str,
    sql: str,
    jobs: int | None,
    read_only: bool,
    debug_file: Path | None,
    cluster: str | None,
    fmt: Fmt,
) -> None:
    """Run an SQL query over a trace's tables, read-only.

    The tables insns, mem, calls, traps, syscalls, mmio, csr, switches and dma are filled by replaying the run, as far
    as the query needs them; the rows stay in the trace.
    """
    from workbench import output
    from workbench.query.command import run_query

    found = run_query(trace, sql, jobs=jobs, writable=not read_only, debug_file=debug_file, cluster=cluster)
    output.emit(found, fmt)


@click.command()
@click.argument("trace")
@click.option("--from", "low", default="start", metavar="POS", help="Where the stretch begins.")
@click.option("--to", "high", default="end", metavar="POS", help="Where it ends.")
@click.option("--folded", is_flag=True, help="Print folded stacks, for a flame graph.")
@click.option("--flame", type=Path, metavar="FILE", help="Write a flame graph, an SVG file.")
@format_options
def profile(trace: str, low: str, high: str, folded: bool, flame: Path | None, fmt: Fmt) -> None:
    """Show which functions a stretch of the run spent its steps in: exact steps, not samples."""
    from workbench import output
    from workbench.query import profile as costs
    from workbench.query.api import Trace
    from workbench.query.flamegraph import svg

    with Trace.open(trace) as opened:
        span = opened.parse_position(low), opened.parse_position(high)
        if folded or flame is not None:
            stacks = costs.folded(opened, *span)
            for line in stacks.notes:
                output.note(f"workbench: {line}")
            if flame is not None:
                _write(flame, svg(stacks, f"{Path(trace).name}: steps {span[0]:,} to {span[1]:,}"))
            if folded:
                text = "".join(f"{s} {n}\n" for s, n in sorted(stacks.items()))
                output.emit(output.Text(text, dict(stacks)), fmt)
            return
        rows = [(c.symbol, c.steps, c.share) for c in costs.profile(opened, *span)]
        output.emit(output.Table(("symbol", "steps", "share"), rows), fmt)


@click.command()
@click.argument("trace")
@click.option("-o", "--output", "path", type=Path, required=True, metavar="FILE", help="Where it is written.")
@click.option(
    "--html", "as_html", is_flag=True, help="A report to read: one HTML file, nothing outside of it."
)
@click.option("--from", "low", default="start", metavar="POS", help="Where the stretch begins.")
@click.option("--to", "high", default="end", metavar="POS", help="Where it ends.")
def export(trace: str, path: Path, as_html: bool, low: str, high: str) -> None:
    """Write tasks, traps, system calls and console as JSON for Perfetto and Chrome's tracing page, or a report.

    The report has a timeline, the console, inputs, traps, system calls and the functions that took most steps.
    """
    from workbench.query.api import Trace
    from workbench.query.command import shown_progress
    from workbench.query.perfetto import export as events
    from workbench.query.report import html

    with Trace.open(trace) as opened:
        opened.asking(progress=shown_progress())
        span = opened.parse_position(low), opened.parse_position(high)
        text = html(opened, *span) if as_html else json.dumps(events(opened, *span))
    _write(path, text)


def _write(path: Path, text: str) -> None:
    from workbench.errors import InputError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror}") from None

"""``workbench query``."""

from __future__ import annotations

import click

from workbench.cli.formats import Fmt, format_options


@click.command()
@click.argument("trace")
@click.argument("sql")
@format_options
def query(trace: str, sql: str, fmt: Fmt) -> None:
    """Run an SQL query over a trace's tables, read-only."""
    from traces.reader import TraceReader
    from workbench import output, tracetables

    with TraceReader.open(trace) as reader:
        output.emit(tracetables.query(reader, sql), fmt)


COMMANDS = (query,)

"""``workbench trace``: what is in a trace, and whether it is whole."""

from __future__ import annotations

import sys

import click

from workbench.cli.formats import Fmt, format_options
from workbench.cli.query import export
from workbench.cli.tracetools import TOOLS


@click.group()
def trace() -> None:
    """Look into traces, check, pack, trim, compare and dump them."""


@trace.command()
@click.argument("trace")
@format_options
def info(trace: str, fmt: Fmt) -> None:
    """Tell what a trace is: the machine, the length, when it was recorded, whether it is clean."""
    from traces.reader import TraceReader
    from workbench import output, tracetables

    with TraceReader.open(trace) as reader:
        output.emit(tracetables.info(reader), fmt)


@trace.command()
@click.argument("trace")
@format_options
def inputs(trace: str, fmt: Fmt) -> None:
    """List the inputs of the run in order."""
    from traces.reader import TraceReader
    from workbench import output, tracetables

    with TraceReader.open(trace) as reader:
        output.emit(tracetables.inputs(reader), fmt)


@trace.command()
@click.argument("trace")
@format_options
def console(trace: str, fmt: Fmt) -> None:
    """Print what the guest printed; with --json, --csv or --table: with the positions."""
    from traces.reader import TraceReader
    from workbench import output, tracetables

    with TraceReader.open(trace) as reader:
        if fmt != "text":
            output.emit(tracetables.console_rows(reader), fmt)
            return
        for chunk in tracetables.console_chunks(reader):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


for tool in (*TOOLS, export):
    trace.add_command(tool)

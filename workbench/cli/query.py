"""``workbench query``."""

from __future__ import annotations

import click

from workbench.cli.formats import Fmt, format_options


@click.command()
@click.argument("trace")
@click.argument("sql")
@click.option("--jobs", type=click.IntRange(1, 16), help="Processes that replay; as many as pay, by default.")
@click.option("--read-only", is_flag=True, help="Keep the trace untouched: rows go to a file beside it.")
@format_options
def query(trace: str, sql: str, jobs: int | None, read_only: bool, fmt: Fmt) -> None:
    """Run an SQL query over a trace's tables, read-only.

    The tables insns, mem, calls, traps, syscalls, mmio, csr and switches are filled by replaying the run, as far
    as the query needs them; the rows stay in the trace.
    """
    from workbench import output
    from workbench.query.command import run_query

    output.emit(run_query(trace, sql, jobs=jobs, writable=not read_only), fmt)


COMMANDS = (query,)

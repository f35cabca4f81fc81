"""``workbench bench``: how fast, as ratios against the peer on the same work."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

BENCHMARKS = ("boot",)


@click.command()
@click.argument("name", type=click.Choice(BENCHMARKS), default="boot")
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=5, show_default=True, help="Interleaved rounds."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def bench(name: str, rounds: int, as_json: bool) -> None:
    """Run a benchmark, with QEMU beside it where it is installed."""
    from workbench import output
    from workbench.bench import boot

    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as work:
        result = boot.run(rounds, Path(work), output.note)
    if as_json:
        output.emit(output.Record(result), "json")
        return
    columns = ("contender", "wall_s", "cpu_s", "spread", "peak_mib", "rounds")
    rows = [(k, *(v[c] for c in columns[1:])) for k, v in result["figures"].items()]
    output.emit(output.Table(columns, rows))
    output.emit(output.Table(("ratio", "value"), list(result["ratios"].items())))


COMMANDS = (bench,)

"""``workbench hunt``: many chaos recordings, of which those that fail are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.group import MachineCommand
from workbench.cli.machineopts import machine_options
from workbench.errors import EXIT_DONE, EXIT_NO

if TYPE_CHECKING:
    from workbench.minimise import Placed


@click.command(cls=MachineCommand)
@click.option(
    "-o", "--output", "out", required=True, metavar="DIR", help="Where the failing runs' traces go."
)
@click.option("--runs", type=click.IntRange(1, 1_000_000), required=True, metavar="N", help="How many runs.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, metavar="J", help="Runs at a time.")
@click.option("--fail", metavar="REGEX", required=True, help="A run whose console matches has failed.")
@click.option("--until", metavar="REGEX", help="A run whose console matches has ended well.")
@click.option("--steps", metavar="N", type=click.IntRange(1, 1 << 62), help="End each run after N steps.")
@click.option(
    "--timeout", metavar="S", type=click.FloatRange(0), default=600.0, help="End each run after S seconds."
)
@click.option(
    "--minimise", is_flag=True, help="Leave out of the failing runs' chaos what their failure does not need."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@machine_options
def hunt(out: str, runs: int, jobs: int, minimise: bool, as_json: bool, **options: Any) -> int:
    """Record a machine again and again in chaos mode, with seeds from --seed (or 0) up, and keep the runs that fail.

    A run fails when its console matches --fail, or when the guest ends itself as failed. --minimise runs each of
    them again with fewer and fewer of its seed's choices, and keeps a trace, seed-N.min.trace, with those it needs.
    """
    from workbench import output
    from workbench.hunt import hunt as search
    from workbench.hunt import minimise_run

    first = options.pop("seed") or 0
    options.pop("chaos")
    found = search(Path(out), options, range(first, first + runs), jobs, output.note)
    columns = ["seed", "reason", "icount", "trace"]
    rows: list[list[Any]] = [[run.seed, run.reason, run.icount, str(run.trace)] for run in found]
    if minimise:
        columns += ["minimal", "of", "choices"]
        for run, row in zip(found, rows, strict=True):
            least = minimise_run(run, options, jobs, output.note)
            row += [str(least.trace), least.of, _told(least.choices, as_json)]
    table = output.Table(tuple(columns), rows, empty=f"None of {runs} runs failed.")
    output.emit(table, "json" if as_json else "text")
    return EXIT_DONE if found else EXIT_NO


def _told(choices: Sequence[Placed], as_json: bool) -> Any:
    """Return where which choices were taken: as objects, or as a text."""
    if as_json:
        return [{"icount": p.icount, "what": p.choice.what, "amount": p.choice.amount} for p in choices]
    if not choices:
        return "none: it fails without chaos"
    units = {"stall": "ns", "turn": "steps", "latency": "%"}
    return ", ".join(
        f"{p.choice.what} {p.choice.amount} {units[p.choice.what]} at {p.icount:_}" for p in choices
    )
